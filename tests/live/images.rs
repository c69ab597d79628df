//! Of an image that a node lacks only those layers come that none of its images has.

use godwit_tests::{Fabric, eventually};

/// In a host: the counter's image with one more layer, named `two:1`, as an archive in /lab.
const MAKE_TWO: &str = "
    made=$(podman create counter:1)
    head -c 100000 /dev/urandom >/tmp/more
    podman cp /tmp/more $made:/more
    podman commit -q $made two:1
    podman rm $made
    podman save -q --format docker-archive -o /lab/two.tar two:1
    podman rmi two:1";

/// What an agent said of the last image that it fetched in part, if it did.
fn said(fabric: &Fabric, node: &str) -> Option<String> {
    let log = std::fs::read_to_string(fabric.log(node)).expect("a log");
    let line = log.lines().rfind(|line| line.contains("only what is lacking comes"))?;
    let at = line.find("layers=").expect("how many");
    Some(line[at..].to_owned())
}

#[test]
fn only_the_layers_come_that_a_node_lacks_from_the_controller_and_from_a_node() {
    let fabric = Fabric::start(3);
    let checkout = fabric.lab().checkout();
    let counter = checkout.join("target/workload/counter.tar");
    fabric.godwit(&["image", "load", &counter.to_string_lossy()]).ok();
    for (name, node) in [("one", "edge-a"), ("other", "edge-b")] {
        fabric.godwit(&["run", "--name", name, "--node", node, "counter:1"]).ok();
    }
    fabric.lab().run("edge-a", &["sh", "-ec", MAKE_TWO]).ok();
    fabric.godwit(&["image", "load", "/lab/two.tar"]).ok();
    assert_eq!(said(&fabric, "edge-a"), None, "its first image came whole");

    fabric.godwit(&["run", "--name", "two", "--node", "edge-b", "two:1"]).ok();
    assert_eq!(said(&fabric, "edge-b").as_deref(), Some("layers=2 lacking=1"));
    fabric.godwit(&["migrate", "two", "--to", "edge-a"]).ok();
    assert_eq!(said(&fabric, "edge-a").as_deref(), Some("layers=2 lacking=1"));
    // A node without any image.
    fabric.godwit(&["migrate", "two", "--to", "edge-c"]).ok();
    assert_eq!(said(&fabric, "edge-c"), None);
    let more = "cd $(podman image mount two:1); sha256sum more; podman image unmount two:1";
    let more = ["edge-a", "edge-b", "edge-c"]
        .map(|edge| fabric.lab().run(edge, &["sh", "-ec", more]).ok());
    assert!(more[0].len() > 64 && more.iter().all(|other| *other == more[0]), "{more:?}");
    eventually("nothing is left of what was sent", || {
        let spool = ["find", "/var/lib/godwit/spool", "-type", "f"];
        let left = ["edge-a", "edge-b", "edge-c"].map(|edge| fabric.lab().run(edge, &spool).out);
        if left.iter().all(String::is_empty) { Ok(()) } else { Err(left) }
    });
}
