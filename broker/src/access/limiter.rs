//! Failed sign-ins, and how long their senders must wait for the next try.
//!
//! Counted for each address and user together: who guesses from elsewhere does not lock
//! a user out, and a device with an old password does not lock out its neighbours behind
//! the same address. Who tries one name after the other is held up by what its whole site
//! may fail, at an even pace: devices that try again and again, each at its own growing
//! wait, stay below that. `governor` was considered: it remembers every key, where
//! guesses need a growing wait and strangers a bounded memory.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use hashlink::LruCache;

/// How failures are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Penalties {
    /// This many failures in a row cost nothing: people mistype.
    pub free_tries: u32,
    /// What the next one costs; each further one costs twice as much,
    pub first_wait: Duration,
    /// up to this.
    pub longest_wait: Duration,
    /// After so long without a failure, and no wait left, all is forgotten.
    pub forgotten_after: Duration,
    /// A site (an address, of IPv6 a /64) may fail so often for all users together,
    pub site_tries: u32,
    /// and once more after each such time.
    pub site_pause: Duration,
    /// For how many pairs of address and user failures are remembered, and for how many
    /// sites; those that tried longest ago are forgotten first. At least 1.
    pub capacity: usize,
}

impl Default for Penalties {
    fn default() -> Self {
        Self {
            free_tries: 3,
            first_wait: Duration::from_secs(1),
            longest_wait: Duration::from_secs(300),
            forgotten_after: Duration::from_secs(900),
            site_tries: 300,
            site_pause: Duration::from_secs(1),
            capacity: 10_000,
        }
    }
}

/// Another try would come too early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many failed sign-ins: try again in {} s", wait.as_millis().div_ceil(1000))]
pub struct TooManyFailures {
    /// How long until a try is looked at again.
    pub wait: Duration,
}

/// Remembers failed sign-ins, in bounded memory. Knows no clock: every call is told the
/// time.
#[derive(Debug)]
pub struct Limiter {
    penalties: Penalties,
    failures: LruCache<Source, Failures>,
    /// When the failures of each site are forgotten, one after the other, all of them.
    sites: LruCache<IpAddr, Instant>,
    /// Users are kept as hashes that nobody can aim at: their names may be long.
    users: RandomState,
}

/// Where tries come from, and the hash of the user they are for.
type Source = (IpAddr, u64);

#[derive(Debug, Clone, Copy)]
struct Failures {
    in_a_row: u32,
    last: Instant,
}

impl Limiter {
    /// A limiter that has seen nothing.
    pub fn new(penalties: Penalties) -> Self {
        let capacity = penalties.capacity.max(1);
        let (failures, sites) = (LruCache::new(capacity), LruCache::new(capacity));
        Self { penalties, failures, sites, users: RandomState::new() }
    }

    /// Whether a password may be looked at now. A try that is refused here is not a
    /// failure, whatever its password: the wait does not grow.
    ///
    /// To be asked right before the password is verified. Tries that were let through
    /// before and still wait for that would all be free.
    pub fn check(
        &mut self,
        address: IpAddr,
        user: &str,
        now: Instant,
    ) -> Result<(), TooManyFailures> {
        let source = self.source(address, user);
        let Some(failures) = self.failures.get(&source) else {
            return Ok(());
        };
        let wait = self.penalties.wait(failures.in_a_row);
        match wait.checked_sub(now.saturating_duration_since(failures.last)) {
            Some(left) if !left.is_zero() => Err(TooManyFailures { wait: left }),
            _ => Ok(()),
        }
    }

    /// Whether the site of that address may have a password looked at now, whoever's. To be
    /// asked besides [`check`](Self::check).
    pub fn check_site(&mut self, address: IpAddr, now: Instant) -> Result<(), TooManyFailures> {
        let Some(forgotten) = self.sites.get(&site(address)) else {
            return Ok(());
        };
        let Penalties { site_tries, site_pause, .. } = self.penalties;
        let one_more = forgotten.saturating_duration_since(now) + site_pause;
        match one_more.saturating_sub(site_pause.saturating_mul(site_tries)) {
            Duration::ZERO => Ok(()),
            wait => Err(TooManyFailures { wait }),
        }
    }

    /// The password was wrong, or there is no such user.
    pub fn failed(&mut self, address: IpAddr, user: &str, now: Instant) {
        let source = self.source(address, user);
        let before = match self.failures.get(&source) {
            Some(failures) if !self.penalties.is_over(*failures, now) => failures.in_a_row,
            _ => 0,
        };
        let failures = Failures { in_a_row: before.saturating_add(1), last: now };
        self.failures.insert(source, failures);
        let forgotten = self.sites.get(&source.0).map_or(now, |forgotten| now.max(*forgotten));
        self.sites.insert(source.0, forgotten + self.penalties.site_pause);
    }

