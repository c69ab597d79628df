//! Which podman container is which of ours, read from podman's storage on disk.
//!
//! podman itself blocks while a container is being restored; its storage writes
//! `containers.json` by rename, so the file can be read at any time.

use std::io;
use std::path::{Path, PathBuf};

use godwit_proto::id::ContainerId;
use serde::Deserialize;

use super::EngineError;

/// One of our containers as podman's storage records it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    /// Ours.
    pub(crate) id: ContainerId,
    /// podman's id, 64 hex digits, the same on source and target.
    pub(crate) podman_id: String,
    /// The id of its writable layer.
    pub(crate) layer: String,
}

/// The parts of an entry of `containers.json` that are read here.
#[derive(Deserialize)]
struct Entry {
    id: String,
    #[serde(default)]
    names: Vec<String>,
    #[serde(default)]
    layer: String,
}

/// Every container of ours in the storage at `graphroot`, in no particular order.
pub(crate) fn list(graphroot: &Path) -> Result<Vec<Stored>, EngineError> {
    let file = graphroot.join("overlay-containers/containers.json");
    let what = || format!("reading podman's list of containers {}", file.display());
    let text = match std::fs::read(&file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(|source| EngineError::Io { what: what(), source })?,
    };
    let entries: Vec<Entry> = serde_json::from_slice(&text)
        .map_err(|error| EngineError::Io { what: what(), source: error.into() })?;
    Ok(entries.into_iter().filter_map(ours).collect())
}

/// The container in the storage at `graphroot`, if it is there.
pub(crate) fn find(graphroot: &Path, id: ContainerId) -> Result<Option<Stored>, EngineError> {
    Ok(list(graphroot)?.into_iter().find(|stored| stored.id == id))
}

fn ours(entry: Entry) -> Option<Stored> {
    let id = entry.names.iter().find_map(|name| name.strip_prefix("godwit-")?.parse().ok())?;
    Some(Stored { id, podman_id: entry.id, layer: entry.layer })
}

impl Stored {
    /// The directory of its writable layer: `diff` in it is overlay's upper directory.
    pub(crate) fn layer_dir(&self, graphroot: &Path) -> PathBuf {
        graphroot.join("overlay").join(&self.layer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_carry_our_id_are_ours() {
        let root = tempfile::tempdir().expect("tempdir");
        assert_eq!(list(root.path()).expect("no storage yet"), []);
        let dir = root.path().join("overlay-containers");
        std::fs::create_dir(&dir).expect("mkdir");
        let id = "6f1d1c1e-1111-4222-8333-444455556666";
        let text = format!(
            r#"[{{"id":"aa","names":["web"],"layer":"l1"}},{{"id":"bb","names":["godwit-web"]}},
               {{"id":"cc","names":["godwit-{id}"],"layer":"l3","image":"x"}},{{"id":"dd"}}]"#
        );
        std::fs::write(dir.join("containers.json"), text).expect("write");
        let expected =
            Stored { id: id.parse().expect("id"), podman_id: "cc".into(), layer: "l3".into() };
        assert_eq!(list(root.path()).expect("list"), std::slice::from_ref(&expected));
        assert_eq!(find(root.path(), expected.id).expect("find"), Some(expected));
    }
}
