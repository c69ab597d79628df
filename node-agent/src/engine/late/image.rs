//! What of a container's changes podman leaves out of its tar.
//!
//! podman takes what the container added. Of the image's own files that it changed podman takes
//! only those of which there is one by chance on the host: it looks for the path there, and not
//! below the container's root (`CRCreateRootFsDiffTar`, seen in 5.4.2). A directory of the image
//! that was removed and made anew it removes at the other end, after it has put into it what is
//! new. Nor does it take the mode and the owner of a directory of the image.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::below::is_absent;
use super::changes::{Stamp, is_opaque, scan};

/// The layers of a container's image, from the top.
#[derive(Debug)]
pub(in crate::engine) struct Image(Vec<PathBuf>);

impl Image {
    /// Reads which layers are below the container's own, whose directory this is.
    pub(in crate::engine) fn below(layer: &Path) -> io::Result<Self> {
        let names = match fs::read(layer.join("lower")) {
            Err(error) if is_absent(&error) => return Ok(Self(Vec::new())),
            read => read?,
        };
        let all = layer.parent().unwrap_or(layer);
        let names = names.trim_ascii().split(|byte| *byte == b':').filter(|name| !name.is_empty());
        Ok(Self(names.map(|name| all.join(std::ffi::OsStr::from_bytes(name))).collect()))
    }

    /// True where the image may have something at the path. One that an upper layer hides counts too.
    pub(super) fn has(&self, path: &Path) -> bool {
        self.0.iter().any(|layer| layer.join(path).symlink_metadata().is_ok())
    }

    /// What is in `upper` and will be missing where podman restores a checkpoint of its own.
    pub(in crate::engine) fn left_out(&self, upper: &Path) -> io::Result<Vec<PathBuf>> {
        let is_on_host = |path: &Path| {
            fs::metadata(Path::new("/").join(path)).is_ok_and(|found| !found.is_dir())
        };
        let all = scan(upper)?;
        let mut anew = Vec::new();
        for (path, _) in all.iter().filter(|(path, stamp)| stamp.is_directory() && self.has(path)) {
            if is_opaque(&upper.join(path))? {
                anew.push(path);
            }
        }
        let is_left_out = |(path, stamp): &(&PathBuf, &Stamp)| {
            anew.iter().any(|dir| path.starts_with(dir))
                || stamp.is_file() && self.has(path) && !is_on_host(path)
        };
        Ok(all.iter().filter(is_left_out).map(|(path, _)| path.clone()).collect())
    }
}
