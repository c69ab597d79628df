//! The handle: publish, stand by what is said at birth, watch the link, say goodbye.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rumqttc::{Publish, QoS};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::config::{BrokerUrl, Config};
use crate::message::{Delivery, Lane, Publication};
use crate::pump::{Pump, Told};

/// How many messages wait in one lane, however small they are.
const LANE_MESSAGES: usize = 256;

/// One MQTT session, as many handles to it as you like.
///
/// The last handle dropped without [`Session::close`] drops the connection without
/// a goodbye, as a crash would: the broker publishes the will.
#[derive(Debug, Clone)]
pub struct Session {
    control: Outbound,
    bulk: Outbound,
    births: watch::Sender<Births>,
    broker: watch::Sender<BrokerUrl>,
    link: watch::Receiver<Link>,
    max_packet_bytes: usize,
    close_deadline: Duration,
    stop: CancellationToken,
    pump: Arc<Mutex<Option<JoinHandle<()>>>>,
}

/// Deliveries, in the order in which the broker sent them.
///
/// Read it promptly: while it is full the socket is not read, neither for control
/// messages nor for acknowledgements. Publishing and keep-alive go on meanwhile, so
/// the task that reads may publish; it must not await [`Session::publish_acked`],
/// whose answer may lie behind what it has not read.
#[derive(Debug)]
pub struct Inbox(mpsc::Receiver<Delivery>);

impl Inbox {
    /// The next delivery, or `None` once the session is over. Cancel-safe.
    pub async fn recv(&mut self) -> Option<Delivery> {
        self.0.recv().await
    }
}

/// Whether the session has a broker at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Link {
    /// Not yet connected for the first time.
    Connecting,
    /// Connected; every subscription is confirmed and every birth is sent.
    Up,
    /// Lost, or never had; the session goes on trying.
    Down {
        /// What happened, for people.
        why: Arc<str>,
    },
    /// Closed for good.
    Closed,
}

/// Why a message was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// No broker would take it, so it is not even queued.
    #[error("message of {bytes} bytes on `{topic}` exceeds the packet limit of {limit}: split it")]
    TooLarge {
        /// The topic.
        topic: String,
        /// The size of its packet.
        bytes: usize,
        /// The session's limit.
        limit: usize,
    },
    /// A fleeting message found no connection, or `try_publish` a full queue.
    #[error("message on `{topic}` dropped: {why}")]
    Dropped {
        /// The topic.
        topic: String,
        /// What was in the way.
        why: &'static str,
    },
    /// The session is over.
    #[error("the MQTT session is closed")]
    Closed,
}

/// Why a session could not take its leave; the broker publishes the will instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CloseError {
    /// The broker did not acknowledge the goodbye in time, or is not there.
    #[error("no goodbye within {0:?}: the broker will publish this session's will")]
    Deadline(Duration),
    /// The goodbye was refused.
    #[error("goodbye not sent")]
    Goodbye(#[from] PublishError),
}

/// What is said on every connection, by topic.
pub(crate) type Births = BTreeMap<String, Publication>;

/// A lane as its senders see it.
#[derive(Debug, Clone)]
struct Outbound {
    queue: mpsc::Sender<Parcel>,
    budget: Arc<Semaphore>,
}

/// A message on its way, with its share of the lane's budget, given back when the
/// broker has it (QoS 1) or it is written (QoS 0).
#[derive(Debug)]
pub(crate) struct Parcel {
    pub(crate) publish: Publish,
    pub(crate) lane: Lane,
    /// Said anew on every connection, hence never resent: a newer one may be said.
    pub(crate) birth: bool,
    pub(crate) acked: Option<oneshot::Sender<()>>,
    pub(crate) budget: Option<OwnedSemaphorePermit>,
}

impl Parcel {
    pub(crate) fn new(publication: Publication) -> Self {
        let qos = if publication.fleeting { QoS::AtMostOnce } else { QoS::AtLeastOnce };
        let mut publish = Publish::from_bytes(publication.topic, qos, publication.payload);
        publish.retain = publication.retained;
        Self { publish, lane: publication.lane, birth: false, acked: None, budget: None }
    }
}

