//! The MQTT broker: our own sockets and sessions in front of rumqttd's router.
//!
//! ```no_run
//! # async fn example() -> Result<(), godwit_broker::BrokerError> {
//! use godwit_broker::{Broker, Config};
//! use tokio_util::sync::CancellationToken;
//!
//! let broker = Broker::bind(Config::default()).await?;
//! println!("clients may connect to {:?}", broker.addresses());
//! broker.run(CancellationToken::new()).await?;
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
//! `connection`, `packet`, `bulk` (which threads serve whom); then what operators see of it:
//! `control`, `sys`, `exposition`, `admin`.

pub mod access;
mod accounts;
pub mod admin;
mod admission;
mod bulk;
mod config;
mod connection;
mod control;
mod core;
mod engine;
mod exposition;
mod frames;
mod lane;
pub mod listener;
mod message;
mod metrics;
mod notice;
mod outbox;
mod packet;
mod rates;
mod report;
mod store;
mod sys;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

pub use crate::accounts::{Accounts, AccountsError, Files, Nobody};
pub use crate::config::{Anonymous, Config, Durability, Limits, Rates};
pub use crate::control::{Control, NoAnswer};
pub use crate::engine::EngineError;
pub use crate::lane::QUIET;
pub use crate::report::{ConnectionReport, Inventory, RetainedReport, SessionReport, TopicReport};
pub use crate::store::StoreError;

use crate::admission::Admission;
use crate::bulk::{Bulk, Traffic};
use crate::connection::Door;
use crate::engine::Engine;
use crate::listener::{BoundAddress, Doorstep, ListenError, Listeners};
use crate::metrics::{Metrics, Refused};
use crate::outbox::Outboxes;

/// Why a broker cannot start, or go on.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// Its addresses or its certificate.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The files of accounts.
    #[error(transparent)]
    Accounts(#[from] AccountsError),
    /// What it works with.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Threads for bulk.
    #[error("the threads for bulk do not start: is there memory for them?")]
    Threads(#[source] std::io::Error),
    /// A part of it ended by itself.
    #[error("a part of the broker broke: the log says which")]
    Broken,
    /// It would be a broker for nobody.
    #[error(
        "nobody could come in: set `password-file`, or certificates with `tls.clients`, or say \
         `anonymous = \"loopback\"` for processes of this machine"
    )]
    Nobody,
}

/// A broker that listens: clients may connect, and are served once it runs.
pub struct Broker {
    listeners: Listeners,
    addresses: Vec<BoundAddress>,
    door: Arc<Door>,
    control: Control,
    engine: Engine,
    bulk: Bulk,
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

impl Broker {
    /// A broker with the accounts of its files: takes up what an earlier one kept, and binds every
    /// address of `config`. From here on clients can connect.
    ///
    /// # Errors
    /// When an address cannot be bound, a file or the store not be used, or nobody could come in.
    pub async fn bind(config: Config) -> Result<Self, BrokerError> {
        let are_certified = config.tls.as_ref().is_some_and(|tls| tls.clients.is_some());
        let has_files = config.password_file.is_some() || config.acl_file.is_some();
        if !has_files && !are_certified {
            if config.anonymous == Anonymous::Never {
                return Err(BrokerError::Nobody);
            }
            return Self::start(config, Arc::new(Nobody), None).await;
        }
        let (passwords, rules) = (config.password_file.clone(), config.acl_file.clone());
        let files = Arc::new(Files::open(passwords, rules, are_certified)?);
        Self::start(config, files.clone(), Some(files)).await
    }

    /// The same with accounts from elsewhere; those of files are not looked at.
    ///
    /// # Errors
    /// Like [`bind`](Self::bind).
    pub async fn bind_with(
        config: Config,
        accounts: Arc<dyn Accounts>,
    ) -> Result<Self, BrokerError> {
        Self::start(config, accounts, None).await
    }

