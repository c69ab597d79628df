//! Files in the run directory that outlive the agent, but not the machine: which copies never
//! ran, which sources stay frozen, what is being removed.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use godwit_proto::id::ContainerId;

use super::EngineError;
use super::containers::Stored;
use super::podman::Podman;
use super::removal;

/// What an earlier life held at its gate dies within this.
const EMPTY: Duration = Duration::from_secs(10);

impl Podman {
    /// A copy that an earlier life held at its gate must not be taken for one that runs,
    /// whatever is still unwinding it.
    pub(super) async fn kill_gated_before(&self) -> Result<(), EngineError> {
        let dir = self.config.gates();
        let failed =
            |source| EngineError::Io { what: format!("reading {}", dir.display()), source };
        fs::create_dir_all(&dir).map_err(failed)?;
        for stored in self.stored()? {
            if self.is_marked(stored.id) {
                self.cgroup(&stored).empty(EMPTY).await?;
            }
        }
        // The marks stay: they say that these copies never ran, and one that was being built again
        // may have none in podman's storage.
        Ok(())
    }

    /// Marks the container as one that must not run: it is being staged. The mark goes when
    /// the gate is told to open, or with the machine's memory.
    pub(super) fn mark(&self, id: ContainerId) -> Result<(), EngineError> {
        removal::write(&self.mark_of(id), "")
    }

    /// Takes the mark off; none is success.
    pub(super) fn unmark(&self, id: ContainerId) -> Result<(), EngineError> {
        removal::remove_file(&self.mark_of(id))
    }

    pub(super) fn is_marked(&self, id: ContainerId) -> bool {
        self.mark_of(id).exists()
    }

    pub(super) fn mark_of(&self, id: ContainerId) -> PathBuf {
        self.config.gates().join(id.to_string())
    }

    /// Marks the container as one that stays frozen whoever dies: criu thaws it while it dumps.
    pub(super) fn mark_frozen(&self, stored: &Stored) -> Result<(), EngineError> {
        removal::write(&self.config.frozen().join(&stored.podman_id), "")
    }

    /// Takes that mark off; none is success.
    pub(super) fn unmark_frozen(&self, podman_id: &str) -> Result<(), EngineError> {
        removal::remove_file(&self.config.frozen().join(podman_id))
    }

    /// The containers that are marked as never run, or whose removal has begun and not ended.
    pub(super) fn noted(&self) -> Result<Vec<ContainerId>, EngineError> {
        let mut found = Vec::new();
        for dir in [self.config.gates(), self.config.removals()] {
            let listed = match fs::read_dir(&dir) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                listed => listed.and_then(Iterator::collect::<io::Result<Vec<_>>>),
            };
            let notes = listed.map_err(|source| EngineError::Io {
                what: format!("reading {}", dir.display()),
                source,
            })?;
            found.extend(
                notes
                    .iter()
                    .filter_map(|note| note.file_name().to_str()?.parse::<ContainerId>().ok()),
            );
        }
        Ok(found)
    }
}
