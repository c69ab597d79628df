//! Another machine has the address of a container: it is named before the container starts, and
//! when it comes while the container runs.

use godwit_tests::{Fabric, eventually};

use crate::networks::start;
use crate::scene::EDGES;

/// The hardware address of the lab's client.
fn mac(fabric: &Fabric) -> String {
    fabric.lab().run("client", &["cat", "/sys/class/net/br0/address"]).ok().trim().to_owned()
}

fn address(fabric: &Fabric, word: &str, ip: &str) {
    let length = if ip.contains(':') { 64 } else { 16 };
    let net = format!("{ip}/{length}");
    fabric.lab().run("client", &["ip", "address", word, &net, "dev", "br0"]).ok();
}

/// What the operator reads of the container; empty when nothing is wrong.
fn error(fabric: &Fabric, name: &str) -> String {
    fabric.container(name)["error"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn who_has_a_container_s_address_is_named_to_the_operator() {
    let fabric = Fabric::start(EDGES);
    let image = fabric.lab().checkout().join("target/workload/counter.tar");
    fabric.godwit(&["image", "load", &image.to_string_lossy()]).ok();
    let one = start(&fabric, "one", "edge-a", &["--network", "direct"]);
    let mac = mac(&fabric);

    // It moves, which is nobody else's doing.
    for to in ["edge-b", "edge-a"] {
        fabric.godwit(&["migrate", "one", "--to", to]).ok();
    }
    assert_eq!(error(&fabric, "one"), "");

    for ip in one.addresses() {
        // Somebody takes the address of what runs, and says something to everyone.
        address(&fabric, "add", &ip);
        eventually("he is named", || {
            let ask = ["busybox", "arping", "-c1", "-w1", "-U", "-I", "br0", &*ip];
            drop(fabric.lab().run("client", &ask));
            let error = error(&fabric, "one");
            if error.contains(&mac) && error.contains(&ip) { Ok(()) } else { Err(error) }
        });
        assert_eq!(fabric.container("one")["state"], "running");
        let log = std::fs::read_to_string(fabric.log("edge-a")).expect("the agent's log");
        assert!(log.contains(&mac), "not in the agent's log");

        // It does not start beside him, and does without him.
        fabric.godwit(&["stop", "one"]).ok();
        let refused = fabric.godwit(&["start", "one"]);
        assert_ne!(refused.code, 0, "{refused:?}");
        assert!(refused.err.contains(&mac) && refused.err.contains("--pool"), "{refused:?}");
        address(&fabric, "del", &ip);
        fabric.godwit(&["start", "one"]).ok();
        assert_eq!(error(&fabric, "one"), "");
    }

    // What is said of one that runs is taken back when he is gone.
    let ip = &one.addresses()[0];
    address(&fabric, "add", ip);
    eventually("he is named again", || {
        drop(
            fabric.lab().run("client", &["busybox", "arping", "-c1", "-w1", "-U", "-I", "br0", ip]),
        );
        let error = error(&fabric, "one");
        if error.contains(&mac) { Ok(()) } else { Err(error) }
    });
    address(&fabric, "del", ip);
    eventually("nobody is named", || {
        let error = error(&fabric, "one");
        if error.is_empty() { Ok(()) } else { Err(error) }
    });
    assert_eq!(fabric.runs_on(), ["edge-a"]);
}
