//! Drives the core: events out of the lane, changes into the store, words to the connections.
//!
//! Nothing leaves before what it says is kept: what a batch of events has to say waits for the
//! batch's commit, and for those before it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::accounts::Accounts;
use crate::config::Config;
use crate::core::{Core, Effects, Event};
use crate::lane::{Lane, Room, RouterGone, lane};
use crate::message::{ConnectionId, Out};
use crate::metrics::{Dropped, Metrics};
use crate::notice::Notice;
use crate::outbox::Outboxes;
use crate::store::{Store, StoreError};

/// Why a broker cannot work.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The router does not start.
    #[error("rumqttd's router does not start: is there memory for its thread?")]
    Router,
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<RouterGone> for EngineError {
    fn from(_: RouterGone) -> Self {
        Self::Router
    }
}

/// The core with everything that it works with.
pub(crate) struct Engine {
    core: Core,
    lane: Lane,
    events: Pin<Box<dyn Stream<Item = (Vec<Event>, Room)> + Send>>,
    keeping: Option<Keeping>,
    outboxes: Outboxes,
    outbox_bytes: usize,
    metrics: Arc<Metrics>,
    /// What waits for commits, in their order.
    held: VecDeque<Held>,
}

/// Words that wait for a commit, and the room of what they answer: nobody sends more than that
/// beforehand.
struct Held {
    number: u64,
    out: Vec<(ConnectionId, Out)>,
    room: Vec<Room>,
}

struct Keeping {
    store: Store,
    kept: mpsc::UnboundedReceiver<u64>,
    /// The number of the last batch that was given to the store.
    last: u64,
}

impl Engine {
    /// Takes up what an earlier broker kept.
    ///
    /// # Errors
    /// When the store or the router cannot be used.
    pub(crate) async fn open(
        config: &Config,
        outboxes: Outboxes,
        metrics: Arc<Metrics>,
        accounts: Arc<dyn Accounts>,
    ) -> Result<(Self, Lane), EngineError> {
        let (lane, exit) = lane(metrics.clone()).await?;
        let mut effects = Effects::default();
        let (core, keeping) = match &config.store {
            None => (Core::new(config.limits, accounts), None),
            Some(path) => {
                let (store, image, kept) = Store::open(path, config.durability, metrics.clone())?;
                let core = Core::restore(config.limits, image, accounts, now_ms(), &mut effects);
                (core, Some(Keeping { store, kept, last: 0 }))
            }
        };
        let (outbox_bytes, held) = (config.limits.max_outbox_bytes, VecDeque::new());
        let (entrance, events) = (lane.clone(), Box::pin(exit.events()));
        let mut engine =
            Self { core, lane, events, keeping, outboxes, outbox_bytes, metrics, held };
        engine.carry_out(effects, None);
        Ok((engine, entrance))
    }

