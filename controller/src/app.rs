//! The composition root: which parts there are and who hears whom.
//!
//! ```text
//! broker ──▶ session ──▶ router ─┬─ controller/in ─▶ decision core ──▶ events ─┬─ publisher
//!                                ├─ node/… ────────▶ registry ──────▶ events   ├─ commands
//!                                ├─ command/… ─────▶ commands ─▶ service       └─ REST streams
//!                                └─ peer/… ────────▶ streams (images to nodes)
//! ```

mod error;
mod hub;

use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::DirBuilderExt as _;
use std::sync::Arc;
use std::time::Duration;

use godwit_bus::stream::{MqttLink, Streams};
use godwit_bus::{
    BrokerUrl, Credentials, Delivery, Inbox, Link, Publication, PublishError, Session,
};
use godwit_proto::frame::{ControllerHello, FromNode, ToNode};
use godwit_proto::id::NodeId;
use godwit_proto::topic::{Filter, Peer, Topic};
use godwit_proto::wire;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, broadcast, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::accounts::Accounts;
use crate::api::{self, Api};
use crate::commands::{Commands, Intake};
use crate::config::{BrokerChoice, Config};
use crate::decisions::Decisions;
use crate::discovery::{BrokerPlace, Discovery};
use crate::event::{BACKLOG, Event};
use crate::images::Images;
use crate::latest::Latest;
use crate::overlays::Teller;
use crate::publish::Publisher;
use crate::registry::Registry;
use crate::service::{Parts, Service};
use crate::store::{Store, StoreHandle};
use crate::supply::Supply;

pub use self::error::AppError;
use self::hub::Hub;

/// How many frames wait on their way to nodes.
const FRAMES: usize = 1024;
/// How long requests under way may take to end once the controller is to stop.
const FAREWELL: Duration = Duration::from_secs(5);
/// As large as an agent's: chunks of streams pass through this session too.
const PACKET_BYTES: usize = 1 << 20;

/// A controller that listens; its clients are served once it runs.
pub struct Controller {
    config: Config,
    hub: Option<Hub>,
    /// Held as long as this controller may write the database.
    _lock: std::fs::File,
    rest: TcpListener,
    rest_address: SocketAddr,
    store: StoreHandle,
    /// The decision core's own connection.
    core_store: Store,
    images: Images,
}

impl Controller {
    /// Opens the data and binds every address. Nothing is served yet.
    ///
    /// # Errors
    /// Every [`AppError`] but those of the session and of mDNS.
    pub async fn bind(config: Config) -> Result<Self, AppError> {
        let data = &config.data_dir;
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(data)
            .map_err(|source| AppError::DataDir { path: data.clone(), source })?;
        let lock = lock(data)?;
        let file = data.join("godwit.db");
        let core_store = Store::open(&file)?;
        let store = StoreHandle::open(&file)?;
        let images = Images::open(data.join("images"), store.clone())?;
        let hub = match &config.broker {
            BrokerChoice::Embedded(wanted) => {
                let fabric = core_store.fabric()?;
                Some(Hub::bind(wanted, data, store.clone(), fabric).await?)
            }
            BrokerChoice::External(_) => None,
        };
        let at = |source| AppError::Listen { address: config.listen, source };
        let rest = TcpListener::bind(config.listen).await.map_err(at)?;
        let rest_address = rest.local_addr().map_err(at)?;
        Ok(Self { config, hub, _lock: lock, rest, rest_address, store, core_store, images })
    }

    /// Where the REST API is, with its real port.
    pub fn rest_address(&self) -> SocketAddr {
        self.rest_address
    }

    /// Where the embedded broker is, with its real ports; nothing if the broker is elsewhere.
    pub fn broker_addresses(&self) -> Vec<SocketAddr> {
        self.hub.as_ref().map(Hub::addresses).unwrap_or_default()
    }

