//! Control groups: where the kernel tells what runs, and where it is frozen and killed.
//!
//! The same few questions are asked of cgroup v2 (`cgroup.freeze`, `cgroup.kill`,
//! `cgroup.events`) and of the v1 freezer, whichever holds this host's containers.
//! podman and runc decide by what is mounted at `/sys/fs/cgroup`; so do we.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::EngineError;

/// How often a cgroup is asked again while something is awaited of it.
const POLL: Duration = Duration::from_millis(1);

/// The mounted hierarchy that containers live in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hierarchy {
    /// cgroup v2, mounted here.
    Unified(PathBuf),
    /// The v1 freezer, mounted here.
    Freezer(PathBuf),
}

impl Hierarchy {
    /// Finds it in `/proc/self/mountinfo`.
    pub(crate) fn find() -> Result<Self, EngineError> {
        let text = fs::read_to_string("/proc/self/mountinfo").map_err(|source| {
            EngineError::Io { what: "reading /proc/self/mountinfo".into(), source }
        })?;
        Self::in_mountinfo(&text).ok_or_else(|| EngineError::Io {
            what: "no cgroup2 at /sys/fs/cgroup and no v1 freezer: mount one (`mount -t cgroup2 none /sys/fs/cgroup`)".into(),
            source: io::ErrorKind::NotFound.into(),
        })
    }

    fn in_mountinfo(text: &str) -> Option<Self> {
        let mut freezer = None;
        let mut unified = None;
        for line in text.lines() {
            let (mount, filesystem) = line.split_once(" - ")?;
            let point = Path::new(mount.split(' ').nth(4)?);
            let mut words = filesystem.split(' ');
            match (words.next()?, words.nth(1)) {
                ("cgroup2", _) if point == Path::new("/sys/fs/cgroup") => unified = Some(point),
                ("cgroup", Some(options)) if options.split(',').any(|o| o == "freezer") => {
                    freezer = Some(point);
                }
                _ => {}
            }
        }
        unified
            .map(|path| Self::Unified(path.into()))
            .or_else(|| freezer.map(|path| Self::Freezer(path.into())))
    }

    /// The group at `relative` below the root; it need not exist.
    pub(crate) fn group(&self, relative: &str) -> Cgroup {
        match self {
            Self::Unified(root) => Cgroup { path: root.join(relative), unified: true },
            Self::Freezer(root) => Cgroup { path: root.join(relative), unified: false },
        }
    }

    /// True when the kernel offers the controller (`pids`, `memory`, …) to this host.
    pub(crate) fn has_controller(&self, name: &str) -> bool {
        match self {
            Self::Unified(root) => fs::read_to_string(root.join("cgroup.controllers"))
                .is_ok_and(|list| list.split_whitespace().any(|c| c == name)),
            Self::Freezer(root) => root.parent().is_some_and(|all| all.join(name).is_dir()),
        }
    }
}

/// One control group, existing or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cgroup {
    path: PathBuf,
    unified: bool,
}

impl Cgroup {
    /// Its directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes it; made already is success.
    pub(crate) fn create(&self) -> io::Result<()> {
        fs::create_dir_all(&self.path)
    }

    /// Moves a process into it.
    pub(crate) fn admit(&self, pid: i32) -> io::Result<()> {
        fs::write(self.path.join("cgroup.procs"), pid.to_string())
    }

    /// The processes in it and below; none when it does not exist.
    pub(crate) fn processes(&self) -> io::Result<Vec<i32>> {
        let mut found = Vec::new();
        collect_processes(&self.path, &mut found)?;
        Ok(found)
    }

    /// True when a process, zombies left out, is in it or below.
    pub(crate) fn is_populated(&self) -> io::Result<bool> {
        if self.unified { self.event("populated") } else { Ok(!self.processes()?.is_empty()) }
    }

    /// True when every process in it is frozen, by the kernel's word.
    pub(crate) fn is_frozen(&self) -> io::Result<bool> {
        if self.unified {
            self.event("frozen")
        } else {
            Ok(read_or_empty(&self.path.join("freezer.state"))?.trim() == "FROZEN")
        }
    }

    /// Asks for the freeze, or its end; see [`Cgroup::settle`] for when it is done.
    pub(crate) fn set_frozen(&self, frozen: bool) -> io::Result<()> {
        let (file, word) = match (self.unified, frozen) {
            (true, true) => ("cgroup.freeze", "1"),
            (true, false) => ("cgroup.freeze", "0"),
            (false, true) => ("freezer.state", "FROZEN"),
            (false, false) => ("freezer.state", "THAWED"),
        };
        write_existing(&self.path.join(file), word)
    }

