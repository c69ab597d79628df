//! Who there is to kill of those who carry a hand-over out.

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::host::{Process, processes, until};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Victim {
    Service,
    Conmon,
    Runc,
    Criu,
    Proxy,
}

impl Victim {
    pub(crate) const ALL: [Self; 5] =
        [Self::Service, Self::Conmon, Self::Runc, Self::Criu, Self::Proxy];

    pub(crate) fn is(self, process: &Process, podman_id: &str) -> bool {
        let ours = process.command.contains(podman_id);
        match self {
            Self::Service => process.command.contains("unix:///run/godwit-test/podman.sock"),
            Self::Conmon => process.name == "conmon" && ours,
            Self::Runc => process.name.starts_with("runc") && ours,
            Self::Criu => process.name == "criu",
            Self::Proxy => process.name == "criu-gate",
        }
    }
}

/// Each of them, and every two.
pub(crate) fn ones_and_pairs(of: &[Victim]) -> Vec<Vec<Victim>> {
    let pairs = |at: usize| of[at + 1..].iter().map(move |second| vec![of[at], *second]);
    of.iter().map(|one| vec![*one]).chain((0..of.len()).flat_map(pairs)).collect()
}

/// `kill -9` of every process of the victims, at once.
pub(crate) fn kill_all(victims: &[Victim], podman_id: &str) {
    let before = processes();
    for victim in victims {
        let is_it = |p: &&Process| victim.is(p, podman_id) && !p.zombie;
        let found: Vec<_> = before.iter().filter(is_it).collect();
        assert!(!found.is_empty(), "{victim:?} is not there");
        for process in found {
            let killed = kill(Pid::from_raw(process.pid), Signal::SIGKILL);
            // It may have died of the one that was killed before it.
            assert!(matches!(killed, Ok(()) | Err(Errno::ESRCH)), "{killed:?}");
        }
    }
}

/// Waits until no process of the container is left.
pub(crate) async fn until_it_is_dead(podman_id: &str) {
    let events = format!("/sys/fs/cgroup/libpod_parent/libpod-{podman_id}/cgroup.events");
    let is_empty =
        || std::fs::read_to_string(&events).map_or(true, |text| text.contains("populated 0"));
    until("end of the copy", is_empty).await;
}
