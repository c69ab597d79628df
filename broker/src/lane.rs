//! The way of every event through rumqttd's router: it brings what many connections send into one
//! order.
//!
//! What a connection has read at a time is one batch, and one publish on one topic, which one link
//! subscribes to. The router gives the order. Nothing of a client reaches it: the publish is the
//! batch's number, and the events wait here until the router hands that on. So no client's topic,
//! filter or id can hurt it, nothing stays in it of clients that are gone, and its ring keeps no
//! payload from being freed. A router that dies or stands still is replaced, and given again what it
//! has not handed on.
//!
//! There is room for so much on its way, from the socket until what came of it is kept: a disk that is
//! slower than the network, or full, makes clients wait and takes no memory.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use bytestring::ByteString;
use futures_util::Stream;
use futures_util::stream::unfold;
use rumqttd::local::{LinkBuilder, LinkRx, LinkTx};
use rumqttd::protocol::{Filter, Packet, Publish, QoS, RetainForwardRule, Subscribe};
use rumqttd::{Notification, Router, RouterConfig};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::core::Event;
use crate::message::Weight;
use crate::metrics::Metrics;

/// Log targets of rumqttd: it reports what concerns nobody.
pub const QUIET: &str = "rumqttd=off";

/// The one topic that there is.
const TOPIC: &str = "lane";
/// The router's ring: this many segments of this size; a number takes 16 bytes of it. All batches
/// that may be on their way fit in.
const SEGMENT_BYTES: usize = 64 << 10;
const SEGMENTS: usize = 8;
/// So much may be on its way.
const ON_ITS_WAY: u32 = 16 << 20;
/// What an event weighs beside its payload.
const EVENT_BYTES: u32 = 128;
/// What a batch weighs beside its events.
const BATCH_BYTES: u32 = 1024;
/// How many numbers the router hands on at a time.
const NUMBERS: u64 = 200;
/// After so many events those who wait for what they brought have their turn.
const ENOUGH: usize = 1024;
/// A router that hands nothing on for so long, while there is something, is replaced.
const PATIENCE: Duration = Duration::from_secs(5);

/// The entrance, shared by all connections.
#[derive(Clone)]
pub(crate) struct Lane {
    feed: Arc<Mutex<Feed>>,
    room: Arc<Semaphore>,
}

/// The exit: there is one.
pub(crate) struct Exit {
    lane: Lane,
    link: LinkRx,
    is_paused: bool,
    /// The number that the router handed on last.
    reached: u64,
    patience: Duration,
    /// Told when it is replaced.
    metrics: Arc<Metrics>,
}

/// The room that events take on their way, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Room {
    of: Arc<Semaphore>,
    bytes: usize,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.of.add_permits(self.bytes);
    }
}

struct Feed {
    link: LinkTx,
    /// Given to the router and not handed on yet, in order.
    waiting: VecDeque<Batch>,
    /// The number of the last one that was given.
    last: u64,
    /// When the first of those came, or those before it were handed on.
    since: Instant,
}

/// Events that stay together.
struct Batch {
    events: Vec<Event>,
    /// How much of the room is theirs.
    paid: u32,
}

/// The router is gone: its thread has panicked, or stands still.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the router inside the broker is gone")]
pub(crate) struct RouterGone;

/// A new lane, and its exit.
pub(crate) async fn lane(metrics: Arc<Metrics>) -> Result<(Lane, Exit), RouterGone> {
    let (tx, rx) = start().await?;
    let feed = Feed { link: tx, waiting: VecDeque::new(), last: 0, since: Instant::now() };
    let room = Arc::new(Semaphore::new(ON_ITS_WAY as usize));
    let lane = Lane { feed: Arc::new(Mutex::new(feed)), room };
    let (patience, is_paused, reached) = (PATIENCE, false, 0);
    Ok((lane.clone(), Exit { lane, link: rx, is_paused, reached, patience, metrics }))
}

impl Lane {
    /// Sends events, which stay together, in this order. Waits while too much is on its way.
    /// Cancel-safe: either all of them are sent or none.
    pub(crate) async fn send(&self, events: Vec<Event>) {
        let paid = weight(&events);
        if let Ok(room) = self.room.acquire_many(paid).await {
            // Given back by whoever takes them.
            room.forget();
            self.lock().push(Batch { events, paid });
        }
    }

