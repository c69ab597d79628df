//! Something is killed in the middle of a move: the counter runs exactly once afterwards.

use godwit_tests::{Fabric, eventually};
use serde_json::Value;

use crate::criu::Criu;
use crate::scene::{EDGES, Scene};

/// How slow a move is made that is to be caught while it prepares: the container's image
/// alone takes many seconds.
const CRAWLING: &str = "60KB";

/// So much of a checkpoint has arrived before somebody is killed in its transfer.
const HALF: u64 = 32 << 20;

/// More than a window: what was on its way when somebody died may be sent again.
const ON_ITS_WAY: u64 = 16 << 20;

/// Ends a program at once and starts it again.
fn kill_and_restart(fabric: &Fabric, program: &str) {
    fabric.kill(program);
    match program {
        "controller" => fabric.start_controller(),
        "broker" => fabric.start_broker(),
        host => fabric.start_agent(host),
    }
}

/// How the move ended, checked: the counter runs exactly once, nothing is lost, and nothing
/// stands in the way of the next move.
#[track_caller]
fn ends_as(scene: &Scene<'_>, id: &str, outcome: &str) -> Value {
    let end = scene.await_end(id);
    assert_eq!(end["outcome"], outcome, "{end}");
    let is_there = outcome == "moved";
    let (here, other) = if is_there { ("edge-b", "edge-a") } else { ("edge-a", "edge-b") };
    scene.runs_once_on(here);
    scene.fabric.await_fit(other);
    scene.fabric.await_fit(here);
    scene.fabric.godwit(&["migrate", "counter", "--to", other]).ok();
    scene.runs_once_on(other);
    end
}

/// What came over the wire: a target counts from its own start.
fn wire_bytes(end: &Value) -> u64 {
    end["wire_bytes"].as_u64().expect("bytes")
}

/// What had arrived was not sent again.
#[track_caller]
fn nothing_is_sent_again(end: &Value) {
    let bytes = end["bytes"].as_u64().expect("bytes");
    assert!(bytes > 64 << 20, "{end}");
    assert!(wire_bytes(end) < bytes + ON_ITS_WAY, "{end}");
}

/// Kills a program when half of the checkpoint is there; the move ends so.
#[track_caller]
fn killed_in_the_transfer(fabric: &Fabric, program: &str, outcome: &str) -> Value {
    let scene = Scene::open(fabric);
    let id = scene.begin_slow_move();
    scene.await_bytes(&id, HALF);
    kill_and_restart(fabric, program);
    ends_as(&scene, &id, outcome)
}

/// Kills an agent while the target still receives the container's image, which goes on, then
/// calls the move off: nothing was frozen.
#[track_caller]
fn killed_while_preparing(host: &str) {
    let fabric = Fabric::start(EDGES);
    let scene = Scene::open(&fabric);
    let id = scene.begin_move(CRAWLING);
    scene.await_bytes(&id, 1);
    kill_and_restart(&fabric, host);
    fabric.await_fit(host);
    let arrived = scene.await_bytes(&id, 0);
    scene.await_bytes(&id, arrived + 1);
    scene.was_not_frozen();
    fabric.godwit(&["migration", "cancel", &id]).ok();
    ends_as(&scene, &id, "cancelled");
}

/// With the controller gone, the target's vote is heard by nobody.
fn voted_in_vain(scene: &Scene<'_>) -> String {
    let id = scene.begin_slow_move();
    scene.await_phase(&id, "transferring");
    scene.fabric.kill("controller");
    scene.await_log("edge-b", "phase=Staged");
    id
}

#[test]
fn the_source_s_agent_is_killed_while_it_prepares() {
    killed_while_preparing("edge-a");
}

#[test]
fn the_target_s_agent_is_killed_while_it_prepares() {
    killed_while_preparing("edge-b");
}

#[test]
fn the_source_s_agent_is_killed_while_it_dumps() {
    let fabric = Fabric::start(EDGES);
    let scene = Scene::open(&fabric);
    let id = scene.begin_slow_move();
    scene.await_log("edge-a", "call=Freeze");
    kill_and_restart(&fabric, "edge-a");
    ends_as(&scene, &id, "aborted");
}

