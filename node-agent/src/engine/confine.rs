//! Children that must not outlive the agent unseen: in the engine's control group, which is
//! emptied before new ones start, and killed by the kernel when the agent dies.

#![expect(unsafe_code, reason = "PDEATHSIG and the control group are set between fork and exec")]

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::libc;

use super::cgroup::Cgroup;
use super::layout::EngineConfig;

/// The search path behind the stand-in's directory.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A command with podman's environment and the stand-in for criu in `shim` first in its path,
/// confined to `group`.
///
/// The kernel kills it when the thread that starts it ends: start it from one that lives as
/// long as the agent.
pub(super) fn command(
    program: &Path,
    config: &EngineConfig,
    shim: &Path,
    group: &Cgroup,
) -> io::Result<Command> {
    let group: OwnedFd =
        fs::OpenOptions::new().write(true).open(group.path().join("cgroup.procs"))?.into();
    let agent = std::process::id().cast_signed();
    let mut command = Command::new(program);
    command
        // INVOCATION_ID among others must not reach podman: with it podman leaves conmon
        // in the service's own group, and running containers would die with the service.
        .env_clear()
        .env("PATH", format!("{}:{PATH}", shim.display()))
        .env("HOME", "/root")
        .env("TMPDIR", config.podman_tmp())
        .env("CONTAINERS_CONF_OVERRIDE", config.containers_conf())
        .env("PODMAN_IGNORE_CGROUPSV1_WARNING", "1")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    // SAFETY: between fork and exec only system calls that are async-signal-safe are made
    // (write, prctl, getppid), on descriptors and numbers that outlive the call; no memory
    // is allocated.
    unsafe {
        command.pre_exec(move || {
            if libc::write(group.as_raw_fd(), b"0".as_ptr().cast(), 1) != 1 {
                return Err(io::Error::last_os_error());
            }
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(io::Error::last_os_error());
            }
            // The agent may have died before PDEATHSIG was set.
            if libc::getppid() != agent {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        });
    }
    Ok(command)
}
