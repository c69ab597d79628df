//! The MQTT broker: our own sockets and sessions in front of rumqttd's router.
//!
//! ```no_run
//! # async fn example() -> Result<(), godwit_broker::BrokerError> {
//! use godwit_broker::{Broker, Config};
//! use tokio_util::sync::CancellationToken;
//!
//! let broker = Broker::bind(Config::default()).await?;
//! println!("clients may connect to {:?}", broker.addresses());
//! broker.run(CancellationToken::new()).await;
//! # Ok(())
//! # }
//! ```
//!
//! rumqttd's own server is not used: one odd packet kills it, it has no access rules, and it keeps
//! nothing. Its router is inside, as the one way that every event takes; everything else is ours
//! (docs/adr/0004-front-door.md).
//!
//! ```text
//! socket ─ connection ─▶ lane (rumqttd's router) ─▶ engine ─▶ core ─┬▶ store (SQLite)
//!    ▲                                                              │
//!    └──────────── connection ◀── outbox ◀── what is kept ◀─────────┘
//! ```
//!
//! Reading order: `core` (what a broker decides, without sockets), `lane`, `engine`, `store`,
//! `connection`, `packet`.

mod access;
mod config;
mod connection;
mod core;
mod engine;
mod frames;
mod lane;
mod message;
mod metrics;
mod outbox;
mod packet;
mod store;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

pub use crate::config::{Config, Durability, Limits};
pub use crate::engine::EngineError;
pub use crate::lane::QUIET;
pub use crate::store::StoreError;

use crate::access::Access;
use crate::connection::{Door, Origin};
use crate::engine::Engine;
use crate::metrics::Metrics;
use crate::outbox::Outboxes;

/// Why a broker cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// An address is taken, or not ours.
    #[error("cannot listen on {address}: is another broker running there?")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// No address is configured.
    #[error("a broker needs an address to listen on: give one with --listen")]
    NoAddress,
    /// What it works with.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// A broker that listens: clients may connect, and are served once it runs.
pub struct Broker {
    listeners: Vec<TcpListener>,
    addresses: Vec<SocketAddr>,
    door: Arc<Door>,
    engine: Engine,
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

impl Broker {
    /// Takes up what an earlier broker kept and binds every address of `config`. From here on
    /// clients can connect.
    ///
    /// # Errors
    /// When an address cannot be bound, or the store not be used.
    pub async fn bind(config: Config) -> Result<Self, BrokerError> {
        let (mut listeners, mut addresses) = (Vec::new(), Vec::new());
        for &address in &config.listen {
            let listen = |source| BrokerError::Listen { address, source };
            // Tokio sets SO_REUSEADDR: a broker can come back at once.
            let listener = TcpListener::bind(address).await.map_err(listen)?;
            addresses.push(listener.local_addr().map_err(listen)?);
            listeners.push(listener);
        }
        if listeners.is_empty() {
            return Err(BrokerError::NoAddress);
        }
        let (outboxes, metrics) = (Outboxes::default(), Arc::new(Metrics::default()));
        let (engine, lane) = Engine::open(&config, outboxes.clone(), metrics.clone()).await?;
        let (access, next) = (Access::default(), AtomicU64::new(1));
        let door = Arc::new(Door { config, lane, outboxes, metrics, access, next });
        Ok(Self { listeners, addresses, door, engine })
    }

    /// The bound addresses, in the configured order, with their real ports.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Serves until `shutdown`; when it returns the ports are free, clients of MQTT 5 have been told
    /// why, and what is kept is written.
    pub async fn run(self, shutdown: CancellationToken) {
        let stop = CancellationToken::new();
        // However this ends, even dropped with its runtime.
        let _stops_it = stop.clone().drop_guard();
        let (engine, ended) = (self.engine, stop.clone());
        // Not a task: on a worker it would stand behind those who copy bulk.
        let runtime = tokio::runtime::Handle::current();
        let engine = tokio::task::spawn_blocking(move || runtime.block_on(engine.run(ended)));
        let room = Arc::new(Semaphore::new(self.door.config.max_connections));
        let (arrivals, mut streams) = mpsc::channel(64);
        let mut listeners = JoinSet::new();
        for listener in self.listeners {
            listeners.spawn(accept(listener, arrivals.clone()));
        }
        info!(addresses = ?self.addresses, "MQTT broker listening");
        let mut connections = JoinSet::new();
        loop {
            let (stream, address) = tokio::select! {
                () = shutdown.cancelled() => break,
                Some(arrival) = streams.recv() => arrival,
                Some(_) = connections.join_next() => continue,
            };
            let Ok(place) = Arc::clone(&room).try_acquire_owned() else {
                warn!(limit = self.door.config.max_connections, "client turned away: too many");
                continue;
            };
            let (door, over) = (self.door.clone(), shutdown.clone());
            connections.spawn(async move {
                let origin = Origin { address: address.to_string() };
                connection::serve(&door, stream, origin, &over).await;
                drop(place);
            });
        }
        listeners.shutdown().await;
        while connections.join_next().await.is_some() {}
        stop.cancel();
        if engine.await.is_err() {
            error!("the broker's engine panicked");
        }
        info!("MQTT broker stopped");
    }
}

/// Binds and runs a broker until `shutdown`.
///
/// # Errors
/// When an address cannot be bound, or the store not be used.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), BrokerError> {
    Broker::bind(config).await?.run(shutdown).await;
    Ok(())
}

async fn accept(listener: TcpListener, arrivals: mpsc::Sender<(TcpStream, SocketAddr)>) {
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                if let Err(error) = stream.set_nodelay(true) {
                    debug!(%error, "TCP_NODELAY refused");
                }
                if arrivals.send((stream, address)).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                // Out of descriptors, most likely: some will be given back.
                warn!(%error, "cannot accept a client");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}
