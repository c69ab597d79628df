//! Paths below a directory, looked up without following a link: a container may put one in any
//! place of its volumes while they are read.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;

/// A tenant's directory, as far as one container's volumes are in it.
#[derive(Debug)]
pub(super) struct Tree {
    root: OwnedFd,
    names: BTreeSet<PathBuf>,
}

/// A directory that is held: names in it are looked up there, wherever it is moved to.
#[derive(Debug)]
pub(super) struct Held(OwnedFd);

impl Tree {
    /// The volumes called `names` in the directory `root`, which nobody but agents writes to.
    pub(super) fn open(root: &Path, names: BTreeSet<PathBuf>) -> io::Result<Self> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Self { root: open(root, flags, Mode::empty())?, names })
    }

    /// The names of the volumes.
    pub(super) fn names(&self) -> impl Iterator<Item = &Path> {
        self.names.iter().map(PathBuf::as_path)
    }

    /// True for a path of plain names that is, or is in, one of the volumes.
    pub(super) fn has(&self, path: &Path) -> bool {
        let is_plain = path.components().all(|part| matches!(part, Component::Normal(_)));
        let top = path.components().next().map(|top| PathBuf::from(top.as_os_str()));
        is_plain && top.is_some_and(|top| self.names.contains(&top))
    }

    /// The directory at `path`.
    pub(super) fn dir(&self, path: &Path) -> io::Result<Held> {
        self.find(path, OFlag::O_DIRECTORY | OFlag::O_RDONLY).map(Held)
    }

    /// The directory that `path` is in.
    pub(super) fn parent(&self, path: &Path) -> io::Result<Held> {
        match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            Some(parent) => self.dir(parent),
            None => self.root.try_clone().map(Held),
        }
    }

    /// The regular file at `path`. Nothing else is opened: that alone may have effects.
    pub(super) fn file(&self, path: &Path, is_for_writing: bool) -> io::Result<File> {
        let found = File::from(self.find(path, OFlag::O_PATH)?);
        if !found.metadata()?.is_file() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let path = format!("/proc/self/fd/{}", found.as_raw_fd());
        File::options().read(true).write(is_for_writing).open(path)
    }

    fn find(&self, path: &Path, flags: OFlag) -> io::Result<OwnedFd> {
        let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS;
        let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let how = OpenHow::new().flags(flags).resolve(resolve);
        loop {
            match openat2(&self.root, path, how) {
                // A rename somewhere on the host meanwhile, and nothing else.
                Err(nix::errno::Errno::EAGAIN) => {}
                found => return Ok(found?),
            }
        }
    }
}

impl Held {
    /// A path to the directory for as long as it is held.
    pub(super) fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }

    /// A path to the last name of `path` in it, to be used without following a link there.
    pub(super) fn at(&self, path: &Path) -> PathBuf {
        path.file_name().map_or_else(|| self.path(), |name| self.path().join(name))
    }
}

/// The error, with the path that it is about, or the end of that.
pub(super) fn named(path: &Path, error: io::Error) -> io::Error {
    let path = path.to_string_lossy();
    let end = path.len().saturating_sub(200);
    let cut = (end..path.len()).find(|at| path.is_char_boundary(*at)).filter(|_| end > 0);
    let (more, path) = cut.map_or(("", &*path), |at| ("…", &path[at..]));
    io::Error::new(error.kind(), format!("{more}{path}: {error}"))
}

/// True for what says that there is no such path any more: gone, or something else by now.
pub(super) fn is_absent(error: &io::Error) -> bool {
    use nix::libc::{ELOOP, ENOENT, ENOTDIR, ENXIO};
    let is_kind = |kind| error.kind() == kind;
    let is_told = matches!(error.raw_os_error(), Some(ELOOP | ENOENT | ENOTDIR | ENXIO));
    is_told || is_kind(io::ErrorKind::NotFound)
}
