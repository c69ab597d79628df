//! Grace periods of the kernel in a hurry while a container stands still.
//!
//! Several of CRIU's steps wait for one each (network sockets, control group namespaces).
//! `/sys/kernel/rcu_expedited` shortens them at some cost for every processor of the machine,
//! so it is an operator's choice, and set only for the length of a gap. What stood there
//! before is noted first: the next life of an agent that was killed puts it back.

use std::fs;
use std::io;
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
    gaps: Mutex<usize>,
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
        let counted = Counted { switch: switch.into(), note, gaps: Mutex::new(0) };
        if counted.note.exists() {
            counted.put_back();
        }
        Self(is_wanted.then(|| Arc::new(counted)))
    }

    /// Begins a gap.
    pub(crate) fn begin(&self) -> Gap {
        if let Some(counted) = &self.0 {
            let mut gaps = counted.gaps.lock().unwrap_or_else(PoisonError::into_inner);
            *gaps += 1;
            if *gaps == 1
                && let Err(error) = counted.set()
            {
                tracing::warn!(%error, switch = %counted.switch.display(), "grace periods are not expedited");
            }
        }
        Gap(self.0.clone())
    }
}

impl Drop for Gap {
    fn drop(&mut self) {
        let Some(counted) = &self.0 else { return };
        let mut gaps = counted.gaps.lock().unwrap_or_else(PoisonError::into_inner);
        *gaps -= 1;
        if *gaps == 0 {
            counted.put_back();
        }
    }
}

impl Counted {
    fn set(&self) -> io::Result<()> {
        fs::write(&self.note, fs::read(&self.switch)?)?;
        fs::write(&self.switch, "1")
    }

    fn put_back(&self) {
        let back = fs::read(&self.note)
            .and_then(|before| fs::write(&self.switch, before))
            .and_then(|()| fs::remove_file(&self.note));
        match back {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::error!(%error, switch = %self.switch.display(), "grace periods stay expedited");
            }
            _ => {}
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
        assert_eq!(fs::read_dir(dir.path()).expect("read").count(), 1, "no note stays");
    }

    #[test]
    fn what_a_killed_agent_left_set_is_put_back_by_the_next() {
        let (dir, switch) = switch();
        std::mem::forget(Expedite::at(&switch, dir.path(), true).begin());
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
