//! Something is killed in the middle of a move: the counter runs exactly once afterwards.

use godwit_tests::{Fabric, eventually};
use serde_json::Value;

use crate::criu::Criu;
use crate::scene::{CRAWLING, EDGES, Scene};

/// So much of a checkpoint has arrived before somebody is killed in its transfer.
const HALF: u64 = 32 << 20;

/// More than a window weighs on the wire: what was on its way when somebody died may be sent
/// again. Far less than what the half of a checkpoint weighs.
const ON_ITS_WAY: u64 = 8 << 20;

/// How far a transfer was when somebody was killed in it.
struct Part {
    bytes: u64,
    wire_bytes: u64,
}

impl Part {
    fn of(migration: &Value) -> Self {
        let number = |field: &str| migration[field].as_u64().expect("a number");
        Self { bytes: number("bytes"), wire_bytes: number("wire_bytes") }
    }

    /// What so many bytes weigh on the wire, packed as these were.
    fn weight(&self, bytes: u64) -> u64 {
        self.wire_bytes * bytes / self.bytes
    }
}

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

/// Only `bytes` of the checkpoint came over the wire, by the target's count, which begins with
/// its agent.
#[track_caller]
fn no_more_was_sent(end: &Value, before: &Part, bytes: u64) {
    assert!(end["bytes"].as_u64().is_some_and(|bytes| bytes > 64 << 20), "{end}");
    let (sent, weight) = (Part::of(end).wire_bytes, before.weight(bytes));
    assert!(sent < weight + ON_ITS_WAY, "{sent} bytes for what weighs {weight}: {end}");
}

/// What had arrived was not sent again.
#[track_caller]
fn nothing_is_sent_again(end: &Value, before: &Part) {
    no_more_was_sent(end, before, Part::of(end).bytes);
}

/// Kills a program when half of the checkpoint is there; the move ends so.
#[track_caller]
fn killed_in_the_transfer(fabric: &Fabric, program: &str, outcome: &str) -> (Value, Part) {
    let scene = Scene::open(fabric);
    let id = scene.begin_slow_move();
    scene.await_bytes(&id, HALF);
    let before = Part::of(&scene.migration(&id));
    kill_and_restart(fabric, program);
    (ends_as(&scene, &id, outcome), before)
}

/// Kills an agent while the target still receives the container's image, which goes on, then
/// calls the move off: nothing was frozen.
#[track_caller]
fn killed_while_preparing(host: &str) {
    let fabric = Fabric::start(EDGES);
    let scene = Scene::open(&fabric);
    let id = scene.begin_move("edge-b", CRAWLING);
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
    let criu = Criu::install(&fabric, "edge-a");
    let scene = Scene::open(&fabric);
    criu.wait();
    let id = scene.begin_slow_move();
    criu.await_waiting();
    scene.await_log("edge-a", "call=Freeze");
    fabric.kill("edge-a");
    criu.work();
    fabric.start_agent("edge-a");
    ends_as(&scene, &id, "aborted");
}

#[test]
fn the_target_s_agent_is_killed_while_it_restores_and_does_so_again() {
    let fabric = Fabric::start(EDGES);
    let criu = Criu::install(&fabric, "edge-b");
    let scene = Scene::open(&fabric);
    criu.wait();
    let id = scene.begin_slow_move();
    scene.await_log("edge-b", "call=Stage");
    criu.await_waiting();
    fabric.kill("edge-b");
    criu.work();
    fabric.start_agent("edge-b");
    ends_as(&scene, &id, "moved");
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
    let (end, before) = killed_in_the_transfer(&Fabric::start(EDGES), "edge-a", "moved");
    nothing_is_sent_again(&end, &before);
}

#[test]
fn the_target_s_agent_is_killed_in_the_transfer_which_goes_on() {
    let (end, before) = killed_in_the_transfer(&Fabric::start(EDGES), "edge-b", "moved");
    no_more_was_sent(&end, &before, Part::of(&end).bytes - before.bytes);
}

#[test]
fn the_broker_is_restarted_in_the_transfer_which_goes_on() {
    let fabric = Fabric::with_broker_apart(EDGES);
    let (end, before) = killed_in_the_transfer(&fabric, "broker", "moved");
    nothing_is_sent_again(&end, &before);
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
    let fabric = Fabric::with_broker_apart(EDGES);
    let criu = Criu::install(&fabric, "edge-b");
    let scene = Scene::open(&fabric);
    criu.wait();
    let id = scene.begin_slow_move();
    scene.await_log("edge-b", "call=Stage");
    // Its vote still gets out; the verdict does not come in.
    let deafen = "nft add table inet deaf && \
         nft add chain inet deaf in '{ type filter hook input priority 0; }' && \
         nft add rule inet deaf in tcp sport 1883 drop";
    fabric.lab().run("edge-b", &["sh", "-c", deafen]).ok();
    criu.work();
    scene.await_phase(&id, "opening");
    fabric.kill("controller");
    fabric.start_controller();
    fabric.lab().run("edge-b", &["nft", "delete", "table", "inet", "deaf"]).ok();
    ends_as(&scene, &id, "moved");
}

#[test]
fn a_target_that_comes_back_to_nobody_leaves_the_source_its_address() {
    let fabric = Fabric::with_broker_apart(EDGES);
    let scene = Scene::open(&fabric);
    let id = scene.begin_slow_move();
    scene.await_bytes(&id, HALF);
    fabric.kill("edge-b");
    fabric.godwit(&["migration", "cancel", &id, "--detach"]).ok();
    scene.ticks_on();
    // Only the broker is left to be heard by it; what it has of the images lies on its disk.
    fabric.kill("controller");
    let before = lines(&fabric, "edge-b").len();
    fabric.start_agent_without_discovery("edge-b");
    eventually("it has taken its part up again", || {
        let log = lines(&fabric, "edge-b").split_off(before);
        let is_up = log.iter().any(|line| line.contains("taken up where it was left"));
        if is_up { Ok(()) } else { Err(log) }
    });
    scene.ticks_on();
    fabric.start_controller();
    ends_as(&scene, &id, "cancelled");
    let log = lines(&fabric, "edge-b").split_off(before);
    let claimed = log.iter().take_while(|line| !line.contains("call=Destroy"));
    let claimed: Vec<_> = claimed.filter(|line| line.contains("address is claimed")).collect();
    assert!(claimed.is_empty(), "{claimed:?}");
}

/// What an agent has logged, in all its lives.
fn lines(fabric: &Fabric, host: &str) -> Vec<String> {
    let log = std::fs::read_to_string(fabric.log(host)).expect("the agent's log");
    log.lines().map(str::to_owned).collect()
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
