//! Who receives what: the register of receivers, and how frames reach them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use godwit_proto::stream::pace::MAX_WINDOW_BYTES;
use godwit_proto::stream::{ChunkHeader, StreamFrame, StreamId};
use godwit_proto::topic::Peer;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::stream::error::ReceiveError;
use crate::stream::fetch::Inbound;
use crate::stream::worker::Chunk;

/// Frames and chunks that may wait for a receiver's task.
const CTL_QUEUE: usize = 32;
const BULK_QUEUE: usize = 2048;
/// Bytes of chunks on their way to one receiver's disk. A sender that keeps to the
/// window stays below; what is more is dropped.
const BULK_BUDGET_BYTES: usize = MAX_WINDOW_BYTES as usize * 3 / 2;

type Key = (Peer, StreamId);

/// Every receiver of the node.
#[derive(Default)]
pub(super) struct Routes(Arc<Mutex<BTreeMap<Key, Route>>>);

struct Route {
    ctl: mpsc::Sender<StreamFrame>,
    bulk: mpsc::Sender<Chunk>,
    budget: Arc<Semaphore>,
    cancel: CancellationToken,
    gone: CancellationToken,
}

/// A receiver's place in the register; given up when dropped.
pub(super) struct Seat {
    routes: Arc<Mutex<BTreeMap<Key, Route>>>,
    key: Key,
    _gone: DropGuard,
}

impl Drop for Seat {
    fn drop(&mut self) {
        lock(&self.routes).remove(&self.key);
    }
}

fn lock(routes: &Mutex<BTreeMap<Key, Route>>) -> MutexGuard<'_, BTreeMap<Key, Route>> {
    routes.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Routes {
    /// How many receivers there are.
    pub(super) fn count(&self) -> u64 {
        lock(&self.0).len() as u64
    }

    /// Registers a receiver; waits for one of the same stream that was cancelled and has
    /// not yet let go of its files.
    pub(super) async fn take_seat(
        &self,
        stream: &StreamId,
        from: &Peer,
        cancel: &CancellationToken,
    ) -> Result<(Inbound, Seat), ReceiveError> {
        let key = (from.clone(), stream.clone());
        loop {
            let gone = {
                let mut routes = lock(&self.0);
                match routes.get(&key) {
                    None => return Ok(self.seat(&mut routes, key, cancel)),
                    Some(other) if other.cancel.is_cancelled() => other.gone.clone(),
                    Some(_) => {
                        return Err(ReceiveError::Busy {
                            stream: stream.clone(),
                            from: from.clone(),
                        });
                    }
                }
            };
            gone.cancelled().await;
        }
    }

    fn seat(
        &self,
        routes: &mut BTreeMap<Key, Route>,
        key: Key,
        cancel: &CancellationToken,
    ) -> (Inbound, Seat) {
        let (ctl_tx, ctl) = mpsc::channel(CTL_QUEUE);
        let (bulk_tx, bulk) = mpsc::channel(BULK_QUEUE);
        let gone = CancellationToken::new();
        let route = Route {
            ctl: ctl_tx,
            bulk: bulk_tx,
            budget: Arc::new(Semaphore::new(BULK_BUDGET_BYTES)),
            cancel: cancel.clone(),
            gone: gone.clone(),
        };
        routes.insert(key.clone(), route);
        let seat = Seat { routes: self.0.clone(), key, _gone: gone.drop_guard() };
        (Inbound { ctl, bulk }, seat)
    }

    /// Passes on what a sender says to its receiver, if there is one.
    pub(super) fn ctl(&self, from: &Peer, frame: StreamFrame) {
        let stream = match &frame {
            StreamFrame::Offer(offer) => &offer.stream,
            StreamFrame::NotYet { stream } | StreamFrame::Refused { stream, .. } => stream,
            StreamFrame::Want(_) | StreamFrame::Stop { .. } => return,
        };
        let key = (from.clone(), stream.clone());
        if let Some(route) = lock(&self.0).get(&key) {
            let _ = route.ctl.try_send(frame);
        }
    }

    /// Passes on a chunk to its receiver, if there is one and it has room.
    pub(super) fn bulk(&self, from: &Peer, header: ChunkHeader, body: Bytes, wire_bytes: usize) {
        let key = (from.clone(), header.stream.clone());
        let routes = lock(&self.0);
        let Some(route) = routes.get(&key) else { return };
        let Ok(weight) = route.budget.clone().try_acquire_many_owned(wire_bytes as u32) else {
            return;
        };
        let wire_bytes = wire_bytes as u64;
        let _ = route.bulk.try_send(Chunk { header, body, wire_bytes, _weight: weight });
    }
}
