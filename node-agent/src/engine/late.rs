//! What a container changed of its files after its metadata was taken.
//!
//! The metadata tar is written while the container runs, and goes ahead of the memory.
//! What it writes from then until it is frozen follows as a second, small delta, and is put
//! over the first before CRIU restores: [`Before`] is taken ahead of the tar, so a change
//! can be in both, never in neither.
//!
//! What changed is found in overlay's upper directory, by inode, time of change and size;
//! what it looks like now is read through the merged root, and put there again at the other
//! end: neither whiteouts nor opaque directories travel. Whatever is not there any more, or
//! is not a directory, is removed first, so nothing is ever written through a link.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

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
    entries: BTreeMap<PathBuf, Stamp>,
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
    /// Files that its processes may write by memory, below its root: a page that was dirty before
    /// the first look takes more writes without any sign of it.
    pub(super) mapped: BTreeSet<PathBuf>,
}

/// What tells two states of one path apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    changed: (i64, i64),
    size_bytes: u64,
    mode: u32,
    is_unsure: bool,
}

/// A file written this shortly before it was looked at may be written again without its time
/// of change showing it: kernels before 6.13 count that in ticks of up to 10 ms.
const UNSURE: Duration = Duration::from_millis(50);

impl Before {
    /// Looks at the upper directory and the log. Blocks.
    pub(super) fn look(upper: &Path, shm: &Path, log: &Path) -> io::Result<Self> {
        let sure = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() - UNSURE;
        let mut entries = scan(upper)?;
        for stamp in entries.values_mut() {
            if stamp.changed >= (sure.as_secs().cast_signed(), i64::from(sure.subsec_nanos())) {
                stamp.is_unsure = true;
            }
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
            tar(root, &changes.there, &into.join(FILES))?;
            written.push(FILES);
        }
        let in_memory: BTreeSet<PathBuf> = scan(&more.shm)?.into_keys().collect();
        if self.has_shm || !in_memory.is_empty() {
            tar(&more.shm, &in_memory, &into.join(SHM))?;
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
            if !is_plain(path) {
                return Err(io::Error::other(format!("`{}` is no path below /", path.display())));
            }
            if has_real_parents(root, path)? {
                remove(&root.join(path))?;
            }
        }
    }
    let files = from.join(FILES);
    if files.exists() {
        unpack(&files, root)?;
    }
    let memory = from.join(SHM);
    if memory.exists() {
        for entry in fs::read_dir(shm)? {
            remove(&entry?.path())?;
        }
        unpack(&memory, shm)?;
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

/// Unpacks what [`tar`] packed. Nothing of it is written through a link, whoever made the link.
fn unpack(file: &Path, root: &Path) -> io::Result<()> {
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

/// What became of paths, relative to the root.
#[derive(Debug, Default)]
struct Changes {
    gone: BTreeSet<PathBuf>,
    there: BTreeSet<PathBuf>,
}

impl Changes {
    fn between(
        before: &BTreeMap<PathBuf, Stamp>,
        now: &BTreeMap<PathBuf, Stamp>,
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
            let is_same = old.is_some_and(|old| old.is_directory() && old.inode == stamp.inode);
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
    fn note(&mut self, path: &Path, root: &Path) -> io::Result<()> {
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

impl Stamp {
    fn is_directory(&self) -> bool {
        self.mode & nix::libc::S_IFMT == nix::libc::S_IFDIR
    }
}

/// True when every parent of the path below `root` is a directory, and no link to one: a link of
/// the container's would be followed on the host.
fn has_real_parents(root: &Path, path: &Path) -> io::Result<bool> {
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
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Every entry below `top`, by its path from there.
fn scan(top: &Path) -> io::Result<BTreeMap<PathBuf, Stamp>> {
    let mut entries = BTreeMap::new();
    walk(top, Path::new(""), &mut entries)?;
    Ok(entries)
}

fn walk(top: &Path, below: &Path, entries: &mut BTreeMap<PathBuf, Stamp>) -> io::Result<()> {
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
fn is_opaque(dir: &Path) -> io::Result<bool> {
    Ok(xattr::get(dir, "trusted.overlay.opaque")?.is_some_and(|value| value == b"y"))
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

/// True for a path that stays below where it is joined to.
fn is_plain(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(_)))
}

/// Removes whatever is there, a directory with all in it; nothing there is success.
fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    removed.or_else(|error| if is_absent(&error) { Ok(()) } else { Err(error) })
}

fn tar(root: &Path, paths: &BTreeSet<PathBuf>, file: &Path) -> io::Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use nix::mount::{MntFlags, MsFlags, mount, umount2};

    /// A container's files as podman lays them: an overlay of its own.
    struct Layer {
        dir: tempfile::TempDir,
    }

    impl Layer {
        fn new() -> Self {
            // overlay does not lie on overlay, and the machine's /tmp may be one.
            let dir = tempfile::tempdir_in("/dev/shm").expect("tempdir");
            for name in ["lower", "upper", "work", "merged", "shm"] {
                fs::create_dir(dir.path().join(name)).expect("mkdir");
            }
            for (path, text) in [("lower/old", "old"), ("lower/d/a", "a"), ("lower/d/b", "b")] {
                let path = dir.path().join(path);
                fs::create_dir_all(path.parent().expect("parent")).expect("mkdir");
                fs::write(path, text).expect("write");
            }
            let layer = Self { dir };
            let at = |name: &str| layer.at(name).display().to_string();
            let options =
                format!("lowerdir={},upperdir={},workdir={}", at("lower"), at("upper"), at("work"));
            let merged = layer.at("merged");
            mount(Some("overlay"), &merged, Some("overlay"), MsFlags::empty(), Some(&*options))
                .expect("mounting an overlay needs root");
            layer
        }
        fn frozen(&self) -> Frozen {
            Frozen { shm: self.at("shm"), log: self.at("log"), mapped: BTreeSet::new() }
        }
        fn at(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }
        fn write(&self, path: &str, text: &str) {
            fs::write(self.at("merged").join(path), text).expect("write");
        }
        /// What a process in the container sees.
        fn tree(&self) -> Vec<(PathBuf, String)> {
            let merged = self.at("merged");
            let entries = scan(&merged).expect("scan");
            let text = |path: &Path, stamp: &Stamp| match stamp.mode & nix::libc::S_IFMT {
                nix::libc::S_IFREG => fs::read_to_string(merged.join(path)).expect("read"),
                nix::libc::S_IFLNK => {
                    format!("-> {}", fs::read_link(merged.join(path)).expect("link").display())
                }
                _ => String::new(),
            };
            entries.iter().map(|(path, stamp)| (path.clone(), text(path, stamp))).collect()
        }
    }

    impl Drop for Layer {
        fn drop(&mut self) {
            let _gone = umount2(&self.at("merged"), MntFlags::MNT_DETACH);
        }
    }

    #[test]
    fn the_other_end_becomes_what_this_one_is() {
        let (here, there, again) = (Layer::new(), Layer::new(), Layer::new());
        let log = here.at("log");
        fs::write(&log, "one\n").expect("write");
        for layer in [&here, &there, &again] {
            layer.write("kept", "kept");
            layer.write("changed", "before");
            layer.write("removed", "x");
            fs::create_dir(layer.at("merged/made")).expect("mkdir");
            layer.write("made/x", "x");
            std::os::unix::fs::symlink("/etc", layer.at("merged/link")).expect("link");
        }
        let before = Before::look(&here.at("upper"), &here.at("shm"), &log).expect("look");
        let merged = here.at("merged");
        here.write("changed", "after");
        here.write("new", "new");
        here.write("d/a", "a2");
        fs::remove_file(merged.join("removed")).expect("remove");
        fs::remove_file(merged.join("old")).expect("remove");
        fs::remove_dir_all(merged.join("made")).expect("remove");
        here.write("made", "a file now");
        // A link becomes a directory: nothing may be written through the link at the other end.
        fs::remove_file(merged.join("link")).expect("remove");
        fs::create_dir(merged.join("link")).expect("mkdir");
        here.write("link/passwd", "mine");
        // A directory of the image, made anew: what the image has below is hidden.
        fs::remove_dir_all(merged.join("d")).expect("remove");
        fs::create_dir(merged.join("d")).expect("mkdir");
        here.write("d/c", "c");
        fs::write(&log, "one\ntwo\n").expect("write");
        fs::write(here.at("shm/segment"), "now").expect("write");
        fs::write(there.at("shm/segment"), "then").expect("write");
        fs::write(there.at("shm/removed"), "then").expect("write");

        let bag = here.at("bag");
        fs::create_dir(&bag).expect("mkdir");
        let upper = here.at("upper");
        let written = before.write_changes(&upper, &merged, &here.frozen(), &bag).expect("changes");
        assert_eq!(written, [GONE, FILES, SHM, LOG]);
        // The metadata was written after the look: it has half of the second line.
        fs::write(there.at("log"), "one\ntw").expect("write");
        apply(&bag, &there.at("merged"), &there.at("shm"), &there.at("log")).expect("apply");
        assert_eq!(there.tree(), here.tree());
        assert_eq!(fs::read_to_string(there.at("shm/segment")).expect("shm"), "now");
        assert!(!there.at("shm/removed").exists());
        assert_eq!(fs::read_to_string(there.at("log")).expect("log"), "one\ntwo\n");
        apply(&bag, &again.at("merged"), &again.at("shm"), &again.at("log")).expect("apply");
        assert_eq!(again.tree(), here.tree(), "begun again from the metadata");
    }

    #[test]
    fn a_container_that_wrote_nothing_sends_nothing() {
        let layer = Layer::new();
        layer.write("x", "x");
        let log = layer.at("log");
        let changed = || scan(&layer.at("upper")).expect("scan")[Path::new("x")].changed;
        // Until what was written is old enough for its time to be believed.
        while Before::look(&layer.at("upper"), &layer.at("shm"), &log).expect("look").entries
            [Path::new("x")]
        .is_unsure
        {
            assert!(changed().0 > 0);
            std::thread::yield_now();
        }
        let before = Before::look(&layer.at("upper"), &layer.at("shm"), &log).expect("look");
        let (upper, merged) = (layer.at("upper"), layer.at("merged"));
        let written =
            before.write_changes(&upper, &merged, &layer.frozen(), layer.dir.path()).expect("none");
        assert!(written.is_empty(), "{written:?}");
    }

    #[test]
    fn a_path_that_leads_out_is_refused() {
        let dir = tempfile::tempdir().expect("tempdir");
        for bad in ["../x", "/x", "a/../../x"] {
            fs::write(dir.path().join(GONE), format!("{bad}\0")).expect("write");
            assert!(
                apply(dir.path(), &dir.path().join("root"), dir.path(), &dir.path().join("log"))
                    .is_err()
            );
        }
    }

    #[test]
    fn what_is_written_by_memory_goes_without_a_sign_of_it() {
        let layer = Layer::new();
        layer.write("mapped", "x");
        let (upper, merged) = (layer.at("upper"), layer.at("merged"));
        let mut before = Before::look(&upper, &layer.at("shm"), &layer.at("log")).expect("look");
        before.entries.values_mut().for_each(|stamp| stamp.is_unsure = false);
        let mapped = ["mapped", "not/in/the/layer"].map(PathBuf::from).into();
        let frozen = Frozen { mapped, ..layer.frozen() };
        let written = before.write_changes(&upper, &merged, &frozen, layer.dir.path());
        assert_eq!(written.expect("changes"), [GONE, FILES]);
    }

    /// A link that the container put in the way leads to the host: nothing there is touched.
    #[test]
    fn nothing_is_removed_or_written_behind_a_link() {
        let (host, from) =
            (tempfile::tempdir().expect("tempdir"), tempfile::tempdir().expect("tempdir"));
        fs::write(host.path().join("passwd"), "the host's").expect("write");
        let layer = Layer::new();
        let root = layer.at("merged");
        let link = || {
            let _a_directory_by_now = fs::remove_dir_all(root.join("x"));
            std::os::unix::fs::symlink(host.path(), root.join("x")).expect("link");
        };
        let untouched = || fs::read_to_string(host.path().join("passwd")).expect("still there");
        link();
        fs::write(from.path().join(GONE), "x/passwd\0").expect("write");
        apply(from.path(), &root, &layer.at("shm"), &layer.at("log")).expect("apply");
        assert_eq!(untouched(), "the host's");

        // The other end has a directory there.
        let there = Layer::new();
        fs::create_dir(there.at("merged/x")).expect("mkdir");
        there.write("x/passwd", "the container's");
        let names = ["x/passwd"].map(PathBuf::from).into();
        tar(&there.at("merged"), &names, &from.path().join(FILES)).expect("tar");
        apply(from.path(), &root, &layer.at("shm"), &layer.at("log")).expect("apply");
        assert_eq!(untouched(), "the host's");
        assert_eq!(fs::read_to_string(root.join("x/passwd")).expect("read"), "the container's");

        // At the source a path behind a link is none.
        link();
        let mut changes = Changes::default();
        changes.note(Path::new("x/passwd"), &root).expect("note");
        assert!(changes.there.is_empty() && changes.gone.is_empty());
        // An archive that makes the link itself is refused.
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        builder.append_link(&mut header, "y", host.path()).expect("append");
        let mut header = tar::Header::new_gnu();
        header.set_size(1);
        builder.append_data(&mut header, "y/passwd", &b"!"[..]).expect("append");
        fs::write(from.path().join(FILES), builder.into_inner().expect("end")).expect("write");
        assert!(apply(from.path(), &root, &layer.at("shm"), &layer.at("log")).is_err());
        assert_eq!(untouched(), "the host's");
    }
}
