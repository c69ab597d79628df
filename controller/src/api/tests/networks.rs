//! Networks and published ports.

use super::*;

const CONTAINERS: &str = "/api/v1/containers";
const NETWORKS: &str = "/api/v1/networks";

async fn make(rest: &Rest, name: &str, more: Value) -> (u16, Value) {
    let mut body = json!({"image": "counter", "name": name});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    rest.post(CONTAINERS, body).await
}

#[tokio::test]
async fn a_container_has_an_address_of_each_family_in_its_network() {
    let rest = rest().await;
    let (status, web) = make(&rest, "web", json!({"networks": ["default"]})).await;
    assert_eq!(status, 202, "{web}");
    let (_, network) = rest.get(&format!("{NETWORKS}/default")).await;
    assert_eq!(network["subnets"][0], "10.128.0.0/23");
    assert_eq!((&network["mtu"], &network["containers"]), (&json!(1450), &json!(["web"])));
    let interface = &web["interfaces"][0];
    assert_eq!(interface["vni"], network["vni"]);
    assert_eq!(interface["mac"], "02:67:0a:80:00:03");
    assert_eq!(interface["addresses"][0], "10.128.0.3/23", "behind the resolver and the exit");
    let six = network["subnets"][1].as_str().unwrap();
    let prefix = six.strip_suffix("::/64").unwrap();
    assert!(prefix.starts_with("fd"), "private (RFC 4193): {six}");
    assert_eq!(interface["addresses"][1], format!("{prefix}::3/64"));
    assert_eq!(interface["gateways"], json!(["10.128.0.2", format!("{prefix}::2")]));

    let both = json!({"networks": ["default", "direct"]});
    let (_, db) = make(&rest, "db", both).await;
    assert_eq!(db["interfaces"][0]["addresses"][0], "10.128.0.4/23");
    assert_eq!(db["interfaces"][1]["addresses"], json!(["10.77.1.1/16"]));
    assert_eq!(db["interfaces"][1]["vni"], Value::Null);
}

#[tokio::test]
async fn networks_do_not_overlap_and_go_when_nobody_is_in_them() {
    let rest = rest().await;
    let create = |name: &str, subnet: &str| {
        let subnet = (!subnet.is_empty()).then_some(subnet);
        rest.post(NETWORKS, json!({"name": name, "subnet": subnet}))
    };
    let (status, one) = create("one", "").await;
    assert_eq!((status, &one["subnets"][0]), (201, &json!("10.128.0.0/23")), "{one}");
    let (_, two) = create("two", "10.128.4.0/26").await;
    assert_eq!(two["subnets"][0], "10.128.4.0/26");
    assert_ne!(one["vni"], two["vni"]);
    let (_, three) = create("three", "").await;
    assert_eq!(three["subnets"][0], "10.128.2.0/23", "the next free one");
    assert_eq!(create("four", "").await.1["subnets"][0], "10.128.6.0/23");
    for (name, subnet, status, code) in [
        ("one", "", 409, "name-taken"),
        ("direct", "", 400, "invalid-name"),
        ("No Name", "", 400, "invalid-name"),
        ("x", "10.128.0.0/22", 409, "subnet-taken"),
        ("x", "10.128.4.32/27", 409, "subnet-taken"),
        ("x", "10.77.9.0/24", 409, "subnet-taken"),
        ("x", "100.64.9.0/24", 409, "subnet-taken"),
        ("x", "127.0.0.0/24", 409, "subnet-taken"),
        ("x", "10.128.5.0/30", 409, "subnet-taken"),
        ("x", "", 409, "addresses-exhausted"),
    ] {
        let (found, answer) = create(name, subnet).await;
        assert_eq!((found, &answer["code"]), (status, &json!(code)), "{name} {subnet}: {answer}");
        assert!(!answer["remedy"].as_str().unwrap().is_empty());
    }
    make(&rest, "web", json!({"networks": ["two"]})).await;
    let remove =
        async |name: &str| rest.ask(Method::DELETE, &format!("{NETWORKS}/{name}"), None).await;
    let (status, answer) = remove("two").await;
    assert_eq!((status, &answer["code"]), (409, &json!("network-in-use")));
    assert!(answer["message"].as_str().unwrap().contains("web"));
    assert_eq!(remove("one").await.0, 200);
    assert_eq!(remove("one").await.0, 404);
    let four = rest.get(&format!("{NETWORKS}/four")).await.1["vni"].as_u64();
    assert_eq!(remove("four").await.0, 200);
    let (_, five) = create("five", "").await;
    assert_eq!(five["subnets"][0], "10.128.0.0/23");
    assert!(five["vni"].as_u64() > four, "no number is given twice");
    let left = rest.get(NETWORKS).await.1;
    let names: Vec<_> = left.as_array().unwrap().iter().map(|it| &it["name"]).collect();
    assert_eq!(names, ["five", "three", "two"]);
}

#[tokio::test]
async fn what_a_container_cannot_have_of_networks_and_ports_is_said() {
    let rest = rest().await;
    let (status, web) = make(&rest, "web", json!({"ports": ["8080:80", "5353/udp@edge-a"]})).await;
    assert_eq!(status, 202, "{web}");
    assert_eq!(web["ports"], json!(["8080:80/tcp", "5353:5353/udp@edge-a"]));
    let nine = vec!["default"; 9];
    for (more, status, code, word) in [
        (json!({"networks": ["nowhere"]}), 404, "unknown-network", "nowhere"),
        (json!({"networks": ["default", "default"]}), 400, "network-twice", "default"),
        (json!({"networks": nine}), 400, "too-many-networks", "9"),
        (json!({"ports": ["http"]}), 400, "invalid-port", "http"),
        (json!({"ports": ["8080:1"]}), 409, "port-taken", "the container web"),
        (json!({"ports": ["8080:1@edge-b"]}), 409, "port-taken", "the container web"),
        (json!({"ports": ["9:1", "9:2"]}), 409, "port-taken", "twice"),
        (json!({"ports": ["53:1/udp"]}), 409, "port-taken", "the fabric itself"),
        (json!({"ports": ["4789/udp@edge-b"]}), 409, "port-taken", "the fabric itself"),
        (json!({"ports": ["22"]}), 409, "port-taken", "sshd on edge-"),
        (json!({"ports": ["9:1@nowhere"]}), 404, "unknown-node", "nowhere"),
    ] {
        let (found, answer) = make(&rest, "other", more.clone()).await;
        assert_eq!((found, &answer["code"]), (status, &json!(code)), "{more}: {answer}");
        assert!(answer["message"].as_str().unwrap().contains(word), "{answer}");
    }
    let free = json!({"ports": ["8080:80/udp", "5353/udp@edge-b"]});
    assert_eq!(make(&rest, "other", free).await.0, 202, "another protocol, another node");
}
