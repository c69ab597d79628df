//! Tenants' networks: containers reach each other by name and address wherever they are, clients
//! reach them through any node, and nobody reaches who is not meant to.

use godwit_tests::{Dial, Fabric, Said, eventually};

use crate::insider::Insider;

/// Where the counters answer.
const ECHO: &str = "7000";

/// A fabric of three nodes with the counter's image.
fn fabric() -> Fabric {
    let fabric = Fabric::start(3);
    let image = fabric.lab().checkout().join("target/workload/counter.tar");
    fabric.godwit(&["image", "load", &image.to_string_lossy()]).ok();
    fabric
}

/// Starts a small counter; `options` go before the image.
pub(crate) fn start<'a>(
    fabric: &'a Fabric,
    name: &str,
    node: &str,
    options: &[&str],
) -> Insider<'a> {
    let run = ["run", "--name", name, "--node", node];
    let rest = ["counter:1", "--memory-mb", "16", "--echo", ECHO];
    fabric.godwit(&[&run[..], options, &rest].concat()).ok();
    Insider::of(fabric, name)
}

pub(crate) fn moved(fabric: &Fabric, name: &str, to: &str) {
    let said = fabric.godwit(&["migrate", name, "--to", to]);
    assert_eq!(said.code, 0, "{name} to {to}: {}{}", said.out, said.err);
}

/// Nothing was lost on the way.
#[track_caller]
pub(crate) fn unharmed(what: &str, dial: Dial<'_>) {
    let seen = dial.hang_up();
    assert_eq!((seen.wrong, &seen.lost), (0, &None), "{what}: {seen:?}");
}

#[test]
fn containers_of_a_network_reach_each_other_while_they_move_and_clients_through_any_node() {
    let fabric = fabric();
    // As Docker sets it on many hosts: bridged frames pass iptables, and with them our rules.
    for edge in ["edge-a", "edge-b", "edge-c"] {
        let on = "echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables";
        fabric.lab().run(edge, &["sh", "-c", on]).ok();
    }
    let in_default = ["--network", "default"];
    let one = start(&fabric, "one", "edge-a", &in_default);
    let opened = ["-p", "8080:7000", "-p", "9090:9999/udp"];
    let two = start(&fabric, "two", "edge-b", &[&in_default[..], &opened].concat());
    for ip in two.addresses() {
        one.run(&["ping", "-c1", "-W5", &ip]).ok();
    }
    one.run(&["ping", "-c1", "-W5", "10.77.0.2"]).ok();

    let mut dials = Vec::new();
    for ip in two.addresses() {
        let at = if ip.contains(':') { format!("[{ip}]:{ECHO}") } else { format!("{ip}:{ECHO}") };
        dials.push((format!("within, {at}"), one.dial(&at, fabric.log(&format!("dial-{ip}")))));
    }
    for edge in [11, 12, 13] {
        let at = format!("10.77.0.{edge}:8080");
        let dial = Dial::start(fabric.lab(), &at, fabric.log(&format!("dial-{edge}")));
        dials.push((format!("through {at}"), dial));
    }
    for (host, ip) in [("client", "fd77::2/64"), ("edge-a", "fd77::11/64")] {
        let add = ["ip", "address", "add", ip, "dev", "br0", "nodad"];
        fabric.lab().run(host, &add).ok();
    }
    let at = "[fd77::11]:8080";
    let dial = Dial::start(fabric.lab(), at, fabric.log("dial-six"));
    dials.push((format!("through {at}"), dial));
    // Each node is source, target, and neither; and one of those who talk moves as well.
    for to in ["edge-c", "edge-a", "edge-b", "edge-c"] {
        moved(&fabric, "two", to);
    }
    assert_eq!(fabric.container("two")["node"], "edge-c");
    for (what, dial) in dials {
        unharmed(&what, dial);
    }
    // Datagrams too, through a node where it is not.
    let two = Insider::of(&fabric, "two");
    let ear = two.listen(&fabric.log("tcpdump"));
    let datagram = |to: &'static str, port: u16| {
        let lab = fabric.lab();
        move |text: &str| {
            let send = format!("printf {text} > /dev/udp/{to}/{port}");
            drop(lab.run("client", &["bash", "-c", &send]));
        }
    };
    let friend = |text: &str| drop(one.send(&two.addresses()[0], text));
    assert!(ear.hears(&datagram("10.77.0.11", 9090), &friend), "through edge-a");
    // The owner's own firewall starts anew.
    fabric.lab().run("edge-a", &["nft", "flush", "ruleset"]).ok();
    eventually("what was flushed is put back", || {
        let heard = ear.hears(&datagram("10.77.0.11", 9090), &friend);
        let ports = fabric.lab().run("edge-a", &["nft", "list", "tables"]).out;
        let has_ports = !one.runs_on("edge-a") || ports.contains("netdev gw");
        if heard && has_ports { Ok(()) } else { Err(ports) }
    });
    assert!(!ear.hears(&datagram("10.77.0.11", 9091), &friend), "no such port");

    // Names are answered by the node where the asker is, before and after its move.
    let asked = |insider: &Insider<'_>| {
        eventually("two's name is answered", || {
            let said = insider.lookup("two.default.godwit");
            if said.code == 0 { Ok(said.out) } else { Err(said) }
        })
    };
    let ip = &two.addresses()[0];
    assert!(asked(&one).contains(ip), "before");
    moved(&fabric, "one", "edge-b");
    let one = Insider::of(&fabric, "one");
    assert!(asked(&one).contains(ip), "after");
    one.run(&["ping", "-c1", "-W5", ip]).ok();

    // A program of a node has the port, a container has the port: both are named.
    let taken = fabric.godwit(&["run", "--name", "three", "-p", "8080:1", "counter:1"]);
    assert!(taken.code != 0 && taken.err.contains("two"), "{taken:?}");
    let counter = fabric.lab().checkout().join("target/workload/counter");
    let counter = [&*counter.to_string_lossy(), "--memory-mb", "1", "--echo", "9090"];
    let listener = fabric.lab().spawn("edge-b", &counter, &fabric.log("listener"));
    eventually("the listener listens", || {
        let said = fabric.lab().run("edge-b", &["ss", "-Hltn", "sport = 9090"]);
        if said.out.contains("9090") { Ok(()) } else { Err(said) }
    });
    let taken = fabric.godwit(&["run", "--name", "three", "-p", "9090:1", "counter:1"]);
    assert!(taken.code != 0 && taken.err.contains("counter on edge-b"), "{taken:?}");
    end(listener);

    // What is removed leaves nothing in any kernel.
    fabric.godwit(&["rm", "-f", "one", "two"]).ok();
    for edge in ["edge-a", "edge-b", "edge-c"] {
        eventually("nothing of the network is left", || {
            let left = left(&fabric, edge);
            if left.is_empty() { Ok(()) } else { Err(left) }
        });
    }
}

