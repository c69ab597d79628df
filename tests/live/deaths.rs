//! Something is killed in the middle of a move: the counter runs exactly once afterwards.

use godwit_tests::{Fabric, eventually};

use crate::scene::{EDGES, Scene};

/// How slow a move is made that is to be caught while it prepares: the container's image
/// alone takes seconds.
const CRAWLING: &str = "300KB";

/// Ends a program at once and starts it again.
fn kill_and_restart(fabric: &Fabric, program: &str) {
    fabric.kill(program);
    match program {
        "controller" => fabric.start_controller(),
        host => fabric.start_agent(host),
    }
}

/// Where the counter is after a move ended, checked: exactly once, nothing lost, and nothing
/// stands in the way of the next move.
fn ends_well(scene: &Scene<'_>, id: &str) -> String {
    let end = scene.await_end(id);
    let outcome = end["outcome"].as_str().expect("an outcome").to_owned();
    assert!(!["lost", "rolled-back"].contains(&&*outcome), "{end}");
    let is_there = outcome == "moved" || outcome == "salvaged";
    let (here, other) = if is_there { ("edge-b", "edge-a") } else { ("edge-a", "edge-b") };
    scene.runs_once_on(here);
    scene.fabric.await_fit(other);
    scene.fabric.await_fit(here);
    scene.fabric.godwit(&["migrate", "counter", "--to", other]).ok();
    scene.runs_once_on(other);
    outcome
}

/// Kills a program while a slow move transfers.
fn killed_in_the_transfer(program: &str) -> String {
    let fabric = Fabric::start(EDGES);
    let scene = Scene::open(&fabric);
    let id = scene.begin_slow_move();
    scene.await_phase(&id, "transferring");
    kill_and_restart(&fabric, program);
    ends_well(&scene, &id)
}

/// Kills an agent while the target still receives the container's image, then calls the
/// move off: nothing was frozen.
fn killed_while_preparing(host: &str) {
    let fabric = Fabric::start(EDGES);
    let scene = Scene::open(&fabric);
    let id = scene.begin_move(CRAWLING);
    scene.await_log("edge-b", "call=Prepare");
    kill_and_restart(&fabric, host);
    fabric.await_fit(host);
    fabric.godwit(&["migration", "cancel", &id]).ok();
    assert_eq!(ends_well(&scene, &id), "cancelled");
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
    assert_eq!(ends_well(&scene, &id), "aborted");
}

#[test]
fn the_target_s_agent_is_killed_while_it_restores() {
    let fabric = Fabric::start(EDGES);
    let scene = Scene::open(&fabric);
    let id = scene.begin_slow_move();
    scene.await_log("edge-b", "call=Stage");
    kill_and_restart(&fabric, "edge-b");
    // Killed before it voted, it restores again from what it has; after, the move is off.
    if ends_well(&scene, &id) == "moved" {
        let log = std::fs::read_to_string(fabric.log("edge-b")).expect("the agent's log");
        assert!(log.contains("had arrived before"), "the checkpoint was sent again");
    }
}

#[test]
fn the_source_s_agent_is_killed_in_the_transfer_which_goes_on() {
    assert_eq!(killed_in_the_transfer("edge-a"), "moved");
}

#[test]
fn the_target_s_agent_is_killed_in_the_transfer_which_goes_on() {
    assert_eq!(killed_in_the_transfer("edge-b"), "moved");
}

#[test]
fn the_controller_is_killed_before_the_verdict() {
    killed_in_the_transfer("controller");
}

#[test]
fn the_controller_is_killed_around_the_verdict() {
    // Whichever side of the commit point the kill falls on, the end is one running copy.
    let fabric = Fabric::start(EDGES);
    let scene = Scene::open(&fabric);
    let id = scene.begin_slow_move();
    scene.await_phase(&id, "transferring");
    scene.await_log("edge-b", "phase=Staged");
    kill_and_restart(&fabric, "controller");
    ends_well(&scene, &id);
}

#[test]
fn the_broker_is_restarted_in_the_transfer_which_goes_on() {
    let fabric = Fabric::with_broker_apart(EDGES);
    let scene = Scene::open(&fabric);
    let id = scene.begin_slow_move();
    scene.await_phase(&id, "transferring");
    fabric.kill("broker");
    fabric.start_broker();
    let end = scene.await_end(&id);
    assert_eq!(end["outcome"], "moved", "{end}");
    let (bytes, wire) = (end["bytes"].as_u64(), end["wire_bytes"].as_u64());
    let resent = wire.zip(bytes).map(|(wire, bytes)| wire.saturating_sub(bytes));
    assert!(
        resent.is_some_and(|resent| resent < 16 << 20),
        "what was acknowledged is not sent again: {end}"
    );
    scene.runs_once_on("edge-b");
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
