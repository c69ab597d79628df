use godwit_proto::container::{ContainerSpec, Limits};
use godwit_proto::id::{Epoch, ImageId, Tenant};
use godwit_proto::overlay::{Attachment, Protocol};
use jiff::Timestamp;
use uuid::Uuid;

use super::*;
use crate::store::{ContainerState, Intent};

const ONE: Vni = Vni(1);
const TWO: Vni = Vni(2);

fn ip(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

fn network(vni: Vni, exit: Option<&str>) -> NetworkRow {
    NetworkRow {
        vni,
        tenant: Tenant::default_tenant(),
        name: format!("n{vni}"),
        subnets: vec![format!("10.{vni}.0.0/24").parse().unwrap()],
        mtu: 1450,
        exit: exit.map(|node| node.parse().unwrap()),
        created: Timestamp::UNIX_EPOCH,
    }
}

fn container(number: u8, node: &str, vni: Option<Vni>, ports: &[&str]) -> ContainerRow {
    let net = format!("10.{}.0.{number}/24", vni.map_or(77, |vni| vni.0));
    ContainerRow {
        spec: ContainerSpec {
            id: ContainerId(Uuid::from_u128(number.into())),
            tenant: Tenant::default_tenant(),
            name: format!("c{number}").parse().unwrap(),
            image: "0".repeat(64).parse::<ImageId>().unwrap(),
            image_name: "c:1".into(),
            args: Vec::new(),
            env: BTreeMap::new(),
            labels: BTreeMap::new(),
            limits: Limits::default(),
            interfaces: vec![Interface {
                mac: [2, 0, 0, 0, 0, number],
                addresses: vec![
                    net.parse().unwrap(),
                    format!("fd00::{number}/64").parse().unwrap(),
                ],
                gateways: Vec::new(),
                overlay: vni.map(|vni| Attachment { vni, mtu: 1450 }),
            }],
            ports: ports.iter().map(|port| port.parse().unwrap()).collect(),
            resolver: None,
            volumes: Vec::new(),
            devices: Vec::new(),
        },
        node: node.parse().unwrap(),
        epoch: Epoch { generation: 1, counter: 1 },
        intent: Intent::Rest,
        state: ContainerState::Running,
        error: None,
        exit_code: None,
        since: Timestamp::UNIX_EPOCH,
        created: Timestamp::UNIX_EPOCH,
    }
}

fn fabric(containers: Vec<ContainerRow>) -> Fabric {
    let station = |(at, node): (u8, &str)| Station {
        node: node.parse().unwrap(),
        number: at.into(),
        is_online: true,
        underlay: ip(at),
    };
    Fabric {
        containers,
        moves: BTreeMap::new(),
        networks: vec![network(ONE, Some("d")), network(TWO, Some("d"))],
        stations: [(1, "a"), (2, "b"), (3, "c"), (4, "d")].map(station).into(),
    }
}

/// What the node of that name is told.
fn told(fabric: &Fabric, node: &str) -> Overlays {
    let station = fabric.stations.iter().find(|it| it.node.as_str() == node).unwrap();
    Parts::of(fabric).plan(station)
}

fn networks(overlays: &Overlays) -> Vec<Vni> {
    overlays.networks.iter().map(|network| network.vni).collect()
}

#[test]
fn a_node_hears_of_the_networks_that_it_takes_part_in_and_of_no_other() {
    let fabric = fabric(vec![
        container(1, "a", Some(ONE), &[]),
        container(2, "b", Some(ONE), &[]),
        container(3, "b", Some(TWO), &[]),
        container(4, "c", None, &[]),
    ]);
    let (a, b, c, d) =
        (told(&fabric, "a"), told(&fabric, "b"), told(&fabric, "c"), told(&fabric, "d"));
    assert_eq!(networks(&a), [ONE]);
    assert_eq!(networks(&b), [ONE, TWO]);
    assert_eq!(networks(&c), [], "the nodes' own network is none");
    assert_eq!(networks(&d), [ONE, TWO], "the exit of both");
    assert!(d.networks[0].is_exit && !a.networks[0].is_exit);
    assert_eq!(a.networks[0].peers, [ip(2), ip(4)]);
    assert_eq!(b.networks[1].peers, [ip(4)]);
    let places: Vec<_> = a.networks[0].members.iter().map(|it| it.at).collect();
    assert_eq!(places, [None, Some(ip(2))], "its own, and the other's node");
    for overlays in [a, c] {
        assert_eq!(overlays.nodes, [ip(1), ip(2), ip(3), ip(4)], "VXLAN comes from any node");
    }
}

#[test]
fn a_network_that_nobody_is_in_is_nowhere() {
    let fabric = fabric(Vec::new());
    assert_eq!(networks(&told(&fabric, "d")), []);
    assert!(!is_used(&fabric.containers, ONE));
}

#[test]
fn where_a_container_goes_takes_part_before_it_comes() {
    let mut fabric = fabric(vec![container(1, "a", Some(ONE), &[])]);
    assert_eq!(networks(&told(&fabric, "c")), []);
    fabric.moves.insert(ContainerId(Uuid::from_u128(1)), "c".parse().unwrap());
    let c = told(&fabric, "c");
    assert_eq!(c.networks[0].peers, [ip(1), ip(4)]);
    let member = &c.networks[0].members[0];
    assert_eq!((member.at, member.is_moving), (Some(ip(1)), true));
    assert_eq!(told(&fabric, "a").networks[0].peers, [ip(3), ip(4)]);
}

#[test]
fn a_published_port_is_open_on_its_nodes_and_leads_to_each_family() {
    let fabric = fabric(vec![
        container(1, "a", Some(ONE), &["8080:80"]),
        container(2, "a", Some(TWO), &["53/udp@b"]),
    ]);
    let (b, c) = (told(&fabric, "b"), told(&fabric, "c"));
    assert_eq!(networks(&c), [ONE], "an entry takes part");
    assert_eq!(networks(&b), [ONE, TWO]);
    let Entry { protocol, port, to } = &c.ports[0];
    assert_eq!((c.ports.len(), *protocol, *port), (1, Protocol::Tcp, 8080));
    let wanted = ["10.1.0.1:80", "[fd00::1]:80"].map(|to| to.parse().unwrap());
    assert_eq!(to[..], wanted);
    assert_eq!(b.ports.len(), 2);
}