    /// Works until `stop`; what was sent before is handled. Ends before that when nothing can be kept.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        loop {
            let alarm = self.core.alarm_ms().map(|at| at.saturating_sub(now_ms()));
            // A clock that is set is looked at again soon.
            let pause = Duration::from_millis(alarm.unwrap_or(1000).clamp(1, 1000));
            let (mut effects, mut room) = (Effects::default(), None);
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                number = kept(&mut self.keeping) => match number {
                    Some(number) => self.release(number),
                    None => {
                        tracing::error!("the store's thread is gone: nothing can be kept any more");
                        return;
                    }
                },
                Some((events, taken)) = self.events.next() => {
                    self.handle(events, &mut effects);
                    room = Some(taken);
                }
                () = tokio::time::sleep(pause) => {}
            }
            self.core.wake(now_ms(), &mut effects);
            self.carry_out(effects, room);
        }
        while let Some((events, room)) = self.lane.rest() {
            let mut effects = Effects::default();
            self.handle(events, &mut effects);
            self.carry_out(effects, Some(room));
        }
        if let Some(Keeping { store, mut kept, .. }) = self.keeping.take() {
            // It returns when everything is written.
            let _ = tokio::task::spawn_blocking(move || drop(store)).await;
            while let Ok(number) = kept.try_recv() {
                self.release(number);
            }
        }
    }

    fn handle(&mut self, events: Vec<Event>, effects: &mut Effects) {
        let now_ms = now_ms();
        for event in events {
            self.core.handle(now_ms, event, effects);
        }
    }

    /// `room` is what the events behind the effects take until these are kept.
    fn carry_out(&mut self, effects: Effects, room: Option<Room>) {
        let Effects { ops, out, counts, notices } = effects;
        notices.iter().for_each(Notice::log);
        self.metrics.count(counts);
        self.metrics.clients(self.core.clients());
        if let Some(keeping) = &mut self.keeping {
            if !ops.is_empty() {
                keeping.last += 1;
                keeping.store.write(keeping.last, ops);
                let room = room.into_iter().collect();
                self.held.push_back(Held { number: keeping.last, out, room });
                return;
            }
            if let Some(held) = self.held.back_mut() {
                held.out.extend(out);
                held.room.extend(room);
                return;
            }
        }
        self.say(out);
    }

    /// Everything up to that batch is kept.
    fn release(&mut self, number: u64) {
        while let Some(Held { out, .. }) = self.held.pop_front_if(|held| held.number <= number) {
            self.say(out);
        }
    }

    fn say(&self, out: Vec<(ConnectionId, Out)>) {
        if !out.is_empty() {
            let dropped = self.outboxes.deliver(out, self.outbox_bytes);
            self.metrics.dropped.add(Dropped::OutboxFull, dropped);
        }
    }
}

/// The number of the next batch that is kept; `None` once the store's thread is gone.
async fn kept(keeping: &mut Option<Keeping>) -> Option<u64> {
    match keeping {
        Some(keeping) => keeping.kept.recv().await,
        None => std::future::pending().await,
    }
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use rmqtt_codec::types::{Publish, QoS};
    use tokio::time::timeout;

    use super::*;
    use crate::accounts::Nobody;

    fn retained(payload: Bytes) -> Vec<Event> {
        let (retain, qos, topic) = (true, QoS::AtMostOnce, "t".into());
        let (dup, packet_id, properties) = (false, None, None);
        let publish = Publish { dup, retain, qos, topic, packet_id, payload, properties };
        vec![Event::Announce(Box::new(publish))]
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn clients_wait_for_a_store_that_cannot_be_written_to_and_go_on_with_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = folder.path().join("store");
        let config = Config { store: Some(store.clone()), ..Config::default() };
        let (outboxes, metrics) = (Outboxes::default(), Arc::new(Metrics::default()));
        let engine = Engine::open(&config, outboxes, metrics, Arc::new(Nobody)).await;
        let (engine, lane) = engine.expect("an engine");
        let stop = CancellationToken::new();
        let running = tokio::spawn(engine.run(stop.clone()));
        let other = rusqlite::Connection::open(&store).expect("the same file");
        other.execute_batch("BEGIN IMMEDIATE").expect("the lock");
        let payload = Bytes::from(vec![0; 1 << 20]);
        let mut taken = 0;
        // Far more than fits.
        while taken < 100 {
            let sending = lane.send(retained(payload.clone()));
            match timeout(Duration::from_millis(500), sending).await {
                Ok(()) => taken += 1,
                Err(_) => break,
            }
        }
        assert!((1..100).contains(&taken), "{taken} MiB wait in memory");
        other.execute_batch("ROLLBACK").expect("the lock's end");
        for _ in 0..100 {
            let sending = lane.send(retained(payload.clone()));
            timeout(Duration::from_secs(60), sending).await.expect("room");
        }
        stop.cancel();
        running.await.expect("the end");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_engine_ends_when_the_thread_of_its_store_has() {
        let dir = tempfile::tempdir().expect("tempdir");
        let store = Some(dir.path().join("broker.db"));
        let config = Config { store, ..Config::default() };
        let (mut engine, _lane) =
            Engine::open(&config, Outboxes::default(), Arc::default(), Arc::new(Nobody))
                .await
                .expect("an engine");
        // What the thread tells by is gone with it.
        engine.keeping.as_mut().expect("a store").kept = mpsc::unbounded_channel().1;
        let ended = engine.run(CancellationToken::new());
        tokio::time::timeout(Duration::from_secs(10), ended).await.expect("it goes on");
    }
}
