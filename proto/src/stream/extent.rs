//! How long a stream is: altogether, or so far.

use serde::{Deserialize, Serialize};

use crate::stream::frame::MAX_CHUNK_BYTES;

/// A stream's length as its sender knows it.
///
/// A stream may be sent while it is still being made. It only grows, its bytes do not
/// change any more once they are in it, and some day it is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Extent {
    /// So many bytes there are.
    pub bytes: u64,
    /// True when there will be no more.
    pub is_whole: bool,
}

impl Extent {
    /// A stream of so many bytes and no more.
    pub fn whole(bytes: u64) -> Self {
        Self { bytes, is_whole: true }
    }
    /// A stream that has so many bytes so far.
    pub fn growing(bytes: u64) -> Self {
        Self { bytes, is_whole: false }
    }
    /// How far it can be sent. While it grows a block that has begun waits to be full: sent in
    /// pieces it would have to be read and hashed once more. The first does not: the receiver
    /// is to know that it has begun.
    pub fn ready(&self) -> u64 {
        let block = u64::from(MAX_CHUNK_BYTES);
        if self.is_whole || self.bytes < block {
            self.bytes
        } else {
            self.bytes - self.bytes % block
        }
    }
    /// The length altogether, once known.
    pub fn total(&self) -> Option<u64> {
        self.is_whole.then_some(self.bytes)
    }

    /// What two statements about one stream say together, in whatever order they were
    /// made; `None` when they contradict each other.
    pub fn merge(self, other: Self) -> Option<Self> {
        let bytes = self.bytes.max(other.bytes);
        let fits = |extent: Self| !extent.is_whole || extent.bytes == bytes;
        let is_whole = self.is_whole || other.is_whole;
        (fits(self) && fits(other)).then_some(Self { bytes, is_whole })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_only_grows_and_is_whole_once() {
        let (growing, whole) = (Extent::growing, Extent::whole);
        assert_eq!(growing(5).merge(growing(3)), Some(growing(5)));
        assert_eq!(growing(5).merge(whole(7)), Some(whole(7)));
        assert_eq!(whole(7).merge(growing(5)), Some(whole(7)), "an old statement, come late");
        assert_eq!(whole(7).merge(growing(8)), None);
        assert_eq!(growing(8).merge(whole(7)), None);
        assert_eq!(whole(7).merge(whole(8)), None);
        assert_eq!(whole(7).merge(whole(7)), Some(whole(7)));
    }
}
