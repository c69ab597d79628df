//! The main job.

use godwit_agent::ledger::Ledger;
use godwit_tests::{Fabric, eventually};
use serde_json::Value;
use uuid::Uuid;

use crate::scene::{EDGES, Scene};

#[test]
fn a_running_container_moves_there_and_back_and_loses_nothing() {
    let fabric = Fabric::start(EDGES);
    let scene = Scene::open(&fabric);
    fabric.godwit(&["migrate", "counter", "--to", "edge-b"]).ok();
    scene.runs_once_on("edge-b");
    fabric.godwit(&["migrate", "counter"]).ok();
    scene.runs_once_on("edge-a");
    let moves = fabric.json(&["migration", "ls"]);
    for migration in moves.as_array().expect("a list") {
        assert_eq!(migration["outcome"], "moved", "{migration}");
        assert!(migration["gap_ms"].as_u64().is_some_and(|gap| gap > 0), "{migration}");
        assert!(migration["bytes"].as_u64().is_some_and(|bytes| bytes > 64 << 20), "{migration}");
    }
}

#[test]
fn a_container_moves_cold_with_its_files() {
    let fabric = Fabric::start(EDGES);
    let image = fabric.lab().checkout().join("target/workload/counter.tar");
    fabric.godwit(&["image", "load", &image.to_string_lossy()]).ok();
    fabric.godwit(&["run", "--name", "counter", "--node", "edge-a", "counter:1"]).ok();
    eventually("it says something", || {
        let said = fabric.godwit(&["logs", "counter"]).ok();
        if said.is_empty() { Err("nothing yet") } else { Ok(()) }
    });
    fabric.godwit(&["migrate", "counter", "--to", "edge-b", "--cold"]).ok();
    eventually("it runs on edge-b alone", || {
        let hosts = fabric.runs_on();
        if hosts == ["edge-b"] { Ok(()) } else { Err(hosts) }
    });
}

/// File descriptors and resident kilobytes of an agent.
fn weight(fabric: &Fabric, host: &str) -> (u64, u64) {
    weight_of(fabric, host, "VmRSS")
}

fn weight_of(fabric: &Fabric, host: &str, kind: &str) -> (u64, u64) {
    let pid = fabric.pid(host);
    let script = format!("ls /proc/{pid}/fd | wc -l; grep {kind} /proc/{pid}/status | tr -dc 0-9");
    let said = fabric.lab().run(host, &["sh", "-c", &script]).ok();
    let mut numbers = said.split_whitespace().map(|n| n.parse().expect("a number"));
    (numbers.next().expect("descriptors"), numbers.next().expect("memory"))
}

#[test]
fn fifty_moves_lose_nothing_and_leave_nothing() {
    let fabric = Fabric::start(EDGES);
    let scene = Scene::open(&fabric);
    let mut weights = Vec::new();
    for n in 1..=50 {
        let to = if n % 2 == 1 { "edge-b" } else { "edge-a" };
        let said = fabric.godwit(&["migrate", "counter", "--to", to]);
        assert_eq!(said.code, 0, "move {n}: {}{}", said.out, said.err);
        if n == 10 || n == 50 {
            weights.push([weight(&fabric, "edge-a"), weight(&fabric, "edge-b")]);
        }
    }
    let ticks = scene.runs_once_on("edge-a");
    assert!(ticks.gap_count >= 50, "fifty moves were fifty gaps: {ticks:?}");

    for host in ["edge-a", "edge-b"] {
        // A copy, with what is not yet written back into the file.
        let copy = "rm -f /lab/ledger.db*; cp /var/lib/godwit/ledger.db* /lab/";
        fabric.lab().run(host, &["sh", "-c", copy]).ok();
        let file = fabric.lab().share().join("ledger.db");
        let (ledger, _) = Ledger::open(&file, Uuid::nil()).expect("a ledger");
        assert_eq!(ledger.rows().expect("rows").len(), 1, "one row a container on {host}");
    }
    for (then, now) in weights[0].iter().zip(&weights[1]) {
        let (&(fds_then, rss_then), &(fds_now, rss_now)) = (then, now);
        assert!(fds_now <= fds_then + 3, "descriptors grew from {fds_then} to {fds_now}");
        assert!(rss_now <= rss_then + 4096, "memory grew from {rss_then} to {rss_now} KiB");
        assert!(rss_now <= 64 << 10, "an agent uses {rss_now} KiB");
    }
    let moved = fabric.json(&["migration", "ls"]);
    let moved = moved.as_array().expect("a list");
    assert!(moved.iter().all(|m: &Value| m["outcome"] == "moved"), "{moved:?}");
}

/// Its own memory. What it has mapped of its program is more, and in a debug build, which this
/// is, not what a node carries; `scripts/bench migrate` tells both of a release build.
#[test]
fn an_idle_agent_is_small() {
    let fabric = Fabric::start(EDGES);
    let (_, own_kib) = weight_of(&fabric, "edge-b", "RssAnon");
    assert!(own_kib <= 6 << 10, "{own_kib} KiB of its own");
}
