//! What tells two looks at a directory apart: overlay's upper one, by inode, time of change and size.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::below::{has_real_parents, is_absent};

/// What is in a directory, by its path from there.
pub(super) type Entries = BTreeMap<PathBuf, Stamp>;

/// What tells two states of one path apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    inode: u64,
    pub(super) changed: (i64, i64),
    size_bytes: u64,
    pub(super) mode: u32,
    /// It is taken for changed whatever the next look finds.
    pub(super) is_unsure: bool,
}

/// A file written this shortly before it was looked at may be written again without its time
/// of change showing it: kernels before 6.13 count that in ticks of up to 10 ms.
const UNSURE: Duration = Duration::from_millis(50);

impl Stamp {
    pub(super) fn is_directory(&self) -> bool {
        self.mode & nix::libc::S_IFMT == nix::libc::S_IFDIR
    }

    /// True for a file or a link.
    pub(super) fn is_file(&self) -> bool {
        matches!(self.mode & nix::libc::S_IFMT, nix::libc::S_IFREG | nix::libc::S_IFLNK)
    }
}

/// Every entry below `top` while it may be written to: for the first of two looks.
pub(super) fn look(top: &Path) -> io::Result<Entries> {
    let sure = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() - UNSURE;
    let sure = (sure.as_secs().cast_signed(), i64::from(sure.subsec_nanos()));
    let mut entries = scan(top)?;
    entries.values_mut().for_each(|stamp| stamp.is_unsure = stamp.changed >= sure);
    Ok(entries)
}

/// Every entry below `top`, by its path from there.
pub(super) fn scan(top: &Path) -> io::Result<Entries> {
    let mut entries = Entries::new();
    walk(top, Path::new(""), &mut entries)?;
    Ok(entries)
}

fn walk(top: &Path, below: &Path, entries: &mut Entries) -> io::Result<()> {
    let listed = match fs::read_dir(top.join(below)) {
        Err(error) if is_absent(&error) => return Ok(()),
        listed => listed?,
    };
    for entry in listed {
        let entry = entry?;
        let path = below.join(entry.file_name());
        // The container runs on while it is looked at first.
        let found = match entry.metadata() {
            Err(error) if is_absent(&error) => continue,
            found => found?,
        };
        let stamp = Stamp {
            inode: found.ino(),
            changed: (found.ctime(), found.ctime_nsec()),
            size_bytes: found.len(),
            mode: found.mode(),
            is_unsure: false,
        };
        if stamp.is_directory() {
            walk(top, &path, entries)?;
        }
        entries.insert(path, stamp);
    }
    Ok(())
}

/// True for a directory that hides what lower layers have in its place.
pub(super) fn is_opaque(dir: &Path) -> io::Result<bool> {
    Ok(xattr::get(dir, "trusted.overlay.opaque")?.is_some_and(|value| value == b"y"))
}

/// What became of paths, relative to the root.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) gone: BTreeSet<PathBuf>,
    pub(super) there: BTreeSet<PathBuf>,
}

impl Changes {
    /// What differs between two looks at `upper`, as the merged `root` shows it now.
    pub(super) fn between(
        before: &Entries,
        now: &Entries,
        upper: &Path,
        root: &Path,
    ) -> io::Result<Self> {
        let mut changes = Self::default();
        for path in before.keys().filter(|path| !now.contains_key(*path)) {
            changes.note(path, root)?;
        }
        for (path, stamp) in now {
            let old = before.get(path);
            if old == Some(stamp) {
                continue;
            }
            changes.note(path, root)?;
            let is_same =
                |old: &Stamp| old.is_directory() && old.inode == stamp.inode && !old.is_unsure;
            let is_same = old.is_some_and(is_same);
            if stamp.is_directory() && !is_same && is_opaque(&upper.join(path))? {
                // Made anew where another was: that one goes, so all of this one has to come.
                changes.gone.insert(path.clone());
                for below in now.keys().filter(|below| below.starts_with(path)) {
                    changes.note(below, root)?;
                }
            }
        }
        Ok(changes)
    }

    /// Notes what the path is now; what is no directory is removed before it comes.
    pub(super) fn note(&mut self, path: &Path, root: &Path) -> io::Result<()> {
        // Where a parent is none any more, what became of the parent says all.
        if !has_real_parents(root, path)? {
            return Ok(());
        }
        match fs::symlink_metadata(root.join(path)) {
            Ok(found) if found.is_dir() => {
                self.there.insert(path.to_owned());
            }
            Ok(_) => {
                self.gone.insert(path.to_owned());
                self.there.insert(path.to_owned());
            }
            Err(error) if is_absent(&error) => {
                self.gone.insert(path.to_owned());
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}
