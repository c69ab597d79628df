//! Tenants' volumes on this node: directories that containers see, and that move with them.
//!
//! ```text
//! <data dir>/volumes/<tenant>/<name>    what the container sees
//! <data dir>/volumes/<tenant>/.<name>   the id of the container that has it
//! ```
//!
//! A volume moves as words (`word`) of what changed since the other end was told last
//! (`pack`, from what `look` finds), which the other end carries out (`apply`). The container
//! may write all the while and put a link in any directory's place: every path is looked up
//! without following one (`tree`).

mod apply;
mod look;
mod pack;
#[cfg(test)]
mod tests;
mod tree;
mod word;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use godwit_proto::container::ContainerSpec;
use godwit_proto::id::{ContainerId, Tenant, VolumeName};

pub(crate) use apply::apply;
pub(crate) use look::Writers;
pub(crate) use pack::{Parts, Sent};
use tree::Tree;
pub(crate) use word::Stage;

/// The volumes of a node.
#[derive(Debug, Clone)]
pub struct Volumes {
    root: PathBuf,
}

impl Volumes {
    /// Those below `root`.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Where a volume's directory is, the same on every node: a checkpoint names it.
    pub(crate) fn path(&self, tenant: &Tenant, name: &VolumeName) -> PathBuf {
        self.tenant(tenant).join(name.as_str())
    }

    fn tenant(&self, tenant: &Tenant) -> PathBuf {
        self.root.join(tenant.as_str())
    }

    fn holder(&self, tenant: &Tenant, name: &VolumeName) -> PathBuf {
        self.tenant(tenant).join(format!(".{name}"))
    }

    /// The tree in which the container's volumes lie.
    fn tree(&self, spec: &ContainerSpec) -> io::Result<Tree> {
        let names = spec.volumes.iter().map(|volume| volume.name.as_str().into()).collect();
        Tree::open(&self.tenant(&spec.tenant), names)
    }

    /// Makes the container's volumes, and notes that it has them; those that are there stay as
    /// they are. Blocks.
    pub(crate) fn make(&self, spec: &ContainerSpec) -> io::Result<()> {
        if !spec.volumes.is_empty() {
            // What is in them is for containers: other users of the host stay out.
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.root)?;
        }
        for volume in &spec.volumes {
            fs::create_dir_all(self.path(&spec.tenant, &volume.name))?;
            fs::write(self.holder(&spec.tenant, &volume.name), spec.id.to_string())?;
        }
        Ok(())
    }

    /// As [`Volumes::make`], with nothing in them: they are another node's, and come from there.
    /// Blocks.
    pub(crate) fn make_empty(&self, spec: &ContainerSpec) -> io::Result<()> {
        for volume in &spec.volumes {
            remove_dir(&self.path(&spec.tenant, &volume.name))?;
        }
        self.make(spec)
    }

    /// Removes what is here of the container's volumes; those that another one has by now stay.
    /// Blocks.
    pub(crate) fn drop_of(&self, spec: &ContainerSpec) -> io::Result<()> {
        for volume in &spec.volumes {
            let has_it = fs::read_to_string(self.holder(&spec.tenant, &volume.name));
            if has_it.is_ok_and(|id| id.parse() == Ok::<ContainerId, _>(spec.id)) {
                self.remove(&spec.tenant, &volume.name)?;
            }
        }
        Ok(())
    }

    /// Removes a volume, whoever had it; absent is success. Blocks.
    pub(crate) fn remove(&self, tenant: &Tenant, name: &VolumeName) -> io::Result<()> {
        remove_dir(&self.path(tenant, name))?;
        // Last: as long as the note is there, a removal that was cut short is begun again.
        match fs::remove_file(self.holder(tenant, name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// How much disk those volumes take; absent ones take none. Blocks.
    pub(crate) fn bytes(&self, tenant: &Tenant, names: &[VolumeName]) -> io::Result<u64> {
        let dir = self.tenant(tenant);
        if !dir.exists() {
            return Ok(0);
        }
        let names: BTreeSet<_> = names.iter().map(|name| name.as_str().into()).collect();
        let nobody = Writers { since: SystemTime::now(), mapped: BTreeSet::new() };
        Ok(look::look(&Tree::open(&dir, names)?, &nobody)?.disk_bytes())
    }

    /// Puts on disk what is in the container's volumes. Blocks.
    pub(crate) fn sync(&self, spec: &ContainerSpec) -> io::Result<()> {
        if spec.volumes.is_empty() {
            return Ok(());
        }
        let dir = fs::File::open(self.tenant(&spec.tenant))?;
        nix::unistd::syncfs(&dir).map_err(io::Error::from)
    }
}

/// Of files below the container's root those that are in its volumes.
fn in_volumes(spec: &ContainerSpec, writers: &Writers) -> Writers {
    let mut found = BTreeSet::new();
    for volume in &spec.volumes {
        let place = Path::new(volume.path.trim_start_matches('/'));
        let below = writers.mapped.iter().filter_map(|path| path.strip_prefix(place).ok());
        found.extend(below.map(|path| Path::new(volume.name.as_str()).join(path)));
    }
    Writers { mapped: found, ..*writers }
}

/// Removes a directory with all in it, following no link; absent is success.
///
/// By coreutils' rm, which holds a few directories at a time: the standard library holds one for
/// each level, and how many levels there are is the container's choice.
fn remove_dir(dir: &Path) -> io::Result<()> {
    let rm = Command::new("rm").args(["-rf", "--one-file-system", "--"]).arg(dir).output()?;
    if rm.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("rm: {}", String::from_utf8_lossy(&rm.stderr).trim())))
}
