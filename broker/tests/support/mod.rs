//! A broker for a test, sessions with it, and waiting for conditions.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test that asked for it")]
#![allow(dead_code, reason = "each test file uses its part")]

pub(crate) mod accounts;
pub(crate) mod client;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use godwit_broker::{Accounts, Broker, BrokerError, Config as BrokerConfig, Control};
use godwit_bus::{Config, Delivery, Inbox, Link, Session};
use godwit_proto::id::NodeId;
use godwit_proto::topic::{Filter, Topic};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A running broker; stopped when dropped.
pub(crate) struct Hub {
    pub(crate) address: SocketAddr,
    pub(crate) control: Control,
    shutdown: CancellationToken,
    task: Option<JoinHandle<Result<(), BrokerError>>>,
}

impl Hub {
    pub(crate) async fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap()).await
    }

    pub(crate) async fn start_at(address: SocketAddr) -> Self {
        Self::start_with(BrokerConfig::open_to_all(address)).await
    }

    pub(crate) async fn start_with(config: BrokerConfig) -> Self {
        Self::run(Broker::bind(config).await.unwrap())
    }

    pub(crate) async fn start_for(config: BrokerConfig, accounts: Arc<dyn Accounts>) -> Self {
        Self::run(Broker::bind_with(config, accounts).await.unwrap())
    }

    fn run(broker: Broker) -> Self {
        let (address, control) = (broker.tcp_address().unwrap(), broker.control());
        let shutdown = CancellationToken::new();
        let task = Some(tokio::spawn(broker.run(shutdown.clone())));
        Self { address, control, shutdown, task }
    }

    /// Stops it; its port is free afterwards.
    pub(crate) async fn stop(mut self) -> SocketAddr {
        self.shutdown.cancel();
        in_time(self.task.take().unwrap()).await.unwrap().unwrap();
        self.address
    }

    /// Stops it and starts another on the same port.
    pub(crate) async fn restart(self) -> Self {
        Self::start_at(self.stop().await).await
    }

    pub(crate) fn config(&self, client: &str, filters: impl IntoIterator<Item = Filter>) -> Config {
        config(self.address, client, filters)
    }

    pub(crate) fn session(
        &self,
        client: &str,
        filters: impl IntoIterator<Item = Filter>,
    ) -> (Session, Inbox) {
        Session::open(self.config(client, filters)).unwrap()
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

pub(crate) fn config(
    address: SocketAddr,
    client: &str,
    filters: impl IntoIterator<Item = Filter>,
) -> Config {
    let mut config = Config::new(address.into(), client);
    config.subscriptions = filters.into_iter().collect();
    config
}

pub(crate) fn node(name: &str) -> NodeId {
    name.parse().unwrap()
}

/// The outcome of something that must happen; a test that waits for ever fails.
pub(crate) async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("it never happened")
}

pub(crate) async fn up(session: &Session) {
    in_time(session.up()).await.unwrap();
}

pub(crate) async fn down(session: &Session) {
    let mut link = session.link();
    in_time(link.wait_for(|link| matches!(link, Link::Down { .. }))).await.unwrap();
}

pub(crate) async fn until(inbox: &mut Inbox, wanted: impl Fn(&Delivery) -> bool) -> Delivery {
    in_time(async {
        loop {
            let delivery = inbox.recv().await.expect("the session ended");
            if wanted(&delivery) {
                return delivery;
            }
        }
    })
    .await
}

/// The payload of the next delivery, which must be on `topic`.
pub(crate) async fn payload_of(inbox: &mut Inbox, topic: &Topic) -> String {
    let delivery = in_time(inbox.recv()).await.expect("the session ended");
    assert_eq!(delivery.topic.as_ref(), Some(topic));
    String::from_utf8(delivery.payload.to_vec()).unwrap()
}

/// Connects everybody who comes to `from` with `to`, until dropped.
pub(crate) async fn relay(from: SocketAddr, to: SocketAddr) -> AbortOnDrop {
    let listener = TcpListener::bind(from).await.unwrap();
    AbortOnDrop(tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut broker = TcpStream::connect(to).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut broker).await;
            });
        }
    }))
}

pub(crate) struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A broker that accepts one connection, greets it, reads everything and answers nothing.
pub(crate) struct Mute {
    pub(crate) address: SocketAddr,
    read: watch::Receiver<usize>,
    seen: Arc<Mutex<Vec<u8>>>,
    task: JoinHandle<()>,
}

pub(crate) async fn mute_broker(greeting: &[u8]) -> Mute {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (count, read) = watch::channel(0);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let greeting = greeting.to_vec();
    let task = tokio::spawn({
        let seen = seen.clone();
        async move {
            let (mut client, _) = listener.accept().await.unwrap();
            const CONNACK: [u8; 4] = [0x20, 2, 0, 0];
            client.write_all(&CONNACK).await.unwrap();
            client.write_all(&greeting).await.unwrap();
            let mut buffer = [0; 1024];
            loop {
                let n = client.read(&mut buffer).await.unwrap();
                if n == 0 {
                    return;
                }
                seen.lock().unwrap().extend_from_slice(&buffer[..n]);
                count.send_modify(|read| *read += n);
            }
        }
    });
    Mute { address, read, seen, task }
}

impl Mute {
    /// Waits until `bytes` have arrived.
    pub(crate) async fn has_read(&self, bytes: &[u8]) {
        let mut read = self.read.clone();
        let found = || {
            let seen = self.seen.lock().unwrap();
            seen.windows(bytes.len()).any(|window| window == bytes)
        };
        while !found() {
            in_time(read.changed()).await.unwrap();
        }
    }

    /// Breaks the connection; the port is free afterwards.
    pub(crate) async fn stop(self) -> SocketAddr {
        self.task.abort();
        let _ = self.task.await;
        self.address
    }
}
