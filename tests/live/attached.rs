//! Whatever ends a move before its verdict: those who are connected stay so, at the source.

use godwit_tests::{Dial, Fabric, eventually};
use serde_json::Value;

use crate::criu::Criu;
use crate::networks::{start, unharmed};

/// One in the nodes' network, one in a tenant's, whose port a third node opens.
pub(crate) const BOTH: [&str; 2] = ["flat", "deep"];
/// A move of 16 MB takes some seconds.
const SLOW: &str = "2MB";
/// A move whose image alone takes many.
const CRAWLING: &str = "60KB";

/// Two containers on edge-a that are to move to edge-b, with clients on another host.
pub(crate) struct Attached<'a> {
    pub(crate) fabric: &'a Fabric,
}

impl<'a> Attached<'a> {
    pub(crate) fn open(fabric: &'a Fabric) -> Self {
        let image = fabric.lab().checkout().join("target/workload/counter.tar");
        fabric.godwit(&["image", "load", &image.to_string_lossy()]).ok();
        start(fabric, "flat", "edge-a", &["--network", "direct"]);
        start(fabric, "deep", "edge-a", &["--network", "default", "-p", "8080:7000@edge-c"]);
        Self { fabric }
    }

    /// Where clients connect to it.
    pub(crate) fn address(&self, name: &str) -> (String, u16) {
        match name {
            "deep" => ("10.77.0.13".into(), 8080),
            _ => (self.fabric.container(name)["ip"].as_str().expect("an address").into(), 7000),
        }
    }

    /// A client of each.
    pub(crate) fn dial(&self, what: &str) -> Vec<(String, Dial<'a>)> {
        let dial = |name: &str| {
            let (ip, port) = self.address(name);
            let log = self.fabric.log(&format!("dial-{name}-{what}"));
            let dial = Dial::start(self.fabric.lab(), &format!("{ip}:{port}"), log);
            (format!("{name}, {what}"), dial)
        };
        BOTH.map(dial).into()
    }

    /// Begins to move both.
    pub(crate) fn begin(&self, bwlimit: &str) -> Vec<String> {
        let migrate = |name| {
            let limit = ["--bwlimit", bwlimit, "--detach"];
            let said =
                self.fabric.godwit(&[&["migrate", name, "--to", "edge-b"][..], &limit].concat());
            said.ok().trim().to_owned()
        };
        BOTH.map(migrate).into()
    }

    fn migration(&self, id: &str) -> Value {
        match self.fabric.json(&["migration", "inspect", id]) {
            Value::Array(mut all) => all.remove(0),
            one => one,
        }
    }

    /// Waits until this is true of every move; one that is over before fails the test.
    #[track_caller]
    pub(crate) fn until(&self, ids: &[String], what: &str, is_so: impl Fn(&Value) -> bool) {
        for id in ids {
            eventually(what, || {
                let migration = self.migration(id);
                assert_eq!(migration["settled"], false, "over before {what}: {migration}");
                if is_so(&migration) { Ok(()) } else { Err(migration) }
            });
        }
    }

    /// Waits until no container of a host is on a bridge.
    #[track_caller]
    pub(crate) fn until_cut(&self, host: &str) {
        eventually("both are cut off", || {
            let ports = "ip -o link | grep -E ' gw[0-9a-f]+' | grep master; true";
            let ports = self.fabric.lab().run(host, &["sh", "-c", ports]).ok();
            if ports.is_empty() { Ok(()) } else { Err(ports) }
        });
    }

    /// Waits until edge-b has claimed so many addresses in all.
    #[track_caller]
    pub(crate) fn until_claimed(&self, times: usize) {
        eventually("the addresses are claimed", || {
            let claimed = self.claimed();
            if claimed >= times { Ok(()) } else { Err(claimed) }
        });
    }

    /// How often edge-b has claimed an address.
    pub(crate) fn claimed(&self) -> usize {
        let log = std::fs::read_to_string(self.fabric.log("edge-b")).unwrap_or_default();
        log.matches("the address is claimed").count()
    }

