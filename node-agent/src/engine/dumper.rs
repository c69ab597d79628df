//! A criu that dumps a container, seen from the container's processes: they are traced by it.
//!
//! It may outlive its runc, podman and agent. Until it lets go, the container is in its hands:
//! killed, it may leave processes in the midst of code of its own; and the last thing that it
//! does before it lets go is to put the freezer back as it found it, frozen.

use std::io;
use std::time::Duration;

use procfs::process::Process;

use super::EngineError;
use super::cgroup::Cgroup;

/// How long a dump may take. A container of 100 GB needs a minute.
pub(super) const DUMP: Duration = Duration::from_secs(600);
/// How often it is looked whether it has let go.
const POLL: Duration = Duration::from_millis(5);

/// The pids of crius that hold processes of the container.
pub(super) fn of(container: &Cgroup) -> io::Result<Vec<i32>> {
    let tracer = |pid: i32| Some(Process::new(pid).ok()?.status().ok()?.tracerpid);
    let mut found: Vec<i32> = container.processes()?.into_iter().filter_map(tracer).collect();
    found.sort_unstable();
    found.dedup();
    found.retain(|pid| is_criu(*pid));
    Ok(found)
}

/// Returns once none holds the container any more; `Deadline` when one does after [`DUMP`].
/// Cancel safe.
pub(super) async fn ended(container: &Cgroup) -> Result<(), EngineError> {
    let what = || format!("waiting for criu to let go of {}", container.path().display());
    let io = |source| EngineError::Io { what: what(), source };
    let end = tokio::time::Instant::now() + DUMP;
    while !of(container).map_err(io)?.is_empty() {
        if tokio::time::Instant::now() > end {
            return Err(EngineError::Deadline { what: what(), seconds: DUMP.as_secs() });
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// By its name: a debugger that an operator has attached is none of ours.
fn is_criu(pid: i32) -> bool {
    let stat = Process::new(pid).ok().and_then(|process| process.stat().ok());
    stat.is_some_and(|stat| stat.comm.starts_with("criu"))
}
