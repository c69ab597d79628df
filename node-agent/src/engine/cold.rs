//! Cold moves: the container's own files, without its memory.
//!
//! What a container changed of its image is overlay's upper directory, with deletions as
//! device nodes (0, 0) and opaque directories as `trusted.overlay.opaque`. The system's tar
//! keeps both; the log travels beside it.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

use super::EngineError;
use super::containers::Stored;
use super::layout;

/// What tar must keep for overlay: every attribute, ids as numbers, holes.
const KEEP: [&str; 4] = ["--xattrs", "--xattrs-include=*", "--numeric-owner", "--sparse"];

/// Writes the stopped container's files and log to `file`.
pub(super) async fn dump(
    stored: &Stored,
    graphroot: &Path,
    file: &Path,
) -> Result<(), EngineError> {
    let userdata = layout::userdata(graphroot, &stored.podman_id);
    let layer = stored.layer_dir(graphroot);
    let mut args: Vec<&OsStr> = vec!["-cf".as_ref(), file.as_ref()];
    args.extend(KEEP.iter().map(OsStr::new));
    args.extend(["-C".as_ref(), layer.as_os_str(), "diff".as_ref()]);
    if userdata.join("ctr.log").exists() {
        args.extend(["-C".as_ref(), userdata.as_os_str(), "ctr.log".as_ref()]);
    }
    tar(&args, "writing", file).await?;
    let synced = async { tokio::fs::File::open(file).await?.sync_all().await };
    synced
        .await
        .map_err(|source| EngineError::Io { what: format!("writing {}", file.display()), source })
}

/// Puts the files and the log of `file` into the container, which was made and never started.
pub(super) async fn unpack(
    stored: &Stored,
    graphroot: &Path,
    file: &Path,
) -> Result<(), EngineError> {
    let layer = stored.layer_dir(graphroot);
    let mut args: Vec<&OsStr> = vec!["-xpf".as_ref(), file.as_ref()];
    args.extend(KEEP[..3].iter().map(OsStr::new));
    args.extend(["-C".as_ref(), layer.as_os_str(), "diff".as_ref()]);
    tar(&args, "unpacking", file).await?;
    let userdata = layout::userdata(graphroot, &stored.podman_id);
    let args =
        ["-xf".as_ref(), file.as_ref(), "-C".as_ref(), userdata.as_os_str(), "ctr.log".as_ref()];
    match tar(&args, "unpacking", file).await {
        // A container that never wrote a line has no log.
        Err(EngineError::Refused { message, .. }) if message.contains("ctr.log: Not found") => {
            Ok(())
        }
        other => other,
    }
}

/// Runs the system's tar; killed when this is dropped.
async fn tar(args: &[&OsStr], verb: &str, file: &Path) -> Result<(), EngineError> {
    let what = format!("{verb} the cold image {}", file.display());
    let output = Command::new("tar")
        .args(args)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|source| EngineError::Io { what: "running tar".into(), source })?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(EngineError::Refused { what, message })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[tokio::test]
    async fn files_and_log_arrive_as_they_were() {
        let (from, to) = (tempfile::tempdir().expect("dir"), tempfile::tempdir().expect("dir"));
        let id = "6f1d1c1e-1111-4222-8333-444455556666".parse().expect("id");
        let stored = Stored { id, podman_id: "cc".into(), layer: "l".into() };
        for root in [from.path(), to.path()] {
            fs::create_dir_all(stored.layer_dir(root).join("diff")).expect("mkdir");
            fs::create_dir_all(layout::userdata(root, "cc")).expect("mkdir");
        }
        let image = from.path().join("cold.tar");
        fs::write(stored.layer_dir(from.path()).join("diff/state"), "42").expect("write");
        dump(&stored, from.path(), &image).await.expect("dump without a log");
        unpack(&stored, to.path(), &image).await.expect("unpack without a log");
        fs::write(layout::userdata(from.path(), "cc").join("ctr.log"), "line").expect("write");
        dump(&stored, from.path(), &image).await.expect("dump");
        unpack(&stored, to.path(), &image).await.expect("unpack");
        let read = |file: &Path| fs::read_to_string(file).expect("read");
        assert_eq!(read(&stored.layer_dir(to.path()).join("diff/state")), "42");
        assert_eq!(read(&layout::userdata(to.path(), "cc").join("ctr.log")), "line");
    }

    #[tokio::test]
    async fn a_truncated_image_is_refused() {
        let root = tempfile::tempdir().expect("dir");
        let id = "6f1d1c1e-1111-4222-8333-444455556666".parse().expect("id");
        let stored = Stored { id, podman_id: "cc".into(), layer: "l".into() };
        fs::create_dir_all(stored.layer_dir(root.path())).expect("mkdir");
        let image = root.path().join("cold.tar");
        fs::write(&image, [1; 700]).expect("write");
        assert!(unpack(&stored, root.path(), &image).await.is_err());
    }
}
