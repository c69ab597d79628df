//! What a connection is to say: filled by the engine, emptied by the connection.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rmqtt_codec::types::QoS;
use rmqtt_codec::v5::Packet;
use tokio::sync::Notify;

use crate::message::{ByConnection, ConnectionId, Out};
use crate::notice::Notices;

/// The waiting words of one connection.
#[derive(Debug)]
pub(crate) struct Outbox {
    waiting: Mutex<Vec<Out>>,
    /// What waits, and what the connection took and has not written yet.
    bytes: AtomicUsize,
    filled: Notify,
    emptied: Notify,
    notices: Arc<Notices>,
}

impl Outbox {
    fn new(notices: Arc<Notices>) -> Self {
        Self {
            waiting: Mutex::default(),
            bytes: AtomicUsize::default(),
            filled: Notify::default(),
            emptied: Notify::default(),
            notices,
        }
    }

    /// Adds a word; false for a message of QoS 0 for which there is no room.
    fn push(&self, out: Out, limit_bytes: usize) -> bool {
        let weight = weight(&out);
        if let Out::Publish(sent) = &out
            && sent.qos == QoS::AtMostOnce
            && self.bytes.load(Ordering::Relaxed) + weight > limit_bytes
        {
            self.notices.say("message dropped", "it reads too slowly", &sent.message.topic);
            return false;
        }
        self.bytes.fetch_add(weight, Ordering::Relaxed);
        let was_empty = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.push(out);
            waiting.len() == 1
        };
        if was_empty {
            self.filled.notify_one();
        }
        true
    }

    /// Everything that waits; at least one word. Cancel-safe.
    pub(crate) async fn take(&self) -> Vec<Out> {
        loop {
            let all =
                std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
            if !all.is_empty() {
                return all;
            }
            self.filled.notified().await;
        }
    }

    /// What was taken is written.
    pub(crate) fn written(&self, outs: usize) {
        self.bytes.fetch_sub(outs, Ordering::Relaxed);
        self.emptied.notify_one();
    }

    /// Returns while less than so much waits to be written. Cancel-safe; for one waiter.
    pub(crate) async fn below(&self, limit_bytes: usize) {
        while self.bytes.load(Ordering::Relaxed) > limit_bytes {
            self.emptied.notified().await;
        }
    }
}

/// What a word weighs in an outbox.
pub(crate) fn weight(out: &Out) -> usize {
    match out {
        Out::Publish(sent) => sent.message.weight(),
        Out::Packet(Packet::SubscribeAck(ack)) => 128 + ack.status.len(),
        Out::Packet(Packet::UnsubscribeAck(ack)) => 128 + ack.status.len(),
        _ => 128,
    }
}

/// The outboxes of all connections.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outboxes(Arc<Mutex<ByConnection<Arc<Outbox>>>>);

impl Outboxes {
    pub(crate) fn add(&self, connection: ConnectionId, notices: Arc<Notices>) -> Arc<Outbox> {
        let outbox = Arc::new(Outbox::new(notices));
        self.lock().insert(connection, outbox.clone());
        outbox
    }

    pub(crate) fn remove(&self, connection: ConnectionId) {
        self.lock().remove(&connection);
    }

    /// Puts every word where it belongs; answers how many messages of QoS 0 found no room.
    pub(crate) fn deliver(&self, outs: Vec<(ConnectionId, Out)>, limit_bytes: usize) -> u64 {
        let all = self.lock();
        let mut dropped = 0;
        for (connection, out) in outs {
            // One that has ended needs none.
            if let Some(outbox) = all.get(&connection) {
                dropped += u64::from(!outbox.push(out, limit_bytes));
            }
        }
        dropped
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, ByConnection<Arc<Outbox>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