fn end(mut child: std::process::Child) {
    let _gone = child.kill();
    let _status = child.wait();
}

/// Whatever a node's kernel still has of tenants' networks.
fn left(fabric: &Fabric, edge: &str) -> String {
    let script = "ip -o link | grep -E ' (gn|gx|gw|gp)[0-9a-f]+' ; nft list tables | grep -E 'godwit|g[nxw][0-9a-f]'; \
                  ls /run/netns 2>/dev/null | grep godwit; pgrep -x aardvark-dns; \
                  cat /proc/sys/net/ipv4/ip_forward | grep 1; true";
    fabric.lab().run(edge, &["sh", "-c", script]).ok()
}

#[test]
fn an_entry_that_dies_takes_nobody_along_and_an_exit_is_followed_by_another() {
    let fabric = fabric();
    let two = start(&fabric, "two", "edge-a", &["--network", "default", "-p", "8080:7000"]);
    let through = |edge: &str, name: &str| {
        let last = 11 + edge.bytes().last().expect("a name") - b'a';
        Dial::start(fabric.lab(), &format!("10.77.0.{last}:8080"), fabric.log(name))
    };
    let goes_out = || two.run(&["ping", "-c1", "-W1", "10.77.0.2"]);
    let exit = || {
        let network = fabric.json(&["network", "inspect", "default"]);
        network[0]["exit"].as_str().map(str::to_owned)
    };
    eventually("it reaches the world", || {
        let said = goes_out();
        if said.code == 0 { Ok(()) } else { Err(said) }
    });
    let first = exit().expect("an exit");
    let other = ["edge-b", "edge-c"].into_iter().find(|edge| *edge != first).expect("one of two");

    // In the nodes' own network ports are opened as well.
    start(&fabric, "flat", "edge-a", &["--network", "direct", "-p", "7070:7000"]);
    let flat = Dial::start(fabric.lab(), "10.77.0.12:7070", fabric.log("dial-flat"));

    // Agents may come and go: the kernels go on.
    let dial = through(other, "dial-agents");
    for edge in ["edge-a", "edge-b", "edge-c"] {
        fabric.kill(edge);
        fabric.start_agent(edge);
        fabric.await_fit(edge);
    }
    goes_out().ok();
    moved(&fabric, "two", other);
    moved(&fabric, "two", "edge-a");
    unharmed("while agents are killed", dial);
    moved(&fabric, "flat", "edge-c");
    unharmed("of flat, through edge-b", flat);
    fabric.godwit(&["rm", "-f", "flat"]).ok();

    let others = through(other, "dial-others");
    let cut = |word: &str| fabric.lab().run(&first, &["ip", "link", "set", "eth0", word]).ok();
    cut("down");
    eventually("another node is the exit", || {
        let said = goes_out();
        if said.code == 0 { Ok(()) } else { Err(said) }
    });
    assert_ne!(exit(), Some(first.clone()));
    unharmed("through another node", others);
    let late = through(other, "dial-late");
    moved(&fabric, "two", other);
    unharmed("a new client", late);

    // It comes back, and is no exit any more.
    cut("up");
    fabric.await_fit(&first);
    eventually("the first one has left the exit's address", || {
        let held = fabric.lab().run(&first, &["ip", "-br", "address"]);
        if held.out.contains("10.128.0.2") { Err(held) } else { Ok(()) }
    });
}

