//! Carries out what the other end said of volumes. No container has them here meanwhile.

use std::fs::{self, File, Metadata};
use std::io::{self, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use godwit_proto::container::ContainerSpec;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, FallocateFlags, fallocate};
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, mknod, utimensat};
use nix::sys::time::TimeSpec;

use super::Volumes;
use super::tree::{Tree, is_absent, named};
use super::word::{Meta, Stage, What, Word, read};

/// Carries a part out, and answers how far the volumes are. Blocks.
pub(crate) fn apply(volumes: &Volumes, spec: &ContainerSpec, part: &Path) -> io::Result<Stage> {
    let tree = volumes.tree(spec)?;
    let mut words = BufReader::with_capacity(1 << 20, File::open(part)?);
    let mut open = None;
    loop {
        let word = read(&mut words)?;
        if let Word::End(stage) = word {
            return Ok(stage);
        }
        let path = path_of(&word).to_path_buf();
        let is_top = path.components().count() < 2;
        let is_for_top =
            matches!(word, Word::Make { what: What::Directory, .. } | Word::Meta { .. });
        if !tree.has(&path) || (is_top && !is_for_top) {
            return Err(io::Error::other(format!("`{}` is not in its volumes", path.display())));
        }
        carry_out(&tree, word, &mut open).map_err(|error| named(&path, error))?;
    }
}

fn path_of(word: &Word) -> &Path {
    match word {
        Word::Gone(path)
        | Word::Make { path, .. }
        | Word::Data { path, .. }
        | Word::Zero { path, .. }
        | Word::Meta { path, .. } => path,
        Word::End(_) => Path::new(""),
    }
}

fn carry_out(tree: &Tree, word: Word, open: &mut Option<(PathBuf, File)>) -> io::Result<()> {
    match word {
        Word::Gone(path) => match tree.parent(&path) {
            Ok(parent) => remove(&parent.at(&path)),
            Err(error) if is_absent(&error) => Ok(()),
            Err(error) => Err(error),
        },
        Word::Make { path, what, is_fresh } => {
            *open = None;
            make(tree, &path, what, is_fresh)
        }
        Word::Data { path, offset, bytes } => {
            opened(tree, path, open)?.write_all_at(&bytes, offset)
        }
        Word::Zero { path, offset, bytes } => {
            let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
            let file = opened(tree, path, open)?;
            match fallocate(file, flags, offset.cast_signed(), bytes.cast_signed()) {
                Err(Errno::EOPNOTSUPP) => {
                    let zeros = vec![0; usize::try_from(bytes).map_err(io::Error::other)?];
                    file.write_all_at(&zeros, offset)
                }
                punched => Ok(punched?),
            }
        }
        Word::Meta { path, meta } => dress(tree, &path, &meta),
        Word::End(_) => Ok(()),
    }
}

/// The file that words are about, opened once.
fn opened<'a>(
    tree: &Tree,
    path: PathBuf,
    open: &'a mut Option<(PathBuf, File)>,
) -> io::Result<&'a File> {
    let file = match open.take() {
        Some((opened, file)) if opened == path => file,
        _ => tree.file(&path, true)?,
    };
    Ok(&open.insert((path, file)).1)
}

fn make(tree: &Tree, path: &Path, what: What, is_fresh: bool) -> io::Result<()> {
    let parent = tree.parent(path)?;
    let at = parent.at(path);
    let there = match fs::symlink_metadata(&at) {
        Err(error) if is_absent(&error) => None,
        there => Some(there?),
    };
    match what {
        What::Directory if there.as_ref().is_some_and(Metadata::is_dir) => Ok(()),
        What::Directory => {
            remove(&at)?;
            fs::create_dir(&at)
        }
        What::File(size) if !is_fresh && there.as_ref().is_some_and(Metadata::is_file) => {
            tree.file(path, true)?.set_len(size)
        }
        What::File(size) => {
            remove(&at)?;
            File::create_new(&at)?.set_len(size)
        }
        What::Symlink(to) => {
            remove(&at)?;
            symlink(to, &at)
        }
        What::Name(of) => {
            if !tree.has(&of) {
                return Err(io::Error::other(format!("`{}` is not in them", of.display())));
            }
            let beside = tree.parent(&of)?;
            let of = beside.at(&of);
            let inode = fs::symlink_metadata(&of)?.ino();
            if there.is_some_and(|there| there.ino() == inode) {
                return Ok(());
            }
            remove(&at)?;
            fs::hard_link(of, &at)
        }
        What::Node { mode, device } => {
            remove(&at)?;
            let kind = SFlag::from_bits_truncate(mode & nix::libc::S_IFMT);
            Ok(mknod(&at, kind, Mode::from_bits_truncate(mode), device)?)
        }
    }
}

/// Everything but what is in it.
fn dress(tree: &Tree, path: &Path, meta: &Meta) -> io::Result<()> {
    let parent = tree.parent(path)?;
    let at = parent.at(path);
    let is_link = fs::symlink_metadata(&at)?.is_symlink();
    lchown(&at, Some(meta.owner), Some(meta.group))?;
    if !is_link {
        fs::set_permissions(&at, fs::Permissions::from_mode(meta.mode & 0o7777))?;
    }
    // A change of owner takes file capabilities away: they come after it.
    let wanted = |name: &[u8]| meta.attributes.iter().any(|(wanted, _)| wanted == name);
    match xattr::list(&at) {
        Err(error) if error.raw_os_error() == Some(Errno::EOPNOTSUPP as i32) => {}
        names => {
            for name in names?.filter(|name| !wanted(name.as_bytes())) {
                xattr::remove(&at, name)?;
            }
        }
    }
    for (name, value) in &meta.attributes {
        xattr::set(&at, std::ffi::OsStr::from_bytes(name), value)?;
    }
    let (seconds, nanoseconds) = meta.modified;
    let modified = TimeSpec::new(seconds, nanoseconds);
    let flags = UtimensatFlags::NoFollowSymlink;
    Ok(utimensat(AT_FDCWD, &at, &TimeSpec::UTIME_OMIT, &modified, flags)?)
}

/// Removes whatever is there, a directory with all in it; nothing there is success.
fn remove(at: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(at) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(at),
        Ok(_) => fs::remove_file(at),
        Err(error) => Err(error),
    };
    removed.or_else(|error| if is_absent(&error) { Ok(()) } else { Err(error) })
}
