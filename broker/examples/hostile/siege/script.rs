//! What one sequence is: all of it follows from the seed and the sequence's number.

use fastrand::Rng;

use super::mutate::mutate;
use super::words::{Account, Version, Words};

/// How a connection is left behind a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The next sequence comes on the same one.
    Stay,
    Close,
    Reset,
    /// Nothing more is sent; what is answered is waited for.
    HalfClose,
}

/// One sequence.
#[derive(Debug)]
pub(crate) struct Script {
    /// What comes first on a new connection.
    pub(crate) opening: Vec<u8>,
    /// The rest waits until that is answered.
    pub(crate) is_patient: bool,
    pub(crate) bytes: Vec<u8>,
    /// What is answered is read.
    pub(crate) is_reading: bool,
    pub(crate) ending: Ending,
}

impl Script {
    pub(crate) fn new(
        seed: u64,
        number: u64,
        version: Version,
        prefix: &str,
        account: Option<&Account>,
    ) -> Self {
        // Neighbours have nothing in common.
        let mut rng = Rng::with_seed(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut words = Words { rng: &mut rng, version, prefix };
        let mut opening = match words.rng.u32(0..20) {
            0 => Vec::new(),
            _ => words.connect(account),
        };
        let mut bytes = sequence(&mut words, account);
        let other = sequence(&mut words, account);
        let is_patient = rng.u32(0..8) > 0;
        // Seldom: a password that is wrong costs the broker 20 ms, and nobody comes in.
        if rng.u32(0..30) == 0 {
            mutate(&mut rng, &mut opening, &other);
        }
        if rng.u32(0..3) == 0 {
            mutate(&mut rng, &mut bytes, &other);
        }
        let is_reading = rng.u32(0..50) > 0;
        let ending = match rng.u32(0..20) {
            0 => Ending::Close,
            1 => Ending::Reset,
            2 => Ending::HalfClose,
            _ => Ending::Stay,
        };
        Self { opening, is_patient, bytes, is_reading, ending }
    }
}

fn sequence(words: &mut Words<'_>, account: Option<&Account>) -> Vec<u8> {
    (0..words.rng.u32(1..8)).flat_map(|_| words.packet(account)).collect()
}