    /// Serves until `shutdown`, or until a part ends by itself, which ends all.
    ///
    /// On the way out the broker goes last, so that every goodbye is heard.
    ///
    /// # Errors
    /// [`AppError::Session`], [`AppError::Discovery`] and [`AppError::Store`].
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), AppError> {
        let (url, credentials, place) = match (&self.hub, &self.config.broker) {
            (Some(hub), BrokerChoice::Embedded(wanted)) => {
                let (url, credentials) = hub.own();
                (url, Some(credentials), hub.place(&wanted.listen))
            }
            (_, BrokerChoice::External(url)) => (url.clone(), None, Some(apart(url))),
            (None, BrokerChoice::Embedded(_)) => return Err(AppError::NoBroker),
        };
        let (broker_over, parts_over) = (CancellationToken::new(), shutdown.child_token());
        let fabric = self.store.call(|store| store.fabric()).await?;
        let (events, watching) = broadcast::channel::<Event>(BACKLOG);
        let registry = Registry::open(self.store.clone(), events.clone()).await?;
        let latest = Latest::default();
        let discovery = self.config.has_mdns.then(|| Discovery::open(fabric, place)).transpose()?;

        let control = self.hub.as_ref().map(|hub| hub.broker.control());
        let (mut brokers, mut parts) = (JoinSet::new(), JoinSet::new());
        let over = || parts_over.child_token();
        let accounts = self.hub.map(|hub| {
            parts.spawn(hub.renewing(over()));
            brokers.spawn(hub.broker.run(broker_over.clone()));
            hub.accounts
        });
        let (session, inbox) = Session::open(session_config(url, credentials, fabric))?;
        let (frames, outbound) = mpsc::channel(FRAMES);
        let teller = Teller::new(self.store.clone(), registry.clone(), frames.clone());
        parts.spawn(teller.run(events.subscribe(), over()));
        let decisions = Decisions::open(self.core_store, frames, events)?;
        let service = Service::new(Parts {
            core: Arc::new(decisions.clone()),
            store: self.store.clone(),
            registry: registry.clone(),
            images: self.images.clone(),
            latest: latest.clone(),
            pool: self.config.pool,
            ranges: self.config.ranges,
            network: self.config.network.clone(),
            creating: Mutex::new(()),
        });
        let streams = Streams::new(
            Arc::new(MqttLink::new(session.clone(), Peer::Controller)),
            Arc::new(Supply::new(self.images)),
        );

        let publisher =
            Publisher::new(session.clone(), self.store.clone(), registry.clone(), latest);
        parts.spawn(publisher.run(watching, over()));
        let (commands, waiting) = Intake::new(session.clone());
        parts.spawn(
            Commands::new(service.clone(), self.store, session.clone()).run(waiting, over()),
        );
        let routes = Routes {
            registry: registry.clone(),
            decisions: decisions.clone(),
            streams: streams.clone(),
            commands,
            joins: accounts.clone().map(|accounts| (accounts, session.clone())),
        };
        parts.spawn(routes.run(inbox, over()));
        parts.spawn(greet(decisions, session.clone(), over()));
        parts.spawn(send(outbound, session.clone(), over()));
        if let Some(discovery) = discovery {
            parts.spawn(discovery.run(registry.clone(), over()));
        }
        let keeper = (registry, over());
        parts.spawn(async move { keeper.0.run(keeper.1).await });
        let link = session.link();
        let api = Api { service, accounts, link, broker: control, fabric, shutdown: over() };
        parts.spawn(async move {
            if let Err(error) = api::serve(self.rest, api).await {
                tracing::error!(%error, "the REST API broke");
            }
        });
        tracing::info!(%fabric, rest = %self.rest_address, "controller is up");

        // The first part that ends, ends all: by the signal, or because it broke.
        tokio::select! {
            Some(_) = parts.join_next() => {}
            Some(_) = brokers.join_next() => {}
        }
        let is_broken = !shutdown.is_cancelled();
        parts_over.cancel();
        let farewell = async { while parts.join_next().await.is_some() {} };
        // An upload may go on for minutes; what it leaves is cleared at the next start.
        if tokio::time::timeout(FAREWELL, farewell).await.is_err() {
            tracing::warn!("some requests are cut off");
            parts.shutdown().await;
        }
        streams.shutdown().await;
        if let Err(error) = session.close(None).await {
            tracing::warn!(%error, "no goodbye to the broker");
        }
        broker_over.cancel();
        while brokers.join_next().await.is_some() {}
        tracing::info!("controller is down");
        if is_broken { Err(AppError::Broken) } else { Ok(()) }
    }
}

fn lock(data: &std::path::Path) -> Result<std::fs::File, AppError> {
    let failed = |source| AppError::DataDir { path: data.to_owned(), source };
    let file = std::fs::File::create(data.join("lock")).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(AppError::Running { path: data.to_owned() }),
        Err(std::fs::TryLockError::Error(source)) => Err(failed(source)),
    }
}

