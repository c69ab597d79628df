//! podman's helpers of one container: its monitor, what runc still does for it, and the
//! clean-up that the monitor starts. They end by themselves soon after their container;
//! what does not is killed.
//!
//! Whoever else names the container is left alone: an operator may well follow its log.

#![expect(unsafe_code, reason = "a process is killed through a descriptor, never by a bare number")]

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::libc;

use super::EngineError;

/// How often it is looked whether they have ended.
const AGAIN: Duration = Duration::from_millis(5);

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Helper {
    pid: i32,
    program: String,
}

impl fmt::Display for Helper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", self.program, self.pid)
    }
}

/// Waits until the container's helpers have ended by themselves, and kills those that have not
/// within `limit`.
///
/// `Deadline` with their pids when one survives the kill for as long again: it is stuck in the
/// kernel. Cancel safe.
pub(super) async fn end(podman_id: &str, limit: Duration) -> Result<(), EngineError> {
    end_those(|| of(podman_id), |helper| helper.kill(podman_id), limit).await
}

async fn end_those(
    left: impl Fn() -> Vec<Helper>,
    kill: impl Fn(&Helper) -> io::Result<()>,
    limit: Duration,
) -> Result<(), EngineError> {
    let begun = tokio::time::Instant::now();
    let mut is_said = false;
    loop {
        let left = left();
        let waited = begun.elapsed();
        if left.is_empty() {
            return Ok(());
        }
        let names = || left.iter().map(Helper::to_string).collect::<Vec<_>>().join(", ");
        if waited > limit * 2 {
            let what = format!("killing {}", names());
            return Err(EngineError::Deadline { what, seconds: waited.as_secs() });
        }
        if waited > limit {
            if !std::mem::replace(&mut is_said, true) {
                tracing::warn!("killing what did not end with its container: {}", names());
            }
            for helper in &left {
                if let Err(error) = kill(helper) {
                    tracing::debug!(%helper, %error, "not killed");
                }
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// The living helpers of the container.
fn of(podman_id: &str) -> Vec<Helper> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| Helper::at(pid, podman_id)).collect()
}

impl Helper {
    /// The process of that number, if it is a helper of the container.
    fn at(pid: i32, podman_id: &str) -> Option<Self> {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        let command = fs::read(proc.join("cmdline")).ok()?;
        let words: Vec<&[u8]> = command.split(|byte| *byte == 0).collect();
        if !words.contains(&podman_id.as_bytes()) {
            return None;
        }
        let program = program(&fs::read_link(proc.join("exe")).ok()?)?;
        let is_cleanup = || words.windows(2).any(|pair| pair == [&b"container"[..], b"cleanup"]);
        let is_helper = match program.as_str() {
            "conmon" | "runc" => true,
            "podman" => is_cleanup(),
            _ => false,
        };
        is_helper.then_some(Self { pid, program })
    }

    /// Kills it; whoever has its number by now is not it, and lives.
    fn kill(&self, podman_id: &str) -> io::Result<()> {
        // SAFETY: it takes two numbers, touches no memory, and returns a new descriptor or -1.
        let opened = unsafe { libc::syscall(libc::SYS_pidfd_open, self.pid, 0) };
        let opened = i32::try_from(opened).ok().filter(|fd| *fd >= 0);
        let opened = opened.ok_or_else(io::Error::last_os_error)?;
        // SAFETY: the kernel has just given it to us, and nobody else knows it.
        let process = unsafe { OwnedFd::from_raw_fd(opened) };
        // Only now: if it is the helper now, it was the helper that was opened, or that is dead.
        if Self::at(self.pid, podman_id).as_ref() != Some(self) {
            return Ok(());
        }
        let none = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: the descriptor is open for the whole call; without a siginfo nothing is read.
        let sent = unsafe {
            let signal = libc::SYS_pidfd_send_signal;
            libc::syscall(signal, process.as_raw_fd(), libc::SIGKILL, none, 0)
        };
        if sent == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// A program's name by its executable, which may have been replaced by an upgrade since.
fn program(exe: &Path) -> Option<String> {
    let name = exe.file_name().and_then(OsStr::to_str)?;
    Some(name.strip_suffix(" (deleted)").unwrap_or(name).to_owned())
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// A shell by the name of `program`, which waits, with `args` on its command line.
    fn run(dir: &Path, program: &str, args: &[&str]) -> Child {
        let path = dir.join(program);
        if !path.exists() {
            fs::copy("/bin/sh", &path).expect("copy");
        }
        let mut command = Command::new(path);
        command.args(["-c", "read line"]).args(args).stdin(Stdio::piped());
        command.spawn().expect("spawn")
    }

    #[tokio::test]
    async fn helpers_are_killed_and_an_operators_commands_are_not() {
        let dir = tempfile::tempdir().expect("tempdir");
        let id = uuid::Uuid::new_v4().simple().to_string();
        let helpers = [
            run(dir.path(), "conmon", &["-c", &id, "-u", &id]),
            run(dir.path(), "runc", &["delete", &id]),
            run(dir.path(), "podman", &["container", "cleanup", &id]),
        ];
        let others = [
            run(dir.path(), "podman", &["logs", "-f", &id]),
            run(dir.path(), "podman", &["exec", &id, "sh"]),
            run(dir.path(), "tail", &["-f", &id]),
            run(dir.path(), "conmon", &["-c", "another", "-u", "another"]),
        ];
        let mut found: Vec<u32> = of(&id).iter().map(|helper| helper.pid.cast_unsigned()).collect();
        found.sort_unstable();
        let mut expected: Vec<u32> = helpers.iter().map(Child::id).collect();
        expected.sort_unstable();
        let ended = end(&id, Duration::from_secs(1)).await;
        let survivors = others.map(|mut other| {
            let lives = other.try_wait().expect("wait").is_none();
            other.kill().and_then(|()| other.wait()).expect("end");
            lives
        });
        for mut helper in helpers {
            let _killed_already = helper.kill();
            helper.wait().expect("wait");
        }
        assert_eq!(found, expected);
        assert!(ended.is_ok(), "{ended:?}");
        assert_eq!(survivors, [true; 4]);
    }

    #[tokio::test]
    async fn what_cannot_be_killed_is_named_and_not_waited_for_for_ever() {
        let stuck = || vec![Helper { pid: 77, program: "runc".into() }];
        let ended = end_those(stuck, |_| Ok(()), Duration::from_millis(1)).await;
        let error = ended.expect_err("it cannot be killed").to_string();
        assert!(error.contains("runc (pid 77)"), "{error}");
    }

    #[test]
    fn a_program_that_was_upgraded_keeps_its_name() {
        assert_eq!(program(Path::new("/usr/bin/conmon (deleted)")).as_deref(), Some("conmon"));
    }
}
