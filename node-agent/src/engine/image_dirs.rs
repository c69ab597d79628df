//! Where CRIU's images lie: a tmpfs of the agent's, bounded, or the disk where that is full.
//!
//! podman's metadata names the directory on both nodes, so its path is the same on both:
//! `<rundir>/images/<container>-<epoch>`. Where the memory does not suffice that path is a
//! link to a directory on the disk; who reads and writes there does not notice.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use godwit_proto::id::{ContainerId, Epoch};
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};

use super::{EngineError, mounts};

/// Kept free on the tmpfs beyond what an attempt says that it needs.
const MARGIN_BYTES: u64 = 16 << 20;

/// The directories of all attempts on this node.
#[derive(Debug, Clone)]
pub struct ImageDirs {
    memory: PathBuf,
    disk: PathBuf,
    /// What the attempts of this life said that they need, in bytes.
    reserved: Arc<Mutex<BTreeMap<PathBuf, u64>>>,
}

impl ImageDirs {
    /// Mounts the tmpfs at `<rundir>/images` unless an earlier life of the agent did.
    ///
    /// It takes at most `limit_bytes`, half of the machine's memory where that is `None`. A
    /// node that cannot mount one uses the disk.
    ///
    /// # Errors
    /// `Io` where a directory cannot be made.
    pub fn open(
        rundir: &Path,
        workdir: &Path,
        limit_bytes: Option<u64>,
    ) -> Result<Self, EngineError> {
        let dirs = Self {
            memory: rundir.join("images"),
            disk: workdir.join("images"),
            reserved: Arc::default(),
        };
        for dir in [&dirs.memory, &dirs.disk] {
            fs::create_dir_all(dir).map_err(failed("making", dir))?;
        }
        if !dirs.is_mounted() {
            let size = limit_bytes.map_or("50%".to_owned(), |bytes| bytes.to_string());
            let options = format!("mode=0700,size={size}");
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
            let from = Some("godwit-images");
            let mounted = mount(from, &dirs.memory, Some("tmpfs"), flags, Some(options.as_str()));
            if let Err(error) = mounted {
                tracing::warn!(%error, dir = %dirs.memory.display(), "no tmpfs for checkpoints: they go to the disk");
            }
        }
        Ok(dirs)
    }

    /// The directory of one attempt, there or not.
    pub fn path(&self, container: ContainerId, epoch: Epoch) -> PathBuf {
        self.memory.join(format!("{container}-{epoch}"))
    }

    /// True when so much fits into the tmpfs beside what is there and what others will write.
    fn fits(&self, bytes: u64, reserved: u64) -> bool {
        if !self.is_mounted() {
            return false;
        }
        let Ok(stat) = statfs(&self.memory) else { return false };
        let in_bytes = |blocks: u64| blocks.saturating_mul(stat.block_size().cast_unsigned());
        bytes <= in_bytes(stat.blocks_available())
            && bytes.saturating_add(reserved) <= in_bytes(stat.blocks())
    }

    /// Makes the attempt's directory, empty: in memory if `expected_bytes` fit there.
    ///
    /// # Errors
    /// `Io` where it cannot be made, or what an earlier try left not be removed.
    pub fn make(
        &self,
        container: ContainerId,
        epoch: Epoch,
        expected_bytes: u64,
    ) -> Result<PathBuf, EngineError> {
        let path = self.path(container, epoch);
        remove(&path)?;
        let bytes = expected_bytes.saturating_add(MARGIN_BYTES);
        let mut reserved = self.reserved.lock().unwrap_or_else(PoisonError::into_inner);
        reserved.retain(|dir, _| dir.exists());
        if self.fits(bytes, reserved.values().sum()) {
            fs::create_dir(&path).map_err(failed("making", &path))?;
            reserved.insert(path.clone(), bytes);
        } else {
            let on_disk = self.disk.join(format!("{container}-{epoch}"));
            mounts::remove_dir(&on_disk)?;
            fs::create_dir_all(&on_disk).map_err(failed("making", &on_disk))?;
            symlink(&on_disk, &path).map_err(failed("linking", &path))?;
        }
        Ok(path)
    }

    /// Removes what the attempts of a container have left, but for `keep`; none is success.
    ///
    /// # Errors
    /// `Io` where something stays.
    pub fn clear(&self, container: ContainerId, keep: Option<Epoch>) -> Result<(), EngineError> {
        let keep = keep.map(|epoch| format!("{container}-{epoch}"));
        for dir in [&self.memory, &self.disk] {
            for entry in fs::read_dir(dir).map_err(failed("reading", dir))? {
                let entry = entry.map_err(failed("reading", dir))?;
                let name = entry.file_name().to_string_lossy().into_owned();
                if name.starts_with(&format!("{container}-")) && Some(&name) != keep.as_ref() {
                    remove(&entry.path())?;
                }
            }
        }
        Ok(())
    }

