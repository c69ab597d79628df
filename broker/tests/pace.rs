//! Clients that are too fast, or too slow.

#![expect(clippy::unwrap_used, reason = "what fails here fails its test")]

mod support;

use std::num::NonZeroU16;
use std::time::Duration;

use bytes::Bytes;
use godwit_broker::{Config, Rates};
use rmqtt_codec::types::{Publish, QoS};
use rmqtt_codec::v5::{Connect, DisconnectReasonCode, Packet};
use support::accounts::Accounts;
use support::client::{Client, hello, hello_as};
use support::{Hub, in_time};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn config() -> Config {
    Config::open_to_all("127.0.0.1:0".parse().unwrap())
}

async fn sample(hub: &Hub, name: &str) -> f64 {
    let page = hub.control.exposition().await;
    let line = page.lines().find_map(|line| line.strip_prefix(&format!("godwit_broker_{name} ")));
    line.unwrap_or_else(|| panic!("no {name} in {page}")).parse().unwrap()
}

async fn until_sample(hub: &Hub, name: &str, wanted: f64) {
    in_time(async {
        while sample(hub, name).await < wanted {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

fn numbered(number: u16) -> Packet {
    Packet::Publish(Box::new(Publish {
        dup: false,
        retain: false,
        qos: QoS::AtLeastOnce,
        topic: "t".into(),
        packet_id: NonZeroU16::new(number),
        payload: Bytes::from(number.to_string()),
        properties: None,
    }))
}

#[tokio::test]
async fn an_account_that_is_too_fast_is_read_more_slowly_and_loses_nothing() {
    let accounts = Accounts::new(&["alice", "bob"], "pattern readwrite #\n");
    let rates = Rates { packets_per_second: 40, ..Rates::default() };
    let hub = Hub::start_with(Config { rates, ..accounts.config() }).await;
    let mut fast = Client::connect(hub.address, hello_as("alice", "fast")).await;
    let mut patient = Client::connect(hub.address, hello_as("bob", "patient")).await;
    patient.subscribe("t").await;
    for number in 1..=60 {
        fast.send(numbered(number)).await;
    }
    // Long before all of it is through: bob has done nothing that he would have to wait for.
    for _ in 0..10 {
        fast.next().await.unwrap();
    }
    for number in 1..=60 {
        assert_eq!(patient.message().await.1, number.to_string());
    }
    until_sample(&hub, "reads_paused_total", 1.0).await;
    let mut others = Client::connect(hub.address, hello_as("bob", "other")).await;
    others.ping().await;
}

#[tokio::test]
async fn an_account_cannot_send_more_bytes_by_having_more_connections() {
    let accounts = Accounts::new(&["alice"], "pattern readwrite #\n");
    let rates = Rates { bytes_per_second: 30_000, ..Rates::default() };
    let hub = Hub::start_with(Config { rates, ..accounts.config() }).await;
    let mut clients = Vec::new();
    for client in ["a", "b", "c"] {
        clients.push(Client::connect(hub.address, hello_as("alice", client)).await);
    }
    let payload = "x".repeat(15_000);
    // One alone is within the rate.
    clients[0].publish("t", &payload, false).await;
    assert_eq!(sample(&hub, "reads_paused_total").await, 0.0);
    for client in &mut clients {
        client.publish("t", &payload, false).await;
        client.ping().await;
    }
    assert!(sample(&hub, "reads_paused_total").await >= 1.0);
}

#[tokio::test]
async fn an_address_that_connects_too_often_is_turned_away_for_a_while() {
    let rates = Rates { connects_per_second: 1, ..Rates::default() };
    let hub = Hub::start_with(Config { rates, ..config() }).await;
    let mut served = 0;
    for _ in 0..40 {
        let mut stream = TcpStream::connect(hub.address).await.unwrap();
        let connect = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01a";
        let mut answer = [0; 4];
        let is_served = stream.write_all(connect).await.is_ok()
            && in_time(stream.read_exact(&mut answer)).await.is_ok();
        served += u32::from(is_served);
    }
    assert!((10..40).contains(&served), "{served}");
    let turned_away = f64::from(40 - served);
    let name = "connections_refused_total{reason=\"connect-rate\"}";
    assert_eq!(sample(&hub, name).await, turned_away);
}

#[tokio::test]
async fn a_packet_that_does_not_end_ends_its_connection_however_it_trickles() {
    let hub = Hub::start_with(Config { packet_timeout_ms: 300, ..config() }).await;
    let client = async || {
        let stream = TcpStream::connect(hub.address).await.unwrap();
        Client::over(stream, Connect { keep_alive: 0, ..hello("") }).await.unwrap()
    };
    let (mut silent, mut trickling, mut idle) = (client().await, client().await, client().await);
    idle.ping().await;
    // 16,383 bytes are to come.
    silent.send_raw(b"\x30\xff\x7f\x00").await;
    trickling.send_raw(b"\x30\xff\x7f\x00").await;
    let farewell = in_time(async {
        loop {
            tokio::select! {
                packet = trickling.next() => return packet,
                () = tokio::time::sleep(Duration::from_millis(20)) => {}
            }
            // Refused only when the end is there to be read.
            let _ = trickling.try_send_raw(b"\x01").await;
        }
    });
    let Some(Packet::Disconnect(bye)) = farewell.await else { panic!("no DISCONNECT") };
    assert_eq!(bye.reason_code, DisconnectReasonCode::ImplementationSpecificError);
    assert_eq!(silent.end().await, DisconnectReasonCode::ImplementationSpecificError);
    // Nobody is cut off who has nothing unfinished, nor one that takes its time between packets.
    idle.ping().await;
}

#[tokio::test]
async fn what_does_not_get_through_a_handshake_is_counted() {
    let hub = Hub::start_with(config()).await;
    let mut stream = TcpStream::connect(hub.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut rest = Vec::new();
    let _closed = in_time(stream.read_to_end(&mut rest)).await;
    let name = "connections_refused_total{reason=\"not-mqtt\"}";
    until_sample(&hub, name, 1.0).await;
}