impl Session {
    /// Starts a session; it connects, and reconnects for ever, in a task of its own.
    ///
    /// Every connection is a clean session. What must survive is resent from here
    /// (unacknowledged messages, births, subscriptions), so nothing depends on a
    /// broker's memory.
    ///
    /// # Errors
    /// When the will or a birth is too large.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn open(config: Config) -> Result<(Self, Inbox), PublishError> {
        for message in config.births.iter().chain(&config.will) {
            check_size(message, config.max_packet_bytes)?;
        }
        let lane = |bytes: usize| {
            let (queue, receiver) = mpsc::channel(LANE_MESSAGES);
            let bytes = bytes.max(config.max_packet_bytes).min(Semaphore::MAX_PERMITS);
            (Outbound { queue, budget: Arc::new(Semaphore::new(bytes)) }, receiver)
        };
        let (control, control_rx) = lane(config.control_budget_bytes);
        let (bulk, bulk_rx) = lane(config.bulk_budget_bytes);
        let births = config.births.iter().map(|birth| (birth.topic.clone(), birth.clone()));
        let (births, births_rx) = watch::channel(births.collect());
        let (link_tx, link) = watch::channel(Link::Connecting);
        let (inbox_tx, inbox) = mpsc::channel(config.inbox_capacity.max(1));
        let (max_packet_bytes, close_deadline) = (config.max_packet_bytes, config.close_deadline);
        let stop = CancellationToken::new();
        let broker = watch::Sender::new(config.broker.clone());
        let told = Told { births: births_rx, broker: broker.subscribe(), stop: stop.clone() };
        let pump = Pump::new(config, control_rx, bulk_rx, told, inbox_tx, link_tx);
        let pump = Arc::new(Mutex::new(Some(tokio::spawn(pump.run()))));
        let session = Self {
            control,
            bulk,
            births,
            broker,
            link,
            max_packet_bytes,
            close_deadline,
            stop,
            pump,
        };
        Ok((session, Inbox(inbox)))
    }

    /// Queues a message; waits while the queue is full.
    ///
    /// Cancel-safe: a cancelled call has queued nothing.
    ///
    /// # Errors
    /// When the message is too large, fleeting without a connection, or the session closed.
    pub async fn publish(&self, publication: Publication) -> Result<(), PublishError> {
        self.queue(publication, None).await
    }

    /// Publishes a message and waits until the broker has acknowledged it, however
    /// many connections that takes. A fleeting message is made QoS 1.
    ///
    /// A cancelled call may have queued the message, which is then still sent.
    ///
    /// # Errors
    /// When the message is too large, or the session closed before the broker had it.
    pub async fn publish_acked(&self, mut publication: Publication) -> Result<(), PublishError> {
        publication.fleeting = false;
        let (acked, done) = oneshot::channel();
        self.queue(publication, Some(acked)).await?;
        done.await.map_err(|_| PublishError::Closed)
    }

    /// Queues a message if that needs no waiting.
    ///
    /// # Errors
    /// As [`Session::publish`], and when the queue is full.
    pub fn try_publish(&self, publication: Publication) -> Result<(), PublishError> {
        let bytes = self.check(&publication)?;
        let lane = self.lane(publication.lane);
        let full = |topic| PublishError::Dropped { topic, why: "the queue is full" };
        let Ok(budget) = lane.budget.clone().try_acquire_many_owned(bytes) else {
            return Err(full(publication.topic));
        };
        let mut parcel = Parcel::new(publication);
        parcel.budget = Some(budget);
        lane.queue.try_send(parcel).map_err(|error| match error {
            mpsc::error::TrySendError::Full(parcel) => full(parcel.publish.topic),
            mpsc::error::TrySendError::Closed(_) => PublishError::Closed,
        })
    }

    /// Says `birth` now, if connected, and anew on every connection from now on, in
    /// place of any other birth on its topic.
    ///
    /// # Errors
    /// When the message is too large.
    pub fn set_birth(&self, birth: Publication) -> Result<(), PublishError> {
        check_size(&birth, self.max_packet_bytes)?;
        self.births.send_modify(|births| {
            births.insert(birth.topic.clone(), birth);
        });
        Ok(())
    }

    /// Connects to `broker` from now on: it has moved. A connection that is up is kept; a
    /// session that is without one tries the new address at once.
    pub fn set_broker(&self, broker: BrokerUrl) {
        self.broker.send_if_modified(|known| std::mem::replace(known, broker.clone()) != broker);
    }

    /// The link's state, now and as it changes.
    pub fn link(&self) -> watch::Receiver<Link> {
        self.link.clone()
    }

    /// Waits until the link is up.
    ///
    /// # Errors
    /// When the session is closed.
    pub async fn up(&self) -> Result<(), PublishError> {
        let mut link = self.link.clone();
        match link.wait_for(|link| matches!(link, Link::Up | Link::Closed)).await.as_deref() {
            Ok(Link::Up) => Ok(()),
            _ => Err(PublishError::Closed),
        }
    }

    /// Ends the session for every handle: sends the control messages that were queued
    /// before, then `goodbye`, waits until the broker has it, and disconnects in such
    /// a way that the will is not published. Queued chunks are dropped.
    ///
    /// Always over within the configured deadline.
    ///
    /// # Errors
    /// When the goodbye did not reach the broker in time; the session is over anyway.
    pub async fn close(self, goodbye: Option<Publication>) -> Result<(), CloseError> {
        let deadline = Instant::now() + self.close_deadline;
        let late = CloseError::Deadline(self.close_deadline);
        let said = match goodbye {
            Some(goodbye) => timeout_at(deadline, self.publish_acked(goodbye)).await,
            None => Ok(Ok(())),
        };
        let pump = self.pump.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut pump) = pump else { return Ok(()) };
        let outcome = match said {
            Ok(Ok(())) => {
                self.stop.cancel();
                timeout_at(deadline, &mut pump).await.map(drop).map_err(|_| late)
            }
            Ok(Err(refused)) => Err(refused.into()),
            Err(_) => Err(late),
        };
        if outcome.is_err() {
            // Without a goodbye the will must speak: no clean disconnect.
            pump.abort();
            let _ = pump.await;
        }
        outcome
    }

    async fn queue(
        &self,
        publication: Publication,
        acked: Option<oneshot::Sender<()>>,
    ) -> Result<(), PublishError> {
        let bytes = self.check(&publication)?;
        let lane = self.lane(publication.lane);
        // Tokio's semaphore and channel are both fair: order is kept.
        let closed = |_| PublishError::Closed;
        let slot = lane.queue.reserve().await.map_err(|_| PublishError::Closed)?;
        let budget = lane.budget.clone().acquire_many_owned(bytes).await.map_err(closed)?;
        let mut parcel = Parcel::new(publication);
        parcel.acked = acked;
        parcel.budget = Some(budget);
        slot.send(parcel);
        if lane.queue.is_closed() { Err(PublishError::Closed) } else { Ok(()) }
    }

    fn lane(&self, lane: Lane) -> &Outbound {
        match lane {
            Lane::Control => &self.control,
            Lane::Bulk => &self.bulk,
        }
    }

    /// The bytes that `publication` takes of its lane's budget, if it may be queued now.
    fn check(&self, publication: &Publication) -> Result<u32, PublishError> {
        let bytes = check_size(publication, self.max_packet_bytes)?;
        match *self.link.borrow() {
            Link::Closed => Err(PublishError::Closed),
            Link::Connecting | Link::Down { .. } if publication.fleeting => {
                let topic = publication.topic.clone();
                Err(PublishError::Dropped { topic, why: "there is no connection" })
            }
            _ => Ok(bytes),
        }
    }
}

/// The bytes that `publication` takes on the wire, if they are within `limit`.
fn check_size(publication: &Publication, limit: usize) -> Result<u32, PublishError> {
    match u32::try_from(publication.packet_bytes()) {
        Ok(bytes) if bytes as usize <= limit => Ok(bytes),
        _ => Err(PublishError::TooLarge {
            topic: publication.topic.clone(),
            bytes: publication.packet_bytes(),
            limit,
        }),
    }
}
