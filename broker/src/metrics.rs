//! What the broker counts.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::core::Counts;

/// Causes of one kind, each with the name that it has in metrics.
macro_rules! causes {
    ($(#[$doc:meta])* $kind:ident { $($variant:ident = $name:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum $kind { $($variant,)* }

        impl Cause for $kind {
            const ALL: &'static [Self] = &[$(Self::$variant,)*];

            fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            fn index(self) -> usize {
                self as usize
            }
        }
    };
}

/// A cause that something is counted by.
pub(crate) trait Cause: Copy + 'static {
    const ALL: &'static [Self];

    fn name(self) -> &'static str;

    fn index(self) -> usize;
}

causes! {
    /// Why a client did not come in.
    Refused {
        Full = "full",
        Timeout = "timeout",
        Gone = "gone",
        NotMqtt = "not-mqtt",
        Version = "version",
        Malformed = "malformed",
        AuthenticationMethod = "authentication-method",
        ClientId = "client-id",
        Will = "will",
        Anonymous = "anonymous",
        Password = "password",
        Certificate = "certificate",
        Account = "account",
        Rate = "rate",
        ConnectRate = "connect-rate",
        Sessions = "sessions",
        Handshake = "handshake",
    }
}

impl Refused {
    /// It was about who the client is.
    fn is_sign_in(self) -> bool {
        matches!(
            self,
            Self::Anonymous | Self::Password | Self::Certificate | Self::Account | Self::Rate
        )
    }
}

causes! {
    /// Why a client does not get a message.
    Dropped {
        QueueFull = "queue-full",
        AllQueuesFull = "all-queues-full",
        OutboxFull = "outbox-full",
        TooLarge = "too-large",
        Expired = "expired",
        Unauthorised = "unauthorised",
    }
}

/// Counters of one kind, by cause.
#[derive(Debug)]
pub(crate) struct Tally<C>([AtomicU64; 20], PhantomData<C>);

impl<C> Default for Tally<C> {
    fn default() -> Self {
        Self(Default::default(), PhantomData)
    }
}

impl<C: Cause> Tally<C> {
    pub(crate) fn add(&self, cause: C, count: u64) {
        if count > 0 {
            self.0[cause.index()].fetch_add(count, Ordering::Relaxed);
        }
    }

    pub(crate) fn get(&self, cause: C) -> u64 {
        self.0[cause.index()].load(Ordering::Relaxed)
    }

    pub(crate) fn all(&self) -> u64 {
        C::ALL.iter().map(|cause| self.get(*cause)).sum()
    }
}

/// Counters of one broker, from its start.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) started: Started,
    pub(crate) packets_received: AtomicU64,
    pub(crate) packets_sent: AtomicU64,
    pub(crate) messages_received: AtomicU64,
    pub(crate) messages_sent: AtomicU64,
    pub(crate) payload_bytes_received: AtomicU64,
    pub(crate) payload_bytes_sent: AtomicU64,
    pub(crate) bytes_received: AtomicU64,
    pub(crate) bytes_sent: AtomicU64,
    pub(crate) dropped: Tally<Dropped>,
    /// How often somebody was not read for a while, being too fast.
    pub(crate) reads_paused: AtomicU64,
    pub(crate) publishes_refused: AtomicU64,
    pub(crate) subscriptions_refused: AtomicU64,
    pub(crate) retained_refused: AtomicU64,
    /// Streams that spoke the transport's language, whatever came of them.
    pub(crate) sockets: AtomicU64,
    pub(crate) connections: AtomicU64,
    pub(crate) connections_refused: Tally<Refused>,
    pub(crate) clients_kicked: AtomicU64,
    pub(crate) sessions_expired: AtomicU64,
    pub(crate) sessions: AtomicUsize,
    pub(crate) connected: AtomicUsize,
    pub(crate) connected_max: AtomicUsize,
    pub(crate) routers_replaced: AtomicU64,
    pub(crate) store_commits: AtomicU64,
    pub(crate) store_commit_us: AtomicU64,
    pub(crate) store_failures: AtomicU64,
    /// The last commit failed: nothing is acknowledged until one succeeds.
    pub(crate) is_store_stuck: AtomicBool,
}

/// When counting began.
#[derive(Debug)]
pub(crate) struct Started(Instant);

impl Default for Started {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Started {
    pub(crate) fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

impl Metrics {
    pub(crate) fn count(&self, counts: Counts) {
        self.dropped.add(Dropped::QueueFull, counts.dropped);
        self.dropped.add(Dropped::AllQueuesFull, counts.crowded_out);
        self.connections_refused.add(Refused::Sessions, counts.turned_away);
        self.dropped.add(Dropped::Expired, counts.expired);
        self.dropped.add(Dropped::Unauthorised, counts.refused);
        let rare = [
            (&self.retained_refused, counts.unretained),
            (&self.subscriptions_refused, counts.unsubscribed),
            (&self.clients_kicked, counts.kicked),
            (&self.sessions_expired, counts.ended),
        ];
        for (counter, count) in rare.into_iter().filter(|(_, count)| *count > 0) {
            counter.fetch_add(count, Ordering::Relaxed);
        }
    }

    pub(crate) fn clients(&self, (sessions, connected): (usize, usize)) {
        self.sessions.store(sessions, Ordering::Relaxed);
        self.connected.store(connected, Ordering::Relaxed);
        self.connected_max.fetch_max(connected, Ordering::Relaxed);
    }

    pub(crate) fn committed(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.store_commits.fetch_add(1, Ordering::Relaxed);
        self.store_commit_us.fetch_add(us, Ordering::Relaxed);
        self.is_store_stuck.store(false, Ordering::Relaxed);
    }

    pub(crate) fn commit_failed(&self) {
        self.store_failures.fetch_add(1, Ordering::Relaxed);
        self.is_store_stuck.store(true, Ordering::Relaxed);
    }

    /// How many were turned away for who they are, or could not prove to be.
    pub(crate) fn sign_in_failures(&self) -> u64 {
        let causes = Refused::ALL.iter().filter(|cause| cause.is_sign_in());
        causes.map(|cause| self.connections_refused.get(*cause)).sum()
    }
}

/// A counter as it is now.
pub(crate) fn now(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// Memory that the process holds, in bytes; `None` where the kernel does not say.
pub(crate) fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}