    async fn start(
        config: Config,
        accounts: Arc<dyn Accounts>,
        files: Option<Arc<Files>>,
    ) -> Result<Self, BrokerError> {
        let listeners = Listeners::bind(config.listener()).await?;
        let addresses = listeners.addresses().to_vec();
        let (outboxes, metrics) = (Outboxes::default(), Arc::new(Metrics::default()));
        let (engine, lane) =
            Engine::open(&config, outboxes.clone(), metrics.clone(), accounts.clone()).await?;
        if config.anonymous != Anonymous::Never {
            warn!(who = ?config.anonymous, "clients without an account are let in");
        }
        let admission = Arc::new(Admission::new(accounts, config.anonymous));
        let rates = Arc::new(rates::Rates::new(config.rates));
        let (next, stopped) = (AtomicU64::new(1), CancellationToken::new());
        let door =
            Arc::new(Door { config, lane, outboxes, metrics, admission, rates, next, stopped });
        let control = Control::new(door.clone(), files, listeners.tls());
        let bulk = Bulk::start().map_err(BrokerError::Threads)?;
        Ok(Self { listeners, addresses, door, control, engine, bulk })
    }

    /// The bound addresses, in the configured order, with their real ports.
    pub fn addresses(&self) -> &[BoundAddress] {
        &self.addresses
    }

    /// The first of them that is an address and a port.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        self.addresses.iter().find_map(BoundAddress::tcp)
    }

    /// What can be asked of it while it runs.
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// Serves until `shutdown`; when it returns the ports are free, clients of MQTT 5 have been told
    /// why, and what is kept is written.
    ///
    /// # Errors
    /// [`BrokerError::Broken`], before `shutdown`: a broker that listens and answers nothing is worse
    /// than none.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), BrokerError> {
        let (stop, over) = (CancellationToken::new(), shutdown.child_token());
        let _stopped = self.door.stopped.clone().drop_guard();
        // However this ends, even dropped with its runtime.
        let _stops_it = stop.clone().drop_guard();
        let (engine, ended) = (self.engine, stop.clone());
        // Not a task: on a worker it would stand behind those who copy bulk.
        let runtime = tokio::runtime::Handle::current();
        // The engine's end is the broker's, asked for or not.
        let ends_all = over.clone().drop_guard();
        let engine = tokio::task::spawn_blocking(move || {
            let _ends_all = ends_all;
            runtime.block_on(engine.run(ended));
        });
        let reporting = tokio::spawn(sys::run(self.control, over.clone()));
        let room = Arc::new(Semaphore::new(self.door.config.max_connections));
        let (sink, mut arrivals) = mpsc::channel(64);
        let doorstep = Doorstep::new(self.door.rates.clone(), self.door.metrics.clone());
        let listeners = self.listeners.run(Arc::new(doorstep), sink, over.clone());
        let listeners = tokio::spawn(listeners);
        let mut connections = JoinSet::new();
        loop {
            let (stream, peer) = tokio::select! {
                () = over.cancelled() => break,
                Some(arrival) = arrivals.recv() => arrival,
                Some(_) = connections.join_next() => continue,
            };
            let metrics = &self.door.metrics;
            metrics.sockets.fetch_add(1, Ordering::Relaxed);
            let Ok(place) = Arc::clone(&room).try_acquire_owned() else {
                metrics.connections_refused.add(Refused::Full, 1);
                warn!(limit = self.door.config.max_connections, "client turned away: too many");
                continue;
            };
            let (door, over) = (self.door.clone(), over.clone());
            let traffic = Arc::new(Traffic::new(Instant::now()));
            let told = traffic.clone();
            connections.spawn(self.bulk.serve(traffic, async move {
                connection::serve(&door, stream, peer, &told, &over).await;
                drop(place);
            }));
        }
        drop(arrivals);
        while connections.join_next().await.is_some() {}
        stop.cancel();
        let _ended = reporting.await;
        let have_panicked = engine.await.is_err() | listeners.await.is_err();
        if have_panicked || !shutdown.is_cancelled() {
            error!("a part of the broker broke");
            return Err(BrokerError::Broken);
        }
        info!("MQTT broker stopped");
        Ok(())
    }
}

/// Binds and runs a broker until `shutdown`.
///
/// # Errors
/// Like [`Broker::bind`] and [`Broker::run`].
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), BrokerError> {
    Broker::bind(config).await?.run(shutdown).await
}
