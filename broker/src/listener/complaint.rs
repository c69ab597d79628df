//! Something to warn of, but not all the time.

use std::time::{Duration, Instant};

/// How often to speak of it.
const WARN_EVERY: Duration = Duration::from_secs(1);

/// Counts what is not said.
#[derive(Debug, Default)]
pub(super) struct Complaint {
    last: Option<Instant>,
    times: u32,
}

impl Complaint {
    /// It happened again; `Some` how often since it was last said, if it is to be said.
    pub(super) fn raise(&mut self, now: Instant) -> Option<u32> {
        self.times += 1;
        if self.last.is_some_and(|last| now.duration_since(last) < WARN_EVERY) {
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.times))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_is_heard_at_once_and_then_once_a_second() {
        let start = Instant::now();
        let mut complaint = Complaint::default();
        let heard: Vec<_> = (0..25)
            .map(|tenth| complaint.raise(start + tenth * Duration::from_millis(100)))
            .collect();
        let said: Vec<_> = heard.iter().flatten().copied().collect();
        assert_eq!(said, [1, 10, 10]);
        assert_eq!((heard[0], heard[10], heard[20]), (Some(1), Some(10), Some(10)));
    }
}
