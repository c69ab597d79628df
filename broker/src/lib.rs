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
//! rumqttd's own server is not used: it cannot be stopped or told a free port, leaves
//! Nagle's algorithm on, deadlocks with a client that sends and receives streams at
//! once, and a single odd packet kills its router. Nothing is kept on disk: retained
//! messages vanish with the process, and every [session] says its births again.
//!
//! Reading order: this file (listeners, and a new router when one dies), `connection`
//! (one client), `codec` (what a client may send), `clients` (take-over), `router`
//! (rumqttd behind a closure).
//!
//! [session]: ../godwit_bus/struct.Session.html

mod clients;
mod codec;
mod config;
mod connection;
mod router;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

pub use crate::config::Config;
pub use crate::router::QUIET;

use crate::clients::Clients;
use crate::router::Router;

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
}

/// A broker that listens: clients may connect, and are served once it runs.
#[derive(Debug)]
pub struct Broker {
    config: Config,
    listeners: Vec<TcpListener>,
    addresses: Vec<SocketAddr>,
}

/// What the connections of one router share.
struct Door {
    config: Config,
    router: Router,
    clients: Arc<Clients>,
    assigned: AtomicU64,
}

impl Door {
    /// A client id for a client that brings none.
    fn assign_id(&self) -> String {
        format!("assigned-{}", self.assigned.fetch_add(1, Ordering::Relaxed))
    }
}

impl Broker {
    /// Binds every address of `config`. From here on clients can connect.
    ///
    /// # Errors
    /// When an address cannot be bound.
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
        Ok(Self { config, listeners, addresses })
    }

    /// The bound addresses, in the configured order, with their real ports.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Serves until `shutdown`; the ports are free when it returns.
    ///
    /// A router that dies is replaced: clients lose their connection, not the broker.
    pub async fn run(self, shutdown: CancellationToken) {
        let (arrivals, mut streams) = mpsc::channel(64);
        let mut listeners = JoinSet::new();
        for listener in self.listeners {
            listeners.spawn(accept(listener, arrivals.clone()));
        }
        info!(addresses = ?self.addresses, "MQTT broker listening");
        while !shutdown.is_cancelled() {
            serve(&self.config, &mut streams, &shutdown).await;
        }
        listeners.shutdown().await;
        info!("MQTT broker stopped");
    }
}

/// Binds and runs a broker until `shutdown`.
///
/// # Errors
/// When an address cannot be bound.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), BrokerError> {
    Broker::bind(config).await?.run(shutdown).await;
    Ok(())
}

/// Serves clients until `shutdown` or the router's death.
async fn serve(
    config: &Config,
    streams: &mut mpsc::Receiver<TcpStream>,
    shutdown: &CancellationToken,
) {
    let Ok(router) = Router::start(config).await else {
        error!("the router died at its start, starting another");
        return;
    };
    let door = Arc::new(Door {
        config: config.clone(),
        router,
        clients: Arc::default(),
        assigned: AtomicU64::new(1),
    });
    let room = Arc::new(Semaphore::new(config.max_connections));
    let over = shutdown.child_token();
    let mut connections = JoinSet::new();
    let mut death = Box::pin({
        let door = Arc::clone(&door);
        async move { door.router.died().await }
    });
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            died = &mut death => {
                error!(error = %died, "every client must reconnect");
                break;
            }
            Some(stream) = streams.recv() => {
                let Ok(place) = Arc::clone(&room).try_acquire_owned() else {
                    warn!(limit = config.max_connections, "client turned away: too many");
                    continue;
                };
                let (door, over) = (Arc::clone(&door), over.clone());
                connections.spawn(async move {
                    connection::serve(&door, stream, &over).await;
                    drop(place);
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
    over.cancel();
    // A dead router answers nobody: do not wait for goodbyes.
    connections.shutdown().await;
}

async fn accept(listener: TcpListener, arrivals: mpsc::Sender<TcpStream>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                if arrivals.send(stream).await.is_err() {
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
