use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, lchown, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use godwit_proto::container::ContainerSpec;
use nix::sys::stat::{Mode, SFlag, mknod};

use super::*;

/// Two nodes, and a container with the volume `data` that moves from the one to the other.
struct Ends {
    _dir: tempfile::TempDir,
    spec: ContainerSpec,
    source: Volumes,
    target: Volumes,
    parts: PathBuf,
    sent: Sent,
    next: u32,
}

impl Ends {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("tempdir");
        let mut spec = crate::engine::testing::spec();
        spec.volumes = vec!["data:/data".parse().expect("a volume")];
        let parts = dir.path().join("parts");
        fs::create_dir(&parts).expect("mkdir");
        let (source, target) = ("source", "target");
        let [source, target] = [source, target].map(|end| Volumes::new(dir.path().join(end)));
        source.make(&spec).expect("the source's");
        target.make_empty(&spec).expect("the target's");
        Self { _dir: dir, spec, source, target, parts, sent: Sent::default(), next: 1 }
    }

    fn dir(&self, of: &Volumes) -> PathBuf {
        of.path(&self.spec.tenant, &self.spec.volumes[0].name)
    }

    fn from(&self) -> PathBuf {
        self.dir(&self.source)
    }

    /// One round, whose bytes it answers; what `mapped` names is in the container's terms.
    fn round(&mut self, mapped: &[&str]) -> u64 {
        self.round_of(&Writers {
            since: SystemTime::now(),
            mapped: mapped.iter().map(PathBuf::from).collect(),
        })
    }

    fn round_of(&mut self, writers: &Writers) -> u64 {
        let mut said = Vec::new();
        let mut ready = |_, part| {
            said.push(part);
            Ok(())
        };
        let mut parts = Parts::new(self.parts.clone(), self.next, &mut ready);
        let told = self.sent.tell(&self.source, &self.spec, writers, &mut parts).expect("told");
        parts.finish(Stage::Whole).expect("finished");
        self.next = parts.number;
        let mut stage = Stage::Under;
        for part in said {
            // Twice: as after a death in the middle.
            for _ in 0..2 {
                stage = apply(&self.target, &self.spec, &part).expect("carried out");
            }
        }
        assert_eq!(stage, Stage::Whole);
        told
    }

    #[track_caller]
    fn are_equal(&self) {
        let (here, there) = (seen(&self.from()), seen(&self.dir(&self.target)));
        for path in here.keys().chain(there.keys()) {
            assert_eq!(here.get(path), there.get(path), "{}", path.display());
        }
    }

    /// Waits until what is written now bears another time than what was.
    fn later(&self) {
        std::thread::sleep(std::time::Duration::from_millis(60));
    }
}

/// All that can be seen of everything below a directory, and of itself.
fn seen(top: &Path) -> BTreeMap<PathBuf, String> {
    let mut all = BTreeMap::new();
    let mut inodes: BTreeMap<u64, PathBuf> = BTreeMap::new();
    let mut left = vec![PathBuf::new()];
    while let Some(path) = left.pop() {
        let at = top.join(&path);
        let found = fs::symlink_metadata(&at).expect("there");
        let content = if found.is_file() {
            format!("{} {:?}", found.len(), blake3::hash(&fs::read(&at).expect("read")))
        } else if found.is_symlink() {
            format!("{:?}", fs::read_link(&at).expect("a link"))
        } else {
            String::new()
        };
        let attributes: BTreeMap<_, _> = xattr::list(&at)
            .expect("attributes")
            .map(|name| (name.clone(), xattr::get(&at, &name).expect("an attribute")))
            .collect();
        if found.is_dir() {
            let below = fs::read_dir(&at).expect("a directory");
            left.extend(below.map(|entry| path.join(entry.expect("an entry").file_name())));
        }
        let text = format!(
            "{:o} {} {} {} {}.{} {:?} {content}",
            found.mode(),
            found.uid(),
            found.gid(),
            found.rdev(),
            found.mtime(),
            found.mtime_nsec(),
            attributes
        );
        if found.nlink() > 1 && !found.is_dir() {
            inodes
                .entry(found.ino())
                .and_modify(|first| *first = path.clone().min(first.clone()))
                .or_insert(path.clone());
        }
        all.insert(path, text);
    }
    // Which names are one file.
    for (path, text) in &mut all {
        if let Some(first) =
            fs::symlink_metadata(top.join(path)).ok().and_then(|found| inodes.get(&found.ino()))
        {
            text.push_str(&format!(" = {}", first.display()));
        }
    }
    all
}

