//! What is held, and where it goes.

use std::io::{ErrorKind, Write};
use std::net::UdpSocket;
use std::sync::mpsc;
use std::thread;

use super::super::Network;
use super::super::packet::{PacketSocket, Receive};
use super::node::{Guest, PORT, connect, on_a_node, receive, send};

/// Content that does not repeat where frames begin.
fn content(length: usize) -> Vec<u8> {
    let words = (0_u32..).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes());
    words.take(length).collect()
}

#[test]
fn what_was_held_arrives_in_order_and_nobody_had_to_send_it_again() {
    on_a_node(|network| async move {
        let client = Guest::attached(&network, 2).await;
        let container = Guest::attached(&network, 9).await;
        let (mut near, mut far) = connect(&client, &container).await;
        let port = network.ready(container.id, &container.interfaces).await.expect("port");
        port.guard().expect("guard");
        let held = network.hold(container.id, &container.interfaces).await.expect("hold");
        port.attach().expect("attach");
        port.announce().expect("announce");

        let came = container.count("Ip", "InReceives").await;
        let delivered = container.count("Tcp", "InSegs").await;
        let resent = client.count("Tcp", "RetransSegs").await;
        // An ARP frame goes to everyone on the bridge: it is not held.
        network.attach(client.id, &client.interfaces).await.expect("client's announcement");
        for part in [&b"one "[..], b"two ", b"three"] {
            send(&mut near, part);
        }
        container.until_received(came + 3).await;
        assert_eq!(container.count("Tcp", "InSegs").await, delivered);
        let kept_out = container.count("Ip", "InReceives").await - came;

        port.unguard().expect("unguard");
        let released = held.replay().expect("replay");
        assert_eq!((released.frames, released.dropped), (kept_out, 0));
        assert_eq!(receive(&mut far, 13), b"one two three");
        assert_eq!(client.count("Tcp", "RetransSegs").await, resent);
    });
}

#[test]
fn undivided_frames_survive_the_replay() {
    const BYTES: usize = 4 << 20;
    on_a_node(|network| async move {
        let client = Guest::attached(&network, 2).await;
        let container = Guest::attached(&network, 9).await;
        let (mut near, mut far) = connect(&client, &container).await;
        // First a transfer that opens the window.
        let mut warming = near.try_clone().expect("clone");
        let writer = thread::spawn(move || send(&mut warming, &content(BYTES)));
        assert!(receive(&mut far, BYTES) == content(BYTES), "the stream is whole before the gap");
        writer.join().expect("writer");

        let port = network.ready(container.id, &container.interfaces).await.expect("port");
        port.guard().expect("guard");
        let held = network.hold(container.id, &container.interfaces).await.expect("hold");
        let came = container.count("Ip", "InReceives").await;
        // As much as the client's kernel takes while nobody answers.
        let all = content(BYTES);
        near.set_nonblocking(true).expect("non-blocking");
        let mut written = 0;
        loop {
            match near.write(&all[written..]) {
                Ok(length) => written += length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("writing: {error}"),
            }
        }
        container.until_received(came + 1).await;
        port.unguard().expect("unguard");
        let released = held.replay().expect("replay");
        assert!(released.bytes > released.frames * 1514, "no frame was undivided: {released:?}");
        assert_eq!(released.dropped, 0);

        near.set_nonblocking(false).expect("blocking");
        let rest = all.clone();
        let writer = thread::spawn(move || send(&mut near, &rest[written..]));
        assert!(receive(&mut far, BYTES) == all, "the stream is whole");
        writer.join().expect("writer");
        assert_eq!(container.count("Tcp", "InCsumErrors").await, 0);
    });
}

#[test]
fn what_does_not_fit_is_dropped_and_counted() {
    const SENT: u64 = 500;
    on_a_node(|network| async move {
        let client = Guest::attached(&network, 2).await;
        let container = Guest::attached(&network, 9).await;
        let at = container.server();
        let sender = client.inside(|| UdpSocket::bind(("0.0.0.0", PORT))).await;
        let receiver = container.inside(move || UdpSocket::bind(at)).await;
        receiver.set_nonblocking(true).expect("non-blocking");
        sender.send_to(b"first", at).expect("each learns of the other");
        container.until_received(1).await;
        receiver.recv(&mut [0; 8]).expect("receive");

        network.guard(container.id).await.expect("guard");
        let held = network.hold_at_most(container.id, &container.interfaces, 64 << 10).await;
        let held = held.expect("hold");
        for number in 0..SENT {
            sender.send_to(&number.to_be_bytes(), at).expect("send");
        }
        container.until_received(1 + SENT).await;
        let dropped = held.dropped();
        assert!(dropped > 0, "all fitted");

        network.unguard(container.id).await.expect("unguard");
        let released = held.replay().expect("replay");
        assert_eq!(released.dropped, dropped);
        assert_eq!(released.frames, SENT - dropped);
        container.until_received(1 + SENT + released.frames).await;
        for expected in 0..released.frames {
            let mut number = [0; 8];
            receiver.recv(&mut number).expect("receive");
            assert_eq!(u64::from_be_bytes(number), expected, "the first ones, in order");
        }
    });
}

#[test]
fn what_was_held_reaches_the_source_after_an_abort() {
    on_a_node(|network| async move {
        let client = Guest::attached(&network, 2).await;
        let source = Guest::attached(&network, 9).await;
        let target = Guest::new(&network, 9).await;
        let (mut near, mut far) = connect(&client, &source).await;
        let resent = client.count("Tcp", "RetransSegs").await;
        let home = network.ready(source.id, &source.interfaces).await.expect("source's port");
        let port = network.ready(target.id, &target.interfaces).await.expect("target's port");
        home.cut().expect("cut");
        port.guard().expect("guard");
        let held = network.hold(target.id, &target.interfaces).await.expect("hold");
        port.attach().expect("attach");
        port.announce().expect("announce");
        let came = target.count("Ip", "InReceives").await;
        send(&mut near, b"meant for ");
        send(&mut near, b"whoever it is");
        target.until_received(came + 2).await;

        port.cut().expect("cut");
        home.attach().expect("attach");
        home.announce().expect("announce");
        let senders = senders_seen(&network, &source).await;
        let released = held.send_back().expect("send back");
        assert_eq!((released.frames, released.dropped), (2, 0));
        assert_eq!(receive(&mut far, 23), b"meant for whoever it is");
        send(&mut far, b"it is the source");
        assert_eq!(receive(&mut near, 16), b"it is the source");
        assert_eq!(client.count("Tcp", "RetransSegs").await, resent);
        let bridge = super::super::bridge::seen(&network.links, "br0").await.expect("bridge");
        assert_eq!(senders.recv().expect("a frame"), bridge.mac, "switches learn nothing wrong");
    });
}

/// The hardware address that the next frame to the guest comes from.
async fn senders_seen(network: &Network, guest: &Guest) -> mpsc::Receiver<[u8; 6]> {
    let link = super::super::naming::host_end(guest.id, 0);
    let index = network.links.must_index(&link).await.expect("link");
    let tap = PacketSocket::open().expect("tap");
    tap.bind(index, Receive::Filtered).expect("bind");
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut frame = [0; 2048];
        loop {
            if tap.receive(&mut frame).expect("tap").is_some() {
                return sender.send([6, 7, 8, 9, 10, 11].map(|at| frame[at]));
            }
            thread::yield_now();
        }
    });
    receiver
}
