//! Whoever is killed while a copy waits at the gate, the copy never runs, nothing of it is
//! left, and the same image is staged and opened after.

use std::path::Path;
use std::process::{Command, Stdio};

use godwit_agent::engine::{Engine, Podman};
use godwit_proto::container::{ContainerSpec, Execution, Mode};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::host::{Host, Process, config, log, nothing_is_left, processes, until};

/// Where the agent that is to be killed says that it has staged.
const STAGED: &str = "/run/godwit-test-staged";

/// Who there is to kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Service,
    Conmon,
    Runc,
    Criu,
    Proxy,
}

impl Victim {
    const ALL: [Self; 5] = [Self::Service, Self::Conmon, Self::Runc, Self::Criu, Self::Proxy];

    fn is(self, process: &Process, podman_id: &str) -> bool {
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

async fn staged() -> (Host, usize) {
    let mut host = Host::running().await;
    host.dump().await;
    let at_freeze = host.ticks().len();
    host.become_target().await;
    host.engine.stage(&host.spec, Mode::Live, &host.image()).await.expect("stage");
    (host, at_freeze)
}

fn kill_all(victims: &[Victim], podman_id: &str) {
    let before = processes();
    for victim in victims {
        let found: Vec<_> = before.iter().filter(|p| victim.is(p, podman_id)).collect();
        assert!(!found.is_empty(), "{victim:?} is not there while the copy is gated");
        for process in found {
            let killed = kill(Pid::from_raw(process.pid), Signal::SIGKILL);
            // It may have died of the one that was killed before it.
            assert!(matches!(killed, Ok(()) | Err(Errno::ESRCH)), "{killed:?}");
        }
    }
}

/// Clears up, and brings the same image to life.
async fn recovers(mut host: Host, at_freeze: usize) {
    assert_eq!(host.ticks().len(), at_freeze, "the copy ran");
    let podman_id = host.podman_id().expect("still in storage");
    host.engine.ready().await.expect("ready");
    host.engine.destroy(&host.spec).await.expect("destroy");
    nothing_is_left(&podman_id).await;
    host.become_target().await;
    host.engine.stage(&host.spec, Mode::Live, &host.image()).await.expect("stage again");
    assert_eq!(host.ticks().len(), at_freeze);
    host.engine.open(&host.spec, Mode::Live).await.expect("open");
    host.until_ticks_pass(20).await;
    host.assert_unbroken();
    host.down().await;
}

async fn copy_dies_with(victims: &[Victim]) {
    let (host, at_freeze) = staged().await;
    let podman_id = host.podman_id().expect("id");
    kill_all(victims, &podman_id);
    let events = format!("/sys/fs/cgroup/libpod_parent/libpod-{podman_id}/cgroup.events");
    until("end of the copy", || {
        std::fs::read_to_string(&events).map_or(true, |text| text.contains("populated 0"))
    })
    .await;
    recovers(host, at_freeze).await;
}

#[tokio::test]
async fn the_copy_dies_with_podmans_service() {
    copy_dies_with(&[Victim::Service]).await;
}

#[tokio::test]
async fn the_copy_dies_with_conmon() {
    copy_dies_with(&[Victim::Conmon]).await;
}

#[tokio::test]
async fn the_copy_dies_with_runc() {
    copy_dies_with(&[Victim::Runc]).await;
}

#[tokio::test]
async fn the_copy_dies_with_criu() {
    copy_dies_with(&[Victim::Criu]).await;
}

#[tokio::test]
async fn the_copy_dies_with_the_proxy() {
    copy_dies_with(&[Victim::Proxy]).await;
}

#[tokio::test]
async fn with_everybody_killed_at_once_the_copy_is_still_no_running_one() {
    let (host, at_freeze) = staged().await;
    kill_all(&Victim::ALL, &host.podman_id().expect("id"));
    let execution = host.execution().await;
    assert!(matches!(execution, Some(Execution::Gated | Execution::Absent)), "{execution:?}");
    recovers(host, at_freeze).await;
}

#[tokio::test]
async fn the_copy_dies_with_a_killed_agent() {
    let mut host = Host::running().await;
    host.dump().await;
    let at_freeze = host.ticks().len();
    host.become_target().await;
    drop(host.engine);
    let _none_before = std::fs::remove_file(STAGED);
    let mut agent = Command::new(std::env::current_exe().expect("exe"))
        .args(["--exact", "kills::agent", "--ignored"])
        .env("GODWIT_TEST_SPEC", serde_json::to_string(&host.spec).expect("json"))
        .env("GODWIT_TEST_IMAGE", config().workdir.join(format!("{}.tar", host.spec.id)))
        .stdout(Stdio::null())
        .spawn()
        .expect("spawn");
    until("the copy at the gate", || Path::new(STAGED).exists()).await;
    let podman_id = crate::host::podman_id(&host.spec).expect("id");
    agent.kill().expect("kill -9");
    agent.wait().expect("wait");
    // Without any new agent's doing.
    let events = format!("/sys/fs/cgroup/libpod_parent/libpod-{podman_id}/cgroup.events");
    until("end of the copy", || {
        std::fs::read_to_string(&events).map_or(true, |text| text.contains("populated 0"))
    })
    .await;
    let service = |p: &Process| Victim::Service.is(p, &podman_id) && !p.zombie;
    until("end of the service", || !processes().iter().any(service)).await;
    host.engine = Podman::start(config()).await.expect("a new agent");
    recovers(host, at_freeze).await;
}

#[test]
#[ignore = "the agent that the_copy_dies_with_a_killed_agent starts and kills"]
fn agent() {
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    runtime.block_on(async {
        log();
        let spec = std::env::var("GODWIT_TEST_SPEC").expect("spec");
        let spec: ContainerSpec = serde_json::from_str(&spec).expect("json");
        let image = std::env::var_os("GODWIT_TEST_IMAGE").expect("image");
        let engine = Podman::start(config()).await.expect("start");
        engine.stage(&spec, Mode::Live, Path::new(&image)).await.expect("stage");
        std::fs::write(STAGED, "").expect("say so");
        std::future::pending::<()>().await;
    });
}
