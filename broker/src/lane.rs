//! The way of every event through rumqttd's router: it brings what many connections send into one
//! order.
//!
//! Each event is a publish on one topic, which one link subscribes to. The router gives the order
//! and the ring; nothing of a client reaches it but a payload, so that no client's topic, filter or
//! id can hurt it, and nothing stays in it of clients that are gone. What it has not handed on yet
//! is kept here: a router that dies or stands still is replaced, and given it again.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rumqttd::local::{LinkBuilder, LinkRx, LinkTx};
use rumqttd::protocol::{Filter, Packet, Publish, QoS, RetainForwardRule, Subscribe};
use rumqttd::{Notification, Router, RouterConfig};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use crate::core::Event;

/// Log targets of rumqttd: it reports what concerns nobody.
pub const QUIET: &str = "rumqttd=off";

/// The one topic that there is.
const TOPIC: &str = "lane";
/// The router's ring: this many segments of this size. A small ring stays in the cache.
const SEGMENT_BYTES: usize = 4 << 20;
const SEGMENTS: usize = 8;
/// So much may be on its way: half of the ring, of which nothing must fall out.
const ON_ITS_WAY: u32 = 16 << 20;
/// What an event weighs beside its payload.
const EVENT_BYTES: u32 = 256;
/// How many events are handed on at a time.
const BATCH: usize = 512;
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
    /// How many routers have been replaced.
    pub(crate) replaced: u64,
}

struct Feed {
    link: LinkTx,
    /// Given to the router and not handed on yet, in order.
    waiting: VecDeque<(Event, u32)>,
}

/// The router is gone: its thread has panicked, or stands still.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the router inside the broker is gone")]
pub(crate) struct RouterGone;

/// A new lane, and its exit.
pub(crate) async fn lane() -> Result<(Lane, Exit), RouterGone> {
    let (tx, rx) = start().await?;
    let feed = Arc::new(Mutex::new(Feed { link: tx, waiting: VecDeque::new() }));
    let lane = Lane { feed, room: Arc::new(Semaphore::new(ON_ITS_WAY as usize)) };
    Ok((lane.clone(), Exit { lane, link: rx, is_paused: false, replaced: 0 }))
}

impl Lane {
    /// Sends events, which stay together, in this order. Waits while too much is on its way.
    /// Cancel-safe: either all of them are sent or none.
    pub(crate) async fn send(&self, events: Vec<Event>) {
        let weights: Vec<u32> = events.iter().map(weight).collect();
        let all = weights.iter().sum::<u32>().min(ON_ITS_WAY);
        if let Ok(room) = self.room.acquire_many(all).await {
            // Given back by the exit.
            room.forget();
            self.lock().push(events, &weights);
        }
    }

