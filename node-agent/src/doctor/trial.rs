//! Which trial is under way, on disk: a doctor that is killed in the middle leaves a
//! container, a namespace and an image, and the next one knows whose they are.
//!
//! The same file is the lock: two doctors of one node (the agent's and an operator's) wait
//! for each other, so what is noted when one begins belongs to nobody any more.

use std::fs;
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use godwit_proto::id::ContainerId;

/// How often it is tried to be the only one.
const AGAIN: Duration = Duration::from_millis(100);

/// The right to try, and the note of what is tried; given back when dropped.
#[derive(Debug)]
pub(super) struct Trial {
    file: fs::File,
}

impl Trial {
    /// Waits until no other doctor tries anything beside the engine that works in `workdir`;
    /// `TimedOut` when one still does after `patience`. Cancel safe.
    pub(super) async fn begin(workdir: &Path, patience: Duration) -> io::Result<Self> {
        fs::create_dir_all(workdir)?;
        let mut options = fs::OpenOptions::new();
        let file =
            options.read(true).write(true).create(true).truncate(false).open(path(workdir))?;
        let end = tokio::time::Instant::now() + patience;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { file }),
                Err(fs::TryLockError::Error(error)) => return Err(error),
                Err(fs::TryLockError::WouldBlock) if tokio::time::Instant::now() > end => {
                    let why = "another doctor is at work on this node: wait for it to end";
                    return Err(io::Error::new(io::ErrorKind::TimedOut, why));
                }
                Err(fs::TryLockError::WouldBlock) => tokio::time::sleep(AGAIN).await,
            }
        }
    }

    /// Notes whose container is tried, before anything of it is made.
    pub(super) fn note(&self, id: ContainerId) -> io::Result<()> {
        self.write(&id.to_string())
    }

    /// Notes that nothing is left.
    pub(super) fn strike(&self) -> io::Result<()> {
        self.write("")
    }

    /// What was noted and not struck out.
    pub(super) fn noted(&self) -> io::Result<Option<ContainerId>> {
        let mut text = String::new();
        (&self.file).rewind()?;
        (&self.file).read_to_string(&mut text)?;
        // A torn note: its doctor was killed before it made anything.
        Ok(text.parse().ok())
    }

    fn write(&self, text: &str) -> io::Result<()> {
        self.file.set_len(0)?;
        (&self.file).rewind()?;
        (&self.file).write_all(text.as_bytes())?;
        self.file.sync_data()
    }
}

/// True while a trial is noted: one is under way, or was cut short.
pub(super) fn is_noted(workdir: &Path) -> bool {
    fs::metadata(path(workdir)).is_ok_and(|file| file.len() > 0)
}

fn path(workdir: &Path) -> PathBuf {
    workdir.join("trial")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_next_doctor_finds_what_a_killed_one_noted() {
        let dir = tempfile::tempdir().expect("tempdir");
        let begin = || Trial::begin(dir.path(), Duration::ZERO);
        let killed = begin().await.expect("begin");
        assert_eq!(killed.noted().expect("read"), None);
        let id = "6f1d1c1e-1111-4222-8333-444455556666".parse().expect("id");
        killed.note(id).expect("note");
        drop(killed);
        assert!(is_noted(dir.path()));
        let next = begin().await.expect("begin");
        assert_eq!(next.noted().expect("read"), Some(id));
        next.strike().expect("strike");
        assert_eq!(next.noted().expect("read"), None);
        assert!(!is_noted(dir.path()));
    }

    #[tokio::test]
    async fn two_doctors_do_not_try_at_the_same_time() {
        let dir = tempfile::tempdir().expect("tempdir");
        let first = Trial::begin(dir.path(), Duration::ZERO).await.expect("begin");
        let second = Trial::begin(dir.path(), Duration::ZERO).await.expect_err("one is at work");
        assert_eq!(second.kind(), io::ErrorKind::TimedOut);
        let waiting = Trial::begin(dir.path(), Duration::from_secs(60));
        drop(first);
        waiting.await.expect("begin");
    }
}
