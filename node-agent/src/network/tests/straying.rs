//! What comes between the cut at the source and the claim at the target.

use super::node::{Guest, connect, on_a_node, receive, send};

#[test]
fn what_comes_before_the_claim_is_held_at_the_target_like_the_rest() {
    on_a_node(|network| async move {
        let client = Guest::attached(&network, 2).await;
        let source = Guest::attached(&network, 9).await;
        let target = Guest::new(&network, 9).await;
        let (mut near, _far) = connect(&client, &source).await;
        let resent = client.count("Tcp", "RetransSegs").await;
        let home = network.ready(source.id, &source.interfaces).await.expect("source's port");
        let port = network.ready(target.id, &target.interfaces).await.expect("target's port");
        let strays = network.strays(source.id, &source.interfaces).await.expect("strays");
        send(&mut near, b"heard");
        strays.begin().expect("begin");
        home.cut().expect("cut");
        send(&mut near, b"strays");
        send(&mut near, b"strays too");

        port.guard().expect("guard");
        let held = network.hold(target.id, &target.interfaces).await.expect("hold");
        let came = target.count("Ip", "InReceives").await;
        port.attach().expect("attach");
        port.announce().expect("announce");
        target.until_received(came + 2).await;
        send(&mut near, b"comes by itself");
        target.until_received(came + 3).await;
        port.unguard().expect("unguard");
        let released = held.replay().expect("replay");
        assert_eq!((released.frames, released.dropped), (3, 0));
        assert_eq!(client.count("Tcp", "RetransSegs").await, resent);
        drop(strays);
    });
}

#[test]
fn what_comes_before_an_abort_reaches_the_source() {
    on_a_node(|network| async move {
        let client = Guest::attached(&network, 2).await;
        let source = Guest::attached(&network, 9).await;
        let (mut near, mut far) = connect(&client, &source).await;
        let resent = client.count("Tcp", "RetransSegs").await;
        let home = network.ready(source.id, &source.interfaces).await.expect("port");
        let strays = network.strays(source.id, &source.interfaces).await.expect("strays");
        strays.begin().expect("begin");
        home.cut().expect("cut");
        send(&mut near, b"one ");
        send(&mut near, b"two");
        network.attach(source.id, &source.interfaces).await.expect("attach");
        let received = tokio::task::spawn_blocking(move || receive(&mut far, 7)).await;
        assert_eq!(received.expect("received"), b"one two");
        assert_eq!(client.count("Tcp", "RetransSegs").await, resent);
        drop(strays);
    });
}
