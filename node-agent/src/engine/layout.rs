//! Where the engine keeps things, and whose names are whose.

use std::path::{Path, PathBuf};
use std::time::Duration;

use godwit_proto::id::ContainerId;

use crate::devices::Devices;
use crate::volumes::Volumes;

/// What the agent's configuration says of the engine.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Sockets, gates, the stand-in named `criu`: gone at a reboot. One for each agent on a host.
    pub rundir: PathBuf,
    /// Checkpoints and images on their way through podman: on a disk with room for them.
    pub workdir: PathBuf,
    /// Tenants' volumes: the same place on every node.
    pub volumes: Volumes,
    /// The node's devices.
    pub devices: Devices,
    /// The control group that podman's service and its children live in, and nothing else.
    pub cgroup: String,
    /// podman's binary.
    pub podman: PathBuf,
    /// The binary that stands in for `criu`: the agent's own.
    pub shim: PathBuf,
    /// The real criu.
    pub criu: PathBuf,
    /// How long a restore that waits is of use. podman gives it up 240 s after it began.
    pub good_for: Duration,
}

impl EngineConfig {
    /// The ordinary places of an agent that owns its host: `/run/godwit`, `/var/lib/godwit`.
    pub fn standard(agent: PathBuf) -> Self {
        Self {
            rundir: "/run/godwit".into(),
            workdir: "/var/lib/godwit/work".into(),
            volumes: Volumes::new("/var/lib/godwit/volumes".into()),
            devices: Devices::new("/var/lib/godwit/devices".into(), Default::default()),
            cgroup: "godwit-engine".into(),
            podman: "podman".into(),
            shim: agent,
            criu: find_criu(),
            good_for: Duration::from_secs(180),
        }
    }

    /// podman's private socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.rundir.join("podman.sock")
    }

    /// Directories of the stand-in, one for each life of the service.
    pub(crate) fn shims(&self) -> PathBuf {
        self.rundir.join("criu")
    }

    /// Marks of copies that were staged and not opened.
    pub(crate) fn gates(&self) -> PathBuf {
        self.rundir.join("gated")
    }

    /// Marks of containers that are frozen for a hand-over, named by podman's ids.
    pub(crate) fn frozen(&self) -> PathBuf {
        self.rundir.join("frozen")
    }

    /// Podman's ids of containers whose removal has begun, in files named by ours.
    pub(crate) fn removals(&self) -> PathBuf {
        self.rundir.join("removals")
    }

    /// podman's temporary files: whole checkpoints, and a podman that is killed leaves them.
    pub(crate) fn podman_tmp(&self) -> PathBuf {
        self.workdir.join("podman")
    }

    /// What the last runc that the agent ran itself has said.
    pub(crate) fn runc_log(&self) -> PathBuf {
        self.rundir.join("runc.log")
    }

    /// What the service's containers.conf adds to the host's.
    pub(crate) fn containers_conf(&self) -> PathBuf {
        self.rundir.join("containers.conf")
    }
}

/// The real criu: where Debian puts it, and where a build from source does.
pub(crate) fn find_criu() -> PathBuf {
    let places = ["/usr/sbin/criu", "/usr/local/sbin/criu"];
    places.iter().map(PathBuf::from).find(|p| p.exists()).unwrap_or_else(|| places[0].into())
}

/// Where podman keeps a container's own files (configuration, log, checkpoint).
pub(crate) fn userdata(graphroot: &Path, podman_id: &str) -> PathBuf {
    graphroot.join("overlay-containers").join(podman_id).join("userdata")
}

/// The control group of a container made with podman's `cgroupfs` manager.
pub(crate) fn container_cgroup(podman_id: &str) -> String {
    format!("libpod_parent/libpod-{podman_id}")
}

/// The second half of the ids of containers that the doctor makes for its probe. The first
/// half is what a container's namespace and link are named by: each probe has its own.
const PROBE: u64 = 0x8000_6764_7764_d0c7;

/// An id for a container of the doctor's, which no agent takes for a tenant's.
pub(crate) fn probe_id() -> ContainerId {
    let (random, _) = uuid::Uuid::new_v4().as_u64_pair();
    ContainerId(uuid::Uuid::from_u64_pair(random, PROBE))
}

/// True for the ids that [`probe_id`] gives.
pub(crate) fn is_probe(id: ContainerId) -> bool {
    id.0.as_u64_pair().1 == PROBE
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::Network;

    #[test]
    fn two_probes_share_nothing_and_neither_is_a_tenants() {
        let (one, other) = (probe_id(), probe_id());
        assert!(is_probe(one) && is_probe(other));
        assert_ne!(Network::path(one), Network::path(other), "both would work in one namespace");
        assert!(!is_probe(ContainerId(uuid::Uuid::new_v4())));
    }
}
