//! What cannot be taken along to another node, in words that people understand: as far as it shows
//! in `/proc` before anything is frozen, and otherwise by what CRIU says.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, makedev, minor};

/// Majors of devices that CRIU opens again: memory's (null, zero, random and the like), and
/// terminals, real, pseudo and serial.
const OPENED_AGAIN: [u64; 13] = [1, 4, 5, 136, 137, 138, 139, 140, 141, 142, 143, 188, 204];

/// What CRIU says, and what is meant.
const SAID: [(&str, &str); 12] = [
    ("found while seizing", "one of its processes is traced by another, as by a debugger"),
    (
        "Can't get rlimit",
        "a process of it is not root's, and this node's root lacks CAP_SYS_RESOURCE",
    ),
    ("Can't dump ghost file", "it has a deleted file open that is larger than 4 GiB"),
    ("Can't dump that handle", "it watches a file (inotify) that was not found"),
    ("packetized mode", "it has a pipe in packet mode (O_DIRECT)"),
    ("n-flight", "a client of it has connected and is not accepted yet: move it again"),
    (
        "netlink: The socket has data",
        "it has not read yet what a netlink socket told it: move it again",
    ),
    (
        "Unsupported proto 262",
        "it has an MPTCP socket (of a Go program: set GODEBUG=multipathtcp=0)",
    ),
    ("External socket", "it is connected to a process outside of it by a unix socket"),
    (
        "unix: Can't dump half of stream",
        "it is connected to a process outside of it by a unix socket",
    ),
    (
        "Can't lookup mount",
        "it has a file open that is in none of its mounts, as a POSIX message queue",
    ),
    ("anon_inode:", "it has a file of the kernel's open that CRIU does not know"),
];

/// What is meant by CRIU's error, where that is known.
pub(super) fn meant(error: &str) -> Option<&'static str> {
    SAID.iter().find(|(said, _)| error.contains(said)).map(|(_, meant)| *meant)
}

/// The first thing of these processes that CRIU will not take along. Blocks.
pub(super) fn find(pids: &[i32]) -> Option<String> {
    pids.iter().find_map(|pid| traced(*pid).or_else(|| open(*pid)))
}

fn name(pid: i32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim().to_owned()
}

fn traced(pid: i32) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"))?.trim();
    let tracer: i32 = tracer.parse().ok().filter(|pid| *pid != 0)?;
    Some(format!(
        "its process `{}` is traced by another (`{}`), as by a debugger",
        name(pid),
        name(tracer)
    ))
}

fn open(pid: i32) -> Option<String> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    descriptors.flatten().find_map(|entry| {
        let link = fs::read_link(entry.path()).ok()?;
        let what = device(&entry.path(), &link)?;
        Some(format!("its process `{}` has {what} open, which CRIU cannot take along", name(pid)))
    })
}

fn device(descriptor: &Path, link: &Path) -> Option<String> {
    let found = fs::metadata(descriptor).ok()?;
    let (kind, is_one) = (found.file_type(), found.rdev());
    let is_known = kind.is_char_device() && OPENED_AGAIN.contains(&major(is_one));
    let is_device = kind.is_char_device() || kind.is_block_device();
    (is_device && !is_known)
        .then(|| format!("the device {} ({}:{})", link.display(), major(is_one), minor(is_one)))
}

/// Where the files are that these processes watch by inotify: CRIU knows a watch by its inode
/// alone, and the kernel finds no file of an overlay by that. Blocks.
pub(super) fn watched(pids: &[i32]) -> BTreeSet<PathBuf> {
    let mut inodes = BTreeSet::new();
    for pid in pids {
        let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fdinfo")) else { continue };
        for entry in entries.flatten() {
            let text = fs::read_to_string(entry.path()).unwrap_or_default();
            inodes.extend(text.lines().filter_map(watch));
        }
    }
    let Some(first) = pids.first().filter(|_| !inodes.is_empty()) else {
        return BTreeSet::new();
    };
    let root = PathBuf::from(format!("/proc/{first}/root/"));
    let mut found = BTreeSet::new();
    let mut left = vec![PathBuf::from("/")];
    while let Some(path) = left.pop().filter(|_| !inodes.is_empty()) {
        // What has gone meanwhile is not watched either.
        let here = root.join(path.strip_prefix("/").unwrap_or(&path));
        let Ok(seen) = fs::symlink_metadata(&here) else { continue };
        if inodes.remove(&(seen.dev(), seen.ino())) {
            found.insert(path.clone());
        }
        let is_kernels = path == Path::new("/proc") || path == Path::new("/sys");
        if seen.is_dir() && !is_kernels {
            let below = fs::read_dir(&here).into_iter().flatten().flatten();
            left.extend(below.map(|entry| path.join(entry.file_name())));
        }
    }
    found
}

/// The device and inode in `inotify wd:1 ino:9e7e sdev:800013 mask:…`.
fn watch(line: &str) -> Option<(u64, u64)> {
    let words = line.strip_prefix("inotify ")?;
    let word = |name: &str| {
        let value = words.split(' ').find_map(|word| word.strip_prefix(name))?;
        u64::from_str_radix(value, 16).ok()
    };
    let device = word("sdev:")?;
    Some((makedev(device >> 20, device & 0xf_ffff), word("ino:")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_is_read_as_the_kernel_tells_it() {
        let line = "inotify wd:1 ino:9e7e sdev:800013 mask:800afce ignored_mask:0 fhandle-bytes:8";
        assert_eq!(watch(line), Some((makedev(8, 19), 0x9e7e)));
        assert_eq!(watch("pos:\t0"), None);
    }
}
