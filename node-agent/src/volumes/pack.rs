//! Says what changed in volumes, to an end that was told all before.
//!
//! Of a file only those blocks are said whose digest differs from what was said last. What the
//! container changes while it is read is half said; the next look finds it changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use godwit_proto::container::ContainerSpec;
use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

use super::look::{Entries, Stamp, Writers, look};
use super::tree::{Tree, is_absent, named};
use super::word::{BLOCK_BYTES, Meta, Stage, What, Word, write};
use super::{Volumes, in_volumes};

/// About how large a part is: both ends have two of them on disk.
const PART_BYTES: u64 = 32 << 20;

/// The digests of a file's blocks by their number; those that are not there are zero.
type Blocks = BTreeMap<u64, blake3::Hash>;

/// What the other end was told.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    entries: Entries,
    blocks: BTreeMap<PathBuf, Blocks>,
}

impl Sent {
    /// Says what changed since the last time, everything at the first, and how many bytes that
    /// took. `writers` has paths below the container's root.
    /// Blocks.
    pub(crate) fn tell(
        &mut self,
        volumes: &Volumes,
        spec: &ContainerSpec,
        writers: &Writers,
        parts: &mut Parts<'_>,
    ) -> io::Result<u64> {
        let tree = volumes.tree(spec)?;
        let now = look(&tree, &in_volumes(spec, writers))?;
        let before = std::mem::take(&mut self.entries);
        let begun = parts.bytes;
        let blocks = &mut self.blocks;
        let mut telling = Telling { tree: &tree, before, now, blocks, parts, absent: Vec::new() };
        telling.tell()?;
        let Telling { mut now, absent, .. } = telling;
        now.0.retain(|path, _| !absent.iter().any(|absent| path.starts_with(absent)));
        self.blocks.retain(|path, _| now.0.contains_key(path));
        self.entries = now;
        Ok(parts.bytes - begun)
    }
}

#[cfg(test)]
impl Sent {
    /// What was told of a path bears the file's present time, and is as sure as it was.
    pub(super) fn has_seen(&mut self, path: &Path, file: &Path) {
        let stamp = self.entries.0.get_mut(path).expect("it was told");
        let is_unsure = stamp.is_unsure;
        *stamp = Stamp::new(&fs::symlink_metadata(file).expect("there"));
        stamp.is_unsure = is_unsure;
    }
}

struct Telling<'a, 'b> {
    tree: &'a Tree,
    before: Entries,
    now: Entries,
    blocks: &'a mut BTreeMap<PathBuf, Blocks>,
    parts: &'a mut Parts<'b>,
    /// What was there when it was looked and is not there as it was.
    absent: Vec<PathBuf>,
}

impl Telling<'_, '_> {
    fn tell(&mut self) -> io::Result<()> {
        let mut touched = BTreeSet::new();
        let above = |path: &Path| {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            parent.map(Path::to_path_buf)
        };
        let is_gone = |path: &&PathBuf| !self.now.0.contains_key(*path);
        let mut gone: Vec<PathBuf> = Vec::new();
        for path in self.before.0.keys().filter(is_gone) {
            touched.extend(above(path));
            if gone.last().is_none_or(|above| !path.starts_with(above)) {
                gone.push(path.clone());
            }
        }
        for path in gone {
            self.parts.say(&Word::Gone(path))?;
        }
        let (changed, first) = self.changed();
        for path in &changed {
            touched.extend(above(path));
            if self.now.0[path].is_directory() {
                touched.insert(path.clone());
            }
        }
        for path in changed {
            if self.absent.iter().any(|absent| path.starts_with(absent)) {
                continue;
            }
            match self.path(&path, &first) {
                Err(Untold::Absent) => {
                    self.parts.say(&Word::Gone(path.clone()))?;
                    self.absent.push(path);
                }
                Err(Untold::Failed(error)) => return Err(named(&path, error)),
                Ok(()) => {}
            }
        }
        // Last, and from below: what is made or removed in a directory changes it.
        // What the other end does not have, back meanwhile or not, is for the next look.
        let is_told = |path: &&PathBuf| {
            let is_absent = self.absent.iter().any(|absent| path.starts_with(absent));
            !is_absent && self.now.0.get(*path).is_some_and(Stamp::is_directory)
        };
        for path in touched.iter().rev().filter(is_told) {
            match self.find(path) {
                Ok((at, found)) if found.is_dir() => {
                    let meta = meta(&at.1, &found);
                    let meta = match meta {
                        Err(error) if is_absent(&error) => continue,
                        meta => meta.map_err(|error| named(path, error))?,
                    };
                    self.parts.say(&Word::Meta { path: path.clone(), meta })?;
                }
                Err(error) if !is_absent(&error) => return Err(named(path, error)),
                // It went while the rest was read: the next look tells.
                _ => {}
            }
        }
        Ok(())
    }

