//! What one end says to the other of what is in volumes: words, in files of many.
//!
//! Said twice, a word does no harm: a part may be begun again by whoever carries it out.

use std::io::{self, Read, Write};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The most of a file that one word carries; also what is compared with what the other end has.
pub(super) const BLOCK_BYTES: usize = 16 << 10;
/// What no word comes near to.
const LIMIT_BYTES: usize = 1 << 20;

/// One thing to do at a path, which begins with the volume's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Word {
    /// Nothing is there any more.
    Gone(#[serde(with = "path_bytes")] PathBuf),
    /// This is there.
    Make {
        #[serde(with = "path_bytes")]
        path: PathBuf,
        what: What,
        /// What is there of the same kind is another one, and goes first.
        is_fresh: bool,
    },
    /// These bytes are in the file there.
    Data {
        #[serde(with = "path_bytes")]
        path: PathBuf,
        offset: u64,
        #[serde(with = "plain_bytes")]
        bytes: Vec<u8>,
    },
    /// So many bytes in the file there are zero.
    Zero {
        #[serde(with = "path_bytes")]
        path: PathBuf,
        offset: u64,
        bytes: u64,
    },
    /// Whose it is, and all else but what is in it; said when nothing more changes there.
    Meta {
        #[serde(with = "path_bytes")]
        path: PathBuf,
        meta: Meta,
    },
    /// The part is over.
    End(Stage),
}

/// What there can be at a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum What {
    Directory,
    /// A file of so many bytes.
    File(u64),
    /// A symbolic link to that.
    Symlink(#[serde(with = "path_bytes")] PathBuf),
    /// One more name of the file at that path.
    Name(#[serde(with = "path_bytes")] PathBuf),
    /// A fifo, socket or device, by its mode and device number.
    Node {
        mode: u32,
        device: u64,
    },
}

/// What is known of a path besides its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Meta {
    pub(super) mode: u32,
    pub(super) owner: u32,
    pub(super) group: u32,
    pub(super) modified: (i64, i64),
    pub(super) attributes: Vec<(Vec<u8>, Vec<u8>)>,
}

/// How far the volumes are at the other end, once a part is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Stage {
    /// In the middle.
    Under,
    /// They were as here a moment ago; what changed since follows.
    Ahead,
    /// They are as here: the container stands still.
    Whole,
}

/// Writes a word behind those before it.
pub(super) fn write(word: &Word, to: &mut impl Write) -> io::Result<u64> {
    let bytes = postcard::to_stdvec(word).map_err(io::Error::other)?;
    let len = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    to.write_all(&len.to_le_bytes())?;
    to.write_all(&bytes)?;
    Ok(u64::from(len) + 4)
}

/// The next word.
pub(super) fn read(from: &mut impl Read) -> io::Result<Word> {
    let mut len = [0; 4];
    from.read_exact(&mut len)?;
    let len = u32::from_le_bytes(len) as usize;
    if len > LIMIT_BYTES {
        return Err(io::Error::other(format!("a word of {len} bytes")));
    }
    let mut bytes = vec![0; len];
    from.read_exact(&mut bytes)?;
    postcard::from_bytes(&bytes).map_err(io::Error::other)
}

/// A path is bytes, and need not be text.
mod path_bytes {
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    use std::path::{Path, PathBuf};

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
        path.as_os_str().as_bytes().serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
        Vec::deserialize(from).map(|bytes| OsString::from_vec(bytes).into())
    }
}

/// Bytes as one piece: one by one they are slow.
mod plain_bytes {
    use std::fmt;

    use serde::de::{Deserializer, Error, Visitor};
    use serde::ser::Serializer;

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Vec<u8>;
            fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
                to.write_str("bytes")
            }
            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }
        }
        from.deserialize_bytes(Bytes)
    }
}