fn fill(dir: &Path) {
    fs::create_dir_all(dir.join("a/b/c")).expect("mkdir");
    fs::write(dir.join("a/plain"), "text").expect("write");
    fs::set_permissions(dir.join("a/plain"), fs::Permissions::from_mode(0o4751)).expect("chmod");
    lchown(dir.join("a/plain"), Some(1234), Some(77)).expect("chown");
    xattr::set(dir.join("a/plain"), "user.color", b"blue\0x").expect("an attribute");
    fs::write(dir.join("z"), vec![7; 300_000]).expect("write");
    fs::hard_link(dir.join("z"), dir.join("a/b/z")).expect("link");
    fs::hard_link(dir.join("z"), dir.join("a/b/c/z")).expect("link");
    symlink("/etc/passwd", dir.join("a/link")).expect("symlink");
    symlink("nowhere", dir.join("dangling")).expect("symlink");
    fs::hard_link(dir.join("dangling"), dir.join("dangling too")).expect("link");
    let mode = Mode::from_bits_truncate(0o640);
    mknod(&dir.join("fifo"), SFlag::S_IFIFO, mode, 0).expect("a fifo");
    mknod(&dir.join("null"), SFlag::S_IFCHR, mode, nix::sys::stat::makedev(1, 3))
        .expect("a device");
    drop(UnixListener::bind(dir.join("socket")).expect("a socket"));
    let sparse = File::create(dir.join("sparse")).expect("create");
    sparse.write_all_at(b"in the middle", 5 << 30).expect("write");
    sparse.set_len(64 << 30).expect("truncate");
    fs::write(dir.join(std::ffi::OsStr::from_bytes(b"no\xfftext")), "x").expect("write");
    fs::write(dir.join("empty"), "").expect("write");
    fs::set_permissions(dir.join("a/b"), fs::Permissions::from_mode(0o1700)).expect("chmod");
    fs::set_permissions(dir, fs::Permissions::from_mode(0o2775)).expect("chmod");
    lchown(dir, Some(5), Some(6)).expect("chown");
    xattr::set(dir, "user.top", b"yes").expect("an attribute");
}

#[test]
fn everything_that_can_be_in_a_volume_arrives_as_it_was() {
    let mut ends = Ends::new();
    fill(&ends.from());
    ends.later();
    ends.round(&[]);
    // Reading all of the sparse file would take minutes.
    let sparse = |dir: PathBuf| fs::metadata(dir.join("sparse")).expect("there").blocks();
    assert!(sparse(ends.dir(&ends.target)) < 1000, "it takes no more disk than it did");
    fs::remove_file(ends.from().join("sparse")).expect("rm");
    ends.later();
    ends.round(&[]);
    ends.are_equal();
    assert!(ends.round(&[]) < 1000, "nothing changed");
}