    /// The paths that are not as they were, and by their inode the first of files that have
    /// several names: where one of those changed, all did.
    fn changed(&self) -> (Vec<PathBuf>, BTreeMap<u64, PathBuf>) {
        let is_new = |path: &Path, stamp: &Stamp| {
            self.before.0.get(path).is_none_or(|earlier| !stamp.is_as(earlier))
        };
        let has_names = |stamp: &Stamp| stamp.links > 1 && !stamp.is_directory();
        let entries = &self.now.0;
        let inodes: BTreeSet<u64> = entries
            .iter()
            .filter(|(path, stamp)| has_names(stamp) && is_new(path, stamp))
            .map(|(_, stamp)| stamp.inode)
            .collect();
        let is_named = |stamp: &Stamp| has_names(stamp) && inodes.contains(&stamp.inode);
        let mut first = BTreeMap::new();
        for (path, stamp) in entries.iter().filter(|(_, stamp)| is_named(stamp)) {
            first.entry(stamp.inode).or_insert_with(|| path.clone());
        }
        let changed = entries.iter().filter(|(path, stamp)| is_named(stamp) || is_new(path, stamp));
        (changed.map(|(path, _)| path.clone()).collect(), first)
    }

    /// What is at the path now; the directory that it is in is held.
    fn find(&self, path: &Path) -> io::Result<((super::tree::Held, PathBuf), fs::Metadata)> {
        let parent = self.tree.parent(path)?;
        let at = parent.at(path);
        let found = fs::symlink_metadata(&at)?;
        Ok(((parent, at), found))
    }

    fn path(&mut self, path: &Path, first: &BTreeMap<u64, PathBuf>) -> Result<(), Untold> {
        let stamp = self.now.0[path];
        let is_fresh = self.before.0.get(path).is_none_or(|earlier| earlier.inode != stamp.inode);
        let ((_held, at), found) = self.find(path)?;
        if !Stamp::new(&found).is_kind_of(&stamp) {
            return Err(Untold::Absent);
        }
        let path = path.to_path_buf();
        let make = |what| Word::Make { path: path.clone(), what, is_fresh };
        if let Some(first) = first.get(&stamp.inode).filter(|first| **first != path) {
            if self.absent.iter().any(|absent| first.starts_with(absent)) {
                return Err(Untold::Absent);
            }
            return Ok(self.parts.say(&make(What::Name(first.clone())))?);
        }
        let kind = found.file_type();
        if kind.is_dir() {
            return Ok(self.parts.say(&make(What::Directory))?);
        }
        if kind.is_file() {
            let file = self.tree.file(&path, false)?;
            let size = file.metadata()?.len();
            self.parts.say(&make(What::File(size)))?;
            self.content(&path, &file, size, is_fresh)?;
        } else if kind.is_symlink() {
            self.parts.say(&make(What::Symlink(link(&at)?)))?;
        } else if kind.is_fifo()
            || kind.is_socket()
            || kind.is_char_device()
            || kind.is_block_device()
        {
            let (mode, device) = (found.mode(), found.rdev());
            self.parts.say(&make(What::Node { mode, device }))?;
        }
        let meta = meta(&at, &found)?;
        Ok(self.parts.say(&Word::Meta { path, meta })?)
    }

    fn content(&mut self, path: &Path, file: &File, size: u64, is_fresh: bool) -> io::Result<()> {
        let known = self.blocks.remove(path).filter(|_| !is_fresh).unwrap_or_default();
        let mut blocks = Blocks::new();
        let block_bytes = BLOCK_BYTES as u64;
        let mut bytes = vec![0; BLOCK_BYTES];
        let mut next = 0;
        while let Some(data) =
            seek(file, next * block_bytes, Whence::SeekData)?.filter(|at| *at < size)
        {
            let hole = seek(file, data, Whence::SeekHole)?.unwrap_or(size).min(size);
            // Where data and holes meet within a block it belongs to the data.
            next = next.max(data / block_bytes);
            while next * block_bytes < hole {
                let offset = next * block_bytes;
                let wanted = usize::try_from(size - offset).unwrap_or(BLOCK_BYTES).min(BLOCK_BYTES);
                let read = read_at(file, &mut bytes[..wanted], offset)?;
                if bytes[..read].iter().any(|byte| *byte != 0) {
                    let digest = blake3::hash(&bytes[..read]);
                    if known.get(&next) != Some(&digest) {
                        let (path, bytes) = (path.to_path_buf(), bytes[..read].to_vec());
                        self.parts.say(&Word::Data { path, offset, bytes })?;
                    }
                    blocks.insert(next, digest);
                }
                next += 1;
            }
        }
        for block in known.into_keys().filter(|block| !blocks.contains_key(block)) {
            let offset = block * block_bytes;
            if offset < size {
                let (path, bytes) = (path.to_path_buf(), block_bytes.min(size - offset));
                self.parts.say(&Word::Zero { path, offset, bytes })?;
            }
        }
        self.blocks.insert(path.to_path_buf(), blocks);
        Ok(())
    }
}

