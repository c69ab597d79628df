//! Who may come as far as a handshake, and the count of those who come no further.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tracing::{debug, info, warn};

use super::complaint::Complaint;
use super::peer::PeerAddress;
use super::reception::TurnedAway;
use crate::engine::now_ms;
use crate::metrics::{Metrics, Refused};
use crate::notice::{And, Pace};
use crate::rates::Rates;

/// What stands before every listener.
#[derive(Debug)]
pub(crate) struct Doorstep {
    rates: Arc<Rates>,
    metrics: Arc<Metrics>,
    complaint: Mutex<Complaint>,
    /// Of what is said of those who are turned away.
    pace: Mutex<Pace>,
}

impl Doorstep {
    pub(crate) fn new(rates: Arc<Rates>, metrics: Arc<Metrics>) -> Self {
        Self { rates, metrics, complaint: Mutex::default(), pace: Mutex::default() }
    }

    /// False for one who came too often of late, which is counted and said.
    pub(super) fn welcomes(&self, address: &PeerAddress) -> bool {
        if self.rates.may_connect(address.ip()) {
            return true;
        }
        self.metrics.connections_refused.add(Refused::ConnectRate, 1);
        let mut complaint = self.complaint.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(times) = complaint.raise(Instant::now()) {
            warn!(from = %address, times, "clients turned away: connecting too fast");
        }
        false
    }

    /// One did not get through its handshake.
    pub(super) fn turned_away(&self, address: &PeerAddress, reason: &TurnedAway) {
        self.metrics.connections_refused.add(reason.cause(), 1);
        if matches!(reason, TurnedAway::Gone) {
            // Who only looks whether somebody listens has no trouble.
            debug!(from = %address, "nobody came");
            return;
        }
        let more = self.pace.lock().unwrap_or_else(PoisonError::into_inner).step(now_ms());
        if let Some(and) = more.map(And) {
            info!(from = %address, reason = reason.with_cause(), "client turned away{and}");
        }
    }
}
