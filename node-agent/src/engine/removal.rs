//! Clearing up: whatever state a container is in, nothing of it is left.
//!
//! The order matters. `podman rm -f` succeeds on a gated container and leaves everything;
//! runc's directory of a container that runs must not go; a restore that died leaves CRIU's
//! root mounted below that directory, and removing through a mount would remove the image.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use godwit_proto::id::ContainerId;
use hyper::{Method, StatusCode};

use super::containers::Stored;
use super::podman::Podman;
use super::{EngineError, helpers, layout, mounts};

/// How long killing every process may take.
const EMPTY: Duration = Duration::from_secs(20);
/// How long conmon and its clean-up may take to end after their container.
const HELPERS: Duration = Duration::from_secs(5);
/// How long podman may take to remove one container.
const REMOVE: Duration = Duration::from_secs(60);

impl Podman {
    /// Removes the container whatever state it is in; absent is success. `name` is what people
    /// call it.
    ///
    /// Cancel safe, and so is its death: a note says what podman has forgotten already and is not
    /// cleared up yet, for the next call.
    pub(crate) async fn remove(&self, id: ContainerId, name: &str) -> Result<(), EngineError> {
        self.clear(id, name).await?;
        self.unmark(id)
    }

    /// As [`Podman::remove`], but a copy that never ran stays marked as one: it is built again.
    pub(super) async fn clear(&self, id: ContainerId, name: &str) -> Result<(), EngineError> {
        self.threads.rest(id).await;
        self.refuse(id).await;
        self.disarm_target(id).await;
        let note = self.config.removals().join(id.to_string());
        if let Some(stored) = self.find(id)? {
            write(&note, &stored.podman_id)?;
            self.remove_from_podman(&stored, name).await?;
        }
        let Some(podman_id) = read(&note)? else { return Ok(()) };
        let ended = helpers::end(&podman_id, HELPERS).await;
        let cgroup = self.hierarchy.group(&layout::container_cgroup(&podman_id));
        // A runc that outlived podman may have put processes there since.
        cgroup.empty(EMPTY).await?;
        // A helper that is stuck in the kernel is no reason to leave what can be removed.
        let cleared = mounts::remove_dir(&runc_dir(&podman_id)).and_then(|()| {
            cgroup.remove().map_err(|source| EngineError::Io {
                what: format!("removing {}", cgroup.path().display()),
                source,
            })
        });
        self.unmark_frozen(&podman_id)?;
        ended.and(cleared)?;
        remove_file(&note)
    }

    /// True where a removal has begun, podman has forgotten the container, and processes of it
    /// are there all the same.
    pub(super) fn is_half_removed_and_alive(&self, id: ContainerId) -> Result<bool, EngineError> {
        let Some(podman_id) = read(&self.config.removals().join(id.to_string()))? else {
            return Ok(false);
        };
        let cgroup = self.hierarchy.group(&layout::container_cgroup(&podman_id));
        cgroup.is_populated().map_err(|source| EngineError::Io {
            what: format!("reading {}", cgroup.path().display()),
            source,
        })
    }

    async fn remove_from_podman(&self, stored: &Stored, name: &str) -> Result<(), EngineError> {
        self.cgroup(stored).empty(EMPTY).await?;
        self.disarm_source(stored.id, name).await?;
        // podman removes these directories itself, through whatever is mounted in them; what
        // else is mounted there (shm) is podman's own to unmount.
        mounts::detach(&self.userdata(stored), mounts::is_crius)?;
        mounts::detach(&self.userdata(stored).join("checkpoint"), |_| true)?;
        mounts::detach(&runc_dir(&stored.podman_id), |_| true)?;
        let what = || format!("removing container {name}");
        let path = format!("containers/{}?force=true&v=true&timeout=0", stored.podman_id);
        match tokio::time::timeout(REMOVE, self.libpod.call(Method::DELETE, &path)).await {
            Err(_) => Err(EngineError::Deadline { what: what(), seconds: REMOVE.as_secs() }),
            Ok(answer) => match answer? {
                Err(refusal) if refusal.status != StatusCode::NOT_FOUND => {
                    Err(refusal.into_error(what()))
                }
                _ => Ok(()),
            },
        }
    }
}

/// What the file says; `None` where there is none.
fn read(file: &Path) -> Result<Option<String>, EngineError> {
    match fs::read_to_string(file) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(EngineError::Io { what: format!("reading {}", file.display()), source })
        }
        text => Ok(text.ok()),
    }
}

/// Writes a small file and the directory that it lies in.
pub(super) fn write(file: &Path, text: &str) -> Result<(), EngineError> {
    let dir = file.parent().map_or(Ok(()), fs::create_dir_all);
    dir.and_then(|()| fs::write(file, text))
        .map_err(|source| EngineError::Io { what: format!("writing {}", file.display()), source })
}

/// Removes a file; absent is success.
pub(super) fn remove_file(file: &Path) -> Result<(), EngineError> {
    match fs::remove_file(file) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(EngineError::Io { what: format!("removing {}", file.display()), source })
        }
        _ => Ok(()),
    }
}

/// runc's own directory for the container, which a runc that was killed leaves.
fn runc_dir(podman_id: &str) -> PathBuf {
    Path::new("/run/runc").join(podman_id)
}