/// Something that happens in a volume, by its name.
type Step = (&'static str, fn(&Path));

#[test]
fn what_changes_between_rounds_follows() {
    let mut ends = Ends::new();
    let from = ends.from();
    fill(&from);
    fs::remove_file(from.join("sparse")).expect("rm");
    fs::write(from.join("large"), vec![1; 8 << 20]).expect("write");
    ends.later();
    ends.round(&[]);
    ends.are_equal();
    // Each of these has broken something that copies trees.
    let steps: &[Step] = &[
        ("a file is removed", |dir| fs::remove_file(dir.join("empty")).unwrap()),
        ("a tree is removed", |dir| fs::remove_dir_all(dir.join("a/b/c")).unwrap()),
        ("a directory that holds a name of a file is renamed", |dir| {
            fs::rename(dir.join("a/b"), dir.join("y")).unwrap();
        }),
        ("a file takes the place of one of two names", |dir| {
            fs::write(dir.join("new"), "other").unwrap();
            fs::rename(dir.join("new"), dir.join("y/z")).unwrap();
        }),
        ("a file becomes a directory", |dir| {
            fs::remove_file(dir.join("z")).unwrap();
            fs::create_dir(dir.join("z")).unwrap();
            fs::write(dir.join("z/in"), "it").unwrap();
        }),
        ("a directory becomes a link to one outside", |dir| {
            fs::remove_dir_all(dir.join("z")).unwrap();
            symlink("/tmp", dir.join("z")).unwrap();
        }),
        ("a link becomes a fifo", |dir| {
            fs::remove_file(dir.join("dangling")).unwrap();
            mknod(&dir.join("dangling"), SFlag::S_IFIFO, Mode::S_IRUSR, 0).unwrap();
        }),
        ("an attribute goes, a mode and an owner change", |dir| {
            xattr::remove(dir.join("a/plain"), "user.color").unwrap();
            lchown(dir.join("a/plain"), Some(0), Some(1)).unwrap();
            fs::set_permissions(dir.join("a/plain"), fs::Permissions::from_mode(0o0)).unwrap();
        }),
        ("a file shrinks and grows with a hole", |dir| {
            let file = File::options().write(true).open(dir.join("large")).unwrap();
            file.set_len(100_000).unwrap();
            file.set_len(3 << 20).unwrap();
        }),
        ("a file is cut in the middle of a block", |dir| {
            File::options().write(true).open(dir.join("large")).unwrap().set_len(70_001).unwrap();
        }),
        ("zeros are written", |dir| {
            let file = File::options().write(true).open(dir.join("large")).unwrap();
            file.write_all_at(&[0; 70_001], 0).unwrap();
        }),
        ("a directory changes hands without a name in it changing", |dir| {
            fs::rename(dir.join("y"), dir.join("x")).unwrap();
            fs::create_dir(dir.join("y")).unwrap();
            fs::rename(dir.join("x/z"), dir.join("y/z")).unwrap();
        }),
        ("a time is set back", |dir| {
            let file = File::options().write(true).open(dir.join("large")).unwrap();
            file.set_modified(std::time::UNIX_EPOCH).unwrap();
        }),
    ];
    for (what, step) in steps {
        step(&from);
        ends.later();
        ends.round(&[]);
        let all = (seen(&from), seen(&ends.dir(&ends.target)));
        assert_eq!(all.0, all.1, "{what}");
    }
}

#[test]
fn of_a_large_file_only_what_changed_is_said() {
    let mut ends = Ends::new();
    let large = ends.from().join("large");
    let bytes: Vec<u8> = (0..8_u32 << 18).flat_map(u32::to_le_bytes).collect();
    fs::write(&large, bytes).expect("write");
    ends.later();
    assert!(ends.round(&[]) > 8 << 20);
    File::options()
        .write(true)
        .open(&large)
        .expect("open")
        .write_all_at(b"!", 5 << 20)
        .expect("write");
    ends.later();
    assert!(ends.round(&[]) < 100_000, "one block");
    ends.are_equal();
}

#[test]
fn what_may_be_written_by_memory_is_looked_at_again() {
    let mut ends = Ends::new();
    let file = ends.from().join("mapped");
    fs::write(&file, "one").expect("write");
    ends.later();
    ends.round(&["data/mapped"]);
    fs::write(&file, "two").expect("write");
    // As a page that is dirty already takes a write: no time shows it.
    ends.sent.has_seen(Path::new("data/mapped"), &file);
    ends.round(&[]);
    assert_eq!(fs::read_to_string(ends.dir(&ends.target).join("mapped")).expect("read"), "two");
}

#[test]
fn other_users_of_the_host_stay_out() {
    let ends = Ends::new();
    let mode = fs::metadata(&ends.source.root).expect("there").mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn what_changed_since_it_was_asked_who_writes_by_memory_is_looked_at_again() {
    let mut ends = Ends::new();
    let file = ends.from().join("mapped");
    let asked = Writers { since: SystemTime::now(), mapped: BTreeSet::new() };
    fs::write(&file, "one").expect("write");
    ends.later();
    ends.round_of(&asked);
    fs::write(&file, "two").expect("write");
    ends.sent.has_seen(Path::new("data/mapped"), &file);
    ends.round(&[]);
    assert_eq!(fs::read_to_string(ends.dir(&ends.target).join("mapped")).expect("read"), "two");
}

#[test]
fn a_tree_deeper_than_any_path_is_named_and_can_be_removed() {
    use nix::fcntl::{OFlag, openat};
    use nix::sys::stat::mkdirat;
    let mut ends = Ends::new();
    let mut at: std::os::fd::OwnedFd = File::open(ends.from()).expect("open").into();
    for _ in 0..5000 {
        mkdirat(&at, "d", Mode::S_IRWXU).expect("mkdir");
        at = openat(&at, "d", OFlag::O_DIRECTORY, Mode::empty()).expect("open");
    }
    let mut ready = |_, _| Ok(());
    let mut parts = Parts::new(ends.parts.clone(), 1, &mut ready);
    let nobody = Writers { since: SystemTime::now(), mapped: BTreeSet::new() };
    let error = ends.sent.tell(&ends.source, &ends.spec, &nobody, &mut parts).expect_err("deep");
    let text = error.to_string();
    assert!(text.starts_with("…") && text.contains("/d/d") && text.len() < 400, "{text}");
    ends.source.drop_of(&ends.spec).expect("removed");
    assert!(!ends.from().exists());
}

#[test]
fn words_from_outside_a_containers_volumes_are_refused() {
    use super::word::{What, Word, write};
    let ends = Ends::new();
    fs::create_dir(ends.target.tenant(&ends.spec.tenant).join("other")).expect("mkdir");
    symlink("/", ends.dir(&ends.target).join("link")).expect("symlink");
    let make = |path: &str| Word::Make { path: path.into(), what: What::File(0), is_fresh: true };
    let name = |of: &str| Word::Make {
        path: "data/x".into(),
        what: What::Name(of.into()),
        is_fresh: true,
    };
    let words = [
        make("other/x"),
        make("data/../other/x"),
        make("/data/x"),
        make("../x"),
        make("data"),
        make("data/link/x"),
        Word::Gone("data".into()),
        Word::Gone("other".into()),
        name("other/y"),
        name("data/link/etc/passwd"),
        Word::Data { path: "data/link".into(), offset: 0, bytes: vec![1] },
    ];
    for word in words {
        let part = ends.parts.join("1");
        let mut file = File::create(&part).expect("create");
        write(&word, &mut file).expect("write");
        write(&Word::End(Stage::Whole), &mut file).expect("write");
        assert!(apply(&ends.target, &ends.spec, &part).is_err(), "{word:?}");
    }
}

#[test]
fn a_volume_that_another_container_has_by_now_is_left_alone() {
    let ends = Ends::new();
    fs::write(ends.from().join("x"), "1").expect("write");
    let mut other = ends.spec.clone();
    other.id = "6f1d1c1e-1111-4222-8333-444455557777".parse().expect("id");
    ends.source.make(&other).expect("made");
    ends.source.drop_of(&ends.spec).expect("dropped");
    assert!(ends.from().join("x").exists());
    ends.source.drop_of(&other).expect("dropped");
    assert!(!ends.from().exists());
    ends.source.drop_of(&other).expect("absent is success");
    assert_eq!(ends.source.bytes(&other.tenant, &[]).expect("none"), 0);
}

/// The container does what it can to make an agent read, or a look walk, outside of the volume.
#[test]
fn a_link_in_a_directorys_place_is_never_followed() {
    let mut ends = Ends::new();
    let (from, outside) = (ends.from(), tempfile::tempdir().expect("tempdir"));
    fs::write(outside.path().join("secret"), "of the host").expect("write");
    fs::create_dir(from.join("dir")).expect("mkdir");
    fs::write(from.join("dir/secret"), "of the container").expect("write");
    symlink(outside.path(), from.join("link")).expect("symlink");
    let over = std::sync::Mutex::new(());
    std::thread::scope(|scope| {
        // Let go of even by a failed assertion.
        let under_way = over.lock().expect("nobody has it");
        scope.spawn(|| {
            while matches!(over.try_lock(), Err(std::sync::TryLockError::WouldBlock)) {
                fs::rename(from.join("dir"), from.join("away")).expect("mv");
                fs::rename(from.join("link"), from.join("dir")).expect("mv");
                fs::rename(from.join("dir"), from.join("link")).expect("mv");
                fs::rename(from.join("away"), from.join("dir")).expect("mv");
            }
        });
        for _ in 0..300 {
            ends.round(&[]);
            for name in ["dir/secret", "away/secret"] {
                let there = ends.dir(&ends.target).join(name);
                let is_link =
                    fs::symlink_metadata(there.parent().unwrap()).is_ok_and(|it| it.is_symlink());
                if let (false, Ok(text)) = (is_link, fs::read_to_string(&there)) {
                    assert!(text.is_empty() || text == "of the container", "{text}");
                }
            }
        }
        drop(under_way);
    });
    ends.later();
    ends.round(&[]);
    ends.are_equal();
}
