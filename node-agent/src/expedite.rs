//! Grace periods of the kernel in a hurry while a container stands still.
//!
//! Several of CRIU's steps wait for one each (network sockets, control group namespaces).
//! `/sys/kernel/rcu_expedited` shortens them at some cost for every processor of the machine,
//! so it is an operator's choice, and set only for the length of a gap. What stood there
//! before is noted first: the next life of an agent that was killed puts it back. The note is
//! locked as long as it holds: the agent and a doctor beside it do not undo each other.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// The kernel's switch.
const SWITCH: &str = "/sys/kernel/rcu_expedited";

/// The switch of one machine; clones count the same gaps.
#[derive(Debug, Clone, Default)]
pub(crate) struct Expedite(Option<Arc<Counted>>);

#[derive(Debug)]
struct Counted {
    switch: PathBuf,
    /// Holds what stood at the switch, while it is set.
    note: PathBuf,
    gaps: Mutex<Gaps>,
}

#[derive(Debug, Default)]
struct Gaps {
    count: usize,
    /// The note, locked: the switch is set by us.
    held: Option<File>,
}

/// As long as it lives, grace periods are expedited.
#[derive(Debug)]
pub(crate) struct Gap(Option<Arc<Counted>>);

impl Expedite {
    /// Puts back what an earlier life left set. Where `is_wanted` is false gaps do nothing.
    pub(crate) fn open(rundir: &Path, is_wanted: bool) -> Self {
        Self::at(Path::new(SWITCH), rundir, is_wanted)
    }

    fn at(switch: &Path, rundir: &Path, is_wanted: bool) -> Self {
        let note = rundir.join("rcu-expedited-before");
        let counted = Counted { switch: switch.into(), note, gaps: Mutex::default() };
        if counted.note.exists() {
            counted.put_back(counted.lock());
        }
        Self(is_wanted.then(|| Arc::new(counted)))
    }

    /// Begins a gap. Where the switch cannot be set it is as long as it would be without.
    pub(crate) fn begin(&self) -> Gap {
        self.try_begin().unwrap_or_else(|error| {
            tracing::warn!(%error, "grace periods of the kernel are not expedited");
            Gap(None)
        })
    }

    /// Begins a gap, or says why the switch cannot be set.
    pub(crate) fn try_begin(&self) -> io::Result<Gap> {
        if let Some(counted) = &self.0 {
            let mut gaps = counted.gaps.lock().unwrap_or_else(PoisonError::into_inner);
            if gaps.held.is_none() {
                gaps.held = Some(counted.set()?);
            }
            gaps.count += 1;
        }
        Ok(Gap(self.0.clone()))
    }

    /// True where the switch is set already, by whomever.
    pub(crate) fn is_set() -> io::Result<bool> {
        Ok(fs::read_to_string(SWITCH)?.trim() != "0")
    }
}

impl Drop for Gap {
    fn drop(&mut self) {
        let Some(counted) = &self.0 else { return };
        let mut gaps = counted.gaps.lock().unwrap_or_else(PoisonError::into_inner);
        gaps.count -= 1;
        if gaps.count == 0
            && let Some(held) = gaps.held.take()
        {
            counted.put_back(Ok(held));
        }
    }
}

impl Counted {
    fn lock(&self) -> io::Result<File> {
        let mut options = File::options();
        let file = options.read(true).write(true).create(true).truncate(false).open(&self.note)?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => io::Error::other("another program of ours has set it"),
            TryLockError::Error(error) => error,
        })?;
        Ok(file)
    }

    fn set(&self) -> io::Result<File> {
        let mut note = self.lock()?;
        let mut before = String::new();
        // Where something is noted it is what stood there before a killed one set it.
        note.read_to_string(&mut before)?;
        if before.is_empty() {
            note.write_all(&fs::read(&self.switch)?)?;
        }
        if let Err(error) = fs::write(&self.switch, "1") {
            note.set_len(0)?;
            return Err(error);
        }
        Ok(note)
    }

    /// What another one holds is left alone.
    fn put_back(&self, note: io::Result<File>) {
        let Ok(mut note) = note else { return };
        let mut before = String::new();
        let back = note.rewind().and_then(|()| note.read_to_string(&mut before)).and_then(|size| {
            if size > 0 {
                fs::write(&self.switch, &before)?;
            }
            note.set_len(0)
        });
        if let Err(error) = back {
            tracing::error!(%error, switch = %self.switch.display(), "grace periods stay expedited");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn switch() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("tempdir");
        let switch = dir.path().join("switch");
        fs::write(&switch, "0").expect("write");
        (dir, switch)
    }

    #[test]
    fn the_last_gap_puts_it_back() {
        let (dir, switch) = switch();
        let expedite = Expedite::at(&switch, dir.path(), true);
        let read = || fs::read_to_string(&switch).expect("read");
        let (one, other) = (expedite.begin(), expedite.clone().begin());
        assert_eq!(read(), "1");
        drop(one);
        assert_eq!(read(), "1");
        drop(other);
        assert_eq!(read(), "0");
        let note = fs::read(dir.path().join("rcu-expedited-before")).expect("read");
        assert!(note.is_empty(), "it would be put back once more: {note:?}");
    }

    #[test]
    fn two_programs_do_not_undo_each_other() {
        let (dir, switch) = switch();
        let (agent, doctor) =
            (Expedite::at(&switch, dir.path(), true), Expedite::at(&switch, dir.path(), true));
        let read = || fs::read_to_string(&switch).expect("read");
        let gap = agent.begin();
        assert!(doctor.try_begin().is_err(), "the agent has set it");
        drop(Expedite::at(&switch, dir.path(), false));
        assert_eq!(read(), "1", "put back in the midst of the gap");
        drop(gap);
        assert_eq!(read(), "0");
        drop(doctor.begin());
        assert_eq!(read(), "0");
    }

    #[test]
    fn what_a_killed_agent_left_set_is_put_back_by_the_next() {
        let (dir, switch) = switch();
        // A killed process lets go of its locks.
        let killed = Expedite::at(&switch, dir.path(), true);
        let gap = killed.try_begin().expect("set");
        let counted = killed.0.as_ref().expect("wanted");
        counted.gaps.lock().expect("alive").held = None;
        std::mem::forget(gap);
        assert_eq!(fs::read_to_string(&switch).expect("read"), "1");
        let _wanted_no_more = Expedite::at(&switch, dir.path(), false);
        assert_eq!(fs::read_to_string(&switch).expect("read"), "0");
    }

    #[test]
    fn nobody_asked_and_nothing_is_touched() {
        let (dir, switch) = switch();
        let _gap = Expedite::at(&switch, dir.path(), false).begin();
        assert_eq!(fs::read_to_string(&switch).expect("read"), "0");
    }
}
