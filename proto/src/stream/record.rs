//! How one stream carries many files: records, each a piece of a file.
//!
//! ```text
//! ┌──────────┬──────┬────────────┬─────────────┬───────┐
//! │ name len │ name │ offset     │ length      │ bytes │ the next record …
//! │ 1 byte   │      │ 8, little  │ 8, little   │       │
//! └──────────┴──────┴────────────┴─────────────┴───────┘
//! ```
//!
//! The same file may appear in many records, in any order of its parts. Names are plain:
//! whatever a hostile sender writes, nothing lands outside the directory that the
//! receiver chose.

/// The longest header.
pub const MAX_HEADER_BYTES: usize = 1 + MAX_NAME_BYTES + 16;
const MAX_NAME_BYTES: usize = 255;

/// A piece of a file, as its header tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The file's name in the receiver's directory.
    pub name: Box<str>,
    /// Where in that file the bytes belong.
    pub offset: u64,
    /// How many they are.
    pub len: u64,
}

/// Why a header is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Not a name that a file in one directory can have.
    #[error("{name:?} is not the plain name of a file")]
    Name {
        /// As it was written; what is not UTF-8 is replaced.
        name: String,
    },
    /// No file can have these bytes.
    #[error("a piece of {name:?} at {offset} of {len} bytes is beyond what a file can be")]
    Beyond {
        /// The file.
        name: Box<str>,
        /// Where the bytes would belong.
        offset: u64,
        /// How many they would be.
        len: u64,
    },
}

impl Record {
    /// A record of a plain name: not empty, at most 255 bytes, no slash, no NUL, not `.`
    /// and not `..`.
    ///
    /// # Errors
    /// [`RecordError`] for every other name, and for bytes that no file can have.
    pub fn new(name: &str, offset: u64, len: u64) -> Result<Self, RecordError> {
        let is_plain = !matches!(name, "" | "." | "..")
            && name.len() <= MAX_NAME_BYTES
            && !name.contains(['/', '\0']);
        if !is_plain {
            return Err(RecordError::Name { name: name.to_owned() });
        }
        let name: Box<str> = name.into();
        match offset.checked_add(len) {
            Some(end) if i64::try_from(end).is_ok() => Ok(Self { name, offset, len }),
            _ => Err(RecordError::Beyond { name, offset, len }),
        }
    }

    /// The header's bytes.
    pub fn header(&self) -> Vec<u8> {
        let name = self.name.as_bytes();
        // A record's name was checked when it was made: the length fits a byte.
        let mut bytes = vec![name.len() as u8];
        bytes.extend(name);
        bytes.extend(self.offset.to_le_bytes());
        bytes.extend(self.len.to_le_bytes());
        bytes
    }

    /// Reads the header at the front of `bytes`, and how long it is; `None` when there is
    /// more to come.
    ///
    /// # Errors
    /// As [`Record::new`].
    pub fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, RecordError> {
        let Some((&name_len, rest)) = bytes.split_first() else { return Ok(None) };
        let name_len = usize::from(name_len);
        let Some((name, rest)) = rest.split_at_checked(name_len) else { return Ok(None) };
        let (Some(offset), Some(len)) = (number(rest, 0), number(rest, 8)) else {
            return Ok(None);
        };
        let lossy = || RecordError::Name { name: String::from_utf8_lossy(name).into_owned() };
        let name = std::str::from_utf8(name).map_err(|_| lossy())?;
        Ok(Some((Self::new(name, offset, len)?, 1 + name_len + 16)))
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..at + 8)?;
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

/// What a piece of a stream is, as [`Demultiplexer::next`] finds it.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A record begins: its header ended here.
    Begins(Record),
    /// Bytes of the file of the newest record.
    Bytes {
        /// Where in the file they belong.
        offset: u64,
        /// The bytes.
        bytes: &'a [u8],
    },
}

/// Takes a stream apart into its records, in order, in pieces of any size.
#[derive(Debug, Clone, Default)]
pub struct Demultiplexer {
    header: Vec<u8>,
    offset: u64,
    left: u64,
}

impl Demultiplexer {
    /// Goes on with what there is of a header, or in the middle of a record's bytes:
    /// `left` of them belong to its file at `offset`.
    pub fn resume(header: Vec<u8>, offset: u64, left: u64) -> Self {
        Self { header, offset, left }
    }

