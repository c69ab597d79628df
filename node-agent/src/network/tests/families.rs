//! Containers with addresses of either family, and with several interfaces.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use godwit_proto::container::Interface;

use super::super::Network;
use super::node::{Guest, PORT, on_a_node};

/// A guest with two interfaces, the first of which has an address of either family.
async fn dual(network: &Network, last: u8, mac: u8) -> Guest {
    let interface = |number: u8, addresses: Vec<String>| Interface {
        mac: [2, 0, 0, 0, number, mac],
        addresses: addresses.iter().map(|text| text.parse().expect("an address")).collect(),
        gateways: Vec::new(),
        overlay: None,
    };
    let first = vec![format!("10.77.0.{last}/24"), format!("fd77::{last}/64")];
    let interfaces = vec![interface(0, first), interface(1, vec![format!("10.78.0.{last}/24")])];
    let ip = Ipv4Addr::new(10, 77, 0, last);
    Guest::with(network, ip, interfaces).await
}

fn addresses(last: u8) -> [SocketAddr; 3] {
    [format!("10.77.0.{last}"), format!("fd77::{last}"), format!("10.78.0.{last}")]
        .map(|ip| SocketAddr::new(ip.parse().expect("an address"), PORT))
}

/// A socket that hears both families.
async fn ear(guest: &Guest) -> UdpSocket {
    let socket = guest.inside(|| UdpSocket::bind(("::", PORT))).await;
    socket.set_read_timeout(Some(Duration::from_secs(10))).expect("timeout");
    socket
}

fn heard(socket: &UdpSocket) -> Vec<u8> {
    let mut datagram = [0; 64];
    let length = socket.recv(&mut datagram).expect("a datagram");
    datagram[..length].to_vec()
}

#[test]
fn what_came_for_any_of_the_addresses_in_the_gap_arrives_at_the_target() {
    on_a_node(|network| async move {
        let client = dual(&network, 2, 2).await;
        let source = dual(&network, 9, 9).await;
        let target = dual(&network, 9, 9).await;
        for guest in [&client, &source] {
            network.attach(guest.id, &guest.interfaces).await.expect("attach");
        }
        let (mouth, before) = (ear(&client).await, ear(&source).await);
        for at in addresses(9) {
            mouth.send_to(b"known", at).expect("send");
            assert_eq!(heard(&before), b"known");
        }
        let home = network.ready(source.id, &source.interfaces).await.expect("port");
        let port = network.ready(target.id, &target.interfaces).await.expect("port");
        home.cut().expect("cut");
        port.guard().expect("guard");
        let held = network.hold(target.id, &target.interfaces).await.expect("hold");
        port.attach().expect("attach");
        port.announce().expect("announce");
        let after = ear(&target).await;
        let mut told = Vec::new();
        for at in addresses(9) {
            mouth.send_to(at.to_string().as_bytes(), at).expect("send");
            told.push(at.to_string().into_bytes());
        }
        after.set_nonblocking(true).expect("non-blocking");
        assert!(after.recv(&mut [0; 64]).is_err(), "it came through the guard");
        after.set_nonblocking(false).expect("blocking");
        port.unguard().expect("unguard");
        let released = held.replay().expect("replay");
        assert_eq!(released.dropped, 0);
        let mut all = [heard(&after), heard(&after), heard(&after)];
        all.sort();
        told.sort();
        assert_eq!(all.as_slice(), told);
    });
}

#[test]
fn an_announcement_replaces_what_neighbours_know() {
    on_a_node(|network| async move {
        let client = dual(&network, 2, 2).await;
        let first = dual(&network, 9, 9).await;
        let second = dual(&network, 9, 10).await;
        for guest in [&client, &first] {
            network.attach(guest.id, &guest.interfaces).await.expect("attach");
        }
        let at = addresses(9)[1];
        let (mouth, before) = (ear(&client).await, ear(&first).await);
        mouth.send_to(b"known", at).expect("send");
        assert_eq!(heard(&before), b"known");
        network.cut(first.id).await.expect("cut");
        network.attach(second.id, &second.interfaces).await.expect("attach");
        let after = ear(&second).await;
        mouth.send_to(b"moved", at).expect("send");
        assert_eq!(heard(&after), b"moved");
        assert_eq!(client.count6("Icmp6InCsumErrors").await, 0);
    });
}

#[test]
fn who_asks_for_a_guarded_address_of_ipv6_is_answered_and_the_question_is_not_held() {
    on_a_node(|network| async move {
        let client = dual(&network, 2, 2).await;
        let container = dual(&network, 9, 9).await;
        network.attach(client.id, &client.interfaces).await.expect("attach");
        let port = network.ready(container.id, &container.interfaces).await.expect("port");
        port.guard().expect("guard");
        port.guard().expect("guard again");
        let held = network.hold(container.id, &container.interfaces).await.expect("hold");
        port.attach().expect("attach");
        let (mouth, listening) = (ear(&client).await, ear(&container).await);
        mouth.send_to(b"knock", addresses(9)[1]).expect("send");
        let answered = async {
            while client.count6("Icmp6InNeighborAdvertisements").await == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        answered.await;
        // Sent when the answer came, and seen by the socket that holds it.
        while container.count6("Ip6InReceives").await < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(container.count6("Udp6InDatagrams").await, 0);
        let asked = container.count6("Icmp6InNeighborSolicits").await;
        port.unguard().expect("unguard");
        let released = held.replay().expect("replay");
        assert_eq!(released.dropped, 0);
        assert_eq!(heard(&listening), b"knock");
        let again = container.count6("Icmp6InNeighborSolicits").await - asked;
        assert_eq!(again, 0, "a question was held");
    });
}

#[test]
fn nothing_is_left_of_any_interface() {
    on_a_node(|network| async move {
        let guest = dual(&network, 9, 9).await;
        network.attach(guest.id, &guest.interfaces).await.expect("attach");
        let path = Network::path(guest.id);
        network.remove(guest.id).await.expect("remove");
        network.remove(guest.id).await.expect("remove again");
        assert!(!path.exists());
        for ordinal in 0..2 {
            let name = super::super::naming::host_end(guest.id, ordinal);
            assert_eq!(network.links.index(&name).await.expect("links"), None);
        }
    });
}

#[test]
fn addresses_are_ready_when_they_are_there() {
    on_a_node(|network| async move {
        let guest = dual(&network, 9, 9).await;
        let own: IpAddr = "fd77::9".parse().expect("an address");
        // One that is still being looked for elsewhere cannot be bound.
        guest.inside(move || UdpSocket::bind((own, PORT))).await;
    });
}
