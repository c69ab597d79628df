use godwit_proto::node::Underlay;

use super::*;

fn node(name: &str) -> NodeFacts {
    NodeFacts {
        node: name.parse().unwrap(),
        state: NodeState::Online,
        is_announced: true,
        arch: "x86_64".into(),
        kernel: Version::read("6.18.2"),
        engine: Version::read("5.4.2").map(|version| ("podman".into(), version)),
        criu: Version::read("4.2.1"),
        probe_failure: None,
        can_arm: true,
        underlay: Some(Underlay { address: [10, 0, 0, 1].into(), mtu: 1500 }),
        devices: ["sensor".parse().unwrap()].into(),
        memory_free_bytes: Some(1 << 30),
        disk_free_bytes: Some(1 << 30),
        containers: 0,
    }
}

fn wish(source: Option<&NodeFacts>) -> Wish<'_> {
    Wish {
        name: "counter",
        source,
        arch: Some("amd64"),
        mode: Mode::Live,
        memory_bytes: 64 << 20,
        image_bytes: 10 << 20,
        overlay_mtu: Some(1450),
        volume_bytes: 0,
        devices: sensor(),
    }
}

fn sensor() -> &'static [Device] {
    vec!["sensor".parse().unwrap()].leak()
}

fn codes(reasons: &[Reason]) -> Vec<&'static str> {
    reasons.iter().map(|reason| reason.code).collect()
}

