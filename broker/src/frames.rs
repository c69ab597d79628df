//! Bytes on their way to a socket: small ones gathered, large ones as they are.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

/// From here on a payload is not copied.
const WHOLE_FROM: usize = 4096;

/// So much is shown at a time, and not much more: a socket may take megabytes at once, which takes
/// as long.
const AT_A_TIME: usize = 128 << 10;

/// Pieces of a stream, in order; written by vectors where the socket takes them.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    pieces: VecDeque<Bytes>,
    /// What comes after the pieces.
    pub(crate) tail: BytesMut,
}

impl Frames {
    /// Adds a payload.
    pub(crate) fn push(&mut self, payload: &Bytes) {
        if payload.len() < WHOLE_FROM {
            self.tail.extend_from_slice(payload);
        } else {
            self.seal();
            self.pieces.push_back(payload.clone());
        }
    }

    /// Ends what is gathered: [`Buf`] shows what is sealed.
    pub(crate) fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.pieces.push_back(self.tail.split().freeze());
        }
    }
}

impl Buf for Frames {
    fn remaining(&self) -> usize {
        self.pieces.iter().map(Bytes::len).sum()
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&[], |piece| piece)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let (mut bytes, mut count) = (0, 0);
        for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
            *slice = IoSlice::new(piece);
            bytes += piece.len();
            count += 1;
            if bytes >= AT_A_TIME {
                break;
            }
        }
        count
    }

    fn advance(&mut self, mut count: usize) {
        while let Some(first) = self.pieces.front_mut()
            && count > 0
        {
            let here = count.min(first.len());
            first.advance(here);
            count -= here;
            if first.is_empty() {
                self.pieces.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_come_out_as_they_went_in_however_they_are_taken() {
        let (small, large) = (Bytes::from(vec![1; 10]), Bytes::from(vec![2; 5000]));
        for step in [1, 7, 4999, 20_000] {
            let (mut frames, mut all) = (Frames::default(), Vec::new());
            for payload in [&small, &large, &small, &small, &large, &large] {
                frames.tail.extend_from_slice(b"head");
                frames.push(payload);
                all.extend_from_slice(b"head");
                all.extend_from_slice(payload);
            }
            frames.seal();
            assert_eq!(frames.remaining(), all.len());
            let mut out = Vec::new();
            while frames.has_remaining() {
                let mut slices = [IoSlice::new(&[]); 3];
                let count = frames.chunks_vectored(&mut slices);
                let seen: Vec<u8> =
                    slices[..count].iter().flat_map(|slice| slice.iter().copied()).collect();
                let step = step.min(seen.len());
                out.extend_from_slice(&seen[..step]);
                frames.advance(step);
            }
            assert_eq!(out, all);
        }
    }
}
