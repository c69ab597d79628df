//! How fast: measured rates, the window that fits them, chunk sizes, rate limits.
//!
//! Time is a [`Duration`] since a moment that the caller chose.

use std::time::Duration;

use crate::stream::frame::MAX_CHUNK_BYTES;

/// The largest window: a quarter of the broker's ring (4 MiB × 8).
pub const MAX_WINDOW_BYTES: u64 = 8 << 20;
/// The smallest window, for links so slow that more would only stand in queues.
pub const MIN_WINDOW_BYTES: u64 = 12 << 10;
/// The window while nothing is known of the link; what arrives meanwhile is added.
pub const FIRST_WINDOW_BYTES: u64 = 64 << 10;
/// How long bulk data may stand in a narrow link's queues: small messages wait behind it.
pub const QUEUE_TIME: Duration = Duration::from_millis(8);
/// The same of a wide link. There it is the nodes' processors that have bulk wait, for longer
/// than [`QUEUE_TIME`] when they are busy, and a window of less would leave the link idle.
pub const WIDE_QUEUE_TIME: Duration = Duration::from_millis(100);
/// Bytes a second on the wire from which on a link counts as wide.
pub const WIDE: u64 = 32 << 20;
/// How long one chunk may occupy the link.
pub const CHUNK_TIME: Duration = Duration::from_millis(10);
/// The smallest chunk: below it the headers weigh too much.
pub const MIN_CHUNK_BYTES: u32 = 4 << 10;
/// The chunk while nothing is known of the link.
pub const FIRST_CHUNK_BYTES: u32 = 16 << 10;

/// The window for a stream of which `arrived` bytes came, `rate` a second if that is known yet, over
/// a link that has carried `peak` bytes a second.
///
/// A window of one round trip and the time in queues grows as long as the link takes more,
/// and stops where queues would begin to.
pub fn window_bytes(
    arrived: u64,
    rate: Option<u64>,
    peak: u64,
    round_trip: Duration,
    cap_bytes: u64,
) -> u64 {
    let queue_time = if peak < WIDE { QUEUE_TIME } else { WIDE_QUEUE_TIME };
    let fit = match rate {
        None => FIRST_WINDOW_BYTES.saturating_add(arrived),
        Some(rate) => {
            // A quarter of the window may not be asked for yet, as that is not worth a want: half a round
            // trip more leaves an eighth of one.
            let time = round_trip.min(Duration::from_secs(1)) * 3 / 2 + queue_time;
            (rate as f64 * time.as_secs_f64()) as u64
        }
    };
    fit.clamp(MIN_WINDOW_BYTES, cap_bytes.clamp(MIN_WINDOW_BYTES, MAX_WINDOW_BYTES))
}

/// The chunk that occupies a link of `rate` bytes a second for at most [`CHUNK_TIME`].
pub fn chunk_bytes(rate: Option<u64>) -> u32 {
    match rate {
        None => FIRST_CHUNK_BYTES,
        Some(rate) => {
            let fit = (rate as f64 * CHUNK_TIME.as_secs_f64()) as u64;
            let fit = fit.clamp(MIN_CHUNK_BYTES.into(), MAX_CHUNK_BYTES.into()) as u32;
            fit & !(MIN_CHUNK_BYTES - 1)
        }
    }
}

/// How slowly a peak is forgotten.
const PEAK_SECONDS: f64 = 2.0;

/// A rate of arrival, smoothed over a few samples.
#[derive(Debug, Clone, Default)]
pub struct Rate {
    since: Option<Duration>,
    bytes: u64,
    per_second: Option<f64>,
    peak: f64,
    total: u64,
}

