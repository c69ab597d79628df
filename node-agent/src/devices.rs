//! The node's devices by label, each as a node of its own in one directory, which is the same place
//! on every node: a container has what lies there bound into it, and finds the target's after a move.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use godwit_proto::container::ContainerSpec;
use godwit_proto::id::DeviceName;
use nix::errno::Errno;
use nix::sys::stat::{Mode, SFlag, major, minor, mknod};
use serde_json::{Value, json};

/// The devices that the operator declared.
#[derive(Debug, Clone)]
pub struct Devices {
    dir: PathBuf,
    declared: BTreeMap<DeviceName, PathBuf>,
}

impl Devices {
    /// Those that were declared, to be shown to containers in `dir`.
    pub fn new(dir: PathBuf, declared: BTreeMap<DeviceName, PathBuf>) -> Self {
        Self { dir, declared }
    }

    /// Where a device is for containers.
    pub(crate) fn path(&self, name: &DeviceName) -> PathBuf {
        self.dir.join(name.as_str())
    }

    /// Sees to it that the container's devices are there, and answers what it may use by control
    /// group: rules as the runtime specification has them. Blocks.
    pub(crate) fn provide(&self, spec: &ContainerSpec) -> io::Result<Vec<Value>> {
        spec.devices.iter().map(|device| self.provide_one(&device.name)).collect()
    }

    fn provide_one(&self, name: &DeviceName) -> io::Result<Value> {
        let absent = || io::Error::other(format!("this node has no device `{name}`"));
        let path = self.declared.get(name).ok_or_else(absent)?;
        let told =
            |what: String| io::Error::other(format!("device `{name}`, {}: {what}", path.display()));
        let found = fs::metadata(path).map_err(|error| told(error.to_string()))?;
        let (kind, letter) = match found.file_type() {
            kind if kind.is_char_device() => (SFlag::S_IFCHR, "c"),
            kind if kind.is_block_device() => (SFlag::S_IFBLK, "b"),
            _ => return Err(told("it is no device".into())),
        };
        fs::create_dir_all(&self.dir)?;
        let own = self.path(name);
        let is_there = fs::symlink_metadata(&own)
            .is_ok_and(|own| own.file_type() == found.file_type() && own.rdev() == found.rdev());
        if !is_there {
            match fs::remove_file(&own) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            // Who may use it is said by the rule; a container's root is not bound by modes.
            match mknod(&own, kind, Mode::from_bits_truncate(0o660), found.rdev()) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        let (major, minor) = (major(found.rdev()), minor(found.rdev()));
        Ok(json!({ "allow": true, "type": letter, "major": major, "minor": minor, "access": "rw" }))
    }
}

/// Has a checkpoint of podman's, a tar, allow those devices and no others: it has the numbers of the
/// node where it was made. The file is changed where it lies. Blocks.
pub(crate) fn allow(tar: &Path, rules: &[Value]) -> io::Result<()> {
    let mut file = fs::File::options().read(true).write(true).open(tar)?;
    let (start, size) = {
        let mut archive = tar::Archive::new(&mut file);
        let mut entries = archive.entries_with_seek()?;
        loop {
            let entry = entries
                .next()
                .ok_or_else(|| io::Error::other("a checkpoint without spec.dump"))??;
            if entry.path()?.ends_with("spec.dump") {
                break (
                    entry.raw_file_position(),
                    usize::try_from(entry.size()).unwrap_or(usize::MAX),
                );
            }
        }
    };
    let mut text = vec![0; size];
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut text, start)?;
    let mut spec: Value = serde_json::from_slice(&text)?;
    let known = spec.pointer_mut("/linux/resources/devices").and_then(Value::as_array_mut);
    let known =
        known.ok_or_else(|| io::Error::other("a checkpoint that says nothing of devices"))?;
    known.retain(|rule| rule["allow"] == false);
    known.extend_from_slice(rules);
    // podman indents what it writes: without that there is room for longer numbers.
    let mut changed = serde_json::to_vec(&spec)?;
    if changed.len() > size {
        return Err(io::Error::other("no room for the devices' numbers"));
    }
    changed.resize(size, b' ');
    std::os::unix::fs::FileExt::write_all_at(&file, &changed, start)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn devices(dir: &Path, path: &str) -> Devices {
        let declared = BTreeMap::from([("sensor".parse().expect("a name"), path.into())]);
        Devices::new(dir.join("devices"), declared)
    }

    fn spec() -> ContainerSpec {
        let mut spec = crate::engine::testing::spec();
        spec.devices = vec!["sensor".parse().expect("a device")];
        spec
    }

    #[test]
    fn what_lies_there_follows_what_was_declared() {
        let dir = tempfile::tempdir().expect("tempdir");
        for (path, minor) in [("/dev/null", 3), ("/dev/null", 3), ("/dev/zero", 5)] {
            let devices = devices(dir.path(), path);
            let rules = devices.provide(&spec()).expect("provide");
            assert_eq!((&rules[0]["major"], &rules[0]["minor"]), (&json!(1), &json!(minor)));
            let own =
                fs::metadata(devices.path(&"sensor".parse().expect("a name"))).expect("there");
            assert_eq!(own.rdev(), fs::metadata(path).expect("there").rdev());
        }
        let error = devices(dir.path(), "/etc/hosts").provide(&spec()).expect_err("a file");
        assert!(error.to_string().contains("no device"), "{error}");
    }

    #[test]
    fn a_checkpoint_allows_this_nodes_devices_and_keeps_all_else() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("x.tar");
        let rule = |minor: u32| json!({ "allow": true, "type": "c", "major": 188, "minor": minor });
        let spec = json!({ "root": 1, "linux": { "resources": { "devices": [{ "allow": false }, rule(1)] } } });
        let mut builder = tar::Builder::new(fs::File::create(&path).expect("create"));
        for (name, text) in [
            ("a", b"before".to_vec()),
            ("spec.dump", serde_json::to_vec_pretty(&spec).expect("json")),
            ("b", b"after".to_vec()),
        ] {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            builder.append_data(&mut header, name, &text[..]).expect("append");
        }
        builder.finish().expect("finish");
        allow(&path, &[rule(65_535)]).expect("allow");
        allow(&path, &[rule(65_535)]).expect("allow again");
        let mut archive = tar::Archive::new(fs::File::open(&path).expect("open"));
        let texts: Vec<_> = archive
            .entries()
            .expect("entries")
            .map(|entry| io::read_to_string(entry.expect("entry")).expect("text"))
            .collect();
        assert_eq!((&*texts[0], &*texts[2]), ("before", "after"));
        let spec: Value = serde_json::from_str(&texts[1]).expect("json");
        let expected = json!({ "root": 1, "linux": { "resources": { "devices": [{ "allow": false }, rule(65_535)] } } });
        assert_eq!(spec, expected);
    }
}
