//! The door on real sockets: who comes in, who waits, and who does not.

#![expect(clippy::unwrap_used, reason = "what fails here fails its test")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use godwit_broker::access::Rights;
use godwit_broker::{Accounts, Broker, BrokerError, Config};
use support::in_time;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

fn config() -> Config {
    Config::open_to_all("127.0.0.1:0".parse().unwrap())
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
