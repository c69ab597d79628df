//! One call at a time for a container: a new one cuts the one under way short, and begins
//! only when that is gone for good.

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A call under way.
///
/// It is cut short between two of its awaits by a token, never by an abort: a task that is
/// aborted before its first poll would let go of the lane before it, which then went on
/// beside its successors.
#[derive(Debug)]
pub(super) struct Lane {
    cut: CancellationToken,
    task: JoinHandle<()>,
}

impl Lane {
    /// Begins `call` as soon as `before`, which is cut short now, is over.
    pub(super) fn begin(
        before: Option<Self>,
        call: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        if let Some(before) = &before {
            before.cut_short();
        }
        let cut = CancellationToken::new();
        let is_cut = cut.clone();
        let task = tokio::spawn(async move {
            // Not cut short itself: whoever comes next waits for this one, and so for all.
            if let Some(before) = before {
                before.over().await;
            }
            is_cut.run_until_cancelled_owned(call).await;
        });
        Self { cut, task }
    }

    /// Has it end at its next await.
    pub(super) fn cut_short(&self) {
        self.cut.cancel();
    }

    /// Returns once nothing of it, nor of those before it, is at work.
    pub(super) async fn over(self) {
        // A call that panicked is over as well.
        let _ = self.task.await;
    }

    /// True when nothing of it is at work any more.
    pub(super) fn is_over(&self) -> bool {
        self.task.is_finished()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::mpsc;

    use tokio::sync::Notify;

    use super::*;

    /// Counts itself for as long as it is at work.
    struct AtWork(Arc<AtomicU32>);

    impl AtWork {
        fn begin(count: &Arc<AtomicU32>) -> Self {
            let others = count.fetch_add(1, Ordering::SeqCst);
            assert_eq!(others, 0, "two calls of one container are at work");
            Self(count.clone())
        }
    }

    impl Drop for AtWork {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 3)]
    async fn however_fast_calls_replace_each_other_one_is_at_work() {
        let count = Arc::new(AtomicU32::new(0));
        let begun = Arc::new(Notify::new());
        let call = |held: Option<mpsc::Receiver<()>>| {
            let (count, begun) = (count.clone(), begun.clone());
            async move {
                let _at_work = AtWork::begin(&count);
                begun.notify_one();
                // A step that cannot be cut short.
                let _released = held.as_ref().map(mpsc::Receiver::recv);
                std::future::pending::<()>().await;
            }
        };
        let (release, held) = mpsc::channel();
        let first = Lane::begin(None, call(Some(held)));
        begun.notified().await;
        let second = Lane::begin(Some(first), call(None));
        let third = Lane::begin(Some(second), call(None));
        for _turn in 0..1000 {
            tokio::task::yield_now().await;
        }
        assert!(!third.is_over(), "it began beside the first, which is in the middle of a step");
        drop(release);
        begun.notified().await;
        assert_eq!(count.load(Ordering::SeqCst), 1);
        third.cut_short();
        third.over().await;
        assert_eq!(count.load(Ordering::SeqCst), 0, "nothing is left at work");
    }
}
