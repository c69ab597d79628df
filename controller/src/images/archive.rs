//! Reads what an image archive says of itself while it streams by.
//!
//! Two layouts are known, both written by `podman save`: docker-archive
//! (`manifest.json` names a configuration and layers) and oci-archive (`index.json`
//! names a manifest, which names them, all under `blobs/sha256/`). Entries come in
//! any order, so small JSON files are kept until the end; layers are only noted.

use std::collections::BTreeMap;
use std::io::{self, Read};

use godwit_proto::id::ImageId;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

/// The largest JSON file that may matter.
const JSON_BYTES: u64 = 4 << 20;
/// All JSON files that are kept, together.
const KEPT_BYTES: u64 = 32 << 20;
/// More files than any image's archive has.
const ENTRIES: usize = 100_000;
/// A tar's unit.
const BLOCK: usize = 512;

/// What an archive holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archive {
    /// The image's id: the digest of its configuration.
    pub id: ImageId,
    /// The names that it carries; perhaps none.
    pub names: Vec<String>,
    /// The architecture that it is for, in the image's own terms (`amd64`).
    pub arch: String,
    /// The operating system that it is for.
    pub os: String,
    /// The size of its layers in the archive.
    pub size_bytes: u64,
}

/// Why a stream of bytes is not an archive with one usable image.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The stream broke, or is no tar, or ends within a file.
    #[error("the archive cannot be read")]
    Unreadable(#[source] io::Error),
    /// It begins like a compressed file.
    #[error("the archive is compressed with {0}")]
    Compressed(&'static str),
    /// A tar, but not an image's; or its end is missing.
    #[error("the tar holds neither a manifest.json nor an index.json")]
    NoManifest,
    /// A file is named but not there.
    #[error("the archive lacks its file {0}")]
    Lacks(String),
    /// A file does not say what it should.
    #[error("{file} in the archive is not what it should be")]
    Malformed {
        /// Which file.
        file: String,
        /// What is wrong in it.
        source: serde_json::Error,
    },
    /// More than one image, or none.
    #[error("the archive holds {0} images")]
    NotOne(usize),
    /// The id is not a SHA-256.
    #[error("the archive's configuration has no SHA-256 name: {0}")]
    NoDigest(String),
    /// The configuration is not the one that the id names.
    #[error("the archive's configuration is damaged: its digest is not {0}")]
    Damaged(ImageId),
    /// Far beyond any image.
    #[error("the archive has too many or too large descriptions")]
    TooComplex,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

#[derive(Deserialize)]
struct OciIndex {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct OciManifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Configuration {
    architecture: String,
    os: String,
}

/// Reads an archive to its end and answers what it holds.
///
/// # Errors
/// Every way in which bytes can fail to be an archive is an [`ArchiveError`].
pub fn inspect(reader: impl Read) -> Result<Archive, ArchiveError> {
    let mut head = Vec::new();
    let mut reader = reader;
    reader.by_ref().take(6).read_to_end(&mut head).map_err(ArchiveError::Unreadable)?;
    if let Some(how) = compression(&head) {
        return Err(ArchiveError::Compressed(how));
    }
    Contents::read(head.as_slice().chain(reader))?.archive()
}

fn compression(head: &[u8]) -> Option<&'static str> {
    match head {
        [0x1f, 0x8b, ..] => Some("gzip"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some("zstd"),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => Some("xz"),
        [b'B', b'Z', b'h', ..] => Some("bzip2"),
        _ => None,
    }
}

/// The files of an archive: sizes of all, contents of those that may matter.
struct Contents {
    sizes: BTreeMap<String, u64>,
    kept: BTreeMap<String, Vec<u8>>,
}

impl Contents {
    fn read(reader: impl Read) -> Result<Self, ArchiveError> {
        let mut contents = Self { sizes: BTreeMap::new(), kept: BTreeMap::new() };
        let mut kept_bytes = 0;
        let mut archive = tar::Archive::new(Ending { inner: reader, zeros: 0 });
        for entry in archive.entries().map_err(ArchiveError::Unreadable)? {
            let mut entry = entry.map_err(ArchiveError::Unreadable)?;
            let path = entry.path().map_err(ArchiveError::Unreadable)?;
            let path = path.to_string_lossy().trim_start_matches("./").to_owned();
            let size = entry.size();
            let may_matter = path.ends_with(".json") || path.starts_with("blobs/");
            if may_matter && size <= JSON_BYTES {
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes).map_err(ArchiveError::Unreadable)?;
                if bytes.first().is_some_and(|first| matches!(first, b'{' | b'[')) {
                    kept_bytes += size;
                    contents.kept.insert(path.clone(), bytes);
                }
            }
            contents.sizes.insert(path, size);
            if kept_bytes > KEPT_BYTES || contents.sizes.len() > ENTRIES {
                return Err(ArchiveError::TooComplex);
            }
        }
        // What follows the end mark is part of the stream, if not of the archive.
        let mut rest = archive.into_inner();
        io::copy(&mut rest, &mut io::sink()).map_err(ArchiveError::Unreadable)?;
        // A tar that is cut between two files reads like a whole one.
        if rest.zeros < BLOCK {
            let cut = io::Error::new(io::ErrorKind::UnexpectedEof, "it has no end mark");
            return Err(ArchiveError::Unreadable(cut));
        }
        Ok(contents)
    }

    fn archive(&self) -> Result<Archive, ArchiveError> {
        if self.kept.contains_key("manifest.json") {
            let image = one(self.json::<Vec<DockerImage>>("manifest.json")?)?;
            let names = image.repo_tags.unwrap_or_default();
            self.image(&image.config, names, &image.layers)
        } else if self.kept.contains_key("index.json") {
            let entry = one(self.json::<OciIndex>("index.json")?.manifests)?;
            let name = ["io.containerd.image.name", "org.opencontainers.image.ref.name"]
                .into_iter()
                .find_map(|key| entry.annotations.get(key).cloned());
            let manifest: OciManifest = self.json(&blob(&entry.digest))?;
            let layers: Vec<_> = manifest.layers.iter().map(|layer| blob(&layer.digest)).collect();
            self.image(&blob(&manifest.config.digest), name.into_iter().collect(), &layers)
        } else {
            Err(ArchiveError::NoManifest)
        }
    }

    fn image(
        &self,
        config: &str,
        names: Vec<String>,
        layers: &[String],
    ) -> Result<Archive, ArchiveError> {
        let stem = config.rsplit('/').next().unwrap_or(config).trim_end_matches(".json");
        let id: ImageId = stem.parse().map_err(|_| ArchiveError::NoDigest(config.to_owned()))?;
        let configuration: Configuration = self.json(config)?;
        if hex(&Sha256::digest(self.bytes(config)?)) != id.as_str() {
            return Err(ArchiveError::Damaged(id));
        }
        let mut size_bytes = 0;
        for layer in layers {
            size_bytes +=
                self.sizes.get(layer).ok_or_else(|| ArchiveError::Lacks(layer.clone()))?;
        }
        let Configuration { architecture: arch, os } = configuration;
        Ok(Archive { id, names, arch, os, size_bytes })
    }

    fn bytes(&self, file: &str) -> Result<&[u8], ArchiveError> {
        self.kept.get(file).map(Vec::as_slice).ok_or_else(|| ArchiveError::Lacks(file.to_owned()))
    }

    fn json<T: DeserializeOwned>(&self, file: &str) -> Result<T, ArchiveError> {
        serde_json::from_slice(self.bytes(file)?)
            .map_err(|source| ArchiveError::Malformed { file: file.to_owned(), source })
    }
}

/// A reader that knows how many zeros it ended with: the end mark is blocks of them.
struct Ending<R> {
    inner: R,
    zeros: usize,
}

impl<R: Read> Read for Ending<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        let zeros = buffer[..length].iter().rev().take_while(|byte| **byte == 0).count();
        self.zeros = if zeros == length { self.zeros + zeros } else { zeros };
        Ok(length)
    }
}

fn one<T>(mut images: Vec<T>) -> Result<T, ArchiveError> {
    match (images.len(), images.pop()) {
        (1, Some(image)) => Ok(image),
        (count, _) => Err(ArchiveError::NotOne(count)),
    }
}

/// Where an oci-archive keeps what a digest names.
fn blob(digest: &str) -> String {
    format!("blobs/{}", digest.replacen(':', "/", 1))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing into a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
pub(crate) mod tests;
