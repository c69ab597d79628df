//! What a call notes of the hand-over, by the wall clock, for people to look at.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use godwit_proto::timeline::Moment;

/// The moments that one call saw. Clones note into the same list.
#[derive(Debug, Clone, Default)]
pub struct Noted(Arc<Mutex<Vec<(Moment, i64)>>>);

impl Noted {
    /// Notes that the moment is now.
    pub fn note(&self, moment: Moment) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((moment, now_us()));
    }

    /// What was noted so far, in microseconds since 1970; it is taken out.
    pub(crate) fn take(&self) -> Vec<(Moment, i64)> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The wall clock, in microseconds since 1970.
pub(crate) fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
