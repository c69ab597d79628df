//! What an earlier service left in its control group: killed, but for the monitors of
//! containers that run.
//!
//! podman starts conmon as its own child, and where it cannot move it (a host without
//! controllers, a service started over a socket) conmon stays in the service's group.
//! A container whose conmon dies goes on running, but podman can neither stop nor remove
//! it any more; so conmon is moved out before the rest is killed.
//!
//! criu thaws the container that it dumps, and holds its processes itself. Killed, it lets
//! them run on, behind a network that was cut; so what was frozen is frozen again first.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::EngineError;
use super::cgroup::{Cgroup, Hierarchy};
use super::layout;

/// How long killing everything may take.
const EMPTY: Duration = Duration::from_secs(10);
/// Where podman puts conmon when it can.
const CONMON: &str = "libpod_parent/conmon";

/// A service's control group, and how to tell whose monitor is in it.
#[derive(Debug, Clone)]
pub(crate) struct Leftovers {
    pub(crate) group: Cgroup,
    pub(crate) hierarchy: Hierarchy,
    /// Marks of containers that are being staged: their monitors die.
    pub(crate) gates: PathBuf,
    /// Marks of containers that are frozen for a hand-over.
    pub(crate) frozen: PathBuf,
}

impl Leftovers {
    /// Empties the group. Blocks for as long as the kernel takes to kill.
    pub(crate) fn clear(&self) -> Result<(), EngineError> {
        let io = |source| EngineError::Io {
            what: format!("clearing {}", self.group.path().display()),
            source,
        };
        self.freeze_again()?;
        for pid in self.group.processes().map_err(io)? {
            if self.is_needed(pid) {
                let monitors = self.hierarchy.group(CONMON);
                monitors.create().map_err(io)?;
                if let Err(error) = monitors.admit(pid) {
                    tracing::debug!(pid, %error, "a monitor ended before it was moved");
                }
            }
        }
        self.group.empty_blocking(EMPTY)
    }

    /// Freezes what is marked. Its processes need not have stopped when this returns: the kernel
    /// lets none of them back into its program.
    fn freeze_again(&self) -> Result<(), EngineError> {
        let marks = match fs::read_dir(&self.frozen) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            marks => marks,
        };
        let again = |marks: fs::ReadDir| -> io::Result<()> {
            for mark in marks {
                let mark = mark?;
                let podman_id = mark.file_name().to_string_lossy().into_owned();
                let container = self.hierarchy.group(&layout::container_cgroup(&podman_id));
                if container.is_populated()? {
                    container.set_frozen(true)?;
                } else {
                    fs::remove_file(mark.path())?;
                }
            }
            Ok(())
        };
        marks.and_then(again).map_err(|source| EngineError::Io {
            what: format!("freezing again what is marked in {}", self.frozen.display()),
            source,
        })
    }

    /// True for the conmon of a container with processes that is not being staged.
    fn is_needed(&self, pid: i32) -> bool {
        let proc = Path::new("/proc").join(pid.to_string());
        let command = fs::read(proc.join("cmdline")).unwrap_or_default();
        let Some(monitored) = Monitored::in_command(&command) else { return false };
        let container = self.hierarchy.group(&layout::container_cgroup(&monitored.podman_id));
        let is_staging =
            monitored.name.strip_prefix("godwit-").is_some_and(|id| self.gates.join(id).exists());
        !is_staging && container.is_populated().unwrap_or(true)
    }
}

/// Whom a conmon monitors.
#[derive(Debug, PartialEq, Eq)]
struct Monitored {
    podman_id: String,
    name: String,
}

impl Monitored {
    /// Reads conmon's arguments; `None` for any other program.
    fn in_command(command: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(command);
        let words: Vec<&str> = text.split('\0').collect();
        if Path::new(words.first()?).file_name()? != "conmon" {
            return None;
        }
        let after = |flag: &str| {
            let at = words.iter().position(|word| *word == flag)?;
            words.get(at + 1).map(|word| (*word).to_owned())
        };
        Some(Self { podman_id: after("-c")?, name: after("-n").unwrap_or_default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conmon_names_its_container() {
        let command = b"/usr/bin/conmon\0-c\0abc\0-u\0abc\0-n\0godwit-x\0-s\0";
        let monitored = Monitored { podman_id: "abc".into(), name: "godwit-x".into() };
        assert_eq!(Monitored::in_command(command), Some(monitored));
        assert_eq!(Monitored::in_command(b"/usr/bin/runc\0-c\0abc\0"), None);
        assert_eq!(Monitored::in_command(b""), None);
    }

    #[test]
    fn only_monitors_of_what_runs_are_needed() {
        let root = tempfile::tempdir().expect("tempdir");
        let hierarchy = Hierarchy::Unified(root.path().into());
        let gates = root.path().join("gates");
        fs::create_dir(&gates).expect("mkdir");
        let frozen = root.path().join("frozen");
        let leftovers = Leftovers { group: hierarchy.group("s"), hierarchy, gates, frozen };
        let own = std::process::id().cast_signed();
        assert!(!leftovers.is_needed(own), "a test is no conmon");
    }
}
