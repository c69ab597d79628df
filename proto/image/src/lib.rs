//! Archives of container images: the layers that they have, and copies of them that lack some.
//!
//! An engine that holds a layer already does not read it in an archive: containers/storage looks
//! for it by the digest of its content, which the image's configuration names. So an archive may
//! have an empty file in its place. Where the layer is not held after all, the load fails by that
//! digest, and nothing is taken in.
//!
//! Only docker-archives are known, as `podman save` and `docker save` write them: `manifest.json`
//! names a configuration and, in the same order as that, the files of the layers.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;

/// The most layers that are told apart, one bit each; an image of more comes whole.
pub const MAX_LAYERS: usize = 64;
/// The largest description that is read.
const JSON_BYTES: u64 = 4 << 20;
/// What says how an archive is laid out.
const MANIFEST: &str = "manifest.json";

/// Why an archive's layers cannot be told apart.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It is no tar, or is cut short, or the copy cannot be written.
    #[error("the archive cannot be read or copied")]
    Io(#[from] io::Error),
    /// A file of it is not there, or is larger than any such file.
    #[error("the archive has no usable {0}")]
    Lacks(String),
    /// A file of it does not say what it should.
    #[error("{file} in the archive is not what it should be")]
    Malformed {
        /// Which file.
        file: String,
        /// What is wrong in it.
        source: serde_json::Error,
    },
    /// Several images or none, or layers that do not go with the configuration, or too many.
    #[error("the archive is not one image with the layers of its configuration")]
    Odd,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Described {
    config: String,
    layers: Vec<String>,
}

#[derive(Deserialize)]
struct Configuration {
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

/// Which layers of an image are meant, by their place from the lowest on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Layers(pub u64);

impl Layers {
    /// Those of `all` that are not among `held`; `None` when there are too many to be told apart.
    pub fn lacking(all: &[String], held: &BTreeSet<String>) -> Option<Self> {
        let lacks = |layer| u64::from(!held.contains(layer));
        let bits = all.iter().enumerate().map(|(place, layer)| lacks(layer) << place);
        (all.len() <= MAX_LAYERS).then(|| Self(bits.fold(0, |bits, bit| bits | bit)))
    }

    /// How many.
    pub fn count(self) -> usize {
        self.0.count_ones() as usize
    }

    /// True for one of them.
    pub fn has(self, place: usize) -> bool {
        place < MAX_LAYERS && self.0 >> place & 1 == 1
    }
}

/// The layers of the image in a docker-archive, the lowest first, each by the digest of its content
/// (`sha256:…`). Blocks.
///
/// # Errors
/// Every way in which a file can fail to be such an archive.
pub fn layers(archive: &mut (impl Read + Seek)) -> Result<Vec<String>, ArchiveError> {
    Ok(read(archive)?.1)
}

/// Copies a docker-archive, with the content of those layers alone. Blocks.
///
/// # Errors
/// Every way in which a file can fail to be such an archive, and what writing fails with.
pub fn copy(
    archive: &mut (impl Read + Seek),
    wanted: Layers,
    to: impl Write,
) -> Result<(), ArchiveError> {
    let (files, _) = read(archive)?;
    // A layer that is there twice has one file.
    let of = |is_wanted| {
        let files = files.iter().enumerate().filter(move |(at, _)| wanted.has(*at) == is_wanted);
        files.map(|(_, file)| file.as_str()).collect::<BTreeSet<_>>()
    };
    let (kept, left) = (of(true), of(false));
    let mut copy = tar::Builder::new(to);
    archive.seek(SeekFrom::Start(0))?;
    let mut tar = tar::Archive::new(archive);
    for entry in tar.entries_with_seek()? {
        let entry = entry?;
        let (mut header, path) = (entry.header().clone(), entry.path()?.into_owned());
        let name = plain(&path);
        if let Some(target) = entry.link_name()? {
            copy.append_link(&mut header, &path, target)?;
        } else if left.contains(&*name) && !kept.contains(&*name) {
            header.set_size(0);
            copy.append_data(&mut header, &path, io::empty())?;
        } else {
            copy.append_data(&mut header, &path, entry)?;
        }
    }
    copy.into_inner()?.flush()?;
    Ok(())
}

/// As [`layers`], of a file.
///
/// # Errors
/// As [`layers`].
pub fn layers_of_file(archive: &Path) -> Result<Vec<String>, ArchiveError> {
    layers(&mut BufReader::new(File::open(archive)?))
}

/// As [`copy`], of one file into another.
///
/// # Errors
/// As [`copy`].
pub fn copy_file(archive: &Path, wanted: Layers, to: &Path) -> Result<(), ArchiveError> {
    copy(&mut File::open(archive)?, wanted, BufWriter::new(File::create(to)?))
}

/// The files of the layers, and their digests.
fn read(archive: &mut (impl Read + Seek)) -> Result<(Vec<String>, Vec<String>), ArchiveError> {
    let images: Vec<Described> = json(archive, MANIFEST)?;
    let [image] = &*images else { return Err(ArchiveError::Odd) };
    let configuration: Configuration = json(archive, &image.config)?;
    let digests = configuration.rootfs.diff_ids;
    if digests.len() != image.layers.len() || digests.len() > MAX_LAYERS {
        return Err(ArchiveError::Odd);
    }
    Ok((image.layers.clone(), digests))
}

fn json<T: DeserializeOwned>(
    archive: &mut (impl Read + Seek),
    file: &str,
) -> Result<T, ArchiveError> {
    archive.seek(SeekFrom::Start(0))?;
    let mut tar = tar::Archive::new(archive);
    for entry in tar.entries_with_seek()? {
        let entry = entry?;
        if plain(&entry.path()?) == file && entry.size() <= JSON_BYTES {
            let malformed = |source| ArchiveError::Malformed { file: file.to_owned(), source };
            return serde_json::from_reader(entry).map_err(malformed);
        }
    }
    Err(ArchiveError::Lacks(file.to_owned()))
}

/// A file's name as `manifest.json` has it.
fn plain(path: &Path) -> String {
    path.to_string_lossy().trim_start_matches("./").to_owned()
}

#[cfg(test)]
mod tests;