    /// Sends one event at once, whatever is on its way.
    pub(crate) fn send_now(&self, event: Event) {
        self.lock().push(vec![event], &[0]);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Feed> {
        self.feed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Feed {
    fn push(&mut self, events: Vec<Event>, weights: &[u32]) {
        let first = self.waiting.len();
        // A batch that weighs more than all that may be on its way had to pay no more than that.
        let most = ON_ITS_WAY / u32::try_from(weights.len().max(1)).unwrap_or(u32::MAX);
        let is_heavy = weights.iter().sum::<u32>() > ON_ITS_WAY;
        let paid = weights.iter().map(|weight| if is_heavy { most } else { *weight });
        self.waiting.extend(events.into_iter().zip(paid));
        self.give(first);
    }

    /// Gives the router what is waiting from `first` on.
    fn give(&mut self, first: usize) {
        let mut payloads = self.waiting.iter().skip(first).map(|(event, _)| payload(event));
        let Some(last) = payloads.next_back() else { return };
        let topic = Bytes::from_static(TOPIC.as_bytes());
        let packet = |payload| Packet::Publish(Publish::new(topic.clone(), payload, false), None);
        let is_told = {
            let mut buffer = self.link.buffer();
            // It was told when the first of them came, and has not looked since.
            let is_told = !buffer.is_empty();
            buffer.extend(payloads.map(packet));
            if is_told {
                buffer.push_back(packet(last.clone()));
            }
            is_told
        };
        if !is_told {
            // A router that is gone is given it again by the exit.
            let _ = self.link.publish(topic, last);
        }
    }
}

impl Exit {
    /// The next events; at least one, and all that are there, up to a limit. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Vec<Event> {
        loop {
            match self.arrived().await {
                Ok(0) => {}
                Ok(count) => {
                    let mut feed = self.lane.lock();
                    let count = count.min(feed.waiting.len());
                    let mut weight = 0;
                    let events = feed.waiting.drain(..count).map(|(event, paid)| {
                        weight += paid as usize;
                        event
                    });
                    let events = events.collect();
                    drop(feed);
                    self.lane.room.add_permits(weight);
                    return events;
                }
                Err(RouterGone) => self.replace().await,
            }
        }
    }

    /// How many events the router has handed on.
    async fn arrived(&mut self) -> Result<usize, RouterGone> {
        if std::mem::take(&mut self.is_paused) {
            self.link.wake().await.map_err(|_| RouterGone)?;
        }
        let first = loop {
            match tokio::time::timeout(PATIENCE, self.link.next()).await {
                Ok(next) => break next.map_err(|_| RouterGone)?,
                Err(_) if self.lane.lock().waiting.is_empty() => {}
                Err(_) => return Err(RouterGone),
            }
        };
        let (mut next, mut count) = (first, 0);
        loop {
            match next {
                Some(Notification::Forward(_)) => count += 1,
                Some(Notification::Unschedule) => {
                    self.is_paused = true;
                    return Ok(count);
                }
                Some(Notification::Disconnect(..)) => return Err(RouterGone),
                _ => {}
            }
            if count == BATCH {
                return Ok(count);
            }
            match self.link.recv_deadline(Instant::now()) {
                Ok(more) => next = more,
                // Nothing more at the moment; a real end shows at the next wait.
                Err(_) => return Ok(count),
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
                self.replaced += 1;
                let mut feed = self.lane.lock();
                feed.link = tx;
                feed.give(0);
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// What goes through the router of an event.
fn payload(event: &Event) -> Bytes {
    match event {
        Event::Publish(_, publish) => publish.payload.clone(),
        _ => Bytes::new(),
    }
}

fn weight(event: &Event) -> u32 {
    let bytes = u32::try_from(payload(event).len()).unwrap_or(ON_ITS_WAY);
    bytes.saturating_add(EVENT_BYTES).min(ON_ITS_WAY)
}

/// A router, the entrance to it and the exit. Its thread lives as long as the process: rumqttd has
/// no stop.
async fn start() -> Result<(LinkTx, LinkRx), RouterGone> {
    let config = RouterConfig {
        max_connections: 4,
        max_outgoing_packet_count: BATCH as u64,
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

#[cfg(test)]
mod tests {
    use rmqtt_codec::v5::Packet as Word;

    use super::*;
    use crate::message::ConnectionId;

    fn numbered(numbers: std::ops::Range<u64>) -> Vec<Event> {
        numbers.map(|n| Event::Answer(ConnectionId(n), Word::PingResponse)).collect()
    }

    async fn receive(exit: &mut Exit, count: usize) -> Vec<u64> {
        let mut found = Vec::new();
        while found.len() < count {
            let events = tokio::time::timeout(Duration::from_secs(60), exit.next()).await;
            found.extend(events.expect("events").into_iter().map(|event| match event {
                Event::Answer(ConnectionId(number), _) => number,
                other => panic!("{other:?}"),
            }));
        }
        found
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_each_sends_comes_out_in_its_order_and_whole() {
        let (lane, mut exit) = lane().await.expect("a router");
        let senders = (0..4).map(|sender| {
            let lane = lane.clone();
            tokio::spawn(async move {
                for batch in 0..500 {
                    let first = sender * 1_000_000 + batch * 7;
                    lane.send(numbered(first..first + 7)).await;
                }
            })
        });
        let senders: Vec<_> = senders.collect();
        let found = receive(&mut exit, 4 * 500 * 7).await;
        for sender in 0..4 {
            let own: Vec<_> = found.iter().filter(|n| *n / 1_000_000 == sender).collect();
            assert_eq!(own.len(), 3500);
            assert!(own.is_sorted(), "out of order");
        }
        for sender in senders {
            sender.await.expect("sent");
        }
        assert_eq!(lane.room.available_permits(), ON_ITS_WAY as usize, "all of it is given back");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_router_that_dies_is_replaced_and_nothing_is_lost() {
        let (lane, mut exit) = lane().await.expect("a router");
        lane.send(numbered(0..1000)).await;
        let before = receive(&mut exit, 500).await;
        // A topic that does not begin with ASCII kills rumqttd's router.
        let _ = lane.lock().link.publish(Bytes::from_static("\u{e4}".as_bytes()), Bytes::new());
        lane.send(numbered(1000..2000)).await;
        let after = receive(&mut exit, 2000 - before.len()).await;
        assert_eq!([before, after].concat(), (0..2000).collect::<Vec<_>>());
        assert_eq!(exit.replaced, 1);
    }
}
