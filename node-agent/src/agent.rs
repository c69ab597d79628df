//! The agent put together: engine, network, ledger, session, and the tasks between them.
//!
//! ```text
//!             Delivery                Input                Errand
//!  session ─────────────▶ route ─────────────▶ driver ─────────────▶ hands ─▶ engine, network
//!     ▲                     │ frames of streams   │ messages           │ streams
//!     └────────── publisher ◀─────────────────────┘◀──── progress ─────┘
//! ```

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use godwit_bus::stream::{MqttLink, Streams};
use godwit_bus::{Config as BusConfig, Link, Publication, Session};
use godwit_proto::frame::FromNode;
use godwit_proto::id::NodeId;
use godwit_proto::migration::Input;
use godwit_proto::node::{NodeState, Presence};
use godwit_proto::topic::{Filter, Peer, Topic};
use godwit_proto::wire;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::conflicts;
use crate::devices::Devices;
use crate::discovery::Discovery;
use crate::driver::{Driver, Outlets};
use crate::engine::{Engine, EngineConfig, ImageDirs, Podman};
use crate::expedite::Expedite;
use crate::hands::{Hands, ImageLocks, Tools, claims};
use crate::ledger::{self, LedgerError};
use crate::membership::{Membership, MembershipError};
use crate::network::{Network, NetworkConfig, NetworkError};
use crate::routes::{Routes, follow};
use crate::serve::{ImageSource, Requests};
use crate::telemetry::{self, Telemetry};
use crate::underlay;
use crate::usage::Meter;
use crate::volumes::Volumes;

/// How often metrics are published.
const METRICS_EVERY: Duration = Duration::from_secs(5);