#[test]
fn a_network_hears_nobody_who_is_not_in_it() {
    let fabric = fabric();
    fabric.godwit(&["network", "create", "other"]).ok();
    let one = start(&fabric, "one", "edge-a", &["--network", "default"]);
    let two = start(&fabric, "two", "edge-b", &["--network", "default"]);
    let three = start(&fabric, "three", "edge-c", &["--network", "default"]);
    let stranger = start(&fabric, "stranger", "edge-b", &["--network", "other"]);
    let plain = start(&fabric, "plain", "edge-b", &["--network", "direct"]);
    let (ip, mac) = (&*one.addresses()[0], one.mac());
    let (two_ip, two_mac) = (&*two.addresses()[0], two.mac());
    let ear = one.listen(&fabric.log("tcpdump"));
    let friend = |text: &str| drop(two.send(ip, text));
    let hears = |who: &Insider<'_>| ear.hears(&|text| drop(who.send(ip, text)), &friend);
    assert!(hears(&three), "what should be heard is");

    // By address, with nodes as routers.
    let (resolver, exit) = (stranger.resolver(), stranger.exit());
    let routers = [
        (&stranger, &*resolver),
        (&stranger, &exit),
        (&plain, "10.77.0.12"),
        (&plain, "10.77.0.11"),
    ];
    for (who, via) in routers {
        who.run(&["ip", "route", "replace", ip, "via", via, "dev", "eth0"]).ok();
        assert!(!hears(who), "{} via {via}", who.name());
        who.run(&["ip", "route", "del", ip]).ok();
    }
    assert_ne!(stranger.lookup("one.default.godwit").code, 0, "nor by name");

    // Under another's address, hardware address, or both; a member too.
    for who in [&stranger, &plain, &three] {
        let (own, own_ip) = (who.mac(), who.addresses()[0].clone());
        let lie = |ip_is: &str, mac_is: &str| {
            // Down and up again, its routes are gone.
            who.run(&["ip", "link", "set", "eth0", "down"]).ok();
            who.run(&["ip", "link", "set", "eth0", "address", mac_is, "up"]).ok();
            who.run(&["ip", "address", "replace", &format!("{ip_is}/32"), "dev", "eth0"]).ok();
            who.run(&["ip", "route", "replace", ip, "dev", "eth0", "src", ip_is]).ok();
            who.run(&["ip", "neigh", "replace", ip, "lladdr", &mac, "dev", "eth0"]).ok();
        };
        for (ip_is, mac_is) in [(two_ip, &own), (&*own_ip, &two_mac), (two_ip, &two_mac)] {
            lie(ip_is, mac_is);
            who.run(&["busybox", "arping", "-U", "-c2", "-I", "eth0", two_ip]);
            assert!(!hears(who), "{} as {ip_is} {mac_is}", who.name());
        }
        // What it said of two's address, nobody believed.
        one.run(&["ping", "-c1", "-W5", two_ip]).ok();
        who.run(&["ip", "address", "del", &format!("{two_ip}/32"), "dev", "eth0"]).ok();
        lie(&own_ip, &own);
    }
    assert!(hears(&three), "as itself");

    // VXLAN made by hand: a node is believed, and nobody else.
    let injects = |run: &dyn Fn(&[&str]) -> Said| {
        let send = |text: &str| {
            let file = fabric.lab().share().join("frame");
            std::fs::write(&file, one.vxlan(&two, text)).expect("the lab's share");
            drop(run(&["bash", "-c", "cat /lab/frame > /dev/udp/10.77.0.11/4789"]));
        };
        ear.hears(&send, &friend)
    };
    assert!(injects(&|command| fabric.lab().run("edge-c", command)), "a node");
    assert!(!injects(&|command| fabric.lab().run("client", command)), "a host that is no node");
    for who in [&stranger, &plain, &three] {
        assert!(!injects(&|command| who.run(command)), "{}", who.name());
    }
}
