//! The delta between two overlays of one image.

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::changes::Stamp;
use super::*;

/// A container's files as podman lays them: an overlay of its own.
struct Layer {
    dir: tempfile::TempDir,
}

impl Layer {
    fn new() -> Self {
        // overlay does not lie on overlay, and the machine's /tmp may be one.
        let dir = tempfile::tempdir_in("/dev/shm").expect("tempdir");
        for name in ["lower", "upper", "work", "merged", "shm", "own"] {
            fs::create_dir(dir.path().join(name)).expect("mkdir");
        }
        // As podman notes it, in the directory of the container's own layer.
        fs::write(dir.path().join("own/lower"), "lower").expect("write");
        for (path, text) in
            [("lower/old", "old"), ("lower/d/a", "a"), ("lower/d/b", "b"), ("lower/e/x", "x")]
        {
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
    fn look(&self, mapped: &[&str]) -> Before {
        let mapped = mapped.iter().map(PathBuf::from).collect();
        let image = Image::below(&self.at("own")).expect("lower");
        Before::look(&self.at("upper"), &image, &self.at("shm"), &self.at("log"), &mapped)
            .expect("look")
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
    let before = here.look(&[]);
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
    let changed = || scan(&layer.at("upper")).expect("scan")[Path::new("x")].changed;
    // Until what was written is old enough for its time to be believed.
    while layer.look(&[]).entries[Path::new("x")].is_unsure {
        assert!(changed().0 > 0);
        std::thread::yield_now();
    }
    let before = layer.look(&[]);
    let (upper, merged) = (layer.at("upper"), layer.at("merged"));
    let written =
        before.write_changes(&upper, &merged, &layer.frozen(), layer.dir.path()).expect("none");
    assert!(written.is_empty(), "{written:?}");
}

/// See [`image`]: podman brings `d/new` alone.
#[test]
fn what_podman_leaves_out_is_sent_however_old_it_is() {
    let layer = Layer::new();
    for path in ["old", "d/a", "d/new"] {
        layer.write(path, "mine");
    }
    let (upper, merged) = (layer.at("upper"), layer.at("merged"));
    fs::remove_file(merged.join("d/b")).expect("remove");
    fs::remove_dir_all(merged.join("e")).expect("remove");
    fs::create_dir(merged.join("e")).expect("mkdir");
    layer.write("e/new", "mine");
    let left_out = Image::below(&layer.at("own")).expect("lower").left_out(&upper);
    assert_eq!(left_out.expect("scan"), ["d/a", "e", "e/new", "old"].map(PathBuf::from));
    while changes::look(&upper).expect("look").values().any(|stamp| stamp.is_unsure) {
        std::thread::yield_now();
    }
    let bag = layer.at("bag");
    fs::create_dir(&bag).expect("mkdir");
    let before = layer.look(&[]);
    before.write_changes(&upper, &merged, &layer.frozen(), &bag).expect("changes");
    let there = Layer::new();
    there.write("d/new", "mine");
    apply(&bag, &there.at("merged"), &there.at("shm"), &there.at("log")).expect("apply");
    assert_eq!(there.tree(), layer.tree());
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
    while layer.look(&[]).entries[Path::new("mapped")].is_unsure {
        std::thread::yield_now();
    }
    let mapped = ["mapped", "not/in/the/layer"];
    let then = (layer.look(&mapped), layer.frozen());
    let now =
        (layer.look(&[]), Frozen { mapped: mapped.map(PathBuf::from).into(), ..layer.frozen() });
    // A page that is dirty at the first look may be written once more, and unmapped before the last.
    for (before, frozen) in [then, now] {
        let written = before.write_changes(&upper, &merged, &frozen, layer.dir.path());
        assert_eq!(written.expect("changes"), [GONE, FILES]);
    }
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
    below::pack(&there.at("merged"), &names, &from.path().join(FILES)).expect("tar");
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