/// Why the agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// A directory cannot be made or locked.
    #[error("{what}")]
    Directory {
        /// What was tried on which directory.
        what: String,
        /// The kernel's word.
        source: std::io::Error,
    },
    /// Another agent of this host runs.
    #[error("another godwit-agent runs on this host (it holds {0}): stop it first")]
    Running(PathBuf),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// podman.
    #[error(transparent)]
    Engine(#[from] crate::engine::EngineError),
    /// The network.
    #[error("the node's network: {0}")]
    Network(#[from] NetworkError),
    /// mDNS.
    #[error(transparent)]
    Discovery(#[from] crate::discovery::DiscoveryError),
    /// What makes it a node of its fabric.
    #[error(transparent)]
    Membership(#[from] MembershipError),
    /// The session with the broker.
    #[error("the session with the broker")]
    Session(#[from] godwit_bus::PublishError),
}

/// Runs the agent until `shutdown`.
///
/// Containers are left as they are when it ends: they run on, and the next agent finds them.
///
/// # Errors
/// When it cannot start. Once it runs, whatever fails is logged and tried again.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), AgentError> {
    let spool = config.data_dir.join("spool");
    make_dir(&config.run_dir)?;
    make_dir(&spool)?;
    let _lock = lock(&config.run_dir)?;
    let boot = ledger::boot_id(&config.run_dir).map_err(|source| AgentError::Directory {
        what: format!("writing to {}", config.run_dir.display()),
        source,
    })?;

    let engine_config = engine_config(&config);
    let versions = crate::doctor::versions(&engine_config).await;
    let engine = tokio::select! {
        engine = Podman::start(engine_config.clone()) => Arc::new(engine?),
        () = shutdown.cancelled() => return Ok(()),
    };
    let network = Network::start(NetworkConfig {
        bridge: config.bridge.clone(),
        names: config.run_dir.join("names"),
    })
    .await?;

    let membership = Membership::open(&config).await?;
    let discovery = Discovery::open().map(Arc::new);
    let known = match (&config.broker, &membership) {
        (Some(broker), _) => Some(broker.clone()),
        (None, Some(membership)) => membership.broker().await,
        (None, None) => None,
    };
    let authority = membership.as_ref().map(|membership| membership.authority());
    let broker = match (known, &discovery) {
        (Some(broker), _) => broker,
        (None, Ok(discovery)) => tokio::select! {
            found = discovery.find_broker(authority.as_deref()) => found?,
            () = shutdown.cancelled() => return Ok(()),
        },
        (None, Err(_)) => return discovery.map(drop).map_err(AgentError::from),
    };
    tracing::info!(node = %config.node, %broker, "joining");

    let images = engine.images().await?.into_iter().map(|held| held.id).collect();
    let (wished, towards) = (config.underlay, broker.clone());
    let found = tokio::task::spawn_blocking(move || underlay::find(wished, &towards)).await;
    let underlay = found.ok().flatten();
    if let Some(underlay) = underlay {
        network.set_underlay(underlay.address).await;
    }
    let info = telemetry::info(&config, &versions, underlay, images);
    if let Ok(discovery) = &discovery
        && let Err(error) = discovery.announce(&config.node, &info.arch, &info.agent_version)
    {
        tracing::warn!(%error, "the node is not announced by mDNS");
    }
    let mut bus = bus_config(&config.node, broker, &info);
    if let Some(membership) = &membership {
        membership.equip(&mut bus)?;
    }
    let (session, inbox) = Session::open(bus)?;

    let me = Peer::Node(config.node.clone());
    let source = ImageSource::new(engine.clone(), spool.clone());
    let link = MqttLink::new(session.clone(), me);
    let streams = Streams::new(Arc::new(link), Arc::new(source));
    streams.set_node_limit(config.bwlimit);

    let volumes = engine_config.volumes.clone();
    let image_dirs = ImageDirs::open(&config.run_dir, &engine_config.workdir, config.images_bytes)?;

    let (messages, outbox) = mpsc::channel(1024);
    let (errands, errand_inbox) = mpsc::channel(256);
    let outlets = Outlets { messages: messages.clone(), errands };
    let (driver, records) = Driver::start(config.data_dir.join("ledger.db"), boot, outlets)?;
    let named = records.iter().map(|record| (record.spec.id, record.spec.name.clone()));
    let ledgered = Mutex::new(named.collect());
    let tools = Arc::new(Tools {
        engine: engine.clone(),
        network,
        streams: streams.clone(),
        spool,
        images: image_dirs,
        volumes: volumes.clone(),
        outgoing: Default::default(),
        threads: Default::default(),
        claims: Default::default(),
        strays: Default::default(),
        watched: Default::default(),
        unfinished: Default::default(),
        expedite: Expedite::open(&config.run_dir, config.expedite_rcu),
        boot,
        progress: messages.clone(),
        fetching: ImageLocks::default(),
        ledgered,
    });
    let hands = Hands::new(tools.clone(), driver.clone());
    for record in &records {
        if !record.phase.is_over() {
            tools.watched().note(record);
        }
        tools.network.resume(record.spec.id, &record.spec.interfaces).await?;
    }
    hands.resume(&records).await;

    let mut tasks = JoinSet::new();
    tasks.spawn(hands.serve(errand_inbox));
    tasks.spawn(publish(config.node.clone(), session.clone(), outbox));
    tasks.spawn(greet(session.clone(), driver.clone()));
    tasks.spawn(claims::follow(session.clone(), tools.clone()));
    tasks.spawn(conflicts::follow(tools.clone(), messages.clone()));
    tasks.spawn(driver.clone().tick());
    let renewals = membership.map(|membership| {
        let (answers, renewing) = membership.renewing(session.clone());
        tasks.spawn(renewing);
        answers
    });
    let (overlays, told) = watch::channel(None);
    tasks.spawn(follow(told, tools.clone()));
    let routes = Routes {
        driver,
        streams: streams.clone(),
        engine,
        volumes,
        requests: Requests::new(messages),
        renewals,
        overlays,
    };
    tasks.spawn(routes.run(inbox));
    let telemetry = Telemetry::new(&config.data_dir);
    tasks.spawn(measure(config.node.clone(), session.clone(), telemetry, tools));
    let probing = probe(config.clone(), engine_config, session.clone(), info);
    tasks.spawn(probing);
    if let (None, Ok(discovery)) = (&config.broker, &discovery) {
        tasks.spawn(discovery.clone().follow(session.clone(), authority));
    }

    shutdown.cancelled().await;
    tracing::info!("leaving; containers run on");
    let state = Topic::NodeState { node: config.node.clone() };
    let goodbye = Publication::new(&state, presence(Presence::Offline)).retained();
    if let Err(error) = session.close(Some(goodbye)).await {
        tracing::warn!(%error, "the goodbye was not heard");
    }
    tasks.shutdown().await;
    streams.shutdown().await;
    if let Ok(discovery) = discovery {
        discovery.close();
    }
    Ok(())
}

fn engine_config(config: &Config) -> EngineConfig {
    let own = std::env::current_exe().unwrap_or_else(|_| "godwit-agent".into());
    let standard = EngineConfig::standard(own);
    EngineConfig {
        rundir: config.run_dir.clone(),
        workdir: config.data_dir.join("work"),
        volumes: Volumes::new(config.data_dir.join("volumes")),
        devices: Devices::new(config.data_dir.join("devices"), config.devices.clone()),
        criu: config.criu.clone().unwrap_or_else(|| standard.criu.clone()),
        ..standard
    }
}

fn bus_config(
    node: &NodeId,
    broker: godwit_bus::BrokerUrl,
    info: &godwit_proto::node::NodeInfo,
) -> BusConfig {
    let state = Topic::NodeState { node: node.clone() };
    let mut bus = BusConfig::new(broker, format!("node-{node}"));
    bus.will = Some(Publication::new(&state, presence(Presence::Lost)).retained());
    bus.births = vec![
        Publication::new(&state, presence(Presence::Online)).retained(),
        info_publication(node, info),
    ];
    bus.subscriptions = vec![Filter::Inbox(Peer::Node(node.clone())), Filter::ControllerHello];
    bus
}

fn info_publication(node: &NodeId, info: &godwit_proto::node::NodeInfo) -> Publication {
    let topic = Topic::NodeInfo { node: node.clone() };
    Publication::new(&topic, json(info)).retained()
}

fn presence(state: Presence) -> Vec<u8> {
    json(&NodeState { state, since: jiff::Timestamp::now().to_string() })
}

fn json<T: serde::Serialize>(value: &T) -> Vec<u8> {
    // Keys are strings and floats are finite in all that is published.
    serde_json::to_vec(value).unwrap_or_default()
}

/// Frames to the controller, in order.
async fn publish(node: NodeId, session: Session, mut outbox: mpsc::Receiver<FromNode>) {
    let topic = Topic::ControllerIn { node };
    while let Some(frame) = outbox.recv().await {
        match wire::encode(&frame) {
            Ok(bytes) => {
                if let Err(error) = session.publish(Publication::new(&topic, bytes)).await {
                    tracing::debug!(%error, "a message was not sent; it will be repeated");
                }
            }
            Err(error) => tracing::warn!(%error, "a message is not sent"),
        }
    }
}

/// Says hello to the controller on every connection: what it missed is told again.
async fn greet(session: Session, driver: Driver) {
    let mut link = session.link();
    loop {
        if matches!(*link.borrow_and_update(), Link::Up) {
            driver.feed(Input::Hello).await;
        }
        if link.changed().await.is_err() {
            return;
        }
    }
}

/// Metrics, as long as there is a session.
async fn measure<E: Engine>(
    node: NodeId,
    session: Session,
    mut telemetry: Telemetry,
    tools: Arc<Tools<E>>,
) {
    let topic = Topic::NodeMetrics { node };
    let mut meter = Meter::default();
    let mut every = tokio::time::interval(METRICS_EVERY);
    loop {
        every.tick().await;
        let used = tools.engine.usage().await.unwrap_or_default();
        let containers = meter.read(used, |id| tools.name(id), std::time::Instant::now());
        let metrics = telemetry.metrics(containers);
        // Fleeting: old metrics are of no use to anybody.
        let _ = session.publish(Publication::new(&topic, json(&metrics)).fleeting()).await;
    }
}

/// Lets the doctor try a checkpoint, then announces what it found.
async fn probe(
    config: Config,
    engine: EngineConfig,
    session: Session,
    mut info: godwit_proto::node::NodeInfo,
) {
    let report = crate::doctor::examine(&engine, &config.bridge).await;
    info.probe = report.probe();
    for problem in &info.probe.problems {
        tracing::warn!("{problem}");
    }
    let birth = info_publication(&config.node, &info);
    if let Err(error) = session.set_birth(birth) {
        tracing::warn!(%error, "the doctor's findings are not announced");
    }
}

fn make_dir(dir: &Path) -> Result<(), AgentError> {
    std::fs::create_dir_all(dir).map_err(|source| AgentError::Directory {
        what: format!("making {}: is the agent run as root?", dir.display()),
        source,
    })
}

/// One agent a host: two would each think that the containers are theirs.
fn lock(run_dir: &Path) -> Result<std::fs::File, AgentError> {
    let path = run_dir.join("agent.lock");
    let failed =
        |source| AgentError::Directory { what: format!("locking {}", path.display()), source };
    let file = std::fs::File::create(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(AgentError::Running(path)),
        Err(std::fs::TryLockError::Error(source)) => Err(failed(source)),
    }
}
