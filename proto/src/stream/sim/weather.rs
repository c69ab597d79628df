//! What the link does to messages, and what happens to the two ends meanwhile.

use proptest::prelude::*;

#[derive(Debug, Clone)]
pub(super) struct Weather {
    pub(super) seed: u64,
    pub(super) size_bytes: u64,
    pub(super) chunk_bytes: u32,
    pub(super) bytes_per_second: u64,
    pub(super) latency_ms: u64,
    pub(super) lost_percent: u64,
    pub(super) doubled_percent: u64,
    pub(super) jitter_ms: u64,
    pub(super) receiver_restarts: Vec<u64>,
    pub(super) sender_restarts: Vec<u64>,
    /// The link is dark from the first to the second, in ms.
    pub(super) dark_ms: (u64, u64),
    pub(super) replaced_at_ms: Option<u64>,
    /// When the stream grows, in ms: each time by the same; empty: it is whole at once.
    pub(super) growths_ms: Vec<u64>,
    /// The receiver writes in order, and holds what comes too early.
    pub(super) is_in_order: bool,
}

impl Weather {
    /// A good link and a file that is whole at once.
    pub(super) fn fair(size_bytes: u64) -> Self {
        Self {
            seed: 1,
            size_bytes,
            chunk_bytes: 64 << 10,
            bytes_per_second: 100_000_000,
            latency_ms: 1,
            lost_percent: 0,
            doubled_percent: 0,
            jitter_ms: 0,
            receiver_restarts: vec![],
            sender_restarts: vec![],
            dark_ms: (0, 0),
            replaced_at_ms: None,
            growths_ms: vec![],
            is_in_order: false,
        }
    }
}

pub(super) fn any_weather() -> impl Strategy<Value = Weather> {
    let moments = || proptest::collection::vec(0u64..400, 0..3);
    (
        (any::<u64>(), 0u64..3_000_000, 3000u32..100_000, 1_000_000u64..200_000_000),
        (0u64..30, 0u64..40, 0u64..20, 0u64..20),
        (moments(), moments(), (0u64..300, 0u64..300), proptest::option::of(0u64..300)),
        (proptest::collection::vec(0u64..400, 0..20), any::<bool>()),
    )
        .prop_map(|((seed, size_bytes, chunk_bytes, bytes_per_second), link, ends, kind)| {
            Weather {
                seed,
                size_bytes,
                chunk_bytes,
                bytes_per_second,
                latency_ms: link.0,
                lost_percent: link.1,
                doubled_percent: link.2,
                jitter_ms: link.3,
                receiver_restarts: ends.0,
                sender_restarts: ends.1,
                dark_ms: ends.2,
                replaced_at_ms: ends.3,
                growths_ms: kind.0,
                is_in_order: kind.1,
            }
        })
}
