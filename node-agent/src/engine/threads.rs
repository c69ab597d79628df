//! Work on a container's files by threads, which go on when whoever waits for them is cut short.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, PoisonError};

use godwit_proto::id::ContainerId;
use tokio_util::task::TaskTracker;

use super::EngineError;

/// Which containers' files are at work on.
#[derive(Debug, Default)]
pub(crate) struct Threads(Mutex<BTreeMap<ContainerId, TaskTracker>>);

impl Threads {
    /// Runs `work` on a thread. Cut short, it goes on: see [`Threads::rest`].
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        id: ContainerId,
        what: &'static str,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, EngineError> {
        let at_work = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            all.entry(id).or_default().spawn_blocking(work)
        };
        let done = at_work.await;
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
            .map_err(|source| EngineError::Io { what: what.into(), source })
    }

    /// Returns once nothing is at work for the container. Nothing new may be begun meanwhile.
    /// Cancel safe.
    pub(crate) async fn rest(&self, id: ContainerId) {
        let all = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(tracker) = all().get(&id).cloned() else { return };
        tracker.close();
        tracker.wait().await;
        all().remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::task::Poll;

    use super::*;

    #[tokio::test]
    async fn what_was_cut_short_is_waited_for() {
        let (threads, id) = (Threads::default(), ContainerId(uuid::Uuid::from_u128(1)));
        let (release, held) = mpsc::channel::<()>();
        let mut work = Box::pin(threads.run(id, "work", move || Ok(held.recv().is_err())));
        assert!(futures_poll(work.as_mut()).is_pending());
        drop(work);
        let mut resting = Box::pin(threads.rest(id));
        assert!(futures_poll(resting.as_mut()).is_pending(), "it is at work");
        drop(resting);
        let mut resting = Box::pin(threads.rest(id));
        assert!(futures_poll(resting.as_mut()).is_pending(), "a rest that was cut short ended it");
        drop(release);
        resting.await;
        assert!(threads.run(id, "work", || Ok(true)).await.expect("again"));
    }

    fn futures_poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut std::task::Context::from_waker(std::task::Waker::noop()))
    }
}
