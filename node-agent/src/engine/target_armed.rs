//! The target's end of an armed hand-over.
//!
//! ```text
//! the source runs │ podman restores from the metadata; criu waits, its request held: armed
//! it is frozen    │ the images arrive in the directory that criu will read
//!                 │ last changes put over the files ── go ── every process stopped: staged
//! ```
//!
//! podman gives a restore up 240 s after it began; where the images take longer it is begun
//! again. podman answers no question about the container meanwhile.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use godwit_proto::container::ContainerSpec;
use godwit_proto::id::ContainerId;
use godwit_proto::timeline::Moment;
use tokio::task::JoinHandle;

use super::EngineError;
use super::late;
use super::podman::Podman;
use super::source::wrong;
use super::source_armed::{DESCRIPTORS, METADATA, failed, late as too_late};
use super::target::{Answer, Staged};
use crate::criu::gate::{Attended, GateError};
use crate::moments::Noted;

/// How long podman may take until criu waits.
const ARM: Duration = Duration::from_secs(30);
/// How long criu may take to rebuild the processes.
const STAGE: Duration = Duration::from_secs(50);
/// podman looks whether the image directory has one before it begins.
const INVENTORY: &str = "inventory.img";

/// A target that waits for the word to restore.
#[derive(Debug)]
pub(super) struct ArmedTarget {
    attended: Attended,
    pub(super) restore: JoinHandle<Answer>,
    pub(super) since: Instant,
}

/// Why a copy is not at the gate.
struct Unstaged {
    error: EngineError,
    /// podman, runc or criu ended before its time; nothing is wrong with the images.
    has_died: bool,
}

impl From<EngineError> for Unstaged {
    fn from(error: EngineError) -> Self {
        Self { error, has_died: false }
    }
}

impl Podman {
    /// Has podman restore the container of `metadata` up to where criu would read `images`.
    pub(super) async fn arm_target(
        &self,
        spec: &ContainerSpec,
        images: &Path,
        metadata: &Path,
    ) -> Result<(), EngineError> {
        self.clear_the_way(spec, "arming").await?;
        self.mark(spec.id)?;
        let descriptors = images.join(DESCRIPTORS);
        fs::copy(metadata.join(DESCRIPTORS), &descriptors)
            .map_err(failed("writing", &descriptors))?;
        let inventory = images.join(INVENTORY);
        fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&inventory)
            .map_err(failed("writing", &inventory))?;
        self.allow_devices(spec, &metadata.join(METADATA)).await?;
        let expected = self.gate.expect_restore(spec.id, true);
        let (libpod, tar) = (self.libpod.clone(), metadata.join(METADATA));
        let since = Instant::now();
        let mut restore = tokio::spawn(async move {
            let path = "containers/import/restore?import=true&keep=true&tcpEstablished=true&fileLocks=true";
            libpod.post_file(path, &tar).await
        });
        let attended = tokio::select! {
            attended = tokio::time::timeout(ARM, expected.attended()) => attended,
            answer = &mut restore => return Err(self.why(spec, "arming", answer)),
        };
        match attended {
            Ok(Ok(attended)) => {
                let armed = ArmedTarget { attended, restore, since };
                self.waiting().insert(spec.id, armed);
                Ok(())
            }
            Ok(Err(error)) => Err(self.blame(spec, "arming", restore, error).await),
            Err(_) => Err(too_late(spec, "arming", ARM)),
        }
    }

    /// Restores from `images`, which is whole, to the gate.
    pub(super) async fn stage_armed_target(
        &self,
        spec: &ContainerSpec,
        images: &Path,
        metadata: &Path,
        noted: &Noted,
    ) -> Result<(), EngineError> {
        if self.is_staged(spec)? {
            return Ok(());
        }
        let is_good = |armed: &ArmedTarget| self.is_good(armed.since, &armed.restore);
        let waiting = self.waiting().remove(&spec.id).filter(is_good);
        if let Some(armed) = waiting {
            match self.restore_armed(spec, images, armed, noted).await {
                Ok(()) => return Ok(()),
                Err(Unstaged { error, has_died: false }) => return Err(error),
                Err(Unstaged { error, .. }) => {
                    tracing::warn!(container = %spec.name, %error, "who was armed has died: armed anew");
                }
            }
        }
        self.arm_target(spec, images, metadata).await?;
        let Some(armed) = self.waiting().remove(&spec.id) else {
            return Err(wrong(spec, "staging", "it was disarmed meanwhile"));
        };
        self.restore_armed(spec, images, armed, noted).await.map_err(|unstaged| unstaged.error)
    }

    /// Has what was armed restore.
    async fn restore_armed(
        &self,
        spec: &ContainerSpec,
        images: &Path,
        armed: ArmedTarget,
        noted: &Noted,
    ) -> Result<(), Unstaged> {
        let ArmedTarget { attended, restore, since } = armed;
        let stored = self.must_find(spec, "staging")?;
        let (from, root) = (images.to_owned(), self.root(&stored));
        let (shm, log) = (self.shm(&stored), self.log(&stored));
        let putting = "putting the container's last changes in place";
        let put = move || late::apply(&from, &root, &shm, &log);
        self.threads.run(spec.id, putting, put).await?;
        noted.note(Moment::Restoring);
        let staged = async {
            attended.go()?;
            attended.staged().await
        };
        match tokio::time::timeout(STAGE, staged).await {
            Ok(Ok(())) => {
                noted.note(Moment::Staged);
                self.staged().insert(spec.id, Staged { attended, restore, since });
                Ok(())
            }
            Ok(Err(error)) => {
                drop(attended);
                let has_died = !matches!(error, GateError::Failed);
                let error = self.blame(spec, "restoring", restore, error).await;
                Err(Unstaged { error, has_died })
            }
            Err(_) => Err(too_late(spec, "restoring", STAGE).into()),
        }
    }

    /// Ends a restore that waits; none is success.
    pub(super) async fn disarm_target(&self, id: ContainerId) {
        let waiting = self.waiting().remove(&id);
        if let Some(ArmedTarget { attended, restore, .. }) = waiting {
            drop(attended);
            let _podman_hangs = tokio::time::timeout(ARM, restore).await;
        }
    }
}
