//! Threads of their own for connections that carry bulk.
//!
//! A thread that copies without end uses up its share of the processor, and then waits while others
//! have theirs. What is small would wait with it; so it is served by threads that mostly sleep,
//! which the kernel wakes at once.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::task::AbortOnDropHandle;

/// Payloads from here on count.
const LARGE_FROM: usize = 16 << 10;
/// A connection carries bulk once this much of them came or went within [`WINDOW`] ...
const MUCH: usize = 1 << 20;
const WINDOW: Duration = Duration::from_millis(100);
/// ... until it has not done so for this long.
const CALM: Duration = Duration::from_secs(1);

/// What a connection carries, told by its two halves.
#[derive(Debug)]
pub(crate) struct Traffic {
    /// Not for most: they need no clock.
    is_bulk: AtomicBool,
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    /// The window's beginning, and what was seen in it.
    since: Instant,
    bytes: usize,
    /// When a window was full for the last time.
    full: Instant,
}

impl Traffic {
    pub(crate) fn new(now: Instant) -> Self {
        let seen = Mutex::new(Seen { since: now, bytes: 0, full: now });
        Self { is_bulk: AtomicBool::new(false), seen }
    }

    /// A payload of that size came or goes.
    pub(crate) fn tell(&self, bytes: usize) {
        if bytes >= LARGE_FROM {
            self.count(bytes, Instant::now());
        }
    }

    fn count(&self, bytes: usize, now: Instant) {
        let mut seen = self.lock();
        if now.duration_since(seen.since) > WINDOW {
            (seen.since, seen.bytes) = (now, 0);
        }
        seen.bytes += bytes;
        if seen.bytes >= MUCH {
            seen.full = now;
            self.is_bulk.store(true, Relaxed);
        }
    }

    /// Where it is to be served.
    fn side(&self, now: impl Fn() -> Instant) -> Side {
        if !self.is_bulk.load(Relaxed) {
            return Side::Others;
        }
        if now().duration_since(self.lock().full) < CALM {
            return Side::Bulk;
        }
        self.is_bulk.store(false, Relaxed);
        Side::Others
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

thread_local! {
    static SIDE: Cell<Side> = const { Cell::new(Side::Others) };
}

/// Whose thread it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Bulk,
    Others,
}

impl Side {
    /// The current thread's.
    pub(crate) fn current() -> Self {
        SIDE.get()
    }
}

/// The threads. They end with this value.
#[derive(Debug)]
pub(crate) struct Bulk(Option<Runtime>);

impl Bulk {
    /// Half as many as there are processors: others have the rest.
    pub(crate) fn start() -> std::io::Result<Self> {
        let threads = available_parallelism().map_or(1, |count| (count.get() / 2).max(1));
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(threads).thread_name("broker-bulk").enable_all();
        builder.on_thread_start(|| SIDE.set(Side::Bulk));
        Ok(Self(Some(builder.build()?)))
    }

    /// Serves a connection: on these threads while it carries bulk, else where this is awaited.
    pub(crate) fn serve<C>(
        &self,
        traffic: Arc<Traffic>,
        connection: C,
    ) -> impl Future<Output = ()> + Send + use<C>
    where
        C: Future<Output = ()> + Send + 'static,
    {
        let threads = self.0.as_ref().map(|runtime| runtime.handle().clone());
        async move {
            if let Some(threads) = threads {
                alternate(&threads, traffic, Box::pin(connection)).await;
            }
        }
    }
}

impl Drop for Bulk {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // It may be on a thread that must not wait.
            runtime.shutdown_background();
        }
    }
}

async fn alternate<C>(threads: &Handle, traffic: Arc<Traffic>, mut connection: Pin<Box<C>>)
where
    C: Future<Output = ()> + Send + 'static,
{
    while !ends(&mut connection, &traffic).await {
        let traffic = traffic.clone();
        let there = threads.spawn(async move {
            let has_ended = ends(&mut connection, &traffic).await;
            (!has_ended).then_some(connection)
        });
        match AbortOnDropHandle::new(there).await {
            Ok(Some(back)) => connection = back,
            // Over, or it panicked and has been reported.
            Ok(None) | Err(_) => return,
        }
    }
}

/// Drives a connection to its end, or until it is to be served elsewhere: then false.
async fn ends<C>(connection: &mut Pin<Box<C>>, traffic: &Traffic) -> bool
where
    C: Future<Output = ()>,
{
    poll_fn(|context| match connection.as_mut().poll(context) {
        Poll::Ready(()) => Poll::Ready(true),
        Poll::Pending if traffic.side(Instant::now) != Side::current() => Poll::Ready(false),
        Poll::Pending => Poll::Pending,
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bulk_is_what_comes_large_and_fast_until_it_is_calm() {
        let begun = Instant::now();
        let traffic = Traffic::new(begun);
        for _ in 0..MUCH {
            traffic.tell(LARGE_FROM - 1);
        }
        assert_eq!(traffic.side(|| begun), Side::Others, "small ones do not count");
        let mut now = begun;
        for _ in 0..100 {
            now += WINDOW;
            traffic.count(MUCH / 3, now);
        }
        assert_eq!(traffic.side(|| now), Side::Others, "slow ones do not make it bulk");
        traffic.count(MUCH, now);
        assert_eq!(traffic.side(|| now), Side::Bulk);
        now += CALM - Duration::from_millis(1);
        assert_eq!(traffic.side(|| now), Side::Bulk);
        traffic.count(MUCH, now);
        now += CALM - Duration::from_millis(1);
        assert_eq!(traffic.side(|| now), Side::Bulk, "it has gone on");
        now += Duration::from_millis(1);
        assert_eq!(traffic.side(|| now), Side::Others);
    }
}
