//! What the guard stops, and when it goes.

use std::io;
use std::net::UdpSocket;

use super::super::{Network, NetworkConfig};
use super::node::{Guest, PORT, connect, on_a_node, receive, send};

#[test]
fn nothing_enters_or_leaves_a_guarded_container() {
    on_a_node(|network| async move {
        let client = Guest::attached(&network, 2).await;
        let container = Guest::attached(&network, 9).await;
        let (mut near, _far) = connect(&client, &container).await;
        network.guard(container.id).await.expect("guard");

        let came = container.count("Ip", "InReceives").await;
        let delivered = container.count("Tcp", "InSegs").await;
        let answered = client.count("Ip", "InReceives").await;
        send(&mut near, b"knock");
        container.until_received(came + 1).await;
        assert_eq!(container.count("Tcp", "InSegs").await, delivered);

        let to = client.server();
        let sent = container.inside(move || UdpSocket::bind(("0.0.0.0", PORT))).await;
        let refused = sent.send_to(b"out", to).expect_err("sent through the guard");
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(client.count("Ip", "InReceives").await, answered);
    });
}

#[test]
fn a_guarded_container_without_the_socket_does_not_reset_its_peer() {
    on_a_node(|network| async move {
        let client = Guest::attached(&network, 2).await;
        let source = Guest::attached(&network, 9).await;
        let target = Guest::new(&network, 9).await;
        let (mut near, _far) = connect(&client, &source).await;
        network.cut(source.id).await.expect("cut");

        let port = network.ready(target.id, &target.interfaces).await.expect("port");
        port.guard().expect("guard");
        port.attach().expect("attach");
        port.announce().expect("announce");
        let resets = client.count("Tcp", "EstabResets").await;
        let came = target.count("Ip", "InReceives").await;
        send(&mut near, b"knock");
        target.until_received(came + 1).await;
        assert_eq!(target.count("Tcp", "OutRsts").await, 0);
        assert_eq!(client.count("Tcp", "EstabResets").await, resets);
        assert!(near.take_error().expect("socket").is_none());
    });
}

#[test]
fn guard_and_unguard_may_be_repeated() {
    on_a_node(|network| async move {
        let client = Guest::attached(&network, 2).await;
        let container = Guest::attached(&network, 9).await;
        let port = network.ready(container.id, &container.interfaces).await.expect("port");
        network.unguard(container.id).await.expect("unguarded already");
        for _ in 0..2 {
            network.guard(container.id).await.expect("guard");
            port.guard().expect("guard");
        }
        for _ in 0..2 {
            port.unguard().expect("unguard");
            network.unguard(container.id).await.expect("unguard");
        }
        connect(&client, &container).await;

        port.cut().expect("cut");
        port.cut().expect("cut already");
        network.remove(container.id).await.expect("remove");
        port.cut().expect("gone is cut");
        network.unguard(container.id).await.expect("no namespace is unguarded");
        network.guard(container.id).await.expect_err("guarded what is not there");
    });
}

#[test]
fn the_guard_of_a_dead_agent_goes_with_the_next_ensure_or_attach() {
    on_a_node(|network| async move {
        let client = Guest::attached(&network, 2).await;
        let container = Guest::attached(&network, 9).await;
        network.guard(container.id).await.expect("guard");
        drop(network);

        let network = Network::start(NetworkConfig::default()).await.expect("next agent");
        network.ensure(container.id, &container.interfaces).await.expect("ensure");
        let (mut near, mut far) = connect(&client, &container).await;

        network.guard(container.id).await.expect("guard");
        network.attach(container.id, &container.interfaces).await.expect("attach");
        send(&mut near, b"knock");
        assert_eq!(receive(&mut far, 5), b"knock");

        network.guard(container.id).await.expect("guard");
        network.remove(container.id).await.expect("remove");
        network.ensure(container.id, &container.interfaces).await.expect("ensure anew");
        network.attach(container.id, &container.interfaces).await.expect("attach anew");
        connect(&client, &container).await;
    });
}
