//! Something is killed in the middle of a move: the counter runs exactly once afterwards.

use godwit_tests::{Fabric, eventually};

use crate::scene::{EDGES, Scene};

/// Kills a program while a slow move is in that phase, starts it again, and answers where
/// the counter is in the end: exactly once, with nothing lost.
fn killed_in(program: &str, phase: &str) -> String {
    let fabric = Fabric::start(EDGES);
    let scene = Scene::open(&fabric);
    let id = scene.begin_slow_move();
    scene.await_phase(&id, phase);
    fabric.kill(program);
    match program {
        "controller" => fabric.start_controller(),
        host => fabric.start_agent(host),
    }
    let end = scene.await_end(&id);
    let outcome = end["outcome"].as_str().expect("an outcome").to_owned();
    let node = if outcome == "moved" || outcome == "salvaged" { "edge-b" } else { "edge-a" };
    assert!(!["lost", "rolled-back"].contains(&&*outcome), "{end}");
    scene.runs_once_on(node);
    // And nothing stands in the way of the next one.
    let back = if node == "edge-a" { "edge-b" } else { "edge-a" };
    fabric.await_fit(back);
    fabric.godwit(&["migrate", "counter", "--to", back]).ok();
    scene.runs_once_on(back);
    outcome
}

#[test]
fn the_source_s_agent_is_killed_while_it_prepares() {
    killed_in("edge-a", "preparing");
}

#[test]
fn the_source_s_agent_is_killed_while_it_dumps() {
    assert_eq!(killed_in("edge-a", "freezing"), "aborted");
}

#[test]
fn the_source_s_agent_is_killed_in_the_transfer_which_goes_on() {
    assert_eq!(killed_in("edge-a", "transferring"), "moved");
}

#[test]
fn the_target_s_agent_is_killed_while_it_prepares() {
    killed_in("edge-b", "preparing");
}

#[test]
fn the_target_s_agent_is_killed_in_the_transfer_which_goes_on() {
    assert_eq!(killed_in("edge-b", "transferring"), "moved");
}

#[test]
fn the_target_s_agent_is_killed_while_it_restores() {
    killed_in("edge-b", "staging");
}

#[test]
fn the_controller_is_killed_before_the_verdict() {
    killed_in("controller", "transferring");
}

#[test]
fn the_controller_is_killed_around_the_verdict() {
    // Whichever side of the commit point the kill falls on, the end is one running copy.
    let fabric = Fabric::start(EDGES);
    let scene = Scene::open(&fabric);
    let id = scene.begin_slow_move();
    scene.await_phase(&id, "transferring");
    eventually("the target voted", || {
        let log = std::fs::read_to_string(fabric.log("edge-b")).unwrap_or_default();
        if log.contains("phase=Staged") { Ok(()) } else { Err("not yet") }
    });
    fabric.kill("controller");
    fabric.start_controller();
    let end = scene.await_end(&id);
    let node = if end["outcome"] == "moved" { "edge-b" } else { "edge-a" };
    scene.runs_once_on(node);
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
        if adopted.into_iter().any(|line| line.contains("phase=Active")) { Ok(()) } else { Err(log) }
    });
    scene.runs_once_on("edge-a");
    fabric.godwit(&["migrate", "counter", "--to", "edge-b"]).ok();
    scene.runs_once_on("edge-b");
}
