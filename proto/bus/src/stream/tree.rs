//! The digest of a stream, put together from those of its blocks.
//!
//! A chunk that is one block is checked by that block's digest, so the digest of the whole
//! costs no second pass over bytes that travelled as blocks. Both are XXH3 with 128 bits
//! (docs/adr/0003): they find damage; who may write on the way is the broker's matter.

use godwit_proto::id::Digest;
use godwit_proto::stream::Span;
use godwit_proto::stream::frame::MAX_CHUNK_BYTES;
use twox_hash::XxHash3_128;

/// What the whole is digested in.
pub(super) const BLOCK_BYTES: u64 = MAX_CHUNK_BYTES as u64;
/// Sets the whole apart from a block whose bytes look like digests.
const WHOLE: u64 = u64::MAX;

/// A stream's digest in the making, in order.
pub(super) struct Tree {
    /// The digests of the blocks before the open one.
    blocks: XxHash3_128,
    closed_bytes: u64,
    open: XxHash3_128,
    open_bytes: u64,
}

/// The digest of the bytes that begin at `start` of a stream: elsewhere the same ones have another.
pub(super) fn value(start: u64, bytes: &[u8]) -> Digest {
    digest(XxHash3_128::oneshot_with_seed(start, bytes), bytes.len() as u64)
}

/// The hash and how much was hashed.
fn digest(hash: u128, bytes: u64) -> Digest {
    let mut digest = [0; 32];
    digest[..16].copy_from_slice(&hash.to_be_bytes());
    digest[16..24].copy_from_slice(&bytes.to_be_bytes());
    Digest(digest)
}

impl Tree {
    /// The tree over nothing.
    pub(super) fn new() -> Self {
        let (blocks, open) = (XxHash3_128::with_seed(WHOLE), XxHash3_128::with_seed(0));
        Self { blocks, closed_bytes: 0, open, open_bytes: 0 }
    }

    /// How many bytes of the stream it covers.
    pub(super) fn position(&self) -> u64 {
        self.closed_bytes + self.open_bytes
    }

    /// True when the next bytes may be given as a block's digest.
    pub(super) fn takes_block(&self, span: Span) -> bool {
        let is_next = span.start == self.position() && span.len() == BLOCK_BYTES;
        is_next && self.open_bytes == 0
    }

    /// Adds a whole block by its digest; only one that [`Tree::takes_block`].
    pub(super) fn add_block(&mut self, value: Digest) {
        self.blocks.write(&value.0);
        self.closed_bytes += BLOCK_BYTES;
        self.open = XxHash3_128::with_seed(self.closed_bytes);
    }

    /// Adds bytes.
    pub(super) fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = (BLOCK_BYTES - self.open_bytes) as usize;
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.open.write(now);
            self.open_bytes += now.len() as u64;
            if self.open_bytes == BLOCK_BYTES {
                self.open_bytes = 0;
                self.add_block(digest(self.open.finish_128(), BLOCK_BYTES));
            }
            bytes = later;
        }
    }

    /// The digest of everything so far.
    pub(super) fn digest(&self) -> Digest {
        let mut blocks = self.blocks.clone();
        blocks.write(&digest(self.open.finish_128(), self.open_bytes).0);
        digest(blocks.finish_128(), self.position())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_and_bytes_in_any_mixture_make_the_digest_of_the_whole() {
        let block = BLOCK_BYTES as usize;
        let mut whole = vec![0; 9 * block];
        blake3::Hasher::new().finalize_xof().fill(&mut whole);
        let ends = [0, 1, 1000, block - 1, block, block + 1];
        let multiples = (2..=9).map(|n| n * block).flat_map(|n| [n - 77, n]);
        let mut found = std::collections::BTreeSet::new();
        for end in ends.into_iter().chain(multiples) {
            // Every fourth block is given in two pieces.
            let mut bytewise = Tree::new();
            whole[..end].chunks(1000).for_each(|bytes| bytewise.update(bytes));
            assert!(found.insert(bytewise.digest().0), "{end} bytes: known already");
            let (mut tree, mut by_value) = (Tree::new(), 0);
            for (number, bytes) in whole[..end].chunks(block).enumerate() {
                let span = Span::new(tree.position(), tree.position() + bytes.len() as u64);
                if number % 4 != 3 && tree.takes_block(span) {
                    tree.add_block(value(span.start, bytes));
                    by_value += 1;
                } else {
                    let (front, back) = bytes.split_at(bytes.len() / 3);
                    tree.update(front);
                    tree.update(back);
                }
                assert_eq!(tree.position(), span.end);
            }
            assert_eq!(tree.digest(), bytewise.digest(), "{end} bytes");
            assert_eq!(by_value > 0, end >= block);
        }
    }

    #[test]
    fn a_block_in_another_place_is_another_one() {
        let block = [7; BLOCK_BYTES as usize];
        assert_ne!(value(0, &block), value(BLOCK_BYTES, &block));
        let mut tree = Tree::new();
        tree.update(&block);
        assert_ne!(tree.digest(), value(0, &block), "a whole is no block");
    }
}