    /// Sends one event at once, whatever is on its way.
    pub(crate) fn send_now(&self, event: Event) {
        self.lock().push(Batch { events: vec![event], paid: 0 });
    }

    /// What has been sent and was not handed on, up to a limit, without waiting for the router: for
    /// the end, when nobody sends any more.
    pub(crate) fn rest(&self) -> Option<(Vec<Event>, Room)> {
        self.take(u64::MAX)
    }

    /// What the router has handed on up to that number, and up to a limit.
    fn take(&self, reached: u64) -> Option<(Vec<Event>, Room)> {
        let mut feed = self.lock();
        let (mut all, mut bytes) = (Vec::new(), 0);
        while feed.first() <= reached
            && all.len() < ENOUGH
            && let Some(batch) = feed.waiting.pop_front()
        {
            bytes += batch.paid as usize;
            if all.is_empty() {
                all = batch.events;
            } else {
                all.extend(batch.events);
            }
        }
        if !all.is_empty() {
            feed.since = Instant::now();
        }
        drop(feed);
        let room = Room { of: self.room.clone(), bytes };
        (!all.is_empty()).then_some((all, room))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Feed> {
        self.feed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Feed {
    fn push(&mut self, batch: Batch) {
        if self.waiting.is_empty() {
            self.since = Instant::now();
        }
        self.waiting.push_back(batch);
        self.last += 1;
        self.give(self.last);
    }

    /// Gives the router the numbers from `first` to the last one.
    fn give(&mut self, first: u64) {
        let topic = Bytes::from_static(TOPIC.as_bytes());
        let payload = |number: u64| Bytes::copy_from_slice(&number.to_be_bytes());
        let publish = |number| Publish::new(topic.clone(), payload(number), false);
        let packet = |number| Packet::Publish(publish(number), None);
        let is_told = {
            let mut buffer = self.link.buffer();
            // It was told when the first of them came, and has not looked since.
            let is_told = !buffer.is_empty();
            buffer.extend((first..self.last).map(packet));
            if is_told {
                buffer.push_back(packet(self.last));
            }
            is_told
        };
        if !is_told {
            // A router that is gone is given it again by the exit.
            let _ = self.link.publish(topic.clone(), payload(self.last));
        }
    }

    /// True where the router has handed nothing on for so long, though something waits.
    fn stands_still(&self, patience: Duration) -> bool {
        !self.waiting.is_empty() && self.since.elapsed() >= patience
    }

    /// The number of the first that waits, or will.
    fn first(&self) -> u64 {
        self.last + 1 - self.waiting.len() as u64
    }
}

impl Exit {
    /// All events as they come: at least one batch at a time, and all that are there, up to a limit,
    /// with the room that they take until it is dropped. Whoever waits for the next may give up, and
    /// how long the router has been waited for is remembered.
    pub(crate) fn events(self) -> impl Stream<Item = (Vec<Event>, Room)> + Send {
        unfold(self, async |mut exit| {
            let next = exit.next().await;
            Some((next, exit))
        })
    }

    async fn next(&mut self) -> (Vec<Event>, Room) {
        loop {
            if let Some(next) = self.lane.take(self.reached) {
                return next;
            }
            if let Err(RouterGone) = self.arrived().await {
                self.replace().await;
            }
        }
    }

    /// Notes what the router hands on.
    async fn arrived(&mut self) -> Result<(), RouterGone> {
        if self.is_paused {
            let woken = timeout(self.patience, self.link.wake()).await.map_err(|_| RouterGone)?;
            woken.map_err(|_| RouterGone)?;
            self.is_paused = false;
        }
        let mut next = loop {
            match timeout(self.patience, self.link.next()).await {
                Ok(next) => break next.map_err(|_| RouterGone)?,
                Err(_) if self.lane.lock().stands_still(self.patience) => return Err(RouterGone),
                Err(_) => {}
            }
        };
        loop {
            match next {
                Some(Notification::Forward(forward)) => {
                    let number = forward.publish.payload.as_ref().try_into();
                    self.reached = self.reached.max(number.map_or(0, u64::from_be_bytes));
                }
                Some(Notification::Unschedule) => {
                    self.is_paused = true;
                    return Ok(());
                }
                Some(Notification::Disconnect(..)) => return Err(RouterGone),
                _ => {}
            }
            match self.link.recv_deadline(Instant::now()) {
                Ok(more) => next = more,
                // Nothing more at the moment; a real end shows at the next wait.
                Err(_) => return Ok(()),
            }
        }
    }

    /// Starts another router and gives it what this one kept.
    async fn replace(&mut self) {
        tracing::error!("the router inside the broker died or stood still: starting another");
        loop {
            if let Ok((tx, rx)) = start().await {
                self.link = rx;
                self.is_paused = false;
                self.metrics.routers_replaced.fetch_add(1, Ordering::Relaxed);
                let mut feed = self.lane.lock();
                feed.link = tx;
                feed.since = Instant::now();
                if !feed.waiting.is_empty() {
                    let first = feed.first();
                    feed.give(first);
                }
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn weight(events: &[Event]) -> u32 {
    let bytes = |event: &Event| match event {
        Event::Publish(_, publish) | Event::Announce(publish) => {
            publish.payload.len() + publish.properties.as_ref().map_or(0, Weight::weight)
        }
        Event::Subscribe(_, packet) => {
            let filters = packet.topic_filters.iter().map(|(filter, _)| filter);
            filters.map(text_weight).sum::<usize>() + properties_weight(&packet.user_properties)
        }
        Event::Unsubscribe(_, packet) => {
            let filters = packet.topic_filters.iter();
            filters.map(text_weight).sum::<usize>() + properties_weight(&packet.user_properties)
        }
        _ => 0,
    };
    let each = |event| EVENT_BYTES.saturating_add(u32::try_from(bytes(event)).unwrap_or(u32::MAX));
    let all = events.iter().map(each).fold(BATCH_BYTES, u32::saturating_add);
    // A batch that weighs more than all that may be on its way pays no more than that.
    all.min(ON_ITS_WAY)
}

/// What one of many texts takes.
fn text_weight(text: &ByteString) -> usize {
    2 * size_of::<ByteString>() + text.len()
}

fn properties_weight(properties: &[(ByteString, ByteString)]) -> usize {
    properties.iter().map(|(name, value)| text_weight(name) + text_weight(value)).sum()
}

/// A router, the entrance to it and the exit. Its thread lives as long as the process: rumqttd has
/// no stop.
async fn start() -> Result<(LinkTx, LinkRx), RouterGone> {
    let config = RouterConfig {
        max_connections: 4,
        max_outgoing_packet_count: NUMBERS,
        max_segment_size: SEGMENT_BYTES,
        max_segment_count: SEGMENTS,
        ..RouterConfig::default()
    };
    // Building a link waits for the router on the calling thread.
    let built = spawn_blocking(move || {
        let sender = Router::new(0, config).spawn();
        let (tx, _rx, _) = LinkBuilder::new("entrance", sender.clone()).build().ok()?;
        let (exit, rx, _) = LinkBuilder::new("exit", sender).build().ok()?;
        Some((tx, exit, rx))
    });
    let (tx, mut exit, mut rx) = built.await.ok().flatten().ok_or(RouterGone)?;
    let filter = Filter {
        path: TOPIC.into(),
        qos: QoS::AtMostOnce,
        nolocal: false,
        preserve_retain: false,
        retain_forward_rule: RetainForwardRule::Never,
    };
    let subscribe = Packet::Subscribe(Subscribe { pkid: 1, filters: vec![filter] }, None);
    exit.send(subscribe).await.map_err(|_| RouterGone)?;
    loop {
        // Nothing is published before it is subscribed to.
        let answer = tokio::time::timeout(PATIENCE, rx.next()).await.map_err(|_| RouterGone)?;
        let packet = answer.map_err(|_| RouterGone)?.and_then(Option::<Packet>::from);
        if let Some(Packet::SubAck(..)) = packet {
            return Ok((tx, rx));
        }
    }
}
