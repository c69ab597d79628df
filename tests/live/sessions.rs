//! A container that is an MQTT client keeps its session across moves: one connection, and every
//! message once, in order, both ways.

use std::process::Child;

use godwit_tests::{Fabric, Heard, Talked, Talker, eventually};

use crate::leftovers::{holds_nothing, holds_one};
use crate::scene::EDGES;

/// How many; `GODWIT_MOVES` says another number.
const MOVES: usize = 20;
/// The container's client id.
const INSIDE: &str = "inside";

fn moves() -> usize {
    std::env::var("GODWIT_MOVES").map_or(MOVES, |text| text.parse().expect("a number"))
}

/// A broker that both talkers reach.
struct Broker<'a> {
    address: &'a str,
    /// What a talker has to show it.
    variables: Vec<String>,
    /// What it knows of the connections that the container has, or ever had.
    connections: &'a dyn Fn() -> Vec<String>,
}

/// Lets a container talk with a host that stands still, moves it to and fro meanwhile, and asks
/// both, and the broker, how that was.
fn talk_through_moves(fabric: &Fabric, broker: &Broker<'_>) {
    let image = fabric.lab().checkout().join("target/workload/talker.tar");
    assert!(image.exists(), "{} is missing: run scripts/test", image.display());
    fabric.godwit(&["image", "load", &image.to_string_lossy()]).ok();
    let (here, there) = ("app/alice/outside", "app/alice/inside");
    let outside = ["outside", broker.address, here, there];
    let outside = Talker::start(fabric.lab(), &broker.variables, &outside, fabric.log("outside"));
    let mut run = vec!["run", "--name", INSIDE, "--node", "edge-a"];
    broker.variables.iter().for_each(|variable| run.extend(["--env", variable]));
    run.extend(["talker:1", INSIDE, broker.address, there, here, "first"]);
    fabric.godwit(&run).ok();
    eventually("both talk", || {
        let talked = outside.talked()?;
        let is_heard = talked.heard.iter().all(|heard| heard.last > 0);
        if is_heard { Ok(()) } else { Err(format!("{talked:?}")) }
    });
    let connections = (broker.connections)();
    assert_eq!(connections.len(), 1, "{connections:?}");

    for n in 1..=moves() {
        let to = if n % 2 == 1 { "edge-b" } else { "edge-a" };
        let said = fabric.godwit(&["migrate", INSIDE, "--to", to]);
        assert_eq!(said.code, 0, "move {n}: {}{}\n{:?}", said.out, said.err, outside.talked());
    }

    let outside = outside.hang_up();
    let inside = eventually("all is said and heard inside", || {
        let talked = Talked::newest(&fabric.godwit(&["logs", "--tail", "3", INSIDE]).out)?;
        if talked.is_over { Ok(talked) } else { Err(format!("{talked:?}")) }
    });
    for (talked, other) in [(&outside, &inside), (&inside, &outside)] {
        let whole = other.said.map(|last| Heard { last, is_over: true, ..Heard::default() });
        assert_eq!(talked.heard, whole, "{talked:?}");
        assert_eq!((talked.settled, &talked.lost), (talked.said, &None), "{talked:?}");
    }
    assert_eq!((broker.connections)(), connections, "it is the connection of the beginning");
    let (home, other) = if moves() % 2 == 1 { ("edge-b", "edge-a") } else { ("edge-a", "edge-b") };
    assert_eq!(fabric.runs_on(), [home], "by the kernel's word");
    holds_one(fabric, home);
    holds_nothing(fabric, other);
}

#[test]
fn a_client_of_our_broker_keeps_its_session_through_twenty_moves() {
    let fabric = Fabric::joined(EDGES);
    let password = fabric.godwit(&["account", "add", "alice"]).ok();
    let authority = fabric.godwit(&["authority"]).ok();
    let connections = || {
        let clients = fabric.json(&["broker", "clients"]);
        let all = clients.as_array().expect("a list").iter();
        let inside = all.filter(|client| client["client"] == INSIDE);
        // With its address and since when it stands.
        inside.map(|client| client["connection"].to_string()).collect()
    };
    let broker = Broker {
        address: "10.77.0.1:8883",
        variables: vec![
            format!("ACCOUNT=alice:{}", password.trim()),
            format!("AUTHORITY={authority}"),
        ],
        connections: &connections,
    };
    talk_through_moves(&fabric, &broker);
}

/// Debian's mosquitto on the hub, beside the fabric's own broker.
struct Mosquitto(Child);

impl Mosquitto {
    const ADDRESS: &str = "10.77.0.1:1884";

    /// With room for what gathers while one of the two stands still. Its own settings have room
    /// for a second of what it sends a client, and for 20 messages of QoS 2 of what it gets from
    /// one: what comes above that it acknowledges, and drops.
    fn start(fabric: &Fabric) -> Self {
        let config = "listener 1884\nallow_anonymous true\n\
                      max_queued_messages 10000\nmax_inflight_messages 1000\n";
        std::fs::write(fabric.lab().share().join("mosquitto.conf"), config).expect("the share");
        let command = ["mosquitto", "-c", "/lab/mosquitto.conf"];
        Self(fabric.lab().spawn("hub", &command, &fabric.log("mosquitto")))
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

#[test]
fn a_client_of_mosquitto_keeps_its_session_through_twenty_moves() {
    let fabric = Fabric::start(EDGES);
    let _mosquitto = Mosquitto::start(&fabric);
    // Its log has a line when a client comes, and one when it goes.
    let connections = || {
        let log = std::fs::read_to_string(fabric.log("mosquitto")).unwrap_or_default();
        log.lines().filter(|line| line.contains(INSIDE)).map(str::to_owned).collect()
    };
    let broker =
        Broker { address: Mosquitto::ADDRESS, variables: Vec::new(), connections: &connections };
    talk_through_moves(&fabric, &broker);
}