    /// The password was right: former failures are forgiven, but not those of the site. Who
    /// has an account may guess at others.
    pub fn succeeded(&mut self, address: IpAddr, user: &str) {
        self.failures.remove(&self.source(address, user));
    }

    fn source(&self, address: IpAddr, user: &str) -> Source {
        (site(address), self.users.hash_one(user))
    }
}

impl Penalties {
    /// What so many failures in a row cost.
    fn wait(&self, in_a_row: u32) -> Duration {
        let Some(doublings) = in_a_row.checked_sub(self.free_tries.saturating_add(1)) else {
            return Duration::ZERO;
        };
        let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
        self.first_wait.saturating_mul(factor).min(self.longest_wait)
    }

    fn is_over(&self, failures: Failures, now: Instant) -> bool {
        let remembered = self.forgotten_after.max(self.wait(failures.in_a_row));
        now.saturating_duration_since(failures.last) >= remembered
    }
}

/// The part of an address that its owner cannot change at will: a single machine may
/// have 2⁶⁴ IPv6 addresses.
pub(crate) fn site(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: &str = "192.0.2.1";

    /// A limiter with its default penalties, and a time that tests move.
    struct Fixture {
        limiter: Limiter,
        now: Instant,
    }

    impl Fixture {
        fn new(penalties: Penalties) -> Self {
            Self { limiter: Limiter::new(penalties), now: Instant::now() }
        }

        fn fail(&mut self, address: &str, user: &str, times: u32) {
            for _ in 0..times {
                self.limiter.failed(address.parse().unwrap(), user, self.now);
            }
        }

        /// The wait in milliseconds; 0 when a try is let through.
        fn wait_ms(&mut self, address: &str, user: &str) -> u128 {
            let checked = self.limiter.check(address.parse().unwrap(), user, self.now);
            checked.map_or_else(|refused| refused.wait.as_millis(), |()| 0)
        }

        /// The same for a whole site.
        fn site_wait_ms(&mut self, address: &str) -> u128 {
            let checked = self.limiter.check_site(address.parse().unwrap(), self.now);
            checked.map_or_else(|refused| refused.wait.as_millis(), |()| 0)
        }

        fn pass(&mut self, ms: u64) {
            self.now += Duration::from_millis(ms);
        }
    }

    impl Default for Fixture {
        fn default() -> Self {
            Self::new(Penalties::default())
        }
    }

    #[test]
    fn the_wait_doubles_up_to_the_longest() {
        let mut fixture = Fixture::default();
        let mut waits = vec![];
        for _ in 0..14 {
            fixture.fail(HOME, "alice", 1);
            waits.push(fixture.wait_ms(HOME, "alice") / 1000);
        }
        assert_eq!(waits, [0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        fixture.fail(HOME, "alice", 100);
        assert_eq!(fixture.wait_ms(HOME, "alice"), 300_000);
        assert_eq!(Penalties::default().wait(u32::MAX), Duration::from_secs(300));
    }

    #[test]
    fn a_try_is_let_through_when_the_wait_is_over_and_not_before() {
        let mut fixture = Fixture::default();
        fixture.fail(HOME, "alice", 4);
        fixture.pass(999);
        assert_eq!(fixture.wait_ms(HOME, "alice"), 1);
        fixture.pass(1);
        assert_eq!(fixture.wait_ms(HOME, "alice"), 0);
        fixture.fail(HOME, "alice", 1);
        assert_eq!(fixture.wait_ms(HOME, "alice"), 2000);
    }

    #[test]
    fn a_refused_try_does_not_lengthen_the_wait() {
        let mut fixture = Fixture::default();
        fixture.fail(HOME, "alice", 5);
        for _ in 0..100 {
            assert_eq!(fixture.wait_ms(HOME, "alice"), 2000);
        }
    }

    #[test]
    fn a_success_forgives() {
        let mut fixture = Fixture::default();
        fixture.fail(HOME, "alice", 9);
        fixture.limiter.succeeded(HOME.parse().unwrap(), "alice");
        assert_eq!(fixture.wait_ms(HOME, "alice"), 0);
        fixture.fail(HOME, "alice", 3);
        assert_eq!(fixture.wait_ms(HOME, "alice"), 0);
    }

    #[test]
    fn other_users_and_other_addresses_are_not_held_up() {
        let mut fixture = Fixture::default();
        fixture.fail(HOME, "alice", 9);
        assert_eq!(fixture.wait_ms(HOME, "bob"), 0);
        assert_eq!(fixture.wait_ms("192.0.2.2", "alice"), 0);
        fixture.limiter.succeeded(HOME.parse().unwrap(), "bob");
        assert_ne!(fixture.wait_ms(HOME, "alice"), 0);
    }

    #[test]
    fn an_address_is_the_same_however_it_is_written_and_a_network_is_one() {
        let mut fixture = Fixture::default();
        fixture.fail(HOME, "alice", 9);
        assert_ne!(fixture.wait_ms("::ffff:192.0.2.1", "alice"), 0);
        fixture.fail("2001:db8:1:2::1", "alice", 9);
        assert_ne!(fixture.wait_ms("2001:db8:1:2:dead:beef:1:2", "alice"), 0);
        assert_eq!(fixture.wait_ms("2001:db8:1:3::1", "alice"), 0);
    }

    #[test]
    fn a_site_that_tries_name_after_name_is_held_to_a_pace() {
        let mut fixture = Fixture::default();
        for stranger in 0..300 {
            assert_eq!(fixture.site_wait_ms(HOME), 0, "{stranger}");
            fixture.fail(HOME, &format!("stranger {stranger}"), 1);
        }
        assert_eq!(fixture.site_wait_ms(HOME), 1000);
        assert_eq!(fixture.wait_ms(HOME, "alice"), 0, "it is another's fault");
        fixture.limiter.succeeded(HOME.parse().unwrap(), "stranger 1");
        fixture.pass(999);
        assert_eq!(fixture.site_wait_ms("::ffff:192.0.2.1"), 1);
        assert_eq!(fixture.site_wait_ms("192.0.2.2"), 0);
        fixture.pass(1);
        assert_eq!(fixture.site_wait_ms(HOME), 0);
        fixture.fail(HOME, "one more", 1);
        assert_eq!(fixture.site_wait_ms(HOME), 1000);
        fixture.pass(300_000);
        fixture.fail(HOME, "again", 299);
        assert_eq!(fixture.site_wait_ms(HOME), 0, "all was forgotten");
    }

    #[test]
    fn devices_with_old_passwords_do_not_hold_up_their_site() {
        let mut fixture = Fixture::default();
        let devices: Vec<_> = (0..30).map(|device| format!("press {device}")).collect();
        for second in 0..7200 {
            for device in &devices {
                assert_eq!(fixture.site_wait_ms(HOME), 0, "in second {second}");
                if fixture.wait_ms(HOME, device) == 0 {
                    fixture.fail(HOME, device, 1);
                }
            }
            fixture.pass(1000);
        }
    }

    #[test]
    fn quiet_makes_old_failures_forgotten() {
        let mut fixture = Fixture::default();
        fixture.fail(HOME, "alice", 3);
        fixture.pass(899_999);
        fixture.fail(HOME, "alice", 1);
        assert_eq!(fixture.wait_ms(HOME, "alice"), 1000);
        fixture.pass(900_000);
        fixture.fail(HOME, "alice", 1);
        assert_eq!(fixture.wait_ms(HOME, "alice"), 0);
    }

    #[test]
    fn failures_are_not_forgotten_while_their_wait_lasts() {
        let forgotten_after = Duration::from_millis(100);
        let mut fixture = Fixture::new(Penalties { forgotten_after, ..Penalties::default() });
        fixture.fail(HOME, "alice", 4);
        fixture.pass(500);
        fixture.fail(HOME, "alice", 1);
        assert_eq!(fixture.wait_ms(HOME, "alice"), 2000);
        fixture.pass(2000);
        fixture.fail(HOME, "alice", 1);
        assert_eq!(fixture.wait_ms(HOME, "alice"), 0);
    }

    #[test]
    fn memory_is_bounded_and_the_one_who_keeps_trying_is_remembered() {
        let few = Penalties { capacity: 100, ..Penalties::default() };
        let mut fixture = Fixture::new(few);
        fixture.fail(HOME, "alice", 9);
        fixture.fail(HOME, "bob", 9);
        for stranger in 0..99 {
            fixture.fail(HOME, &format!("stranger {stranger}"), 1);
            assert_ne!(fixture.wait_ms(HOME, "alice"), 0);
        }
        assert_eq!(fixture.limiter.failures.len(), 100);
        for stranger in 0..1000 {
            fixture.fail(&format!("192.0.3.{}", stranger % 256), "alice", 1);
            fixture.fail(&format!("2001:db8:{stranger}::1"), "alice", 1);
        }
        assert_eq!(fixture.limiter.sites.len(), 100);
        assert_eq!(fixture.wait_ms(HOME, "bob"), 0);
    }

    #[test]
    fn a_time_before_the_last_failure_is_taken_for_that_failures() {
        let mut fixture = Fixture::default();
        fixture.pass(10_000);
        fixture.fail(HOME, "alice", 4);
        fixture.now -= Duration::from_secs(5);
        assert_eq!(fixture.wait_ms(HOME, "alice"), 1000);
    }

    #[test]
    fn a_refusal_says_when_to_come_back() {
        for (ms, seconds) in [(1, 1), (1500, 2), (2000, 2)] {
            let refused = TooManyFailures { wait: Duration::from_millis(ms) };
            assert!(refused.to_string().ends_with(&format!("again in {seconds} s")), "{refused}");
        }
    }
}
