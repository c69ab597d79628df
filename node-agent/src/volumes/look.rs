//! What is in volumes at a moment, and what tells two moments apart.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::tree::{Tree, is_absent, named};

/// What is in volumes, by its path from the tenant's directory; the volumes themselves too.
#[derive(Debug, Clone, Default)]
pub(super) struct Entries(pub(super) BTreeMap<PathBuf, Stamp>);

/// What tells two states of one path apart. A change of a name of an inode changes all its names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) inode: u64,
    changed: (i64, i64),
    size_bytes: u64,
    disk_bytes: u64,
    mode: u32,
    pub(super) links: u64,
    /// It counts as changed whatever the next look finds.
    pub(super) is_unsure: bool,
}

/// A file written this shortly before it was looked at may be written again without its time
/// of change showing it: kernels before 6.13 count that in ticks of up to 10 ms.
const UNSURE: Duration = Duration::from_millis(50);

impl Stamp {
    pub(super) fn new(found: &fs::Metadata) -> Self {
        Self {
            inode: found.ino(),
            changed: (found.ctime(), found.ctime_nsec()),
            size_bytes: found.len(),
            disk_bytes: found.blocks() * 512,
            mode: found.mode(),
            links: found.nlink(),
            is_unsure: false,
        }
    }

    pub(super) fn is_directory(&self) -> bool {
        self.mode & nix::libc::S_IFMT == nix::libc::S_IFDIR
    }

    /// True for the same kind of thing.
    pub(super) fn is_kind_of(&self, other: &Self) -> bool {
        self.mode & nix::libc::S_IFMT == other.mode & nix::libc::S_IFMT
    }

    /// True where the path is as it was at an earlier look.
    pub(super) fn is_as(&self, earlier: &Self) -> bool {
        let is_same = self.inode == earlier.inode && self.changed == earlier.changed;
        is_same && self.size_bytes == earlier.size_bytes && !earlier.is_unsure
    }
}

impl Entries {
    /// How much disk it all takes; an inode with several names takes it once.
    pub(super) fn disk_bytes(&self) -> u64 {
        let inodes: BTreeMap<_, _> =
            self.0.values().map(|stamp| (stamp.inode, stamp.disk_bytes)).collect();
        inodes.values().sum()
    }
}

/// What may be written by memory, where a page that is dirty already takes more without any sign
/// of it.
#[derive(Debug, Clone)]
pub(crate) struct Writers {
    /// When it was asked for `mapped`, before the look: what changed since may be mapped since.
    pub(crate) since: SystemTime,
    /// The files that processes have mapped for writing.
    pub(crate) mapped: BTreeSet<PathBuf>,
}

/// Everything in the volumes, while it may be written to.
pub(super) fn look(tree: &Tree, writers: &Writers) -> io::Result<Entries> {
    let sure = writers.since.duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(UNSURE);
    let sure = (sure.as_secs().cast_signed(), i64::from(sure.subsec_nanos()));
    let mut entries = BTreeMap::new();
    for name in tree.names() {
        let held = tree.parent(name)?;
        entries.insert(name.to_path_buf(), Stamp::new(&fs::symlink_metadata(held.at(name))?));
        walk(tree, name, &mut entries)?;
    }
    for (path, stamp) in &mut entries {
        stamp.is_unsure = stamp.changed >= sure || writers.mapped.contains(path);
    }
    Ok(Entries(entries))
}

fn walk(tree: &Tree, top: &Path, entries: &mut BTreeMap<PathBuf, Stamp>) -> io::Result<()> {
    let mut left = vec![top.to_path_buf()];
    // No recursion: how deep it goes is the container's choice.
    while let Some(dir) = left.pop() {
        let held = match tree.dir(&dir) {
            Err(error) if is_absent(&error) => continue,
            held => held.map_err(|error| named(&dir, error))?,
        };
        for entry in fs::read_dir(held.path())? {
            let entry = entry?;
            let found = match entry.metadata() {
                Err(error) if is_absent(&error) => continue,
                found => found?,
            };
            let (path, stamp) = (dir.join(entry.file_name()), Stamp::new(&found));
            if stamp.is_directory() {
                left.push(path.clone());
            }
            entries.insert(path, stamp);
        }
    }
    Ok(())
}
