//! What a move will probably cost: from the container's last move, else from a rule of thumb.

use godwit_proto::container::Mode;

use crate::store::Prediction;

/// What a move did cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Past {
    /// Payload in bytes.
    pub bytes: u64,
    /// From admission to the end.
    pub total_ms: u64,
    /// How long the container stood still.
    pub gap_ms: u64,
}

/// What has to be done whatever the size: engine, freeze, restore.
const FIXED_GAP_MS: u64 = 400;
/// Admission, preparation and clean-up around the gap.
const AROUND_GAP_MS: u64 = 800;
/// How much of a checkpoint is written, sent and restored in a millisecond.
const BYTES_PER_MS: u64 = 100_000;

/// What moving `bytes` will cost; `bwlimit` in bytes per second.
pub fn predict(mode: Mode, bytes: u64, bwlimit: Option<u64>, past: Option<Past>) -> Prediction {
    let (gap_ms, total_ms) = match past.filter(|past| past.bytes > 0) {
        Some(past) => {
            (scale(past.gap_ms, bytes, past.bytes), scale(past.total_ms, bytes, past.bytes))
        }
        None => {
            let gap = FIXED_GAP_MS + bytes / BYTES_PER_MS;
            (gap, gap + AROUND_GAP_MS)
        }
    };
    let least = bwlimit.map_or(0, |limit| bytes.saturating_mul(1000) / limit.max(1));
    let gap_ms = match mode {
        Mode::Live | Mode::Plain => gap_ms.max(least),
        // It stands still from the stop to the start.
        Mode::Cold => total_ms.max(least),
    };
    Prediction { bytes, total_ms: total_ms.max(gap_ms), gap_ms }
}

/// The part of a time that grows with the size, scaled; the fixed part stays.
fn scale(past_ms: u64, bytes: u64, past_bytes: u64) -> u64 {
    let fixed = past_ms.min(FIXED_GAP_MS);
    let grown = u128::from(past_ms - fixed) * u128::from(bytes) / u128::from(past_bytes);
    fixed + u64::try_from(grown).unwrap_or(u64::MAX / 2)
}
