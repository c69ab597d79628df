//! The BLAKE3 of a stream, put together from its blocks.
//!
//! BLAKE3 is a tree, and a block's chaining value does not depend on its neighbours. A
//! chunk that is one block is checked by just that value, so the digest of the whole costs
//! no second pass over bytes that travelled as blocks. The first block is always hashed as
//! bytes: alone it would be the root, which is hashed differently.

use blake3::Hasher;
use blake3::hazmat::{
    ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root,
};
use godwit_proto::id::Digest;
use godwit_proto::stream::Span;
use godwit_proto::stream::frame::MAX_CHUNK_BYTES;

/// What the tree is built of.
pub(super) const BLOCK_BYTES: u64 = MAX_CHUNK_BYTES as u64;

/// A stream's digest in the making, in order.
pub(super) struct Tree {
    /// The subtrees before the open block, largest first; the newest block is not merged
    /// before another follows it.
    stack: Vec<ChainingValue>,
    blocks: u64,
    open: Hasher,
    open_bytes: u64,
}

/// The value of the block that begins at `start`.
pub(super) fn block_value(start: u64, bytes: &[u8]) -> Digest {
    Digest(opened(start).update(bytes).finalize_non_root())
}

fn opened(start: u64) -> Hasher {
    let mut hasher = Hasher::new();
    hasher.set_input_offset(start);
    hasher
}

impl Tree {
    /// The tree over nothing.
    pub(super) fn new() -> Self {
        Self { stack: Vec::new(), blocks: 0, open: Hasher::new(), open_bytes: 0 }
    }

    /// How many bytes of the stream it covers.
    pub(super) fn position(&self) -> u64 {
        self.blocks * BLOCK_BYTES + self.open_bytes
    }

    /// True when the next bytes may be given as a block's value.
    pub(super) fn takes_block(&self, span: Span) -> bool {
        let is_next = span.start == self.position() && span.len() == BLOCK_BYTES;
        is_next && span.start > 0 && span.start.is_multiple_of(BLOCK_BYTES)
    }

    /// Adds a whole block by its value; only one that [`Tree::takes_block`].
    pub(super) fn add_block(&mut self, value: Digest) {
        self.close();
        self.push(value.0);
    }

    /// Adds bytes.
    pub(super) fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            self.close();
            let room = (BLOCK_BYTES - self.open_bytes) as usize;
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.open.update(now);
            self.open_bytes += now.len() as u64;
            bytes = later;
        }
    }

    /// BLAKE3 of everything so far.
    pub(super) fn digest(&self) -> Digest {
        if self.blocks == 0 {
            return Digest(*self.open.finalize().as_bytes());
        }
        let mut stack = self.stack.clone();
        if self.open_bytes > 0 {
            merge(&mut stack, self.blocks);
            stack.push(self.open.finalize_non_root());
        }
        let mut right = stack.pop().unwrap_or_default();
        while stack.len() > 1 {
            let left = stack.pop().unwrap_or_default();
            right = merge_subtrees_non_root(&left, &right, Mode::Hash);
        }
        let left = stack.pop().unwrap_or_default();
        Digest(*merge_subtrees_root(&left, &right, Mode::Hash).as_bytes())
    }

    /// Pushes the open block if it is full.
    fn close(&mut self) {
        if self.open_bytes == BLOCK_BYTES {
            let value = self.open.finalize_non_root();
            self.open_bytes = 0;
            self.push(value);
        }
    }

    fn push(&mut self, value: ChainingValue) {
        merge(&mut self.stack, self.blocks);
        self.stack.push(value);
        self.blocks += 1;
        self.open = opened(self.blocks * BLOCK_BYTES);
    }
}

/// Merges the subtrees of `blocks` blocks as far as the tree over more than those does.
fn merge(stack: &mut Vec<ChainingValue>, blocks: u64) {
    while stack.len() > blocks.count_ones() as usize {
        let (Some(right), Some(left)) = (stack.pop(), stack.pop()) else { return };
        stack.push(merge_subtrees_non_root(&left, &right, Mode::Hash));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_and_bytes_in_any_mixture_make_the_digest_of_the_whole() {
        let block = BLOCK_BYTES as usize;
        let mut whole = vec![0; 9 * block];
        Hasher::new().finalize_xof().fill(&mut whole);
        let ends = [0, 1, 1000, block - 1, block, block + 1];
        let multiples = (2..=9).map(|n| n * block).flat_map(|n| [n - 77, n]);
        for end in ends.into_iter().chain(multiples) {
            // Every fourth block is given in two pieces.
            let (mut tree, mut by_value) = (Tree::new(), 0);
            for (number, bytes) in whole[..end].chunks(block).enumerate() {
                let span = Span::new(tree.position(), tree.position() + bytes.len() as u64);
                if number % 4 != 3 && tree.takes_block(span) {
                    tree.add_block(block_value(span.start, bytes));
                    by_value += 1;
                } else {
                    let (front, back) = bytes.split_at(bytes.len() / 3);
                    tree.update(front);
                    tree.update(back);
                }
                assert_eq!(tree.position(), span.end);
            }
            assert_eq!(tree.digest().0, *blake3::hash(&whole[..end]).as_bytes(), "{end} bytes");
            assert_eq!(by_value > 0, end >= 2 * block);
        }
    }
}
