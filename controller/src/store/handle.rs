//! A store for asynchronous code: one connection on a thread of its own.

use std::path::Path;
use std::thread;

use tokio::sync::{mpsc, oneshot};

use super::{Store, StoreError};

/// How many calls may wait; a caller beyond that waits for its turn to wait.
const WAITING: usize = 64;

type Job = Box<dyn FnOnce(&Store) + Send>;

/// A cheap handle to a store's thread, which ends with the last handle.
#[derive(Debug, Clone)]
pub struct StoreHandle {
    jobs: mpsc::Sender<Job>,
}

impl StoreHandle {
    /// Opens the database and starts its thread.
    ///
    /// # Errors
    /// As [`Store::open`]; [`StoreError::Closed`] when no thread can be started.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let store = Store::open(path)?;
        let (jobs, mut queue) = mpsc::channel::<Job>(WAITING);
        thread::Builder::new()
            .name("store".into())
            .spawn(move || {
                while let Some(job) = queue.blocking_recv() {
                    job(&store);
                }
            })
            .map_err(|_| StoreError::Closed)?;
        Ok(Self { jobs })
    }

    /// Runs `work` with the store and answers its result.
    ///
    /// A cancelled call may or may not have been carried out.
    ///
    /// # Errors
    /// Those of `work`; [`StoreError::Closed`] when the thread is gone.
    pub async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, result) = oneshot::channel();
        let job = Box::new(move |store: &Store| {
            // Nobody waits any more: the caller was cancelled.
            let _ = answer.send(work(store));
        });
        self.jobs.send(job).await.map_err(|_| StoreError::Closed)?;
        result.await.map_err(|_| StoreError::Closed)?
    }
}
