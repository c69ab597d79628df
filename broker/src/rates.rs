//! How fast accounts may send and addresses connect.
//!
//! Who sends too fast is read more slowly and loses nothing; who connects too fast is turned away
//! before a handshake costs anything.

use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytestring::ByteString;
use governor::clock::{Clock, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};

use crate::access::site;
use crate::config;

/// After so many questions those who were quiet since are forgotten.
const TIDY_EVERY: u32 = 8192;
/// An address may have connected for so many seconds' worth at once: a site comes back as a whole.
const CONNECT_BURST_SECONDS: u32 = 10;

/// Who a rate holds for: all connections of an account together, and those without one by their
/// address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Payer {
    Account(ByteString),
    Address(IpAddr),
}

impl Payer {
    pub(crate) fn new(account: Option<&ByteString>, address: IpAddr) -> Self {
        account.map_or_else(|| Self::Address(site(address)), |name| Self::Account(name.clone()))
    }
}

/// The rates that a broker holds its clients to.
#[derive(Debug)]
pub(crate) struct Rates {
    packets: Option<Rate<Payer>>,
    bytes: Option<Rate<Payer>>,
    connects: Option<Rate<IpAddr>>,
}

impl Rates {
    pub(crate) fn new(config: config::Rates) -> Self {
        Self {
            packets: Rate::new(config.packets_per_second, 1),
            bytes: Rate::new(config.bytes_per_second, 1),
            connects: Rate::new(config.connects_per_second, CONNECT_BURST_SECONDS),
        }
    }

    /// False for an address that has connected too often of late.
    pub(crate) fn may_connect(&self, address: IpAddr) -> bool {
        self.connects.as_ref().is_none_or(|rate| rate.take(&site(address), 1).is_ok())
    }

    /// Waits until what was read has its place in the rates; true if that took time. Cancelled, a
    /// part of it is not counted.
    pub(crate) async fn pay(&self, payer: &Payer, packets: u32, bytes: u32) -> bool {
        let mut has_waited = false;
        for (rate, count) in [(&self.packets, packets), (&self.bytes, bytes)] {
            if let Some(rate) = rate {
                has_waited |= rate.pay(payer, count).await;
            }
        }
        has_waited
    }
}

/// One rate, for each of its payers.
struct Rate<K: Hash + Eq + Clone, C: Clock = MonotonicClock> {
    limiter: RateLimiter<K, HashMapStateStore<K>, C, NoOpMiddleware<C::Instant>>,
    burst: NonZeroU32,
    asked: AtomicU32,
}

impl<K: Hash + Eq + Clone + std::fmt::Debug, C: Clock> std::fmt::Debug for Rate<K, C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rate").field("burst", &self.burst).finish_non_exhaustive()
    }
}

impl<K: Hash + Eq + Clone> Rate<K> {
    /// `None` where there is no limit.
    fn new(per_second: u32, burst_seconds: u32) -> Option<Self> {
        Self::with_clock(per_second, burst_seconds, MonotonicClock)
    }
}

impl<K: Hash + Eq + Clone, C: Clock> Rate<K, C> {
    fn with_clock(per_second: u32, burst_seconds: u32, clock: C) -> Option<Self> {
        let per_second = NonZeroU32::new(per_second)?;
        let burst = per_second.saturating_mul(NonZeroU32::new(burst_seconds)?);
        let quota = Quota::per_second(per_second).allow_burst(burst);
        let limiter = RateLimiter::new(quota, HashMapStateStore::default(), clock);
        Some(Self { limiter, burst, asked: AtomicU32::new(0) })
    }

