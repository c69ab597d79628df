//! What is refused, what fails, what is called off: the counter goes on where it was.

use godwit_tests::{Fabric, Said, eventually};
use serde_json::Value;

use crate::criu::Criu;
use crate::leftovers::holds_nothing;
use crate::scene::{CRAWLING, EDGES, Scene};

/// No limit that a move of 64 MB would notice.
const FAST: &str = "1GB";

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
    let criu = Criu::install(&fabric, "edge-b");
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
fn what_criu_misses_at_the_target_reaches_the_operator() {
    let fabric = Fabric::start(EDGES);
    let criu = Criu::install(&fabric, "edge-b");
    let scene = Scene::open(&fabric);
    criu.wait();
    let id = scene.begin_move("edge-b", FAST);
    scene.await_log("edge-b", "call=Stage");
    criu.await_waiting();
    // The program that its process maps.
    let layers = "cd /var/lib/containers/storage/overlay && file=$(find . -path '*/diff/counter')";
    let take = format!("{layers} && mv $file /lab/counter && echo $file");
    let file = fabric.lab().run("edge-b", &["sh", "-c", &take]).ok();
    criu.work();
    let end = scene.await_end(&id);
    assert_eq!(end["outcome"], "aborted", "{end}");
    let reason = end["reason"].as_str().unwrap_or_default();
    let is_plain = ["edge-b", "CRIU", "counter", "No such file"].map(|word| reason.contains(word));
    assert_eq!(is_plain, [true; 4], "{reason}");
    assert!(!reason.contains('\n') && !reason.contains("Error ("), "{reason}");
    scene.runs_once_on("edge-a");
    let back = format!("mv /lab/counter /var/lib/containers/storage/overlay/{}", file.trim());
    fabric.lab().run("edge-b", &["sh", "-c", &back]).ok();
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

#[test]
fn a_full_image_store_in_the_dump_leaves_the_source_running() {
    let fabric = Fabric::start(EDGES);
    let criu = Criu::install(&fabric, "edge-a");
    let scene = Scene::open(&fabric);
    criu.wait();
    let id = scene.begin_move("edge-b", FAST);
    // Armed, frozen, told to go: whatever was free when the move was admitted is not any more.
    scene.await_log("edge-a", "call=Freeze");
    criu.await_waiting();
    let fill = "head -c 1G /dev/zero >/run/godwit/images/full; df /run/godwit/images | grep 100%";
    let small = "mount -o remount,size=8m /run/godwit/images";
    fabric.lab().run("edge-a", &["sh", "-c", &format!("{small}; {fill}")]).ok();
    criu.work();
    let end = scene.await_end(&id);
    assert_eq!(end["outcome"], "aborted", "{end}");
    let reason = end["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("No space left on device"), "{end}");
    let undo = "rm /run/godwit/images/full; mount -o remount,size=50% /run/godwit/images";
    fabric.lab().run("edge-a", &["sh", "-c", undo]).ok();
    scene.runs_once_on("edge-a");
    fabric.godwit(&["migrate", "counter", "--to", "edge-b"]).ok();
    scene.runs_once_on("edge-b");
}

#[test]
fn what_does_not_fit_into_memory_moves_over_the_disk() {
    let fabric = Fabric::start(EDGES);
    let scene = Scene::open(&fabric);
    for host in ["edge-a", "edge-b"] {
        let small = ["mount", "-o", "remount,size=8m", "/run/godwit/images"];
        fabric.lab().run(host, &small).ok();
    }
    fabric.godwit(&["migrate", "counter", "--to", "edge-b"]).ok();
    scene.runs_once_on("edge-b");
    for host in ["edge-a", "edge-b"] {
        let left =
            fabric.lab().run(host, &["find", "/var/lib/godwit/work/images", "-mindepth", "1"]);
        assert_eq!(left.out, "", "{host}: {left:?}");
    }
}

#[test]
fn a_source_that_ends_while_it_is_armed_ends_the_move() {
    let fabric = Fabric::start(EDGES);
    let scene = Scene::open(&fabric);
    // The target fetches the image for long: the source is armed and runs on.
    let id = scene.begin_move("edge-b", CRAWLING);
    scene.await_log("edge-a", "call=Arm");
    scene.await_bytes(&id, 1);
    let end_it = "podman kill -s KILL $(podman ps -q)";
    fabric.lab().run("edge-a", &["sh", "-c", end_it]).ok();
    let end = scene.await_end(&id);
    assert_eq!(end["outcome"], "aborted", "{end}");
    eventually("the container has ended where it was", || {
        let container = fabric.container("counter");
        let is_over = container["state"] == "exited" && container["node"] == "edge-a";
        if is_over { Ok(()) } else { Err(container) }
    });
    holds_nothing(&fabric, "edge-b");
    eventually("nobody waits to dump it any more", || {
        let said = fabric.lab().run("edge-a", &["pgrep", "-a", "criu|runc"]);
        if said.out.is_empty() { Ok(()) } else { Err(said) }
    });
    fabric.godwit(&["start", "counter"]).ok();
    fabric.godwit(&["migrate", "counter", "--to", "edge-b"]).ok();
    assert_eq!(fabric.runs_on(), ["edge-b"]);
}

#[test]
fn twenty_containers_move_at_once() {
    let fabric = Fabric::start(EDGES);
    let image = fabric.lab().checkout().join("target/workload/counter.tar");
    fabric.godwit(&["image", "load", &image.to_string_lossy()]).ok();
    let names: Vec<String> = (1..=20).map(|n| format!("c{n}")).collect();
    for name in &names {
        let run = ["run", "--name", name, "--node", "edge-a", "counter:1", "--memory-mb", "4"];
        fabric.godwit(&run).ok();
    }
    let moves: Vec<_> = names
        .iter()
        .map(|name| fabric.godwit(&["migrate", name, "--to", "edge-b", "--detach"]).ok())
        .collect();
    for id in &moves {
        fabric.godwit(&["migration", "watch", id.trim()]).ok();
    }
    let all = fabric.json(&["ps"]);
    let all = all.as_array().expect("a list");
    assert!(
        all.len() == 20 && all.iter().all(|c| c["node"] == "edge-b" && c["state"] == "running"),
        "{all:?}"
    );
    holds_nothing(&fabric, "edge-a");
}
