//! The time line of a hand-over, put together from what several nodes saw by their own clocks.

use godwit_proto::timeline::{Moment, Moments};

use crate::store::Seen;

/// Clocks that agree so well are taken as they are: what is left of the difference is how long
/// the message took.
const AGREEING_US: i64 = 20_000;

/// Adds what a node saw. `heard_us` is when that was heard, in microseconds since 1970 by the
/// controller's clock; the difference to the node's own says how far that one is off.
pub fn note(timeline: &mut Vec<Seen>, moments: &Moments, heard_us: i64) {
    let ahead = heard_us.saturating_sub(moments.sent_us);
    let shift = if (0..AGREEING_US).contains(&ahead) { 0 } else { ahead };
    for (moment, at) in &moments.seen {
        see(timeline, *moment, at.saturating_add(shift));
    }
}

/// Adds one moment. What is seen again was done again, and counts.
pub fn see(timeline: &mut Vec<Seen>, moment: Moment, us: i64) {
    timeline.retain(|seen| seen.moment != moment);
    timeline.push(Seen { moment, us });
    timeline.sort_by_key(|seen| (seen.us, seen.moment));
}

/// For how long the container stood still, in milliseconds, once that is known.
pub fn gap_ms(timeline: &[Seen]) -> Option<u64> {
    let at = |moment| timeline.iter().find(|seen| seen.moment == moment).map(|seen| seen.us);
    let ended = at(Moment::Running).or_else(|| at(Moment::Thawed))?;
    let gap_us = u64::try_from(ended.saturating_sub(at(Moment::Freezing)?)).ok()?;
    Some(gap_us.saturating_add(500) / 1000)
}

/// The same, counted from the moment at which the freeze was asked for, or from the first.
pub fn since_freezing(timeline: &[Seen]) -> Vec<Seen> {
    let freezing = timeline.iter().find(|seen| seen.moment == Moment::Freezing);
    let Some(start) = freezing.or(timeline.first()).map(|seen| seen.us) else { return Vec::new() };
    timeline.iter().map(|seen| Seen { us: seen.us.saturating_sub(start), ..*seen }).collect()
}

#[cfg(test)]
mod tests {
    use godwit_proto::id::{ContainerId, Epoch};

    use super::*;

    fn moments(seen: &[(Moment, i64)], sent_us: i64) -> Moments {
        Moments {
            container: ContainerId(uuid::Uuid::from_u128(1)),
            epoch: Epoch { generation: 1, counter: 1 },
            seen: seen.to_vec(),
            sent_us,
        }
    }

    #[test]
    fn clocks_that_are_off_are_brought_together() {
        let mut timeline = Vec::new();
        note(
            &mut timeline,
            &moments(&[(Moment::Freezing, 1_000), (Moment::Cut, 1_400)], 2_000),
            2_900,
        );
        // A clock that is an hour ahead.
        let hour = 3_600_000_000;
        let late = moments(&[(Moment::Running, hour + 51_000)], hour + 60_000);
        note(&mut timeline, &late, 60_000);
        let shown: Vec<_> =
            since_freezing(&timeline).iter().map(|seen| (seen.moment, seen.us)).collect();
        assert_eq!(shown, [(Moment::Freezing, 0), (Moment::Cut, 400), (Moment::Running, 50_000)]);
        assert_eq!(gap_ms(&timeline), Some(50));
    }

    #[test]
    fn what_is_done_again_counts() {
        let mut timeline = Vec::new();
        note(&mut timeline, &moments(&[(Moment::Staged, 10)], 20), 20);
        note(&mut timeline, &moments(&[(Moment::Staged, 30)], 40), 40);
        assert_eq!(timeline, [Seen { moment: Moment::Staged, us: 30 }]);
    }
}