    /// Takes as many as there may be at once; `Ok` with what is left to be taken, or how long
    /// until the next is there.
    fn take(&self, key: &K, count: u32) -> Result<u32, Duration> {
        if self.asked.fetch_add(1, Ordering::Relaxed) % TIDY_EVERY == TIDY_EVERY - 1 {
            self.limiter.retain_recent();
            self.limiter.shrink_to_fit();
        }
        let Some(now) = NonZeroU32::new(count.min(self.burst.get())) else { return Ok(0) };
        match self.limiter.check_key_n(key, now) {
            Ok(Ok(())) => Ok(count - now.get()),
            Ok(Err(early)) => Err(early.wait_time_from(self.limiter.clock().now())),
            // It is never more than a burst.
            Err(_) => Ok(0),
        }
    }

    async fn pay(&self, key: &K, mut count: u32) -> bool {
        let mut has_waited = false;
        while count > 0 {
            match self.take(key, count) {
                Ok(left) => count = left,
                Err(wait) => {
                    has_waited = true;
                    tokio::time::sleep(wait).await;
                }
            }
        }
        has_waited
    }
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    fn rate(
        per_second: u32,
        burst: u32,
    ) -> (Rate<&'static str, FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        (Rate::with_clock(per_second, burst, clock.clone()).unwrap(), clock)
    }

    #[test]
    fn what_is_above_the_rate_waits_as_long_as_it_takes_and_others_do_not() {
        let (rate, clock) = rate(10, 1);
        assert_eq!(rate.take(&"alice", 10), Ok(0));
        assert_eq!(rate.take(&"alice", 1), Err(Duration::from_millis(100)));
        assert_eq!(rate.take(&"bob", 10), Ok(0));
        clock.advance(Duration::from_millis(100));
        assert_eq!(rate.take(&"alice", 1), Ok(0));
        assert_eq!(rate.take(&"alice", 5), Err(Duration::from_millis(500)));
    }

    #[test]
    fn what_is_larger_than_a_burst_is_taken_in_parts() {
        let (rate, clock) = rate(10, 1);
        assert_eq!(rate.take(&"alice", 25), Ok(15));
        assert_eq!(rate.take(&"alice", 15), Err(Duration::from_secs(1)));
        clock.advance(Duration::from_secs(1));
        assert_eq!(rate.take(&"alice", 15), Ok(5));
    }

    #[test]
    fn addresses_may_come_back_as_a_whole_and_then_at_their_rate() {
        let (rate, clock) = rate(2, CONNECT_BURST_SECONDS);
        let comes = |_: &u32| rate.take(&"site", 1).is_ok();
        assert_eq!((0..100).filter(comes).count(), 20);
        clock.advance(Duration::from_secs(3));
        assert_eq!((0..100).filter(comes).count(), 6);
    }

    #[test]
    fn those_who_were_quiet_are_forgotten() {
        let clock = FakeRelativeClock::default();
        let rate = Rate::with_clock(1, 1, clock.clone()).unwrap();
        for stranger in 0..TIDY_EVERY - 1 {
            assert_eq!(rate.take(&stranger, 1), Ok(0));
        }
        clock.advance(Duration::from_secs(5));
        assert_eq!(rate.take(&0, 1), Ok(0));
        assert!(rate.limiter.len() < 10, "{} are remembered", rate.limiter.len());
    }

    #[test]
    fn a_rate_of_nothing_is_no_limit() {
        let rates = Rates::new(config::Rates { connects_per_second: 0, ..Default::default() });
        let home: IpAddr = "192.0.2.1".parse().unwrap();
        assert!((0..100_000).all(|_| rates.may_connect(home)));
    }

    #[test]
    fn an_address_is_held_to_its_rate_however_it_is_written() {
        let rates = Rates::new(config::Rates { connects_per_second: 1, ..Default::default() });
        let ways: [IpAddr; 2] = ["192.0.2.1".parse().unwrap(), "::ffff:192.0.2.1".parse().unwrap()];
        let come = (0..100).filter(|turn| rates.may_connect(ways[turn % 2])).count();
        assert!((10..100).contains(&come), "{come}");
        assert!(rates.may_connect("192.0.2.2".parse().unwrap()));
    }
}
