//! A dump that dies leaves the container frozen: it must not run while its network is cut.

use std::path::Path;

use godwit_agent::engine::{Engine, Podman};
use godwit_proto::container::{Execution, Mode};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::host::{Host, Sent, config, until};
use super::in_a_host;

/// criu calls this at every stage; it waits where criu holds every process and has thawed the group.
const HOOK: &str = "#!/bin/sh
[ $CRTOOLS_SCRIPT_ACTION = network-lock ] || exit 0
touch /run/criu-has-seized
while [ -e /run/criu-waits ]; do sleep 0.05; done
";

/// Runs the dump until criu is in the midst of it.
pub(super) async fn dump_until_seized(host: &Host) {
    std::fs::write("/run/hook", HOOK).expect("write");
    let all = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions("/run/hook", all).expect("chmod");
    std::fs::create_dir_all("/etc/criu").expect("mkdir");
    std::fs::write("/etc/criu/runc.conf", "action-script /run/hook\n").expect("write");
    std::fs::write("/run/criu-waits", "").expect("write");
    if host.mode == Mode::Live {
        host.arm().await;
    }
    let sent = Sent::default();
    let mut dump = std::pin::pin!(host.freeze_and_dump(&sent));
    tokio::select! {
        () = &mut dump => panic!("the dump did not wait"),
        () = until("criu in its dump", || Path::new("/run/criu-has-seized").exists()) => {}
    }
    let podman_id = host.podman_id().expect("id");
    let asked = format!("/sys/fs/cgroup/libpod_parent/libpod-{podman_id}/cgroup.freeze");
    let asked = std::fs::read_to_string(asked).expect("cgroup v2");
    assert_eq!(asked.trim(), "0", "criu no longer thaws what it dumps: this test shows nothing");
}

/// Lets the dump, or what is left of it, go on; the next one waits for nothing.
pub(super) fn let_criu_go_on() {
    for file in ["/run/criu-waits", "/etc/criu/runc.conf", "/run/criu-has-seized"] {
        std::fs::remove_file(file).expect("remove");
    }
}

/// It has not run since, and goes on once it is thawed.
async fn is_frozen_still(host: Host, at_freeze: usize) {
    assert_eq!(host.execution().await, Some(Execution::Frozen));
    assert_eq!(host.ticks().len(), at_freeze, "it ran after the dump had died");
    let_criu_go_on();
    host.engine.thaw(&host.spec, host.mode).await.expect("thaw");
    host.goes_on().await;
    host.down().await;
}

async fn its_service_dies(mode: Mode) {
    let host = Host::running(mode).await;
    dump_until_seized(&host).await;
    let at_freeze = host.ticks().len();
    let service = host.engine.service_pid().expect("pid");
    kill(Pid::from_raw(service.cast_signed()), Signal::SIGKILL).expect("kill");
    until("new service", || host.engine.service_pid().is_some_and(|pid| pid != service)).await;
    host.engine.ready().await.expect("ready");
    is_frozen_still(host, at_freeze).await;
}

async fn the_agent_starts_again(mode: Mode) {
    let mut host = Host::running(mode).await;
    dump_until_seized(&host).await;
    let at_freeze = host.ticks().len();
    drop(host.engine);
    host.engine = Podman::start(config()).await.expect("start again");
    is_frozen_still(host, at_freeze).await;
}

#[test]
fn the_container_stays_frozen_when_podmans_service_dies_in_its_dump() {
    in_a_host(async { its_service_dies(Mode::Plain).await });
}

#[test]
fn the_container_stays_frozen_when_podmans_service_dies_in_its_armed_dump() {
    in_a_host(async { its_service_dies(Mode::Live).await });
}

#[test]
fn the_container_stays_frozen_when_the_agent_starts_again_in_its_dump() {
    in_a_host(async { the_agent_starts_again(Mode::Plain).await });
}

#[test]
fn the_container_stays_frozen_when_the_agent_starts_again_in_its_armed_dump() {
    in_a_host(async { the_agent_starts_again(Mode::Live).await });
}
