//! Whoever is killed while a copy waits at the gate, the copy never runs, nothing of it is
//! left, and the same image is staged and opened after.

use std::path::Path;
use std::process::{Command, Stdio};

use godwit_agent::engine::{Engine, Podman};
use godwit_proto::container::{ContainerSpec, Execution, Mode};

use super::host::{
    Host, Process, config, log, nothing_is_left, podman_id, processes, stage, until,
};
use super::in_a_host;
use super::victims::{Victim, kill_all, ones_and_pairs, until_it_is_dead};

/// Where the agent that is to be killed says that it has staged.
const STAGED: &str = "/run/godwit-test-staged";
/// Tells it which container.
const SPEC: &str = "GODWIT_TEST_SPEC";

/// Clears up, and brings the same image to the gate.
async fn is_staged_anew(host: &mut Host, at_freeze: usize) {
    assert_eq!(host.ticks().len(), at_freeze, "the copy ran");
    let podman_id = host.podman_id().expect("still in storage");
    host.engine.ready().await.expect("ready");
    host.engine.destroy(&host.spec).await.expect("destroy");
    nothing_is_left(&podman_id).await;
    host.stage().await;
    assert_eq!(host.ticks().len(), at_freeze);
}

/// [`is_staged_anew`], and brought to life.
async fn recovers(mut host: Host, at_freeze: usize) {
    is_staged_anew(&mut host, at_freeze).await;
    host.open().await;
    host.down().await;
}

async fn copy_dies_with(victim: Victim) {
    let (host, at_freeze) = Host::staged(Mode::Live).await;
    let podman_id = host.podman_id().expect("id");
    kill_all(&[victim], &podman_id);
    until_it_is_dead(&podman_id).await;
    recovers(host, at_freeze).await;
}

#[test]
fn the_copy_dies_with_podmans_service() {
    in_a_host(async { copy_dies_with(Victim::Service).await });
}

#[test]
fn the_copy_dies_with_conmon() {
    in_a_host(async { copy_dies_with(Victim::Conmon).await });
}

#[test]
fn the_copy_dies_with_runc() {
    in_a_host(async { copy_dies_with(Victim::Runc).await });
}

#[test]
fn the_copy_dies_with_criu() {
    in_a_host(async { copy_dies_with(Victim::Criu).await });
}

#[test]
fn the_copy_dies_with_the_proxy() {
    in_a_host(async { copy_dies_with(Victim::Proxy).await });
}

#[test]
fn the_copy_dies_with_any_two_of_them() {
    in_a_host(async {
        let (mut host, at_freeze) = Host::staged(Mode::Live).await;
        for victims in ones_and_pairs(&Victim::ALL).into_iter().filter(|some| some.len() == 2) {
            kill_all(&victims, &host.podman_id().expect("id"));
            is_staged_anew(&mut host, at_freeze).await;
        }
        host.open().await;
        host.down().await;
    });
}

#[test]
fn with_everybody_killed_at_once_the_copy_is_still_no_running_one() {
    in_a_host(async {
        let (host, at_freeze) = Host::staged(Mode::Live).await;
        kill_all(&Victim::ALL, &host.podman_id().expect("id"));
        let execution = host.execution().await;
        assert!(matches!(execution, Some(Execution::Gated | Execution::Absent)), "{execution:?}");
        recovers(host, at_freeze).await;
    });
}

#[test]
fn the_copy_dies_with_a_killed_agent() {
    in_a_host(async {
        match std::env::var(SPEC) {
            Ok(spec) => stage_and_wait(&spec).await,
            Err(_) => copy_dies_with_a_killed_agent().await,
        }
    });
}

async fn copy_dies_with_a_killed_agent() {
    let (mut host, at_freeze) = Host::dumped(Mode::Live).await;
    host.become_target().await;
    drop(host.engine);
    // This test once more, as the agent that is to be killed.
    let mut agent = Command::new(std::env::current_exe().expect("exe"))
        .args(std::env::args_os().skip(1))
        .env(SPEC, serde_json::to_string(&host.spec).expect("json"))
        .stdout(Stdio::null())
        .spawn()
        .expect("spawn");
    until("the copy at the gate", || Path::new(STAGED).exists()).await;
    let podman_id = podman_id(&host.spec).expect("id");
    agent.kill().expect("kill -9");
    agent.wait().expect("wait");
    // Without any new agent's doing.
    until_it_is_dead(&podman_id).await;
    let service = |p: &Process| Victim::Service.is(p, &podman_id) && !p.zombie;
    until("end of the service", || !processes().iter().any(service)).await;
    host.engine = Podman::start(config()).await.expect("a new agent");
    recovers(host, at_freeze).await;
}

/// What the agent does that is to be killed.
async fn stage_and_wait(spec: &str) {
    log();
    let spec: ContainerSpec = serde_json::from_str(spec).expect("json");
    let engine = Podman::start(config()).await.expect("start");
    stage(&engine, &spec, Mode::Live).await.expect("stage");
    std::fs::write(STAGED, "").expect("say so");
    std::future::pending::<()>().await;
}
