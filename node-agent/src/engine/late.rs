//! What a container changed of its files after its metadata was taken.
//!
//! The metadata tar is written while the container runs, and goes ahead of the memory.
//! What it writes from then until it is frozen follows as a second, small delta, and is put
//! over the first before CRIU restores: [`Before`] is taken ahead of the tar, so a change
//! can be in both, never in neither.
//!
//! So does what podman's tar lacks ([`image`]): it counts as changed later.
//!
//! What changed is found in overlay's upper directory ([`changes`]); what it looks like now is
//! read through the merged root, and put there again at the other end: neither whiteouts nor
//! opaque directories travel. Whatever is not there any more, or is not a directory, is
//! removed first, so nothing is ever written through a link ([`below`]).

mod below;
mod changes;
mod image;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use below::is_absent;
use changes::{Changes, Entries, scan};
pub(super) use image::Image;

/// What is removed first, one path a record, each ended by a NUL.
pub(super) const GONE: &str = "late-gone";
/// What is there now, as a tar.
pub(super) const FILES: &str = "late-files.tar";
/// All of `/dev/shm`, as a tar: it is memory, and podman's own tar of it is as old as the metadata.
pub(super) const SHM: &str = "late-shm.tar";
/// What the log gained: from which byte on (eight bytes, big-endian), then the text. The metadata
/// may have some of it already.
pub(super) const LOG: &str = "late-log";

/// The state of a container's files at a moment.
#[derive(Debug, Clone)]
pub(super) struct Before {
    entries: Entries,
    has_shm: bool,
    log_bytes: u64,
}

/// What else is to be looked at once the container stands still.
#[derive(Debug)]
pub(super) struct Frozen {
    /// What is mounted at its `/dev/shm`.
    pub(super) shm: PathBuf,
    /// Its log.
    pub(super) log: PathBuf,
    /// Files that its processes may write by memory, below its root.
    pub(super) mapped: BTreeSet<PathBuf>,
}

impl Before {
    /// Looks at the upper directory and the log. What is `mapped` to be written by memory, below
    /// the root, counts as changed later whatever it looks like: a page that is dirty by now takes
    /// more writes without any sign of it. So does what the `image` has too. Blocks.
    pub(super) fn look(
        upper: &Path,
        image: &Image,
        shm: &Path,
        log: &Path,
        mapped: &BTreeSet<PathBuf>,
    ) -> io::Result<Self> {
        let mut entries = changes::look(upper)?;
        for (path, stamp) in &mut entries {
            stamp.is_unsure |= mapped.contains(path) || image.has(path);
        }
        let has_shm = !scan(shm)?.is_empty();
        Ok(Self { entries, has_shm, log_bytes: log_bytes(log)? })
    }

    /// Writes what changed since into `into`, for [`apply`]; answers the names of the files that
    /// it wrote, none when nothing changed. Blocks; the container must stand still.
    pub(super) fn write_changes(
        &self,
        upper: &Path,
        root: &Path,
        more: &Frozen,
        into: &Path,
    ) -> io::Result<Vec<&'static str>> {
        let mut written = Vec::new();
        let log = &more.log;
        let now = scan(upper)?;
        let mut changes = Changes::between(&self.entries, &now, upper, root)?;
        for path in more.mapped.iter().filter(|path| now.contains_key(*path)) {
            changes.note(path, root)?;
        }
        if !changes.gone.is_empty() {
            let mut text = Vec::new();
            for path in &changes.gone {
                text.extend_from_slice(path.as_os_str().as_bytes());
                text.push(0);
            }
            fs::write(into.join(GONE), text)?;
            written.push(GONE);
        }
        if !changes.there.is_empty() {
            below::pack(root, &changes.there, &into.join(FILES))?;
            written.push(FILES);
        }
        let in_memory: BTreeSet<PathBuf> = scan(&more.shm)?.into_keys().collect();
        if self.has_shm || !in_memory.is_empty() {
            below::pack(&more.shm, &in_memory, &into.join(SHM))?;
            written.push(SHM);
        }
        if log_bytes(log)? > self.log_bytes {
            let mut file = fs::File::open(log)?;
            file.seek(SeekFrom::Start(self.log_bytes))?;
            let mut gained = fs::File::create(into.join(LOG))?;
            gained.write_all(&self.log_bytes.to_be_bytes())?;
            io::copy(&mut file, &mut gained)?;
            written.push(LOG);
        }
        Ok(written)
    }
}

/// Puts what [`Before::write_changes`] wrote into `from` over the files below `root`, which are
/// as the metadata has them. Nothing there is success. Blocks; nobody may use the files meanwhile.
///
/// It stays in `from`: a restore that is refused is begun again from the metadata.
pub(super) fn apply(from: &Path, root: &Path, shm: &Path, log: &Path) -> io::Result<()> {
    if let Some(text) = read_if_there(&from.join(GONE))? {
        for path in text.split(|byte| *byte == 0).filter(|path| !path.is_empty()) {
            let path = Path::new(OsStr::from_bytes(path));
            if !below::is_plain(path) {
                return Err(io::Error::other(format!("`{}` is no path below /", path.display())));
            }
            if below::has_real_parents(root, path)? {
                below::remove(&root.join(path))?;
            }
        }
    }
    let files = from.join(FILES);
    if files.exists() {
        below::unpack(&files, root)?;
    }
    let memory = from.join(SHM);
    if memory.exists() {
        for entry in fs::read_dir(shm)? {
            below::remove(&entry?.path())?;
        }
        below::unpack(&memory, shm)?;
    }
    if let Some(gained) = read_if_there(&from.join(LOG))? {
        let Some((offset, text)) = gained.split_first_chunk() else {
            return Err(io::Error::other(format!("{LOG} is cut short")));
        };
        let mut log = fs::OpenOptions::new().write(true).create(true).truncate(false).open(log)?;
        let end = u64::from_be_bytes(*offset).min(log.metadata()?.len());
        log.set_len(end)?;
        log.seek(SeekFrom::Start(end))?;
        log.write_all(text)?;
    }
    Ok(())
}

/// The log's length; a container that wrote nothing has none.
fn log_bytes(log: &Path) -> io::Result<u64> {
    match fs::metadata(log) {
        Err(error) if is_absent(&error) => Ok(0),
        found => Ok(found?.len()),
    }
}

fn read_if_there(file: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(file) {
        Err(error) if is_absent(&error) => Ok(None),
        read => read.map(Some),
    }
}
