//! The target's end of a hand-over: restore to the gate, open it.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use godwit_proto::container::{ContainerSpec, Execution, Mode};
use godwit_proto::id::ContainerId;
use godwit_proto::timeline::Moment;
use hyper::Method;
use tokio::task::JoinHandle;

use super::libpod::Refusal;
use super::podman::Podman;
use super::source::{with_cause, wrong};
use super::{EngineError, cold};
use crate::criu::gate::{Attended, GateError};
use crate::devices;
use crate::moments::Noted;

/// podman itself gives a restore up after 240 s; whoever waits shorter than that hears why.
const STAGE: Duration = Duration::from_secs(200);
/// How long criu may take to let go of every process, and podman to note that they run.
const OPEN: Duration = Duration::from_secs(60);

/// podman's answer to a restore, which comes only after the gate.
pub(super) type Answer = Result<Result<Bytes, Refusal>, EngineError>;

/// Why a copy did not come through the gate.
#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error(transparent)]
    Gate(#[from] GateError),
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// A container at the gate, with podman's request that waits behind it.
#[derive(Debug)]
pub(super) struct Staged {
    pub(super) attended: Attended,
    pub(super) restore: JoinHandle<Answer>,
    /// When the restore began.
    pub(super) since: Instant,
}

impl Podman {
    pub(super) async fn prepare_target(
        &self,
        spec: &ContainerSpec,
        mode: Mode,
        netns: &Path,
    ) -> Result<(), EngineError> {
        let what = || format!("preparing for container {}", spec.name);
        let image = format!("images/{}/exists", spec.image);
        if self.libpod.call(Method::GET, &image).await?.is_err() {
            let message = format!("podman does not hold its image {}", spec.image.short());
            return Err(EngineError::Refused { what: what(), message });
        }
        if mode == Mode::Cold {
            return super::Engine::create(self, spec, netns).await;
        }
        // A restore takes the namespace's path from the checkpoint: it must be there by then.
        if !netns.exists() {
            let message = format!("its network namespace {} is missing", netns.display());
            return Err(EngineError::Refused { what: what(), message });
        }
        let provided = self.config.devices.provide(spec);
        provided.map(drop).map_err(|source| EngineError::Io { what: what(), source })
    }

    /// Has podman's tar of a container with devices allow those of this node.
    pub(super) async fn allow_devices(
        &self,
        spec: &ContainerSpec,
        tar: &Path,
    ) -> Result<(), EngineError> {
        if spec.devices.is_empty() {
            return Ok(());
        }
        let id = spec.id;
        let (devices, spec, tar) = (self.config.devices.clone(), spec.clone(), tar.to_owned());
        let allowing = move || devices::allow(&tar, &devices.provide(&spec)?);
        self.threads.run(id, "allowing the container's devices", allowing).await
    }

    pub(super) async fn stage_target(
        &self,
        spec: &ContainerSpec,
        mode: Mode,
        file: &Path,
    ) -> Result<(), EngineError> {
        if mode == Mode::Cold {
            let stored = self.must_find(spec, "staging")?;
            if self.execution(&stored)? != Execution::Absent {
                return Err(wrong(spec, "staging", "processes of it exist on this node"));
            }
            return cold::unpack(&stored, &self.graphroot, file).await;
        }
        if self.is_staged(spec)? {
            return Ok(());
        }
        self.clear_the_way(spec, "staging").await?;
        self.mark(spec.id)?;
        self.allow_devices(spec, file).await?;
        let since = Instant::now();
        let expected = self.gate.expect_restore(spec.id, false);
        let (libpod, file) = (self.libpod.clone(), file.to_owned());
        let mut restore = tokio::spawn(async move {
            let path = "containers/import/restore?import=true&tcpEstablished=true&fileLocks=true";
            libpod.post_file(path, &file).await
        });
        let staged = async {
            let attended = expected.attended().await?;
            attended.staged().await?;
            Ok(attended)
        };
        let staged = tokio::select! {
            staged = staged => staged,
            answer = &mut restore => return Err(self.why(spec, "restoring", answer)),
            () = tokio::time::sleep(STAGE) => {
                let what = format!("restoring container {}", spec.name);
                return Err(EngineError::Deadline { what, seconds: STAGE.as_secs() });
            }
        };
        match staged {
            Ok(attended) => {
                self.staged().insert(spec.id, Staged { attended, restore, since });
                Ok(())
            }
            Err(error) => Err(self.blame(spec, "restoring", restore, error).await),
        }
    }

    /// True where a copy waits at the gate for this agent's word, and podman for the copy.
    pub(super) fn is_staged(&self, spec: &ContainerSpec) -> Result<bool, EngineError> {
        let is_good = |staged: &Staged| self.is_good(staged.since, &staged.restore);
        let waits = self.staged().get(&spec.id).is_some_and(is_good);
        let stored = if waits { self.find(spec.id)? } else { None };
        stored.map_or(Ok(false), |stored| Ok(self.execution(&stored)? == Execution::Gated))
    }

    /// True while podman has a restore's patience, and some to spare.
    pub(super) fn is_good(&self, since: Instant, restore: &JoinHandle<Answer>) -> bool {
        since.elapsed() < self.config.good_for && !restore.is_finished()
    }

    /// Removes what an earlier attempt left but for its mark; refused where that may run.
    pub(super) async fn clear_the_way(
        &self,
        spec: &ContainerSpec,
        step: &str,
    ) -> Result<(), EngineError> {
        let execution = match self.find(spec.id)? {
            Some(stored) => self.execution(&stored)?,
            None => Execution::Absent,
        };
        match execution {
            Execution::Absent | Execution::Gated => self.clear(spec.id, spec.name.as_str()).await,
            Execution::Running | Execution::Frozen => {
                Err(wrong(spec, step, "a copy of it runs or is frozen on this node"))
            }
        }
    }

    pub(super) async fn open_target(
        &self,
        spec: &ContainerSpec,
        mode: Mode,
        noted: &Noted,
        runs: impl FnOnce() + Send,
    ) -> Result<(), EngineError> {
        noted.note(Moment::Opening);
        if mode == Mode::Cold {
            super::Engine::start(self, spec).await?;
            noted.note(Moment::Running);
            return Ok(());
        }
        let staged = self.staged().remove(&spec.id);
        let Some(Staged { attended, mut restore, .. }) = staged else {
            let stored = self.must_find(spec, "opening")?;
            return match self.execution(&stored)? {
                Execution::Running => Ok(()),
                _ => Err(wrong(spec, "opening", "it does not wait at the gate")),
            };
        };
        let late = || EngineError::Deadline {
            what: format!("opening container {}", spec.name),
            seconds: OPEN.as_secs(),
        };
        // Until then nobody can have seen it run, and the same images restore again; from then
        // on it counts as one that may run, and its network must be its own.
        let caught = || -> Result<(), OpenError> {
            self.unmark(spec.id)?;
            runs();
            Ok(())
        };
        match tokio::time::timeout(OPEN, attended.commit(self.mark_of(spec.id), caught)).await {
            Err(_) => return Err(late()),
            Ok(Err(OpenError::Engine(error))) => return Err(error),
            Ok(Err(OpenError::Gate(error))) => {
                return Err(self.blame(spec, "opening", restore, error).await);
            }
            Ok(Ok(())) => {}
        }
        noted.note(Moment::Running);
        match tokio::time::timeout(OPEN, &mut restore).await {
            Err(_) => Err(late()),
            Ok(Ok(Ok(Ok(_)))) => {
                noted.note(Moment::Known);
                Ok(())
            }
            Ok(answer) => Err(self.why(spec, "opening", answer)),
        }
    }

    /// Refuses what is at the gate and waits until podman has noticed; nothing there is success.
    pub(super) async fn refuse(&self, id: ContainerId) {
        let staged = self.staged().remove(&id);
        if let Some(Staged { attended, restore, .. }) = staged {
            drop(attended);
            let _podman_hangs = tokio::time::timeout(OPEN, restore).await;
        }
    }

    /// podman's reason, where it still gives one, else the gate's.
    pub(super) async fn blame(
        &self,
        spec: &ContainerSpec,
        step: &str,
        restore: JoinHandle<Answer>,
        error: GateError,
    ) -> EngineError {
        match tokio::time::timeout(Duration::from_secs(10), restore).await {
            Ok(Ok(Ok(Ok(_)))) | Err(_) => wrong(spec, step, &error.to_string()),
            Ok(answer) => self.why(spec, step, answer),
        }
    }

    /// The error behind an answer that is not success.
    pub(super) fn why(
        &self,
        spec: &ContainerSpec,
        step: &str,
        answer: Result<Answer, tokio::task::JoinError>,
    ) -> EngineError {
        let message = match answer {
            Ok(Ok(Err(refusal))) => refusal.message,
            Ok(Err(error)) => return error,
            Ok(Ok(Ok(_))) => "podman restored it without asking at the gate".to_owned(),
            Err(error) => error.to_string(),
        };
        let log = self
            .find(spec.id)
            .ok()
            .flatten()
            .map(|stored| self.userdata(&stored).join("restore.log"));
        let message = match log {
            Some(log) => with_cause(message, &log),
            None => message,
        };
        EngineError::Refused { what: format!("{step} container {}", spec.name), message }
    }
}
