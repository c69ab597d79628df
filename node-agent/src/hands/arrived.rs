//! Checkpoints that arrived whole: an agent that restarts before they were opened need not
//! receive them again.
//!
//! A note beside the file says so. It holds for the boot in which it was written: a
//! checkpoint is not synced to disk, for that would lengthen the gap.

use std::path::{Path, PathBuf};

use godwit_proto::id::Digest;
use uuid::Uuid;

use super::CallError;

/// The note's file: it begins with the checkpoint's name, so that sweeping takes it along.
pub(super) fn note_of(checkpoint: &Path) -> PathBuf {
    let mut name = checkpoint.as_os_str().to_owned();
    name.push(".arrived");
    name.into()
}

/// The digest of a checkpoint that lies there whole since an earlier life of the agent.
pub(super) async fn known(checkpoint: &Path, boot: Uuid) -> Option<Digest> {
    let text = tokio::fs::read(note_of(checkpoint)).await.ok()?;
    let (then, digest): (Uuid, Digest) = serde_json::from_slice(&text).ok()?;
    let is_there = tokio::fs::try_exists(checkpoint).await.unwrap_or(false);
    (then == boot && is_there).then_some(digest)
}

/// Notes that the checkpoint is there, whole.
pub(super) async fn note(checkpoint: &Path, boot: Uuid, digest: Digest) -> Result<(), CallError> {
    let file = note_of(checkpoint);
    // An id and bytes always encode.
    let text = serde_json::to_vec(&(boot, digest)).unwrap_or_default();
    tokio::fs::write(&file, text)
        .await
        .map_err(|source| CallError::File { what: format!("writing {}", file.display()), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_note_holds_for_its_boot_and_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x.checkpoint");
        let (boot, digest) = (Uuid::from_u128(1), Digest([7; 32]));
        assert_eq!(known(&file, boot).await, None);
        note(&file, boot, digest).await.unwrap();
        assert_eq!(known(&file, boot).await, None, "a note without its file proves nothing");
        std::fs::write(&file, "image").unwrap();
        assert_eq!(known(&file, boot).await, Some(digest));
        assert_eq!(known(&file, Uuid::from_u128(2)).await, None, "it was not synced");
        std::fs::write(note_of(&file), "[1").unwrap();
        assert_eq!(known(&file, boot).await, None, "a torn note proves nothing");
    }
}
