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
    let before = fabric.godwit(&["logs", "counter"]).ok();
    assert!(!before.is_empty());
    fabric.godwit(&["migrate", "counter", "--to", "edge-b", "--cold"]).ok();
    eventually("it runs on edge-b alone", || {
        let hosts = fabric.runs_on(EDGES);
        if hosts == ["edge-b"] { Ok(()) } else { Err(hosts) }
    });
}

/// What a host holds that a move must not leave behind.
fn leftovers(fabric: &Fabric, host: &str) -> Vec<String> {
    let script = "
        podman ps -aq | sed 's/^/container /'
        ls /run/netns 2>/dev/null | sed 's/^/namespace /'
        ip -o link | grep -o 'gw[0-9a-f]*\\|gp[0-9a-f]*' | sort -u | sed 's/^/link /'
        ls /var/lib/godwit/spool | sed 's/^/spool /'
        find /var/lib/godwit/work -type f ! -name probe.json | sed 's/^/work /'
        ls /sys/fs/cgroup/libpod_parent 2>/dev/null | grep '^libpod-' | sed 's/^/cgroup /'
        find /run/runc -mindepth 1 -maxdepth 1 2>/dev/null | sed 's/^/runc /'
        find /var/tmp /tmp -mindepth 1 -maxdepth 1 | grep -v storage | sed 's/^/temporary /'
        grep -c criu /proc/self/mountinfo | sed 's/^/criu mounts /'";
    let said = fabric.lab().run(host, &["sh", "-c", script]);
    said.out.lines().map(str::to_owned).collect()
}

/// File descriptors and resident kilobytes of an agent.
fn weight(fabric: &Fabric, host: &str) -> (u64, u64) {
    let pid = fabric.pid(host);
    let script = format!("ls /proc/{pid}/fd | wc -l; grep VmRSS /proc/{pid}/status | tr -dc 0-9");
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

    let held = eventually("edge-b holds nothing", || {
        let held = leftovers(&fabric, "edge-b");
        if held == ["criu mounts 0"] { Ok(held) } else { Err(held) }
    });
    assert_eq!(held.len(), 1);
    let home = leftovers(&fabric, "edge-a");
    let of = |what: &str| home.iter().filter(|line| line.starts_with(what)).count();
    for (what, count) in [("container", 1), ("namespace", 1), ("link", 1), ("cgroup", 1)] {
        assert_eq!(of(what), count, "{home:?}");
    }
    for what in ["spool", "work", "temporary"] {
        assert_eq!(of(what), 0, "{home:?}");
    }
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

#[test]
fn an_idle_agent_is_small() {
    let fabric = Fabric::start(EDGES);
    let (_, resident_kib) = weight(&fabric, "edge-b");
    assert!(resident_kib <= 20 << 10, "{resident_kib} KiB resident");
}
