use std::collections::BTreeMap;
use std::io::Cursor;

use super::*;

/// A docker-archive as podman writes it: the layers first, what describes them last.
fn archive(layers: &[(&str, &[u8])], digests: &[&str]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |name: &str, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o444);
        tar.append_data(&mut header, name, content).expect("appended");
    };
    let mut names: Vec<_> = layers.iter().map(|(name, _)| format!("{name}.tar")).collect();
    let mut seen = BTreeSet::new();
    for (name, content) in layers.iter().filter(|(name, _)| seen.insert(*name)) {
        add(&format!("{name}.tar"), content);
    }
    let config = serde_json::json!({ "rootfs": { "diff_ids": digests } }).to_string();
    add("c.json", config.as_bytes());
    let manifest = serde_json::json!([{ "Config": "c.json", "Layers": names }]).to_string();
    add(MANIFEST, manifest.as_bytes());
    names.truncate(1);
    for first in names {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        tar.append_link(&mut header, "old/layer.tar", format!("../{first}")).expect("appended");
    }
    tar.into_inner().expect("written")
}

fn files(archive: &[u8]) -> BTreeMap<String, String> {
    let mut tar = tar::Archive::new(archive);
    let entries = tar.entries().expect("a tar").map(|entry| {
        let mut entry = entry.expect("an entry");
        let name = entry.path().expect("a path").to_string_lossy().into_owned();
        let link = entry.link_name().expect("a name").map(|to| to.to_string_lossy().into_owned());
        let mut content = String::new();
        entry.read_to_string(&mut content).expect("text");
        (name, link.unwrap_or(content))
    });
    entries.collect()
}

fn copied(archive: &[u8], wanted: u64) -> Vec<u8> {
    let mut copied = Vec::new();
    copy(&mut Cursor::new(archive), Layers(wanted), &mut copied).expect("copied");
    copied
}

#[test]
fn a_copy_has_the_content_of_the_wanted_layers_and_all_else() {
    let whole = archive(&[("a", b"one"), ("b", b"two"), ("c", b"three")], &["x", "y", "z"]);
    assert_eq!(layers(&mut Cursor::new(&whole)).expect("layers"), ["x", "y", "z"]);
    let mut expected = files(&whole);
    assert_eq!(expected["old/layer.tar"], "../a.tar");
    assert_eq!(files(&copied(&whole, 0b111)), expected);
    for name in ["a.tar", "c.tar"] {
        expected.insert(name.into(), String::new());
    }
    let some = copied(&whole, 0b010);
    assert_eq!(files(&some), expected);
    assert_eq!(layers(&mut Cursor::new(&some)).expect("layers"), ["x", "y", "z"]);
}

#[test]
fn a_file_of_two_layers_stays_for_either() {
    let whole = archive(&[("a", b"one"), ("b", b"two"), ("a", b"one")], &["x", "y", "x"]);
    assert_eq!(files(&copied(&whole, 0b100))["a.tar"], "one");
    assert_eq!(files(&copied(&whole, 0b010))["a.tar"], "");
}

#[test]
fn what_is_lacking_is_told_by_digest() {
    let all = ["x", "y", "z"].map(String::from);
    let held = |held: &[&str]| held.iter().map(|held| (*held).to_owned()).collect();
    assert_eq!(Layers::lacking(&all, &held(&["y", "other"])), Some(Layers(0b101)));
    assert_eq!(Layers::lacking(&all, &held(&["x", "y", "z"])), Some(Layers(0)));
    let many: Vec<_> = (0..=MAX_LAYERS).map(|place| place.to_string()).collect();
    assert_eq!(Layers::lacking(&many[..MAX_LAYERS], &held(&[])), Some(Layers(u64::MAX)));
    assert_eq!(Layers::lacking(&many, &held(&[])), None);
}

#[test]
fn what_is_no_such_archive_is_refused() {
    let told = |bytes: &[u8]| layers(&mut Cursor::new(bytes)).expect_err("refused").to_string();
    assert!(told(b"").contains("no usable manifest.json"));
    assert!(told(&[1; 2048]).contains("cannot be read"));
    let whole = archive(&[("a", b"one")], &["x"]);
    assert!(told(&whole[..1024]).contains("no usable manifest.json"), "{}", told(&whole[..1024]));
    assert!(told(&archive(&[("a", b"one")], &["x", "y"])).contains("not one image"));
}