    /// Freezes or thaws it and returns once the kernel says so; `Deadline` when it does not
    /// within `limit`. Cancel safe: the request stands.
    pub(crate) async fn settle(&self, frozen: bool, limit: Duration) -> Result<(), EngineError> {
        let verb = if frozen { "freezing" } else { "thawing" };
        let what = || format!("{verb} {}", self.path.display());
        let io = |source| EngineError::Io { what: what(), source };
        let end = tokio::time::Instant::now() + limit;
        self.set_frozen(frozen).map_err(io)?;
        while self.is_frozen().map_err(io)? != frozen {
            if tokio::time::Instant::now() > end {
                return Err(EngineError::Deadline { what: what(), seconds: limit.as_secs() });
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Kills every process in it, frozen or not, and returns once it is empty; absent is success.
    ///
    /// `Deadline` when something survives `limit` (a task stuck in the kernel).
    pub(crate) async fn empty(&self, limit: Duration) -> Result<(), EngineError> {
        let end = tokio::time::Instant::now() + limit;
        while !self.kill_once()? {
            if tokio::time::Instant::now() > end {
                return Err(self.not_empty(limit));
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// [`Cgroup::empty`] for threads outside the runtime.
    pub(crate) fn empty_blocking(&self, limit: Duration) -> Result<(), EngineError> {
        let end = std::time::Instant::now() + limit;
        while !self.kill_once()? {
            if std::time::Instant::now() > end {
                return Err(self.not_empty(limit));
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    fn not_empty(&self, limit: Duration) -> EngineError {
        EngineError::Deadline {
            what: format!("killing what is in {}", self.path.display()),
            seconds: limit.as_secs(),
        }
    }

    /// Sends the kill again (a process may have forked since); true when nothing is left.
    fn kill_once(&self) -> Result<bool, EngineError> {
        let io = |source| EngineError::Io {
            what: format!("killing what is in {}", self.path.display()),
            source,
        };
        if !self.is_populated().map_err(io)? {
            return Ok(true);
        }
        match write_existing(&self.path.join("cgroup.kill"), "1") {
            Ok(()) => {}
            // v1, or a kernel before 5.14.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                for pid in self.processes().map_err(io)? {
                    let _ended_already = kill(Pid::from_raw(pid), Signal::SIGKILL);
                }
            }
            Err(error) => return Err(io(error)),
        }
        // A v1 task dies only once it is thawed; on v2 this does no harm.
        match self.set_frozen(false) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io(error)),
            _ => self.is_populated().map(|populated| !populated).map_err(io),
        }
    }

    /// Removes it and the empty groups below; absent is success.
    pub(crate) fn remove(&self) -> io::Result<()> {
        remove_tree(&self.path)
    }

    fn event(&self, key: &str) -> io::Result<bool> {
        let text = read_or_empty(&self.path.join("cgroup.events"))?;
        Ok(text.lines().any(|line| line.strip_prefix(key).is_some_and(|v| v.trim() == "1")))
    }
}

/// The file's text, empty when the group is not there (`ENODEV`: it goes just now).
fn read_or_empty(file: &Path) -> io::Result<String> {
    match fs::read_to_string(file) {
        Err(error) if is_gone(&error) => Ok(String::new()),
        other => other,
    }
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(nix::libc::ENODEV)
}

/// Writes a control file without ever creating a plain file in its stead.
fn write_existing(file: &Path, word: &str) -> io::Result<()> {
    fs::OpenOptions::new().write(true).open(file)?.write_all(word.as_bytes())
}

fn collect_processes(dir: &Path, found: &mut Vec<i32>) -> io::Result<()> {
    let text = read_or_empty(&dir.join("cgroup.procs"))?;
    found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
    for child in children(dir)? {
        collect_processes(&child, found)?;
    }
    Ok(())
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    for child in children(dir)? {
        remove_tree(&child)?;
    }
    match fs::remove_dir(dir) {
        Err(error) if is_gone(&error) => Ok(()),
        other => other,
    }
}

fn children(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if is_gone(&error) => return Ok(Vec::new()),
        other => other?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: &str = "30 24 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n";
    const V1: &str = "31 24 0:27 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer\n\
                      32 24 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn the_hierarchy_is_what_is_mounted_where_podman_looks() {
        assert_eq!(Hierarchy::in_mountinfo(V2), Some(Hierarchy::Unified("/sys/fs/cgroup".into())));
        assert_eq!(
            Hierarchy::in_mountinfo(V1),
            Some(Hierarchy::Freezer("/sys/fs/cgroup/freezer".into()))
        );
        assert_eq!(Hierarchy::in_mountinfo("22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"), None);
    }

    #[test]
    fn a_group_that_is_not_there_is_empty_and_not_frozen() {
        let root = tempfile::tempdir().expect("tempdir");
        for hierarchy in
            [Hierarchy::Unified(root.path().into()), Hierarchy::Freezer(root.path().into())]
        {
            let group = hierarchy.group("none");
            assert!(!group.is_populated().expect("populated"));
            assert!(!group.is_frozen().expect("frozen"));
            assert!(group.remove().is_ok());
            assert!(group.set_frozen(true).is_err(), "no file is made in place of a group");
        }
    }

    #[test]
    fn the_kernels_words_are_read_on_both_versions() {
        let root = tempfile::tempdir().expect("tempdir");
        let write = |file: &str, text: &str| {
            fs::write(root.path().join("g").join(file), text).expect("write");
        };
        fs::create_dir(root.path().join("g")).expect("mkdir");
        write("cgroup.events", "populated 1\nfrozen 0\n");
        write("freezer.state", "FROZEN\n");
        write("cgroup.procs", "12\n");
        let v2 = Hierarchy::Unified(root.path().into()).group("g");
        assert!(v2.is_populated().expect("v2") && !v2.is_frozen().expect("v2"));
        let v1 = Hierarchy::Freezer(root.path().into()).group("g");
        assert!(v1.is_populated().expect("v1") && v1.is_frozen().expect("v1"));
        v1.set_frozen(false).expect("thaw");
        assert!(!v1.is_frozen().expect("v1"));
    }
}
