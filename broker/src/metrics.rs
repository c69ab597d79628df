//! What the broker counts.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::core::Counts;

/// Counters of one broker, from its start.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) messages_received: AtomicU64,
    pub(crate) messages_sent: AtomicU64,
    pub(crate) bytes_received: AtomicU64,
    pub(crate) bytes_sent: AtomicU64,
    pub(crate) messages_dropped: AtomicU64,
    pub(crate) messages_expired: AtomicU64,
    pub(crate) retained_refused: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) sessions: AtomicUsize,
    pub(crate) connected: AtomicUsize,
    pub(crate) routers_replaced: AtomicU64,
}

impl Metrics {
    pub(crate) fn count(&self, counts: Counts) {
        self.messages_dropped.fetch_add(counts.dropped, Ordering::Relaxed);
        self.messages_expired.fetch_add(counts.expired, Ordering::Relaxed);
        self.retained_refused.fetch_add(counts.unretained, Ordering::Relaxed);
    }

    pub(crate) fn dropped(&self, messages: u64) {
        self.messages_dropped.fetch_add(messages, Ordering::Relaxed);
    }

    pub(crate) fn clients(&self, (sessions, connected): (usize, usize)) {
        self.sessions.store(sessions, Ordering::Relaxed);
        self.connected.store(connected, Ordering::Relaxed);
    }

    pub(crate) fn router_replaced(&self, times: u64) {
        self.routers_replaced.store(times, Ordering::Relaxed);
    }
}