type Spoil = fn(&mut NodeFacts, &mut NodeFacts, &mut Wish<'_>);

/// What is spoilt, and what a live and a cold move of it are refused for.
const TABLE: &[(&str, Spoil, &[&str], &[&str])] = &[
    ("nothing", |_, _, _| {}, &[], &[]),
    ("same node", |s, t, _| t.node = s.node.clone(), &["same-node"], &["same-node"]),
    (
        "target offline",
        |_, t, _| t.state = NodeState::Offline,
        &["node-offline"],
        &["node-offline"],
    ),
    ("target lost", |_, t, _| t.state = NodeState::Lost, &["node-offline"], &["node-offline"]),
    (
        "target drains",
        |_, t, _| t.state = NodeState::Draining,
        &["node-draining"],
        &["node-draining"],
    ),
    ("source drains", |s, _, _| s.state = NodeState::Draining, &[], &[]),
    ("source lost", |s, _, _| s.state = NodeState::Lost, &["source-offline"], &["source-offline"]),
    (
        "target only seen",
        |_, t, _| {
            t.state = NodeState::Unjoined;
            t.is_announced = false;
        },
        &["node-unjoined"],
        &["node-unjoined"],
    ),
    (
        "target silent",
        |_, t, _| t.is_announced = false,
        &["node-unannounced"],
        &["node-unannounced"],
    ),
    (
        "other architecture",
        |_, t, _| t.arch = "aarch64".into(),
        &["image-arch", "arch-differs"],
        &["image-arch", "arch-differs"],
    ),
    ("same architecture in other terms", |_, t, _| t.arch = "amd64".into(), &[], &[]),
    ("no engine", |_, t, _| t.engine = None, &["engine-missing"], &["engine-missing"]),
    (
        "other engine",
        |_, t, _| t.engine = Version::read("28.0").map(|version| ("docker".into(), version)),
        &["engine-differs"],
        &[],
    ),
    (
        "older engine",
        |_, t, _| t.engine = Version::read("4.3.1").map(|version| ("podman".into(), version)),
        &["engine-differs"],
        &[],
    ),
    (
        "engine of the same major version",
        |_, t, _| t.engine = Version::read("5.6.0").map(|version| ("podman".into(), version)),
        &[],
        &[],
    ),
    ("no CRIU at the target", |_, t, _| t.criu = None, &["criu-missing"], &[]),
    ("no CRIU at the source", |s, _, _| s.criu = None, &["criu-missing"], &[]),
    ("older CRIU", |_, t, _| t.criu = Version::read("4.1.1"), &["criu-older"], &[]),
    ("newer CRIU", |_, t, _| t.criu = Version::read("4.10"), &[], &[]),
    ("source's probe", |s, _, _| s.probe_failure = Some("no".into()), &["probe-failed"], &[]),
    ("target's probe", |_, t, _| t.probe_failure = Some("no".into()), &["probe-failed"], &[]),
    ("older kernel", |_, t, _| t.kernel = Version::read("6.9.0-arm"), &["kernel-older"], &[]),
    ("newer kernel", |_, t, _| t.kernel = Version::read("7.0"), &[], &[]),
    (
        "little memory",
        |_, t, _| t.memory_free_bytes = Some(1 << 20),
        &["memory-short"],
        &["memory-short"],
    ),
    ("memory not known", |_, t, _| t.memory_free_bytes = None, &[], &[]),
    ("no disk", |_, t, _| t.disk_free_bytes = Some(0), &["disk-short"], &["disk-short"]),
    (
        "a link too narrow",
        |_, t, _| t.underlay = Some(Underlay { address: [10, 0, 0, 2].into(), mtu: 1499 }),
        &["mtu-short"],
        &["mtu-short"],
    ),
    (
        "VXLAN over IPv6 takes more",
        |_, t, _| {
            t.underlay = Some(Underlay { address: [0xfd00, 0, 0, 0, 0, 0, 0, 2].into(), mtu: 1500 })
        },
        &["mtu-short"],
        &["mtu-short"],
    ),
    (
        "no device of that label",
        |_, t, _| t.devices.clear(),
        &["device-missing"],
        &["device-missing"],
    ),
    ("no end of networks", |_, t, _| t.underlay = None, &["no-underlay"], &["no-underlay"]),
    (
        "disk for the image, not the memory",
        |_, t, _| t.disk_free_bytes = Some(30 << 20),
        &["disk-short"],
        &[],
    ),
];

#[test]
fn admission_gives_every_reason() {
    for (what, spoil, live, cold) in TABLE {
        for (mode, expected) in [(Mode::Live, live), (Mode::Cold, cold)] {
            let (mut source, mut target) = (node("edge-a"), node("edge-b"));
            spoil(&mut source, &mut target, &mut wish(None));
            let wish = Wish { mode, ..wish(Some(&source)) };
            let reasons = admit(&wish, &target);
            assert_eq!(codes(&reasons), **expected, "{what}, {mode:?}");
            for reason in reasons {
                assert!(!reason.message.is_empty() && !reason.remedy.is_empty(), "{what}");
            }
        }
    }
}

#[test]
fn a_new_container_needs_no_checkpoints() {
    let mut target = node("edge-a");
    target.criu = None;
    target.probe_failure = Some("no".into());
    assert_eq!(admit(&wish(None), &target), []);
    target.arch = "riscv64".into();
    assert_eq!(codes(&admit(&wish(None), &target)), ["image-arch"]);
}

#[test]
fn the_node_with_most_memory_is_chosen_then_the_emptiest_then_by_name() {
    let mut nodes = [node("edge-c"), node("edge-b"), node("edge-a")];
    assert_eq!(best(|_| wish(None), &nodes).unwrap().node.as_str(), "edge-a");
    nodes[2].containers = 2;
    assert_eq!(best(|_| wish(None), &nodes).unwrap().node.as_str(), "edge-b");
    nodes[0].memory_free_bytes = Some(2 << 30);
    assert_eq!(best(|_| wish(None), &nodes).unwrap().node.as_str(), "edge-c");
    nodes[0].state = NodeState::Lost;
    assert_eq!(best(|_| wish(None), &nodes).unwrap().node.as_str(), "edge-b");
}

#[test]
fn when_no_node_fits_each_says_why() {
    let mut nodes = [node("edge-a"), node("edge-b")];
    nodes[1].state = NodeState::Lost;
    let source = nodes[0].clone();
    let reasons = best(|_| wish(Some(&source)), &nodes).unwrap_err();
    assert_eq!(codes(&reasons), ["same-node", "node-offline"]);
}

#[test]
fn versions_compare_as_numbers() {
    let read = |text| Version::read(text).unwrap();
    assert!(read("6.18.44-generic") > read("6.9"));
    assert_eq!(read("v4.2.1").series(), (4, 2));
    assert_eq!(read("6.18.44-generic").to_string(), "6.18.44");
    assert_eq!(Version::read("unknown"), None);
}

#[test]
fn a_prediction_follows_the_last_move_and_the_limit() {
    let past = Past { bytes: 64 << 20, total_ms: 2400, gap_ms: 1400 };
    let like_last = predict(Mode::Live, 64 << 20, None, Some(past));
    assert_eq!((like_last.gap_ms, like_last.total_ms), (1400, 2400));
    let twice = predict(Mode::Live, 128 << 20, None, Some(past));
    assert_eq!((twice.gap_ms, twice.total_ms), (2400, 4400));
    let slow = predict(Mode::Live, 64 << 20, Some(1 << 20), Some(past));
    assert_eq!((slow.gap_ms, slow.total_ms), (64_000, 64_000));
    let thumb = predict(Mode::Live, 64 << 20, None, None);
    assert!(thumb.gap_ms > FIXED && thumb.total_ms > thumb.gap_ms);
    let cold = predict(Mode::Cold, 64 << 20, None, None);
    assert_eq!(cold.gap_ms, cold.total_ms);
}

const FIXED: u64 = 400;
