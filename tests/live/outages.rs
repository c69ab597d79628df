//! A host is out of reach while it holds the address of a container that does not run on it.

use std::process::Child;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use godwit_tests::{Fabric, eventually};

use crate::attached::{Attached, BOTH};
use crate::networks::unharmed;

/// A move of 16 MB takes some seconds.
const SLOW: &str = "2MB";

fn link(fabric: &Fabric, host: &str, word: &str) {
    fabric.lab().run(host, &["ip", "link", "set", "eth0", word]).ok();
}

/// Begins to move both; returns when the target has their addresses.
fn begin_and_claim(attached: &Attached<'_>) -> Vec<String> {
    let claimed = attached.claimed();
    let ids = attached.begin(SLOW);
    attached.until_claimed(claimed + BOTH.len());
    ids
}

/// The client asks everyone again where the address is.
fn ask_again(fabric: &Fabric) {
    fabric.lab().run("client", &["ip", "neigh", "flush", "dev", "br0"]).ok();
}

#[test]
fn a_target_that_is_cut_off_gives_the_address_back_before_its_link_is_up() {
    let fabric = Fabric::start(3);
    let attached = Attached::open(&fabric);
    let throughout = attached.dial("throughout");

    let dials = attached.dial("cut off");
    let ids = begin_and_claim(&attached);
    link(&fabric, "edge-b", "down");
    attached.cancel(&ids);
    dials.into_iter().for_each(|(what, dial)| unharmed(&what, dial));
    attached.until_cut("edge-b");
    link(&fabric, "edge-b", "up");
    ask_again(&fabric);
    let dials = attached.dial("back");
    attached.ends_as(&ids, "cancelled");
    fabric.await_fit("edge-b");
    dials.into_iter().for_each(|(what, dial)| unharmed(&what, dial));

    // Back before it has noticed: for a moment both are there.
    let dials = attached.dial("cut off for a moment");
    let ids = begin_and_claim(&attached);
    link(&fabric, "edge-b", "down");
    attached.cancel(&ids);
    link(&fabric, "edge-b", "up");
    ask_again(&fabric);
    attached.ends_as(&ids, "cancelled");
    dials.into_iter().for_each(|(what, dial)| unharmed(&what, dial));

    // Nobody calls it off: it goes on, and claims the address anew.
    let ids = begin_and_claim(&attached);
    link(&fabric, "edge-b", "down");
    attached.until_cut("edge-b");
    link(&fabric, "edge-b", "up");
    attached.moved(&ids);
    let log = std::fs::read_to_string(fabric.log("edge-b")).expect("the agent's log");
    assert!(log.contains("an address is claimed again"), "{log}");
    throughout.into_iter().for_each(|(what, dial)| unharmed(&what, dial));
}

/// Somebody who asks for the container's address all the time.
struct Asker<'a> {
    fabric: &'a Fabric,
    child: Child,
    name: String,
}

impl<'a> Asker<'a> {
    fn start(attached: &Attached<'a>, name: &str) -> Self {
        let (ip, _) = attached.address("flat");
        let (fabric, log) = (attached.fabric, attached.fabric.log(name));
        let child = fabric.lab().spawn("client", &["ping", "-Dn", "-i", "0.01", &ip], &log);
        Self { fabric, child, name: name.into() }
    }

    /// How long after that time it is answered.
    fn answered_after(&self, since: SystemTime) -> Duration {
        let since = since.duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64();
        let first = eventually("it is answered", || {
            let said = std::fs::read_to_string(self.fabric.log(&self.name)).unwrap_or_default();
            let answers = said.lines().filter(|line| line.contains("bytes from"));
            let mut times = answers
                .filter_map(|line| line.strip_prefix('[')?.split(']').next()?.parse::<f64>().ok());
            times.find(|at| *at > since).ok_or("not yet")
        });
        Duration::from_secs_f64(first - since)
    }
}

impl Drop for Asker<'_> {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

/// What happens to moves.
type Fault<'a> = dyn Fn(&[String]) + 'a;

/// Prints the table of docs/MIGRATION.md.
#[test]
#[ignore = "it measures, and asserts nothing"]
fn how_long_the_address_is_away() {
    let fabric = Fabric::with_broker_apart(3);
    let attached = Attached::open(&fabric);
    let faults: [(&str, &Fault<'_>); 5] = [
        ("cancelled", &|ids| attached.cancel(ids)),
        ("target's agent killed, cancelled", &|ids| {
            fabric.kill("edge-b");
            attached.cancel(ids);
        }),
        ("target's host cut off, cancelled", &|ids| {
            link(&fabric, "edge-b", "down");
            attached.cancel(ids);
        }),
        ("controller killed and started", &|_| {
            fabric.kill("controller");
            fabric.start_controller();
        }),
        ("broker killed and started", &|_| {
            fabric.kill("broker");
            fabric.start_broker();
        }),
    ];
    for (number, (fault, happens)) in faults.iter().enumerate() {
        let mut times = Vec::new();
        let mut outcomes = Vec::new();
        for run in 0..5 {
            let asker = Asker::start(&attached, &format!("asker-{number}-{run}"));
            let ids = begin_and_claim(&attached);
            let since = SystemTime::now();
            happens(&ids);
            times.push(asker.answered_after(since).as_millis());
            link(&fabric, "edge-b", "up");
            if !fabric.is_running("edge-b") {
                fabric.start_agent("edge-b");
            }
            outcomes.push(attached.outcome(&ids[0]));
            attached.outcome(&ids[1]);
            fabric.await_fit("edge-b");
            for name in BOTH {
                if fabric.container(name)["node"] == "edge-b" {
                    fabric.godwit(&["migrate", name, "--to", "edge-a"]).ok();
                }
            }
        }
        times.sort_unstable();
        #[expect(clippy::print_stderr, reason = "whoever measures reads it")]
        {
            eprintln!("| {fault} | {times:?} ms | {outcomes:?} |");
        }
    }
}