impl Rate {
    /// Counts bytes that arrived at `now`.
    pub fn add(&mut self, now: Duration, bytes: u64) {
        self.total += bytes;
        let Some(since) = self.since else {
            // The first arrival after a pause tells when, not how fast.
            self.since = Some(now);
            return;
        };
        self.bytes += bytes;
        let elapsed = now.saturating_sub(since).as_secs_f64();
        let is_enough = |seconds, bytes| elapsed >= seconds && self.bytes >= bytes;
        if is_enough(0.02, 0) || is_enough(0.005, 64 << 10) || is_enough(0.002, 256 << 10) {
            let sample = self.bytes as f64 / elapsed;
            let old = self.per_second.unwrap_or(sample);
            // A sample weighs more the longer it took, so that bursts do not mislead.
            let weight = (elapsed * 4.0).clamp(0.125, 0.5);
            let smoothed = old + (sample - old) * weight;
            self.per_second = Some(smoothed);
            self.peak = smoothed.max(self.peak * (elapsed / -PEAK_SECONDS).exp());
            (self.since, self.bytes) = (Some(now), 0);
        }
    }
    /// Forgets the running sample: what follows is a silence, not slowness.
    pub fn pause(&mut self) {
        (self.since, self.bytes) = (None, 0);
    }
    /// Bytes per second, once there was a sample.
    pub fn per_second(&self) -> Option<u64> {
        self.per_second.map(|rate| rate as u64)
    }
    /// All bytes that were counted.
    pub fn total(&self) -> u64 {
        self.total
    }
    /// The best rate of the last seconds, in bytes per second; 0 before the first.
    ///
    /// A rate that a window limits says little of the link: whoever sizes the next window by
    /// that alone makes it smaller each time.
    pub fn peak(&self) -> u64 {
        self.peak as u64
    }
}

/// A limit on bytes per second that never saves up more than an instant.
///
/// Whoever asks may overdraw it by one chunk and waits until the debt is paid: the rate
/// is exact and a burst is one chunk.
#[derive(Debug, Clone)]
pub struct Limiter {
    per_second: u64,
    /// When all that was allowed so far will have had its time.
    paid_until: Duration,
}

impl Limiter {
    /// A limit of `per_second` bytes; 0 counts as 1.
    pub fn new(per_second: u64) -> Self {
        Self { per_second: per_second.max(1), paid_until: Duration::ZERO }
    }
    /// Changes the rate; what was allowed already keeps its price.
    pub fn set(&mut self, per_second: u64) {
        self.per_second = per_second.max(1);
    }
    /// Accounts for `bytes` and answers how long to wait before they are sent.
    pub fn charge(&mut self, now: Duration, bytes: u64) -> Duration {
        let wait = self.paid_until.saturating_sub(now);
        let price = Duration::from_secs_f64(bytes as f64 / self.per_second as f64);
        self.paid_until = self.paid_until.max(now) + price;
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_limiter_lets_through_its_rate_and_no_burst() {
        let mut limiter = Limiter::new(1_000_000);
        let mut now = Duration::from_secs(5);
        let begin = now;
        for _ in 0..100 {
            now += limiter.charge(now, 10_000);
        }
        // 100 chunks of 10 ms each; the first goes at once.
        assert_eq!(now - begin, 990 * MS);
        now += Duration::from_secs(60);
        assert_eq!(limiter.charge(now, 10_000), Duration::ZERO);
        assert_eq!(limiter.charge(now, 10_000), 10 * MS, "a pause must not be saved up");
    }

    #[test]
    fn a_window_grows_with_the_link_between_its_bounds() {
        let window = |rate| window_bytes(0, Some(rate), rate, 2 * MS, MAX_WINDOW_BYTES);
        assert_eq!(window(1_000), MIN_WINDOW_BYTES);
        assert!((105_000..115_000).contains(&window(10_000_000)));
        assert!((5_000_000..5_200_000).contains(&window(50_000_000)));
        assert_eq!(window(1_000_000_000), MAX_WINDOW_BYTES);
        assert_eq!(window_bytes(0, Some(1_000_000_000), WIDE, 2 * MS, 1 << 20), 1 << 20);
    }

    #[test]
    fn a_chunk_never_occupies_a_slow_link_for_long() {
        for rate in [300_000, 1_000_000, 5_000_000] {
            assert!(u64::from(chunk_bytes(Some(rate))) * 50 <= rate, "{rate}");
        }
        assert_eq!(chunk_bytes(Some(1)), MIN_CHUNK_BYTES);
        assert_eq!(chunk_bytes(Some(u64::MAX)), MAX_CHUNK_BYTES);
    }

    #[test]
    fn a_silence_is_not_taken_for_slowness() {
        let mut rate = Rate::default();
        let mut now = Duration::ZERO;
        for _ in 0..100 {
            now += MS;
            rate.add(now, 10_000);
        }
        assert_eq!(rate.per_second(), Some(10_000_000));
        rate.pause();
        now += Duration::from_secs(9);
        for _ in 0..100 {
            now += MS;
            rate.add(now, 10_000);
        }
        assert_eq!(rate.per_second(), Some(10_000_000));
    }
}