    /// Removes every directory and unmounts the tmpfs; none there is success.
    ///
    /// # Errors
    /// `Io` where something stays.
    pub fn discard(rundir: &Path, workdir: &Path) -> Result<(), EngineError> {
        for dir in [rundir.join("images"), workdir.join("images")] {
            mounts::remove_dir(&dir)?;
        }
        Ok(())
    }

    fn is_mounted(&self) -> bool {
        statfs(&self.memory).is_ok_and(|stat| stat.filesystem_type() == TMPFS_MAGIC)
            && mounts::is_mount_point(&self.memory)
    }
}

/// The container and the attempt that such a directory is named after.
pub(crate) fn container_of(dir: &Path) -> Option<ContainerId> {
    let name = dir.file_name()?.to_str()?;
    let (container, epoch) = (name.get(..36)?, name.get(36..)?);
    epoch.strip_prefix('-')?.parse::<Epoch>().ok()?;
    container.parse().ok()
}

fn remove(path: &Path) -> Result<(), EngineError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(found) if found.is_dir() => mounts::remove_dir(path),
        _ => fs::remove_file(path).map_err(failed("removing", path)),
    }
}

fn failed(doing: &str, path: &Path) -> impl FnOnce(io::Error) -> EngineError {
    let what = format!("{doing} {}", path.display());
    move |source| EngineError::Io { what, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids() -> (ContainerId, Epoch) {
        let id = "6f1d1c1e-1111-4222-8333-444455556666".parse().expect("id");
        (id, Epoch { generation: 3, counter: 7 })
    }

    #[test]
    fn a_directory_tells_whose_it_is() {
        let (id, epoch) = ids();
        let dir = PathBuf::from(format!("/run/godwit/images/{id}-{epoch}"));
        assert_eq!(container_of(&dir), Some(id));
        for other in ["/x", "/x/6f1d1c1e-1111-4222-8333-444455556666", "/x/checkpoint"] {
            assert_eq!(container_of(Path::new(other)), None, "{other}");
        }
    }

    #[test]
    fn what_does_not_fit_into_memory_lies_on_the_disk_under_the_same_path() {
        let root = tempfile::tempdir().expect("tempdir");
        let (id, epoch) = ids();
        // No tmpfs is mounted here: nothing fits.
        let (memory, disk) = (root.path().join("m"), root.path().join("d"));
        let dirs = ImageDirs { memory, disk, reserved: Arc::default() };
        fs::create_dir(&dirs.memory).expect("mkdir");
        fs::create_dir(&dirs.disk).expect("mkdir");
        let path = dirs.make(id, epoch, 1).expect("make");
        assert_eq!(path, dirs.path(id, epoch));
        fs::write(path.join("pages-1.img"), "x").expect("write");
        assert!(dirs.disk.join(format!("{id}-{epoch}/pages-1.img")).exists());
        let again = dirs.make(id, epoch, 1).expect("make again");
        assert!(!again.join("pages-1.img").exists(), "a new try finds it empty");
        dirs.clear(id, Some(epoch)).expect("clear");
        assert!(path.exists(), "the attempt in hand is kept");
        dirs.clear(id, None).expect("clear");
        assert!(fs::symlink_metadata(&path).is_err());
        assert_eq!(fs::read_dir(&dirs.disk).expect("read").count(), 0);
    }

    #[test]
    fn attempts_that_have_written_nothing_yet_are_counted() {
        let root = tempfile::tempdir().expect("tempdir");
        let limit = 4 * MARGIN_BYTES;
        let dirs =
            ImageDirs::open(&root.path().join("run"), &root.path().join("work"), Some(limit))
                .expect("mounting a tmpfs needs root");
        let (id, epoch) = ids();
        let is_in_memory = |counter: u32| {
            let path = dirs.make(id, Epoch { counter, ..epoch }, MARGIN_BYTES).expect("make");
            fs::symlink_metadata(path).expect("made").is_dir()
        };
        assert_eq!([1, 2, 3].map(is_in_memory), [true, true, false]);
        dirs.clear(id, None).expect("clear");
        assert!(is_in_memory(4), "what is gone counts no more");
        nix::mount::umount(&dirs.memory).expect("umount");
    }
}
