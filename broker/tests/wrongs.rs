//! The wrongs that clients do, byte by byte, and that nobody else suffers from them.

#![expect(clippy::unwrap_used, reason = "what fails here fails its test")]

mod support;

use godwit_bus::Publication;
use godwit_proto::topic::{Filter, Topic};
use support::{Hub, in_time, payload_of, up};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const CONNECT: &[u8] = b"\x10\x0e\0\x04MQTT\x04\x02\0\x3c\0\x02id";

/// A client that has been let in.
async fn client(hub: &Hub) -> TcpStream {
    let mut socket = TcpStream::connect(hub.address).await.unwrap();
    socket.write_all(CONNECT).await.unwrap();
    let mut connack = [0; 4];
    in_time(socket.read_exact(&mut connack)).await.unwrap();
    assert_eq!(connack, [0x20, 2, 0, 0]);
    socket
}

#[tokio::test]
async fn a_client_that_breaks_the_rules_loses_only_its_own_connection() {
    const WILDCARD: &[u8] = b"\x30\x04\0\x01#x";
    const SERVERS_OWN: &[u8] = b"\xd0\0";
    const TWICE: &[u8] = CONNECT;
    const NO_LENGTH: &[u8] = b"\xff\xff\xff\xff\xff";
    const NO_UTF8: &[u8] = b"\x30\x05\0\x02\xc3\x28x";
    const NO_FILTER: &[u8] = b"\x82\x02\0\x01";
    let hub = Hub::start().await;
    let (session, mut inbox) = hub.session("good", [Filter::ControllerHello]);
    up(&session).await;
    for wrong in [WILDCARD, SERVERS_OWN, TWICE, NO_LENGTH, NO_UTF8, NO_FILTER] {
        let mut socket = client(&hub).await;
        socket.write_all(wrong).await.unwrap();
        // A reset is as good an end as a close.
        let end = in_time(socket.read(&mut [0; 4])).await.unwrap_or(0);
        assert_eq!(end, 0, "{wrong:x?} was answered");
        in_time(session.publish_acked(Publication::new(&Topic::ControllerHello, "on")))
            .await
            .unwrap();
        assert_eq!(payload_of(&mut inbox, &Topic::ControllerHello).await, "on");
    }
    assert!(matches!(*session.link().borrow(), godwit_bus::Link::Up));
}

/// Each of them kills rumqttd's own server, or ends its connection.
#[tokio::test]
async fn what_kills_other_brokers_is_answered_as_the_standard_says() {
    const PING: &[u8] = b"\xc0\0";
    const PONG: &[u8] = b"\xd0\0";
    let hub = Hub::start().await;
    let cases: [(&[u8], &[u8]); 4] = [
        // A topic that does not begin with ASCII.
        (b"\x32\x07\0\x02\xc3\xa4\0\x09x", b"\x40\x02\0\x09"),
        (b"\x82\x0b\0\x01\0\x06$ABC/#\0", b"\x90\x03\0\x01\0"),
        (b"\x82\x0f\0\x02\0\x0a$share/g/t\x01", b"\x90\x03\0\x02\x01"),
        // An acknowledgement of nothing.
        (b"\x40\x02\0\x07", b""),
    ];
    for (asked, answer) in cases {
        let mut socket = client(&hub).await;
        socket.write_all(asked).await.unwrap();
        socket.write_all(PING).await.unwrap();
        let mut said = vec![0; answer.len() + PONG.len()];
        in_time(socket.read_exact(&mut said)).await.unwrap();
        assert_eq!(said, [answer, PONG].concat(), "{asked:x?}");
    }
}

#[tokio::test]
async fn a_client_above_the_limit_is_turned_away_until_another_leaves() {
    let config = godwit_broker::Config { max_connections: 1, ..hub_config() };
    let hub = Hub::start_with(config).await;
    let (first, _) = hub.session("first", []);
    up(&first).await;
    let (second, _) = hub.session("second", []);
    support::down(&second).await;
    in_time(first.close(None)).await.unwrap();
    up(&second).await;
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let hub = Hub::start().await;
    let config = godwit_broker::Config { listen: vec![hub.address.into()], ..hub_config() };
    let error = godwit_broker::Broker::bind(config).await.unwrap_err();
    assert!(error.to_string().contains(&hub.address.to_string()), "{error}");
}

fn hub_config() -> godwit_broker::Config {
    godwit_broker::Config::open_to_all("127.0.0.1:0".parse().expect("an address"))
}