fn session_config(
    broker: BrokerUrl,
    credentials: Option<Credentials>,
    fabric: uuid::Uuid,
) -> godwit_bus::Config {
    let mut config = godwit_bus::Config::new(broker, format!("godwit-controller-{fabric}"));
    config.credentials = credentials;
    config.subscriptions = vec![
        Filter::ControllerIn,
        Filter::JoinRequests,
        Filter::RenewRequests,
        Filter::Nodes,
        Filter::Commands,
        Filter::Inbox(Peer::Controller),
    ];
    config.max_packet_bytes = PACKET_BYTES;
    config.inbox_capacity = 1024;
    config
}

/// What mDNS says of a broker apart: its address, if that leads there from everywhere. One on this
/// machine is on every link; nobody else's loopback leads here.
fn apart(url: &BrokerUrl) -> BrokerPlace {
    let address: Option<IpAddr> = url.host().trim_matches(['[', ']']).parse().ok();
    let address = address.filter(|address| !address.is_loopback());
    BrokerPlace { address, port: url.port(), authority: None }
}

/// Hands each delivery to whom it is for.
struct Routes {
    registry: Registry,
    decisions: Decisions,
    streams: Streams,
    commands: Intake,
    /// Where there are accounts of our own.
    joins: Option<(Accounts, Session)>,
}

impl Routes {
    async fn run(self, mut inbox: Inbox, shutdown: CancellationToken) {
        loop {
            let delivery = tokio::select! {
                () = shutdown.cancelled() => return,
                delivery = inbox.recv() => delivery,
            };
            let Some(delivery) = delivery else { return };
            self.route(delivery).await;
        }
    }

    async fn route(&self, delivery: Delivery) {
        match &delivery.topic {
            Some(Topic::ControllerIn { node }) => match wire::decode::<FromNode>(&delivery.payload)
            {
                Ok(frame) => self.decisions.heard(node.clone(), frame).await,
                Err(error) => tracing::warn!(%node, %error, "a frame of the node is ignored"),
            },
            Some(Topic::PeerCtl { to: Peer::Controller, from }) => {
                self.streams.on_ctl(from, &delivery.payload);
            }
            Some(Topic::PeerBulk { to: Peer::Controller, from }) => {
                self.streams.on_bulk(from, delivery.payload);
            }
            Some(Topic::Command { .. }) => self.commands.take(delivery),
            Some(topic @ (Topic::JoinRequest { .. } | Topic::RenewRequest { .. })) => {
                if let Some((accounts, session)) = &self.joins {
                    accounts.take(session, topic, &delivery.payload).await;
                }
            }
            Some(topic) => self.registry.hear(topic, &delivery.payload),
            None => tracing::debug!(topic = delivery.raw_topic, "not a topic of ours"),
        }
    }
}

/// Says hello on every connection, so that nodes announce themselves to this run.
async fn greet(decisions: Decisions, session: Session, shutdown: CancellationToken) {
    let mut link = session.link();
    // It may be up before anybody watches.
    link.mark_changed();
    loop {
        let changed = tokio::select! {
            () = shutdown.cancelled() => return,
            changed = link.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
        if *link.borrow_and_update() != Link::Up {
            continue;
        }
        let Some(run) = decisions.run().await else { return };
        if let Err(error) =
            publish(&session, &Topic::ControllerHello, &ControllerHello { run }).await
        {
            tracing::warn!(%error, "no hello to the nodes");
        }
    }
}

/// Sends the decision core's frames.
async fn send(
    mut outbound: mpsc::Receiver<(NodeId, ToNode)>,
    session: Session,
    shutdown: CancellationToken,
) {
    loop {
        let frame = tokio::select! {
            () = shutdown.cancelled() => return,
            frame = outbound.recv() => frame,
        };
        let Some((node, frame)) = frame else { return };
        let topic = Topic::AgentCtl { node };
        // The core repeats what is not answered.
        if let Err(error) = publish(&session, &topic, &frame).await {
            tracing::warn!(%topic, %error, "a frame is not sent");
        }
    }
}

/// Why a frame did not leave.
#[derive(Debug, thiserror::Error)]
enum Unsent {
    #[error(transparent)]
    Frame(#[from] wire::FrameError),
    #[error(transparent)]
    Publish(#[from] PublishError),
}

async fn publish(session: &Session, topic: &Topic, frame: &impl wire::Frame) -> Result<(), Unsent> {
    let bytes = wire::encode(frame)?;
    Ok(session.publish(Publication::new(topic, bytes)).await?)
}

#[cfg(test)]
mod tests;
