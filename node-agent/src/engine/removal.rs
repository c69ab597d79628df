//! Clearing up: whatever state a container is in, nothing of it is left.
//!
//! The order matters. `podman rm -f` succeeds on a gated container and leaves everything;
//! runc's directory of a container that runs must not go; a restore that died leaves CRIU's
//! root mounted below that directory, and removing through a mount would remove the image.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use godwit_proto::container::ContainerSpec;
use hyper::{Method, StatusCode};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::EngineError;
use super::containers::Stored;
use super::mounts;
use super::podman::Podman;

/// How long killing every process may take.
const EMPTY: Duration = Duration::from_secs(20);
/// How long conmon and its clean-up may take to end after their container.
const HELPERS: Duration = Duration::from_secs(5);
/// How often it is looked whether they have.
const AGAIN: Duration = Duration::from_millis(5);
/// How long podman may take to remove one container.
const REMOVE: Duration = Duration::from_secs(60);

impl Podman {
    /// Removes the container whatever state it is in; absent is success.
    pub(super) async fn remove(&self, spec: &ContainerSpec) -> Result<(), EngineError> {
        self.refuse(spec).await;
        let Some(stored) = self.find(spec.id)? else {
            return self.unmark(spec.id);
        };
        self.cgroup(&stored).empty(EMPTY).await?;
        // podman removes these directories itself, through whatever is mounted in them; what
        // else is mounted there (shm) is podman's own to unmount.
        mounts::detach(&self.userdata(&stored), mounts::is_crius)?;
        mounts::detach(&self.userdata(&stored).join("checkpoint"), |_| true)?;
        mounts::detach(&runc_dir(&stored), |_| true)?;
        let what = || format!("removing container {}", spec.name);
        let path = format!("containers/{}?force=true&v=true&timeout=0", stored.podman_id);
        match tokio::time::timeout(REMOVE, self.libpod.call(Method::DELETE, &path)).await {
            Err(_) => {
                return Err(EngineError::Deadline { what: what(), seconds: REMOVE.as_secs() });
            }
            Ok(answer) => match answer? {
                Err(refusal) if refusal.status != StatusCode::NOT_FOUND => {
                    return Err(refusal.into_error(what()));
                }
                _ => {}
            },
        }
        self.end_helpers(&stored).await;
        mounts::remove_dir(&runc_dir(&stored))?;
        let cgroup = self.cgroup(&stored);
        cgroup.remove().map_err(|source| EngineError::Io {
            what: format!("removing {}", cgroup.path().display()),
            source,
        })?;
        self.unmark(spec.id)
    }

    /// Waits for conmon, runc and podman's clean-up to end by themselves; kills what does not.
    async fn end_helpers(&self, stored: &Stored) {
        let end = tokio::time::Instant::now() + HELPERS;
        loop {
            let left = helpers(&stored.podman_id);
            if left.is_empty() {
                return;
            }
            if tokio::time::Instant::now() > end {
                tracing::warn!(container = %stored.id, ?left, "killing what did not end with its container");
                for pid in left {
                    let _ended_already = kill(Pid::from_raw(pid), Signal::SIGKILL);
                }
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// runc's own directory for the container, which a runc that was killed leaves.
fn runc_dir(stored: &Stored) -> PathBuf {
    Path::new("/run/runc").join(&stored.podman_id)
}

/// The processes that name the container as an argument of their own: conmon, runc, podman.
fn helpers(podman_id: &str) -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let command = fs::read(entry.path().join("cmdline")).ok()?;
            let mut words = command.split(|byte| *byte == 0);
            words.any(|word| word == podman_id.as_bytes()).then_some(pid)
        })
        .collect()
}
