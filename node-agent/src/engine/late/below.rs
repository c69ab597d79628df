//! Work in a container's file tree on the host, by path, where the container may have put a link
//! in any directory's place: whoever follows one leaves the tree.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};

/// True when every parent of the path below `root` is a directory, and no link to one: a link of
/// the container's would be followed on the host.
pub(super) fn has_real_parents(root: &Path, path: &Path) -> io::Result<bool> {
    // From the top, so that none is looked at through a link.
    let parents: Vec<_> = path.ancestors().skip(1).filter(|p| !p.as_os_str().is_empty()).collect();
    for parent in parents.into_iter().rev() {
        match fs::symlink_metadata(root.join(parent)) {
            Ok(found) if found.is_dir() => {}
            Err(error) if !is_absent(&error) => return Err(error),
            _ => return Ok(false),
        }
    }
    Ok(true)
}

/// Its parent may be a file by now.
pub(super) fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// True for a path that stays below where it is joined to.
pub(super) fn is_plain(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(_)))
}

/// Removes whatever is there, a directory with all in it; nothing there is success.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    removed.or_else(|error| if is_absent(&error) { Ok(()) } else { Err(error) })
}

/// Packs these paths, relative to the root; directories without what is in them.
pub(super) fn pack(root: &Path, paths: &BTreeSet<PathBuf>, file: &Path) -> io::Result<()> {
    let list = file.with_extension("list");
    let text: Vec<u8> = paths
        .iter()
        .flat_map(|path| [b"./", path.as_os_str().as_bytes(), b"\0"].concat())
        .collect();
    fs::write(&list, text)?;
    let mut command = Command::new("tar");
    command.arg("-cf").arg(file).args(KEEP).arg("-C").arg(root);
    command.args(["--no-recursion", "--null", "--verbatim-files-from", "-T"]).arg(&list);
    run(&mut command)?;
    fs::remove_file(&list)
}

/// Runs the system's tar: the one that keeps every attribute.
fn run(command: &mut Command) -> io::Result<()> {
    let output = command.env("LC_ALL", "C").stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("tar: {}", String::from_utf8_lossy(&output.stderr).trim())))
}

/// Unpacks what [`pack`] packed. Nothing of it is written through a link, whoever made the link.
pub(super) fn unpack(file: &Path, root: &Path) -> io::Result<()> {
    let (mut links, mut names) = (BTreeSet::new(), Vec::new());
    for entry in tar::Archive::new(fs::File::open(file)?).entries()? {
        let entry = entry?;
        let name: PathBuf =
            entry.path()?.components().filter(|part| *part != Component::CurDir).collect();
        if !is_plain(&name) {
            return Err(io::Error::other(format!("`{}` is no path below /", name.display())));
        }
        if entry.header().entry_type().is_symlink() {
            links.insert(name.clone());
        }
        names.push(name);
    }
    for name in &names {
        let parents: Vec<_> = name.ancestors().skip(1).collect();
        for parent in parents.into_iter().rev().filter(|parent| !parent.as_os_str().is_empty()) {
            if links.contains(parent) {
                let why = format!("`{}` lies behind a link", name.display());
                return Err(io::Error::other(why));
            }
            // A directory at the other end: what is here in its place goes.
            match fs::symlink_metadata(root.join(parent)) {
                Ok(found) if !found.is_dir() => fs::remove_file(root.join(parent))?,
                Err(error) if !is_absent(&error) => return Err(error),
                _ => {}
            }
        }
    }
    run(Command::new("tar").arg("-xpf").arg(file).args(KEEP).arg("-C").arg(root))
}

/// What tar must keep: every attribute, ids as numbers.
const KEEP: [&str; 3] = ["--xattrs", "--xattrs-include=*", "--numeric-owner"];
