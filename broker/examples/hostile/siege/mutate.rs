//! What line noise, a broken client or an attacker makes of a valid stream.

use fastrand::Rng;

/// No stream grows beyond this.
const LARGEST: usize = 1 << 20;

/// Changes a stream in one to four places; `other` is another one, whose pieces come between.
pub(crate) fn mutate(rng: &mut Rng, bytes: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..rng.u32(1..5) {
        if bytes.is_empty() {
            return;
        }
        let (from, to) = range(rng, bytes.len());
        match rng.u32(0..8) {
            0 | 1 => bytes[from] ^= 1 << rng.u8(0..8),
            2 => bytes[from] = *rng.choice(&[0, 1, 0x7f, 0x80, 0xff]).unwrap_or(&0),
            3 => drop(bytes.drain(from..to)),
            4 if bytes.len() < LARGEST => {
                let again = bytes[from..to].to_vec();
                bytes.splice(to..to, again);
            }
            5 => {
                let moved: Vec<u8> = bytes.drain(from..to).collect();
                let at = rng.usize(0..=bytes.len());
                bytes.splice(at..at, moved);
            }
            6 => bytes.truncate(from),
            _ if bytes.len() < LARGEST => interleave(rng, bytes, other),
            _ => {}
        }
    }
}

/// A place, and one a little behind it or at the very end.
fn range(rng: &mut Rng, length: usize) -> (usize, usize) {
    let from = rng.usize(0..length);
    let most = if rng.u32(0..8) == 0 { length } else { length.min(from + 20) };
    (from, rng.usize(from..=most))
}

/// Both streams in pieces, in turns.
fn interleave(rng: &mut Rng, bytes: &mut Vec<u8>, other: &[u8]) {
    let (mut one, mut two) = (&bytes[..], other);
    let mut mixed = Vec::with_capacity(one.len() + two.len());
    while !one.is_empty() || !two.is_empty() {
        for rest in [&mut one, &mut two] {
            let (piece, behind) = rest.split_at(rng.usize(0..=rest.len().min(64)));
            mixed.extend_from_slice(piece);
            *rest = behind;
        }
    }
    *bytes = mixed;
}
