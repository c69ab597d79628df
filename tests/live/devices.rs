//! Devices by label: a container finds its own wherever it is, and none that its node did not declare.

use godwit_tests::{Fabric, Said, eventually};

use crate::scene::EDGES;

/// What each node calls `sensor` and `reader`; `only` is on edge-a.
const DECLARED: [(&str, &[&str]); 2] = [
    (
        "edge-a",
        &["--device", "sensor=zero", "--device", "reader=/dev/fuse", "--device", "only=null"],
    ),
    ("edge-b", &["--device", "sensor=urandom", "--device", "reader=/dev/other"]),
];

fn fabric() -> Fabric {
    let fabric = Fabric::start(EDGES);
    // One that runc does not allow every container, and that nothing happens to: of loop devices.
    fabric.lab().run("edge-b", &["mknod", "/dev/other", "c", "10", "237"]).ok();
    for (host, devices) in DECLARED {
        fabric.terminate(host);
        fabric.start_agent_with(host, devices);
        eventually("the node has said what it has", || {
            let info = fabric.json(&["node", "inspect", host])[0]["info"].clone();
            let is_known = info["devices"]["reader"] != serde_json::Value::Null;
            if is_known && info["probe"]["can_migrate"] == true { Ok(()) } else { Err(info) }
        });
    }
    let image = fabric.lab().checkout().join("target/workload/kinds.tar");
    fabric.godwit(&["image", "load", &image.to_string_lossy()]).ok();
    fabric
}

fn run(fabric: &Fabric, name: &str, options: &[&str], kind: &str) -> Said {
    let run = ["run", "--name", name];
    fabric.godwit(&[&run[..], options, &["kinds:1", kind]].concat())
}

#[track_caller]
fn goes_on(fabric: &Fabric, name: &str) {
    let log = || fabric.godwit(&["logs", name]).ok();
    let rounds = || log().lines().filter(|line| line.starts_with("checked")).count();
    let before = rounds();
    eventually("it checks again", || if rounds() > before + 1 { Ok(()) } else { Err(log()) });
    assert!(!log().contains("WRONG") && !log().contains("WITHOUT"), "{}", log());
}

/// Opens the device of that kind in the container anew, and answers which of the node's it is.
fn opens(fabric: &Fabric, name: &str, kind: &str, device: &str) -> String {
    let container = fabric.container(name);
    let (node, id) = (container["node"].as_str().expect("a node"), container["id"].as_str());
    let script = "pid=$(podman inspect -f '{{.State.Pid}}' godwit-$0); \
                  stat -c %t:%T /proc/$pid/root$2; podman exec godwit-$0 /kinds try $1";
    fabric.lab().run(node, &["sh", "-c", script, id.expect("an id"), kind, device]).ok()
}

#[test]
fn a_device_is_what_its_node_declares_under_the_label_before_a_move_and_after() {
    let fabric = fabric();
    let devices = ["--node", "edge-a", "--device", "sensor", "--device", "reader:/dev/reader"];
    run(&fabric, "user", &devices, "dev-sensor").ok();
    goes_on(&fabric, "user");
    let seen = |device| opens(&fabric, "user", "dev-reader", device);
    assert!(seen("/dev/sensor").starts_with("1:5\n"), "{}", seen("/dev/sensor"));
    for (to, way, reader) in [
        ("edge-b", "--live", "a:ed\n"),
        ("edge-a", "--plain", "a:e5\n"),
        ("edge-b", "--cold", "a:ed\n"),
    ] {
        let way = if way == "--live" { &[][..] } else { &[way] };
        fabric.godwit(&[&["migrate", "user", "--to", to][..], way].concat()).ok();
        goes_on(&fabric, "user");
        let seen = seen("/dev/reader");
        assert!(seen.starts_with(reader), "on {to}: {seen}");
        assert!(seen.contains("holds dev-reader"), "it may not open it on {to}: {seen}");
    }
    assert!(seen("/dev/sensor").starts_with("1:9\n"), "{}", seen("/dev/sensor"));
}

#[test]
fn a_device_that_is_not_declared_or_that_is_open_and_cannot_move_is_refused_with_a_reason() {
    let fabric = fabric();
    let refused = |said: Said, words: &[&str]| {
        assert_ne!(said.code, 0, "{said:?}");
        assert!(words.iter().all(|word| said.err.contains(word)), "{words:?}: {said:?}");
    };
    refused(
        run(&fabric, "none", &["--device", "/dev/ttyUSB0"], "dev-null"),
        &["/dev/ttyUSB0", "label", "godwit-agent run --device sensor=/dev/ttyUSB0"],
    );
    refused(
        run(&fabric, "none", &["-v", "/etc:/etc"], "dev-null"),
        &["/etc", "directory of one node"],
    );
    refused(
        run(&fabric, "none", &["--device", "camera"], "dev-null"),
        &["camera", "edge-a", "edge-b"],
    );
    // It is placed where the device is.
    run(&fabric, "bound", &["--device", "only"], "dev-null").ok();
    assert_eq!(fabric.container("bound")["node"], "edge-a");
    let migrate = |name| fabric.godwit(&["migrate", name, "--to", "edge-b"]);
    refused(migrate("bound"), &["`only`", "edge-b has none", "--device only="]);
    let at = ["--node", "edge-a", "--device", "reader"];
    run(&fabric, "opened", &at, "dev-reader").ok();
    for way in [&[][..], &["--plain"]] {
        goes_on(&fabric, "opened");
        let said = fabric.godwit(&[&["migrate", "opened", "--to", "edge-b"][..], way].concat());
        refused(said, &["`kinds` has the device /dev/reader (10:229) open"]);
        goes_on(&fabric, "opened");
        assert_eq!(fabric.container("opened")["node"], "edge-a");
    }
}
