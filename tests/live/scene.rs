//! A counter that ticks on edge-a, and what every test asks of it in the end.

use godwit_tests::{Fabric, Observer, Ticks, eventually};
use serde_json::Value;

use crate::leftovers::{holds_nothing, holds_one};

/// How slow a transfer is made that a test wants to interfere with: 64 MB take eight seconds.
const SLOW: &str = "8MB";

/// How slow a move is made that is to be caught while it prepares: the container's image
/// alone takes many seconds.
pub(crate) const CRAWLING: &str = "60KB";
/// The hosts of every scene: edge-a and edge-b.
pub(crate) const EDGES: u8 = 2;

/// A counter in a fabric, watched from outside.
pub(crate) struct Scene<'a> {
    pub(crate) fabric: &'a Fabric,
    observer: Observer<'a>,
}

impl<'a> Scene<'a> {
    /// Starts the counter on edge-a.
    pub(crate) fn open(fabric: &'a Fabric) -> Self {
        let observer = fabric.start_counter("edge-a");
        Self { fabric, observer }
    }

    pub(crate) fn ticks(&self) -> Ticks {
        self.observer.ticks().expect("the counter has ticked")
    }

    /// Waits until it has ticked on from here, and answers what was seen by then.
    pub(crate) fn ticks_on(&self) -> Ticks {
        let before = self.ticks().count;
        eventually("the counter ticks on", || {
            let now = self.ticks();
            if now.count > before + 50 { Ok(now) } else { Err(now) }
        })
    }

    /// The one assertion that every test ends with: it runs on `node` and nowhere else, no tick
    /// was ever lost or doubled, and no move left anything behind.
    #[track_caller]
    pub(crate) fn runs_once_on(&self, node: &str) -> Ticks {
        eventually("the controller has the container running there, at rest", || {
            let container = self.fabric.container("counter");
            let is_there = container["node"] == node
                && container["state"] == "running"
                && container["migration"].is_null();
            if is_there { Ok(()) } else { Err(container) }
        });
        let ticks = self.ticks_on();
        assert_eq!(self.fabric.runs_on(), [node], "by the kernel's word");
        assert_eq!((ticks.missing, ticks.doubled), (0, 0), "{ticks:?}");
        assert_eq!((ticks.corrupt_pages, ticks.monotonic_jumps_back), (0, 0), "{ticks:?}");
        for host in ["edge-a", "edge-b"] {
            if host == node {
                holds_one(self.fabric, host);
            } else {
                holds_nothing(self.fabric, host);
            }
        }
        ticks
    }

    /// The source's agent never began to freeze it.
    #[track_caller]
    pub(crate) fn was_not_frozen(&self) {
        let log = std::fs::read_to_string(self.fabric.log("edge-a")).expect("the agent's log");
        assert!(!log.contains("phase=Arming"), "it was frozen: {log}");
    }

    /// Starts a slow move to edge-b in the background and answers its id.
    pub(crate) fn begin_slow_move(&self) -> String {
        self.begin_move("edge-b", SLOW)
    }

    /// The same to another node.
    pub(crate) fn begin_slow_move_to(&self, node: &str) -> String {
        self.begin_move(node, SLOW)
    }

    /// Starts a move that is so slow, in the background, and answers its id.
    pub(crate) fn begin_move(&self, to: &str, bwlimit: &str) -> String {
        let migrate = ["migrate", "counter", "--to", to, "--bwlimit", bwlimit, "--detach"];
        self.fabric.godwit(&migrate).ok();
        let all = self.fabric.json(&["migration", "ls"]);
        all[0]["id"].as_str().expect("a migration's id").to_owned()
    }

    pub(crate) fn migration(&self, id: &str) -> Value {
        match self.fabric.json(&["migration", "inspect", id]) {
            Value::Array(mut all) => all.remove(0),
            one => one,
        }
    }

    /// Waits until the move is in that phase. A move that is past it fails the test.
    #[track_caller]
    pub(crate) fn await_phase(&self, id: &str, phase: &str) {
        eventually(&format!("the move is {phase}"), || {
            let migration = self.migration(id);
            assert_eq!(migration["settled"], false, "over before it was {phase}: {migration}");
            if migration["phase"] == phase { Ok(()) } else { Err(migration) }
        });
    }

    /// Waits until the present stream of the move has so many bytes at the target, and answers
    /// how many it has.
    #[track_caller]
    pub(crate) fn await_bytes(&self, id: &str, wanted: u64) -> u64 {
        eventually(&format!("{wanted} bytes have arrived"), || {
            let migration = self.migration(id);
            assert_eq!(migration["settled"], false, "over before: {migration}");
            let arrived = migration["bytes"].as_u64().unwrap_or(0);
            if arrived >= wanted { Ok(arrived) } else { Err(migration) }
        })
    }

    /// Waits until an agent has logged so much.
    #[track_caller]
    pub(crate) fn await_log(&self, host: &str, text: &str) {
        eventually(&format!("{host} logs `{text}`"), || {
            let log = std::fs::read_to_string(self.fabric.log(host)).unwrap_or_default();
            if log.contains(text) { Ok(()) } else { Err("not yet") }
        });
    }

    /// Waits until the move is over and answers it.
    #[track_caller]
    pub(crate) fn await_end(&self, id: &str) -> Value {
        eventually("the move is over", || {
            let said = self.fabric.godwit(&["migration", "inspect", id, "--format", "json"]);
            let migration: Value = serde_json::from_str(&said.out).unwrap_or_default();
            let migration = if migration.is_array() { migration[0].clone() } else { migration };
            if migration["settled"] == true { Ok(migration) } else { Err(said) }
        })
    }
}
