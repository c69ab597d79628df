//! What all tasks of a node's streams share, and the register of those that send.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use godwit_proto::stream::pace::{Limiter, MAX_WINDOW_BYTES};
use godwit_proto::stream::{StopReason, StreamFrame, StreamId, Want};
use godwit_proto::topic::Peer;
use godwit_proto::wire;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::stream::link::StreamLink;
use crate::stream::routes::Routes;
use crate::stream::serve::serve;
use crate::stream::shelf::Shelf;
use crate::stream::source::StreamSource;

/// What all receivers of a node may have on the way, together.
const NODE_WINDOW_BYTES: u64 = 24 << 20;
/// So many receivers are served at a time; others are told to wait.
const MAX_SERVED: usize = 16;

pub(super) struct Shared {
    pub(super) link: Arc<dyn StreamLink>,
    pub(super) source: Arc<dyn StreamSource>,
    pub(super) shelf: Shelf,
    pub(super) routes: Routes,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
    served: Mutex<BTreeMap<(Peer, StreamId), Served>>,
    served_ever: AtomicU64,
    limiter: Mutex<Option<(u64, Limiter)>>,
    epoch: Instant,
}

/// A receiver that is being served.
struct Served {
    wants: watch::Sender<Want>,
    stop: CancellationToken,
    /// Tells a task from its successor for the same receiver.
    number: u64,
}

impl Shared {
    pub(super) fn new(link: Arc<dyn StreamLink>, source: Arc<dyn StreamSource>) -> Self {
        Self {
            link,
            source,
            shelf: Shelf::default(),
            routes: Routes::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            served: Mutex::default(),
            served_ever: AtomicU64::new(0),
            limiter: Mutex::default(),
            epoch: Instant::now(),
        }
    }

    /// The protocol's clock.
    pub(super) fn now(&self) -> Duration {
        self.epoch.elapsed()
    }
    /// The moment that the protocol calls `at`.
    pub(super) fn instant(&self, at: Duration) -> Instant {
        self.epoch + at
    }
    /// Each receiver's share of the node's window.
    pub(super) fn window_cap(&self) -> u64 {
        (NODE_WINDOW_BYTES / self.routes.count().max(1)).min(MAX_WINDOW_BYTES)
    }

    pub(super) async fn send(&self, to: &Peer, frame: &StreamFrame) {
        match wire::encode(frame) {
            Ok(bytes) => self.link.send_ctl(to, bytes.into()).await,
            Err(error) => tracing::error!(peer = %to, %error, "a frame that cannot be sent"),
        }
    }

    pub(super) fn set_node_limit(&self, per_second: Option<u64>) {
        let limit = per_second.map(|rate| (rate, Limiter::new(rate)));
        *self.limiter.lock().unwrap_or_else(PoisonError::into_inner) = limit;
    }
    pub(super) fn node_limit(&self) -> Option<u64> {
        let limiter = self.limiter.lock().unwrap_or_else(PoisonError::into_inner);
        limiter.as_ref().map(|(rate, _)| *rate)
    }
    /// How long the node's limit has a chunk wait.
    pub(super) fn charge_node(&self, now: Duration, bytes: u64) -> Duration {
        let mut limiter = self.limiter.lock().unwrap_or_else(PoisonError::into_inner);
        limiter.as_mut().map(|(_, limiter)| limiter.charge(now, bytes)).unwrap_or_default()
    }

    fn served(&self) -> MutexGuard<'_, BTreeMap<(Peer, StreamId), Served>> {
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a want to the task that serves it, a new one if there is none.
    pub(super) fn on_want(self: &Arc<Self>, from: &Peer, want: Want) {
        if self.stop.is_cancelled() {
            return;
        }
        let stream = want.stream.clone();
        let key = (from.clone(), stream.clone());
        let mut served = self.served();
        if let Some(task) = served.get(&key) {
            task.wants.send_replace(want);
            return;
        }
        let (shared, to) = (self.clone(), from.clone());
        if served.len() >= MAX_SERVED {
            drop(served);
            self.tasks.spawn(async move {
                shared.send(&to, &StreamFrame::NotYet { stream }).await;
            });
            return;
        }
        let (wants_tx, wants) = watch::channel(want);
        let stop = self.stop.child_token();
        let stopped = stop.clone();
        let number = self.served_ever.fetch_add(1, Ordering::Relaxed);
        served.insert(key.clone(), Served { wants: wants_tx, stop, number });
        self.tasks.spawn(async move {
            let serving = serve(shared.clone(), stream, to, wants);
            stopped.run_until_cancelled(serving).await;
            let mut served = shared.served();
            if served.get(&key).is_some_and(|task| task.number == number) {
                served.remove(&key);
            }
        });
    }

    /// A receiver wants no more.
    pub(super) fn on_stop(
        &self,
        from: &Peer,
        stream: &StreamId,
        session: u64,
        reason: &StopReason,
    ) {
        let key = (from.clone(), stream.clone());
        let mut served = self.served();
        let Some(task) = served.get(&key) else { return };
        // An earlier life of the receiver must not stop a later one.
        if session < task.wants.borrow().session {
            return;
        }
        task.stop.cancel();
        served.remove(&key);
        drop(served);
        if *reason == StopReason::Complete {
            self.shelf.complete(stream);
        }
        self.shelf.give_back(stream, from);
        self.source.ended(stream, from, reason);
    }

    /// Takes a stream off the shelf and refuses those in the middle of it.
    pub(super) fn withdraw(self: &Arc<Self>, stream: &StreamId) {
        self.shelf.remove(stream);
        let ended = self.served().extract_if(.., |(_, served), _| served == stream).collect();
        let ended: Vec<((Peer, StreamId), Served)> = ended;
        for ((to, stream), task) in ended {
            task.stop.cancel();
            let shared = self.clone();
            self.tasks.spawn(async move {
                let refused = StreamFrame::refused(stream, "it was withdrawn");
                shared.send(&to, &refused).await;
            });
        }
    }
}
