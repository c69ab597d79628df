//! How long a certificate counts, and when to ask for the next one.

use jiff::{SignedDuration, Timestamp};
use time::OffsetDateTime;

/// How far a certificate's beginning lies before the moment it is made, so that a machine
/// whose clock is a little slow takes it at once.
const BACKDATED: SignedDuration = SignedDuration::from_mins(5);

/// No certificate is made when the clock says less (2026-01-01): a board without a battery
/// starts in 1970, and an authority made then would have ended long ago.
const EARLIEST: i64 = 1_767_225_600;

/// The clock is plainly wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the clock says {0}: certificates made now would be worthless, set it first (NTP)")]
pub struct ClockError(Timestamp);

/// From when until when something counts, both included, in whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// The first second.
    pub not_before: Timestamp,
    /// The last second.
    pub not_after: Timestamp,
}

impl Validity {
    /// What is made at `now` for `life`, backdated by five minutes.
    pub(super) fn starting(now: Timestamp, life: SignedDuration) -> Result<Self, ClockError> {
        let wrong = || ClockError(now);
        let second = Timestamp::from_second(now.as_second()).map_err(|_| wrong())?;
        if second.as_second() < EARLIEST {
            return Err(wrong());
        }
        Ok(Self {
            not_before: second.checked_sub(BACKDATED).map_err(|_| wrong())?,
            not_after: second.checked_add(life).map_err(|_| wrong())?,
        })
    }

    /// Cut short so that it does not outlive `other`.
    pub(super) fn within(self, other: Self) -> Self {
        Self { not_after: self.not_after.min(other.not_after), ..self }
    }

    /// True while it counts.
    pub fn covers(&self, now: Timestamp) -> bool {
        let second = now.as_second();
        (self.not_before.as_second()..=self.not_after.as_second()).contains(&second)
    }

    /// True from two thirds of its life on: the last third is for trying again.
    pub fn needs_renewal(&self, now: Timestamp) -> bool {
        let life = self.not_after.as_second() - self.not_before.as_second();
        now.as_second() >= self.not_before.as_second() + life * 2 / 3
    }

    /// Both ends, as rcgen wants them.
    pub(super) fn ends(&self) -> Result<(OffsetDateTime, OffsetDateTime), ClockError> {
        Ok((moment(self.not_before)?, moment(self.not_after)?))
    }
}

/// A time as rcgen wants it.
pub(super) fn moment(at: Timestamp) -> Result<OffsetDateTime, ClockError> {
    OffsetDateTime::from_unix_timestamp(at.as_second()).map_err(|_| ClockError(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: SignedDuration = SignedDuration::from_hours(24);

    fn noon() -> Timestamp {
        "2026-07-01T12:00:00.9Z".parse().unwrap()
    }

    #[test]
    fn a_validity_begins_five_minutes_ago_and_counts_to_its_last_second() {
        let validity = Validity::starting(noon(), DAY).unwrap();
        assert_eq!(validity.not_before.to_string(), "2026-07-01T11:55:00Z");
        assert_eq!(validity.not_after.to_string(), "2026-07-02T12:00:00Z");
        let second = SignedDuration::from_secs(1);
        assert!(validity.covers(validity.not_before));
        assert!(!validity.covers(validity.not_before - second));
        assert!(validity.covers(validity.not_after + SignedDuration::from_millis(999)));
        assert!(!validity.covers(validity.not_after + second));
    }

    #[test]
    fn renewal_is_due_at_two_thirds_of_a_life() {
        let start = Timestamp::from_second(EARLIEST).unwrap();
        let validity = Validity { not_before: start, not_after: start + DAY * 90 };
        assert!(!validity.needs_renewal(start + DAY * 60 - SignedDuration::from_secs(1)));
        assert!(validity.needs_renewal(start + DAY * 60));
        assert!(validity.needs_renewal(start + DAY * 100));
    }

    #[test]
    fn a_clock_before_this_program_or_at_the_end_of_time_makes_nothing() {
        for now in [Timestamp::UNIX_EPOCH, Timestamp::MAX, Timestamp::MIN] {
            assert_eq!(Validity::starting(now, DAY), Err(ClockError(now)));
        }
    }
}