#[test]
fn the_target_s_agent_is_killed_while_it_restores_and_does_so_again() {
    let fabric = Fabric::start(EDGES);
    let criu = Criu::install(&fabric);
    let scene = Scene::open(&fabric);
    criu.wait();
    let id = scene.begin_slow_move();
    criu.await_waiting();
    fabric.kill("edge-b");
    criu.work();
    fabric.start_agent("edge-b");
    let end = ends_as(&scene, &id, "moved");
    nothing_is_sent_again(&end);
    let log = std::fs::read_to_string(fabric.log("edge-b")).expect("the agent's log");
    assert!(log.contains("had arrived before"), "the checkpoint was asked for again");
}

#[test]
fn the_target_s_agent_is_killed_after_its_vote_and_the_move_is_off() {
    let fabric = Fabric::with_broker_apart(EDGES);
    let scene = Scene::open(&fabric);
    let id = voted_in_vain(&scene);
    fabric.kill("edge-b");
    fabric.start_controller();
    fabric.start_agent("edge-b");
    ends_as(&scene, &id, "aborted");
}

#[test]
fn the_source_s_agent_is_killed_in_the_transfer_which_goes_on() {
    let end = killed_in_the_transfer(&Fabric::start(EDGES), "edge-a", "moved");
    nothing_is_sent_again(&end);
}

#[test]
fn the_target_s_agent_is_killed_in_the_transfer_which_goes_on() {
    let end = killed_in_the_transfer(&Fabric::start(EDGES), "edge-b", "moved");
    nothing_is_sent_again(&end);
    let rest = end["bytes"].as_u64().expect("bytes") - HALF;
    assert!(wire_bytes(&end) < rest + ON_ITS_WAY, "what was on its disk came again: {end}");
}

#[test]
fn the_broker_is_restarted_in_the_transfer_which_goes_on() {
    let end = killed_in_the_transfer(&Fabric::with_broker_apart(EDGES), "broker", "moved");
    nothing_is_sent_again(&end);
}

#[test]
fn the_controller_is_killed_in_the_transfer_and_the_next_calls_it_off() {
    killed_in_the_transfer(&Fabric::start(EDGES), "controller", "aborted");
}

#[test]
fn the_controller_is_gone_before_the_verdict_and_the_next_gives_it() {
    let fabric = Fabric::with_broker_apart(EDGES);
    let scene = Scene::open(&fabric);
    let id = voted_in_vain(&scene);
    fabric.start_controller();
    ends_as(&scene, &id, "moved");
}

#[test]
fn the_controller_is_killed_after_the_verdict_which_stands() {
    let fabric = Fabric::start(EDGES);
    let scene = Scene::open(&fabric);
    let id = scene.begin_slow_move();
    scene.await_log("edge-b", "phase=Opening");
    kill_and_restart(&fabric, "controller");
    ends_as(&scene, &id, "moved");
}

#[test]
fn a_node_that_lost_its_ledger_is_given_its_container_back() {
    let fabric = Fabric::start(EDGES);
    let scene = Scene::open(&fabric);
    fabric.kill("edge-a");
    let lose = "rm /var/lib/godwit/ledger.db*";
    fabric.lab().run("edge-a", &["sh", "-c", lose]).ok();
    fabric.start_agent("edge-a");
    fabric.await_fit("edge-a");
    eventually("the node owns it again", || {
        let log = std::fs::read_to_string(fabric.log("edge-a")).unwrap_or_default();
        let adopted = log.lines().skip_while(|line| !line.contains("phase=UnknownRunning"));
        if adopted.into_iter().any(|line| line.contains("phase=Active")) {
            Ok(())
        } else {
            Err(log)
        }
    });
    scene.runs_once_on("edge-a");
    fabric.godwit(&["migrate", "counter", "--to", "edge-b"]).ok();
    scene.runs_once_on("edge-b");
}
