//! Files that are made when the first peer wants one, and removed when the last has it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use godwit_proto::stream::StreamId;
use godwit_proto::topic::Peer;

use crate::stream::journal::identity;

/// How the files end.
const MADE: &str = ".made";

/// Files for streams, each made once for all who want it: another one would be another version,
/// and begin every transfer anew.
#[derive(Debug)]
pub struct Made {
    dir: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Who sees whether a file is there, and makes it.
    making: BTreeMap<StreamId, Arc<tokio::sync::Mutex<()>>>,
    /// The files that are there, and for whom.
    made: BTreeMap<StreamId, BTreeSet<Peer>>,
}

impl Made {
    /// Files in `dir`; what an earlier life left there is removed.
    pub fn new(dir: PathBuf) -> Self {
        for file in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            if file.file_name().to_string_lossy().ends_with(MADE) {
                remove(&file.path());
            }
        }
        Self { dir, state: Mutex::default() }
    }

    /// Where the stream's file is to be written.
    pub fn place(&self, stream: &StreamId) -> PathBuf {
        let name: String = identity(stream).0.iter().map(|byte| format!("{byte:02x}")).collect();
        self.dir.join(format!("{name}{MADE}"))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.making.retain(|_, lock| Arc::strong_count(lock) > 1);
        state
    }

    /// The stream's file, for one more peer; `make` writes it unless it is there.
    /// Cancel safe: what is half made is removed.
    ///
    /// # Errors
    /// What `make` fails with.
    pub async fn file<E>(
        &self,
        stream: &StreamId,
        to: &Peer,
        make: impl Future<Output = Result<(), E>>,
    ) -> Result<PathBuf, E> {
        let path = self.place(stream);
        let making = self.state().making.entry(stream.clone()).or_default().clone();
        let _making = making.lock().await;
        if let Some(peers) = self.state().made.get_mut(stream) {
            peers.insert(to.clone());
            return Ok(path);
        }
        let mut unfinished = Unfinished(Some(&path));
        make.await?;
        unfinished.0 = None;
        drop(unfinished);
        self.state().made.insert(stream.clone(), BTreeSet::from([to.clone()]));
        Ok(path)
    }

    /// The peer needs the stream's file no more.
    pub fn ended(&self, stream: &StreamId, to: &Peer) {
        let mut state = self.state();
        let Some(peers) = state.made.get_mut(stream) else { return };
        peers.remove(to);
        if peers.is_empty() {
            state.made.remove(stream);
            // Under the lock: whoever makes it again does so afterwards.
            remove(&self.place(stream));
        }
    }
}

/// A file that nobody is to find: removed when this is dropped.
struct Unfinished<'a>(Option<&'a Path>);

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(path) = self.0 {
            remove(path);
        }
    }
}

fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(file = %path.display(), %error, "cannot remove a file that was made to be sent");
    }
}

#[cfg(test)]
mod tests {
    use godwit_proto::id::NodeId;

    use super::*;

    fn stream(digits: &str) -> StreamId {
        StreamId::Image(digits.repeat(32).parse().expect("an id"))
    }

    fn peer(name: &str) -> Peer {
        Peer::from(name.parse::<NodeId>().expect("a node"))
    }

    #[tokio::test]
    async fn a_file_is_made_once_and_stays_until_the_last_peer_has_it() {
        let dir = tempfile::tempdir().expect("tempdir");
        let made = Made::new(dir.path().into());
        let (image, times) = (stream("ab"), std::cell::Cell::new(0));
        let make = || async {
            times.set(times.get() + 1);
            tokio::task::yield_now().await;
            std::fs::write(made.place(&image), times.get().to_string())
        };
        let (a, b) = (peer("a"), peer("b"));
        let (first, second) = (made.file(&image, &a, make()), made.file(&image, &b, make()));
        let (first, second) = tokio::join!(first, second);
        let path = first.expect("made");
        assert_eq!(path, second.expect("made"));
        assert_eq!(std::fs::read_to_string(&path).expect("there"), "1");
        made.ended(&image, &a);
        assert!(path.exists(), "b wants it");
        made.ended(&stream("cd"), &b);
        assert!(path.exists(), "that was another one");
        made.ended(&image, &b);
        assert!(!path.exists());
        made.file(&image, &a, make()).await.expect("made");
        assert_eq!(times.get(), 2);
    }

    #[tokio::test]
    async fn what_fails_or_is_left_by_another_life_is_removed() {
        let dir = tempfile::tempdir().expect("tempdir");
        let made = Made::new(dir.path().into());
        let (image, a) = (stream("ab"), peer("a"));
        let place = made.place(&image);
        let fails = async {
            std::fs::write(&place, "half").expect("written");
            Err::<(), _>("full")
        };
        assert_eq!(made.file(&image, &a, fails).await, Err("full"));
        assert!(!place.exists());
        let makes = async { std::fs::write(&place, "whole") };
        made.file(&image, &a, makes).await.expect("made");
        std::fs::write(dir.path().join("other"), "").expect("written");
        drop(Made::new(dir.path().into()));
        assert!(!place.exists() && dir.path().join("other").exists());
    }
}
