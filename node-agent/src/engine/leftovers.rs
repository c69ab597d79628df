//! What an earlier service left in its control group: killed, but for the monitors of
//! containers that run.
//!
//! podman starts conmon as its own child, and where it cannot move it (a host without
//! controllers, a service started over a socket) conmon stays in the service's group.
//! A container whose conmon dies goes on running, but podman can neither stop nor remove
//! it any more; so conmon is moved out before the rest is killed.
//!
//! criu thaws the container that it dumps and holds its processes itself. A dump is given the time
//! to give up, as it does at its next step when its runc is gone. Killed all the same, it lets
//! them run on, behind a network that was cut; so what was frozen is frozen again first.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::EngineError;
use super::cgroup::{Cgroup, Hierarchy};
use super::dumper::{self, DUMP};
use super::{layout, removal};
use crate::criu::PROXY;

/// How long killing everything may take.
const EMPTY: Duration = Duration::from_secs(10);
/// How often it is looked whether a dump has ended.
const POLL: Duration = Duration::from_millis(5);
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
    /// Empties the group. Blocks for as long as the kernel takes to kill, and a dump to give up:
    /// once `is_asked_to_stop` that is left to the next life.
    pub(crate) fn clear(&self, is_asked_to_stop: &AtomicBool) -> Result<(), EngineError> {
        let io = |source| EngineError::Io {
            what: format!("clearing {}", self.group.path().display()),
            source,
        };
        if !self.let_dumps_end(is_asked_to_stop).map_err(io)? {
            return Ok(());
        }
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

    /// Kills all but those who dump, and returns when they have ended; false when it did not wait.
    fn let_dumps_end(&self, is_asked_to_stop: &AtomicBool) -> io::Result<bool> {
        let end = Instant::now() + DUMP;
        loop {
            let members = self.group.processes()?;
            let dumping = self.dumping(&members)?;
            if dumping.is_empty() {
                return Ok(true);
            }
            if Instant::now() > end {
                tracing::error!(pids = ?dumping, seconds = DUMP.as_secs(), "criu does not end: killing it");
                return Ok(true);
            }
            for pid in members {
                let is_spared = dumping.contains(&pid) || is_proxy(pid) || self.is_needed(pid);
                if !is_spared {
                    let _ended_already = kill(Pid::from_raw(pid), Signal::SIGKILL);
                }
            }
            if is_asked_to_stop.load(Ordering::Acquire) {
                return Ok(false);
            }
            std::thread::sleep(POLL);
        }
    }

    /// Those of the members who hold a process of a container that is marked as frozen.
    fn dumping(&self, members: &[i32]) -> io::Result<Vec<i32>> {
        let mut found = Vec::new();
        for mark in self.frozen_marks()? {
            let podman_id = mark.file_name().to_string_lossy().into_owned();
            found.extend(dumper::of(&self.hierarchy.group(&layout::container_cgroup(&podman_id)))?);
        }
        found.retain(|dumper| members.contains(dumper));
        Ok(found)
    }

    fn frozen_marks(&self) -> io::Result<Vec<fs::DirEntry>> {
        match fs::read_dir(&self.frozen) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            marks => marks?.collect(),
        }
    }

    /// Freezes what is marked. Its processes need not have stopped when this returns: the kernel
    /// lets none of them back into its program.
    fn freeze_again(&self) -> Result<(), EngineError> {
        let io = |source| EngineError::Io {
            what: format!("freezing again what is marked in {}", self.frozen.display()),
            source,
        };
        for mark in self.frozen_marks().map_err(io)? {
            let podman_id = mark.file_name().to_string_lossy().into_owned();
            let container = self.hierarchy.group(&layout::container_cgroup(&podman_id));
            if container.is_populated().map_err(io)? {
                freeze_marked(&container, &mark.path()).map_err(io)?;
            } else {
                removal::remove_file(&mark.path())?;
            }
        }
        Ok(())
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

/// Freezes the container unless its mark has gone: whoever thaws it takes that off first, and
/// would find it frozen again and nobody to thaw it.
fn freeze_marked(container: &Cgroup, mark: &Path) -> io::Result<()> {
    container.set_frozen(true)?;
    if mark.exists() { Ok(()) } else { container.set_frozen(false) }
}

/// True for the proxy between runc and criu: it is what tells criu that its runc is gone.
fn is_proxy(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm"))
        .is_ok_and(|name| name.trim().as_bytes() == PROXY.to_bytes())
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
    fn a_freeze_that_comes_after_the_thaw_is_taken_back() {
        let root = tempfile::tempdir().expect("tempdir");
        let (group, mark) = (root.path().join("g"), root.path().join("mark"));
        fs::create_dir(&group).expect("mkdir");
        fs::write(group.join("cgroup.freeze"), "0").expect("write");
        let container = Hierarchy::Unified(root.path().into()).group("g");
        let asked = || fs::read_to_string(group.join("cgroup.freeze")).expect("read");
        fs::write(&mark, "").expect("write");
        freeze_marked(&container, &mark).expect("freeze");
        assert_eq!(asked(), "1");
        fs::remove_file(&mark).expect("remove");
        freeze_marked(&container, &mark).expect("freeze");
        assert_eq!(asked(), "0", "nobody thaws it any more");
    }

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