/// Why nothing was told of a path.
enum Untold {
    /// It is not there as it was when it was looked.
    Absent,
    Failed(io::Error),
}

impl From<io::Error> for Untold {
    fn from(error: io::Error) -> Self {
        if is_absent(&error) { Self::Absent } else { Self::Failed(error) }
    }
}

fn meta(at: &Path, found: &fs::Metadata) -> io::Result<Meta> {
    let mut attributes = Vec::new();
    match xattr::list(at) {
        Err(error) if error.raw_os_error() == Some(Errno::EOPNOTSUPP as i32) => {}
        names => {
            for name in names? {
                if let Some(value) = xattr::get(at, &name)? {
                    attributes.push((name.as_bytes().to_vec(), value));
                }
            }
        }
    }
    Ok(Meta {
        mode: found.mode(),
        owner: found.uid(),
        group: found.gid(),
        modified: (found.mtime(), found.mtime_nsec()),
        attributes,
    })
}

/// Where a symbolic link leads; what is none any more is absent as one.
fn link(at: &Path) -> io::Result<PathBuf> {
    fs::read_link(at).map_err(|error| match error.raw_os_error() {
        Some(nix::libc::EINVAL) => io::ErrorKind::NotFound.into(),
        _ => error,
    })
}

/// Where data or a hole begins from there on; `None` at the file's end.
fn seek(file: &File, from: u64, what: Whence) -> io::Result<Option<u64>> {
    match lseek(file, from.cast_signed(), what) {
        Err(Errno::ENXIO) => Ok(None),
        found => Ok(Some(found?.cast_unsigned())),
    }
}

/// Reads as much as is there.
fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < bytes.len() {
        match file.read_at(&mut bytes[read..], offset + read as u64)? {
            0 => break,
            some => read += some,
        }
    }
    Ok(read)
}

/// Files of words, one after the other in a directory, named by their numbers.
pub(crate) struct Parts<'a> {
    dir: PathBuf,
    /// The number of the part that is being written, or of the next one.
    pub(crate) number: u32,
    part: Option<(BufWriter<File>, u64)>,
    bytes: u64,
    ready: &'a mut dyn FnMut(u32, PathBuf) -> io::Result<()>,
}

impl<'a> Parts<'a> {
    /// Parts from `number` on in `dir`; each that is whole goes to `ready`.
    pub(crate) fn new(
        dir: PathBuf,
        number: u32,
        ready: &'a mut dyn FnMut(u32, PathBuf) -> io::Result<()>,
    ) -> Self {
        Self { dir, number, part: None, bytes: 0, ready }
    }

    fn unfinished(&self) -> PathBuf {
        self.dir.join("unfinished")
    }

    fn write(&mut self, word: &Word) -> io::Result<u64> {
        let (mut file, before) = match self.part.take() {
            Some(part) => part,
            None => (BufWriter::new(File::create(self.unfinished())?), 0),
        };
        let written = write(word, &mut file)?;
        self.bytes += written;
        self.part = Some((file, before + written));
        Ok(before + written)
    }

    fn say(&mut self, word: &Word) -> io::Result<()> {
        if self.write(word)? >= PART_BYTES { self.finish(Stage::Under) } else { Ok(()) }
    }

    /// Ends the part: once it is carried out the other end is so far.
    pub(crate) fn finish(&mut self, stage: Stage) -> io::Result<()> {
        self.write(&Word::End(stage))?;
        let Some((mut file, _)) = self.part.take() else { return Ok(()) };
        file.flush()?;
        let path = self.dir.join(self.number.to_string());
        fs::rename(self.unfinished(), &path)?;
        (self.ready)(self.number, path)?;
        self.number += 1;
        Ok(())
    }
}
