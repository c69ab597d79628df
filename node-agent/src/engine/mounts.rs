//! Removing directories that CRIU has worked in.
//!
//! A restore that was killed leaves mounts there (`criu-root`, `.criu.cgyard.*`): of the
//! container's image, and of the host's control groups. Whoever removes through one of them
//! removes what is mounted. So mounts go first, and while one is left nothing is removed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, umount2};

use super::EngineError;

/// Takes away every mount at or below `dir` for which `wanted` holds.
///
/// `Io` when one stays: nothing there may be removed then.
pub(super) fn detach(dir: &Path, wanted: impl Fn(&Path) -> bool) -> Result<(), EngineError> {
    let io =
        |source| EngineError::Io { what: format!("unmounting below {}", dir.display()), source };
    // Later mounts may lie on earlier ones.
    for point in read(dir).map_err(io)?.iter().rev().filter(|point| wanted(point)) {
        umount2(point, MntFlags::MNT_DETACH).map_err(|errno| io(errno.into()))?;
    }
    if read(dir).map_err(io)?.iter().any(|point| wanted(point)) {
        return Err(io(io::ErrorKind::ResourceBusy.into()));
    }
    Ok(())
}

/// Removes the directory, its mounts first; absent is success.
pub(super) fn remove_dir(dir: &Path) -> Result<(), EngineError> {
    detach(dir, |_| true)?;
    match fs::remove_dir_all(dir) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(EngineError::Io { what: format!("removing {}", dir.display()), source })
        }
        _ => Ok(()),
    }
}

/// True where something is mounted at exactly that path.
pub(super) fn is_mount_point(dir: &Path) -> bool {
    read(dir).is_ok_and(|points| points.iter().any(|point| point == dir))
}

/// True for a mount of CRIU's own, which it hides from the container by its name.
pub(super) fn is_crius(point: &Path) -> bool {
    point.components().any(|part| part.as_os_str().as_encoded_bytes().starts_with(b".criu."))
}

fn read(dir: &Path) -> io::Result<Vec<PathBuf>> {
    Ok(below(dir, &fs::read_to_string("/proc/self/mountinfo")?))
}

/// The mount points at or below `dir`, in the order in which they were made.
fn below(dir: &Path, mountinfo: &str) -> Vec<PathBuf> {
    let points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    points.filter(|point| point.starts_with(dir)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mounts_at_or_below_the_directory_are_named() {
        let text = "1 0 0:1 / / rw - ext4 a rw\n2 1 0:2 / /r/x rw - tmpfs b rw\n\
                    3 1 0:3 / /r/x/y rw - tmpfs c rw\n4 1 0:4 / /r/xy rw - tmpfs d rw\n";
        assert_eq!(below(Path::new("/r/x"), text), [Path::new("/r/x"), Path::new("/r/x/y")]);
    }

    #[test]
    fn crius_mounts_are_known_by_name() {
        assert!(is_crius(Path::new("/u/.criu.cgyard.Ab1/freezer")));
        assert!(!is_crius(Path::new("/u/shm")));
    }
}