    /// What there is of a header that is not complete.
    pub fn header(&self) -> &[u8] {
        &self.header
    }

    /// The first piece of `input`, which is shortened by it; `None` when the input is
    /// used up.
    ///
    /// # Errors
    /// When a header is refused: the stream cannot be read any further.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Piece<'a>>, RecordError> {
        if self.left == 0 {
            while let Some((byte, rest)) = input.split_first() {
                self.header.push(*byte);
                *input = rest;
                if let Some((record, _)) = Record::parse(&self.header)? {
                    self.header.clear();
                    (self.offset, self.left) = (record.offset, record.len);
                    return Ok(Some(Piece::Begins(record)));
                }
            }
            return Ok(None);
        }
        if input.is_empty() {
            return Ok(None);
        }
        let len = usize::try_from(self.left).unwrap_or(usize::MAX).min(input.len());
        let (bytes, rest) = input.split_at(len);
        let offset = self.offset;
        *input = rest;
        self.offset += len as u64;
        self.left -= len as u64;
        Ok(Some(Piece::Bytes { offset, bytes }))
    }

    /// True between two records, where a stream may end.
    pub fn is_between(&self) -> bool {
        self.left == 0 && self.header.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn records() -> impl Strategy<Value = Vec<(String, u64, Vec<u8>)>> {
        let bytes = proptest::collection::vec(any::<u8>(), 0..300);
        proptest::collection::vec(("[a-z.-]{3,40}", 0u64..1 << 40, bytes), 0..8)
    }

    proptest! {
        #[test]
        fn what_was_put_together_is_taken_apart_wherever_it_is_cut(
            records in records(), cuts in proptest::collection::vec(1usize..100, 1..30)
        ) {
            let mut stream = Vec::new();
            for (name, offset, bytes) in &records {
                stream.extend(Record::new(name, *offset, bytes.len() as u64).unwrap().header());
                stream.extend(bytes);
            }
            let mut demultiplexer = Demultiplexer::default();
            let mut found: Vec<(String, u64, Vec<u8>)> = Vec::new();
            let mut cuts = cuts.iter().cycle();
            let mut rest = &stream[..];
            while !rest.is_empty() {
                let (mut input, after) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
                while let Some(piece) = demultiplexer.next(&mut input).unwrap() {
                    match piece {
                        Piece::Begins(record) => {
                            found.push((record.name.into(), record.offset, Vec::new()));
                        }
                        Piece::Bytes { offset, bytes } => {
                            let (_, begin, so_far) = found.last_mut().unwrap();
                            prop_assert_eq!(*begin + so_far.len() as u64, offset);
                            so_far.extend(bytes);
                        }
                    }
                }
                rest = after;
            }
            prop_assert!(demultiplexer.is_between());
            prop_assert_eq!(found, records);
        }

        #[test]
        fn any_bytes_are_records_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let (mut demultiplexer, mut input) = (Demultiplexer::default(), &bytes[..]);
            while let Ok(Some(piece)) = demultiplexer.next(&mut input) {
                if let Piece::Begins(record) = piece {
                    prop_assert!(!record.name.contains('/') && &*record.name != "..");
                }
            }
        }
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_refused() {
        for name in ["", ".", "..", "/etc/passwd", "a/b", "../x", "a\0b", &"x".repeat(256)] {
            assert!(matches!(Record::new(name, 0, 1), Err(RecordError::Name { .. })), "{name:?}");
            let mut header = vec![name.len() as u8];
            header.extend(name.as_bytes());
            header.extend([0; 16]);
            if name.len() <= MAX_NAME_BYTES {
                assert!(Record::parse(&header).is_err(), "{name:?}");
            }
        }
        assert!(Record::new("pages-1.img", 0, 1).is_ok() && Record::new("..x", 0, 1).is_ok());
    }

    #[test]
    fn bytes_that_no_file_can_have_are_refused() {
        for (offset, len) in [(u64::MAX, 1), (1 << 63, 0), (1 << 62, 1 << 62)] {
            let refused = Record::new("pages", offset, len);
            assert!(matches!(refused, Err(RecordError::Beyond { .. })), "{offset} {len}");
        }
    }
}
