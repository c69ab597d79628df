//! What is refused, what fails, what is called off: the counter goes on where it was.

use godwit_tests::{Fabric, Said};
use serde_json::Value;

use crate::criu::Criu;
use crate::scene::{EDGES, Scene};

/// A refusal: its exit code, and words that name cause and remedy.
#[track_caller]
fn refused(said: &Said, code: i32, cause: &str) {
    assert_eq!(said.code, code, "{said:?}");
    assert!(said.err.contains(cause), "`{cause}` is not in: {}", said.err);
}

/// The last move was called off before the target could begin: nothing was lost with it.
#[track_caller]
fn aborted(fabric: &Fabric) {
    let last = &fabric.json(&["migration", "ls"])[0];
    assert_eq!(last["outcome"], "aborted", "{last}");
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_touched() {
    let fabric = Fabric::start(EDGES);
    let scene = Scene::open(&fabric);
    let migrate = |to| fabric.godwit(&["migrate", "counter", "--to", to]);
    refused(&migrate("edge-a"), 3, "edge-a");
    refused(&migrate("edge-z"), 4, "edge-z");
    refused(&fabric.godwit(&["migrate", "countre", "--to", "edge-b"]), 4, "countre");
    refused(&fabric.godwit(&["run", "--name", "counter", "counter:1"]), 3, "counter");
    refused(&fabric.godwit(&["run", "no-such-image"]), 4, "no-such-image");
    refused(&fabric.godwit(&["rm", "counter"]), 3, "counter");
    let dry = fabric.godwit(&["migrate", "counter", "--to", "edge-b", "--dry-run"]);
    assert_eq!(dry.code, 0, "{dry:?}");
    scene.was_not_frozen();
    scene.runs_once_on("edge-a");
}

#[test]
fn a_target_that_is_not_there_is_refused_and_nothing_is_frozen() {
    let fabric = Fabric::start(EDGES);
    fabric.terminate("edge-b");
    let scene = Scene::open(&fabric);
    refused(&fabric.godwit(&["migrate", "counter", "--to", "edge-b"]), 3, "edge-b");
    scene.was_not_frozen();
    scene.runs_once_on("edge-a");
}

#[test]
fn a_full_disk_at_the_target_ends_the_move_before_the_freeze() {
    let fabric = Fabric::start(EDGES);
    let scene = Scene::open(&fabric);
    // The spool is full: neither the container's image nor its checkpoint fits.
    let fill = "mount -t tmpfs -o size=256k none /var/lib/godwit/spool";
    fabric.lab().run("edge-b", &["sh", "-c", fill]).ok();
    let said = fabric.godwit(&["migrate", "counter", "--to", "edge-b"]);
    refused(&said, 1, "edge-b");
    refused(&said, 1, "/var/lib/godwit/spool");
    aborted(&fabric);
    scene.was_not_frozen();
    scene.runs_once_on("edge-a");
    fabric.lab().run("edge-b", &["umount", "/var/lib/godwit/spool"]).ok();
    fabric.godwit(&["migrate", "counter", "--to", "edge-b"]).ok();
    scene.runs_once_on("edge-b");
}

#[test]
fn a_restore_that_fails_leaves_the_source_running() {
    let fabric = Fabric::start(EDGES);
    let criu = Criu::install(&fabric);
    let scene = Scene::open(&fabric);
    criu.fail();
    let said = fabric.godwit(&["migrate", "counter", "--to", "edge-b"]);
    refused(&said, 1, "edge-b");
    refused(&said, 1, "restoring");
    aborted(&fabric);
    scene.runs_once_on("edge-a");
    criu.work();
    fabric.godwit(&["migrate", "counter", "--to", "edge-b"]).ok();
    scene.runs_once_on("edge-b");
}

#[test]
fn an_operator_calls_a_move_off() {
    let fabric = Fabric::start(EDGES);
    let scene = Scene::open(&fabric);
    let id = scene.begin_slow_move();
    scene.await_phase(&id, "transferring");
    fabric.godwit(&["migration", "cancel", &id]).ok();
    let end = scene.await_end(&id);
    assert_eq!(end["outcome"], "cancelled", "{end}");
    scene.runs_once_on("edge-a");
    refused(&fabric.godwit(&["migration", "cancel", &id]), 3, &id);
}

#[test]
fn a_second_move_of_a_moving_container_is_refused() {
    let fabric = Fabric::start(EDGES);
    let scene = Scene::open(&fabric);
    let id = scene.begin_slow_move();
    let again = fabric.godwit(&["migrate", "counter", "--to", "edge-b"]);
    refused(&again, 3, "on its way");
    refused(&again, 3, "godwit migration cancel");
    refused(&fabric.godwit(&["stop", "counter"]), 3, &id);
    let end = scene.await_end(&id);
    assert_eq!(end["outcome"], Value::from("moved"), "{end}");
    scene.runs_once_on("edge-b");
}
