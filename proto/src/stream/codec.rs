//! Which compression pays: the link's speed against the processor's.
//!
//! A codec that packs at `speed` bytes a second into a share `ratio` of the size moves
//! min(speed, link / ratio) bytes a second. Speed and ratio are measured on the
//! stream's own chunks; every so often one chunk tries another codec, because what
//! compresses changes within a stream.

use std::time::Duration;

use crate::stream::frame::Codec;

/// Two chunks in so many are trials of another codec.
const TRIAL_EVERY: u32 = 256;
/// The choice is reconsidered after so many chunks.
const PERIOD: u32 = 16;
/// What another codec must gain before it is taken.
const WORTHWHILE: f64 = 1.1;

const COMPRESSING: [Codec; 2] = [Codec::Lz4, Codec::Zstd];

/// Chooses a codec for each chunk of one stream.
#[derive(Debug, Default)]
pub struct Chooser {
    current: Option<Codec>,
    chunks: u32,
    measured: [Option<Measure>; 2],
    link: Option<f64>,
    encoder_wait: Duration,
    link_wait: Duration,
}

/// What a codec did with the chunks it was given.
#[derive(Debug, Clone, Copy)]
struct Measure {
    bytes_per_second: f64,
    ratio: f64,
}

impl Chooser {
    /// A chooser that knows nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The codec that the next chunk should try.
    pub fn choose(&mut self) -> Codec {
        let number = self.chunks;
        self.chunks = self.chunks.wrapping_add(1);
        match (number % TRIAL_EVERY) as usize {
            trial if trial < COMPRESSING.len() => COMPRESSING[trial],
            _ => self.current(),
        }
    }

    /// The codec that most chunks use now.
    pub fn current(&self) -> Codec {
        self.current.unwrap_or(Codec::None)
    }

    /// Learns from a chunk that was packed.
    pub fn packed(&mut self, codec: Codec, raw_bytes: u64, packed_bytes: u64, took: Duration) {
        let Some(slot) = COMPRESSING.iter().position(|c| *c == codec) else { return };
        let new = Measure {
            bytes_per_second: raw_bytes as f64 / took.as_secs_f64().max(1e-6),
            ratio: packed_bytes as f64 / raw_bytes.max(1) as f64,
        };
        let old = self.measured[slot].unwrap_or(new);
        self.measured[slot] = Some(Measure {
            bytes_per_second: (old.bytes_per_second + new.bytes_per_second) / 2.0,
            ratio: (old.ratio + new.ratio) / 2.0,
        });
    }

    /// Learns what the sender waited for with one chunk, and how fast the wire was
    /// (bytes per second, as the receiver measured it) while it did.
    pub fn sent(&mut self, encoder_wait: Duration, link_wait: Duration, wire_rate: Option<u64>) {
        self.encoder_wait += encoder_wait;
        self.link_wait += link_wait;
        if !self.chunks.is_multiple_of(PERIOD) {
            return;
        }
        if let Some(wire_rate) = wire_rate {
            let wire_rate = wire_rate as f64;
            self.link = Some(if self.link_wait >= self.encoder_wait {
                wire_rate
            } else {
                // The processor held the link back: it could take more than it was given.
                self.link.unwrap_or(wire_rate).max(wire_rate) * 1.25
            });
            self.reconsider();
        }
        (self.encoder_wait, self.link_wait) = (Duration::ZERO, Duration::ZERO);
    }

    /// Learns that the sender had nothing it was allowed to send for so long.
    pub fn waited_for_link(&mut self, wait: Duration) {
        self.link_wait += wait;
    }

    fn reconsider(&mut self) {
        let mut best = (self.current(), self.throughput(self.current()) * WORTHWHILE);
        for codec in [Codec::None, Codec::Lz4, Codec::Zstd] {
            let throughput = self.throughput(codec);
            if codec != self.current() && throughput > best.1 {
                best = (codec, throughput);
            }
        }
        self.current = Some(best.0);
    }

    /// Bytes of the stream per second with this codec; 0 while it was not tried.
    fn throughput(&self, codec: Codec) -> f64 {
        let link = self.link.unwrap_or(f64::INFINITY);
        match COMPRESSING.iter().position(|c| *c == codec) {
            None => link,
            Some(slot) => self.measured[slot]
                .map_or(0.0, |m| m.bytes_per_second.min(link / m.ratio.max(1e-3))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends chunks over a link of so many MB/s; answers the codec that it settles on.
    fn settle(link: f64, lz4: (f64, f64), zstd: (f64, f64)) -> Codec {
        let mut chooser = Chooser::new();
        let raw = 128.0 * 1024.0;
        for _ in 0..1000 {
            let codec = chooser.choose();
            let (speed, ratio) = match codec {
                Codec::None => (f64::INFINITY, 1.0),
                Codec::Lz4 => lz4,
                Codec::Zstd => zstd,
            };
            let packing = Duration::from_secs_f64(raw / (speed * 1e6));
            let sending = Duration::from_secs_f64(raw * ratio / (link * 1e6));
            chooser.packed(codec, raw as u64, (raw * ratio) as u64, packing);
            let slower = packing.max(sending).as_secs_f64();
            let wire_rate = (raw * ratio / slower) as u64;
            chooser.sent(
                packing.saturating_sub(sending),
                sending.saturating_sub(packing),
                Some(wire_rate),
            );
        }
        chooser.current()
    }

    #[test]
    fn a_slow_link_is_worth_the_denser_codec() {
        assert_eq!(settle(12.5, (1500.0, 0.55), (400.0, 0.45)), Codec::Zstd);
    }

    #[test]
    fn a_fast_link_is_not_held_back_by_a_codec() {
        assert_eq!(settle(2000.0, (1500.0, 0.55), (400.0, 0.45)), Codec::None);
    }

    #[test]
    fn a_link_in_between_takes_the_quick_codec() {
        assert_eq!(settle(600.0, (1500.0, 0.55), (400.0, 0.45)), Codec::Lz4);
    }

    #[test]
    fn what_does_not_shrink_is_left_alone() {
        assert_eq!(settle(12.5, (1500.0, 1.0), (400.0, 0.99)), Codec::None);
    }
}
