//! The door on real sockets: who comes in, who waits, and who does not.

#![expect(clippy::unwrap_used, reason = "what fails here fails its test")]

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use godwit_broker::access::Rights;
use godwit_broker::{Accounts, Broker, BrokerError, Config};
use support::client::{Client, hello_as};
use support::{Hub, in_time};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

fn config() -> Config {
    Config::open_to_all("127.0.0.1:0".parse().unwrap())
}

/// Waits until so many did not come in for that reason.
async fn until_refused(hub: &Hub, reason: &str, wanted: u32) {
    let line = format!("godwit_broker_connections_refused_total{{reason=\"{reason}\"}} {wanted}\n");
    in_time(async { while !hub.control.exposition().await.contains(&line) {} }).await;
}

/// A client that has said CONNECT of MQTT 3.1.1, with a user and a password of one letter.
async fn signing_in(hub: &Hub, user: &str) -> TcpStream {
    let user = user.as_bytes();
    let head = b"\x10\x13\0\x04MQTT\x04\xc2\0\x3c\0\x01c\0\x01";
    let mut socket = TcpStream::connect(hub.address).await.unwrap();
    socket.write_all(&[head, user, b"\0\x01", user].concat()).await.unwrap();
    socket
}

/// Lets everybody in, as soon as the gate is open.
#[derive(Debug)]
struct Gated(Mutex<mpsc::Receiver<()>>);

impl Gated {
    /// What opens the gate when it is dropped, and the accounts behind it.
    fn new() -> (mpsc::Sender<()>, Arc<Self>) {
        let (closed, opens) = mpsc::channel();
        (closed, Arc::new(Self(Mutex::new(opens))))
    }
}

impl Accounts for Gated {
    fn verify(&self, _user: &str, _password: &[u8]) -> bool {
        self.0.lock().unwrap().recv().is_err()
    }

    fn of_certificate(&self, _certificate: &[u8]) -> Option<String> {
        None
    }

    fn rights(&self, _user: Option<&str>, _client: &str) -> Option<Rights> {
        Some(Rights::everything())
    }
}

#[tokio::test]
async fn a_client_whose_turn_does_not_come_in_time_is_turned_away() {
    let (closed, accounts) = Gated::new();
    let hub = Hub::start_for(Config { connect_timeout_ms: 100, ..config() }, accounts).await;
    let mut said = Vec::new();
    in_time(signing_in(&hub, "a").await.read_to_end(&mut said)).await.unwrap();
    assert_eq!(said, b"");
    until_refused(&hub, "timeout", 1).await;
    drop(closed);
}

#[tokio::test]
async fn a_client_that_goes_before_its_turn_leaves_its_place() {
    let (closed, accounts) = Gated::new();
    let config = Config { connect_timeout_ms: 3_600_000, max_connections: 4, ..config() };
    let hub = Hub::start_for(config, accounts).await;
    for _ in 0..4 {
        drop(signing_in(&hub, "a").await);
    }
    until_refused(&hub, "gone", 4).await;
    drop(closed);
    Client::connect(hub.address, hello_as("b", "b")).await.ping().await;
}

#[tokio::test]
async fn what_a_client_says_before_its_turn_is_heard_though_it_says_no_more() {
    let (closed, accounts) = Gated::new();
    let hub = Hub::start_for(config(), accounts).await;
    let mut hasty = signing_in(&hub, "a").await;
    hasty.write_all(b"\x31\x05\0\x01tmm").await.unwrap();
    hasty.shutdown().await.unwrap();
    drop(closed);
    in_time(async { while hub.control.retained("t", None, 1).await.unwrap().is_empty() {} }).await;
}

/// Lets everybody in, and panics in the engine.
#[derive(Debug, Default)]
struct Bomb(AtomicBool);

impl Accounts for Bomb {
    fn verify(&self, _user: &str, _password: &[u8]) -> bool {
        true
    }

    fn of_certificate(&self, _certificate: &[u8]) -> Option<String> {
        None
    }

    fn rights(&self, _user: Option<&str>, _client: &str) -> Option<Rights> {
        // The door asks first, and the engine behind it.
        assert!(!self.0.swap(true, Ordering::Relaxed), "as the test wants it");
        Some(Rights::everything())
    }
}

#[tokio::test]
async fn a_broker_whose_engine_breaks_ends() {
    let broker = Broker::bind_with(config(), Arc::new(Bomb::default())).await.unwrap();
    let address = broker.tcp_address().unwrap();
    let running = tokio::spawn(broker.run(CancellationToken::new()));
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(b"\x10\x0e\0\x04MQTT\x05\x02\0\x3c\0\0\x01a").await.unwrap();
    let ended = in_time(running).await.unwrap();
    assert!(matches!(ended, Err(BrokerError::Broken)), "{ended:?}");
    assert!(TcpStream::connect(address).await.is_err(), "it listens");
}