    pub(crate) fn cancel(&self, ids: &[String]) {
        for id in ids {
            self.fabric.godwit(&["migration", "cancel", id, "--detach"]).ok();
        }
    }

    /// Waits until both are moved.
    #[track_caller]
    pub(crate) fn moved(&self, ids: &[String]) {
        self.over(ids, "moved");
        assert_eq!(self.fabric.runs_on(), ["edge-b"]);
    }

    /// Waits until the moves are over, as that, and both run at the source and nowhere else.
    #[track_caller]
    pub(crate) fn ends_as(&self, ids: &[String], outcome: &str) {
        self.over(ids, outcome);
        assert_eq!(self.fabric.runs_on(), ["edge-a"]);
    }

    /// How the move ended.
    #[track_caller]
    pub(crate) fn outcome(&self, id: &str) -> Value {
        let end = eventually("the move is over", || {
            let migration = self.migration(id);
            if migration["settled"] == true { Ok(migration) } else { Err(migration) }
        });
        end["outcome"].clone()
    }

    #[track_caller]
    fn over(&self, ids: &[String], outcome: &str) {
        for id in ids {
            assert_eq!(self.outcome(id), outcome, "{}", self.migration(id));
        }
    }
}

/// How far a move is when it ends.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Step {
    Dumping,
    Transferring,
    Staging,
}

#[test]
fn clients_stay_connected_to_the_source_of_a_move_that_ends_at_any_step() {
    let fabric = Fabric::with_broker_apart(3);
    let (source, target) = (Criu::install(&fabric, "edge-a"), Criu::install(&fabric, "edge-b"));
    let attached = Attached::open(&fabric);
    let throughout = attached.dial("throughout");

    // The target has not even the image yet.
    let ids = attached.begin(CRAWLING);
    attached.until(&ids, "the image is on its way", |it| it["phase"] == "preparing");
    attached.until(&ids[..1], "some of it is there", |it| it["bytes"].as_u64() > Some(0));
    fabric.kill("edge-b");
    attached.cancel(&ids);
    fabric.start_agent("edge-b");
    attached.ends_as(&ids, "cancelled");
    fabric.await_fit("edge-b");

    for step in [Step::Dumping, Step::Transferring, Step::Staging] {
        for is_killed in [false, true] {
            let what = format!("{step:?}, killed: {is_killed}");
            let dials = attached.dial(&what);
            let claimed = attached.claimed();
            match step {
                Step::Dumping => source.wait(),
                Step::Staging => target.wait(),
                Step::Transferring => {}
            }
            let ids = attached.begin(SLOW);
            if step == Step::Dumping {
                attached.until_cut("edge-a");
                source.await_waiting();
            } else {
                attached.until_claimed(claimed + BOTH.len());
            }
            if step == Step::Staging {
                attached.until(&ids, "it is restored", |it| it["phase"] == "staging");
                target.await_waiting();
            }
            if is_killed {
                fabric.kill("edge-b");
            }
            attached.cancel(&ids);
            source.work();
            // Whether the target lives or not, and knows of it or not.
            dials.into_iter().for_each(|(what, dial)| unharmed(&what, dial));
            target.work();
            if is_killed {
                fabric.start_agent("edge-b");
            }
            attached.ends_as(&ids, "cancelled");
            fabric.await_fit("edge-b");
        }
    }

    // It has voted, and nobody has heard it.
    let dials = attached.dial("voted");
    let ids = attached.begin(SLOW);
    attached.until(&ids, "it is on its way", |it| it["phase"] == "transferring");
    fabric.kill("controller");
    eventually("both have voted", || {
        let log = std::fs::read_to_string(fabric.log("edge-b")).unwrap_or_default();
        let votes = log.matches("phase=Staged").count();
        if votes >= BOTH.len() { Ok(()) } else { Err(votes) }
    });
    fabric.kill("edge-b");
    fabric.start_controller();
    fabric.start_agent("edge-b");
    attached.ends_as(&ids, "aborted");
    dials.into_iter().for_each(|(what, dial)| unharmed(&what, dial));
    throughout.into_iter().for_each(|(what, dial)| unharmed(&what, dial));
}
