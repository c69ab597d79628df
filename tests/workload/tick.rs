//! What the counter and its observer share: the datagram of a tick, the clocks,
//! and the wish to end. Nothing but std and the C library's few calls below.

use std::sync::atomic::{AtomicBool, Ordering};

const MAGIC: [u8; 8] = *b"godwtick";

/// The length of a tick's datagram.
pub const TICK_BYTES: usize = 56;

/// One tick, as it travels: the magic, then the fields in this order, big-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tick {
    /// Chosen at random when the counter starts: a counter that was started anew
    /// instead of moved shows as another instance.
    pub instance: [u8; 16],
    /// The count, from 1.
    pub number: u64,
    /// `CLOCK_REALTIME` of the tick.
    pub realtime_ns: u64,
    /// `CLOCK_MONOTONIC` of the tick, as the counter sees it.
    pub monotonic_ns: u64,
    /// Pages found with a content that is not theirs, since the start.
    pub corrupt_pages: u64,
}

impl Tick {
    /// The datagram of this tick.
    pub fn encode(&self) -> [u8; TICK_BYTES] {
        let mut datagram = [0; TICK_BYTES];
        datagram[..8].copy_from_slice(&MAGIC);
        datagram[8..24].copy_from_slice(&self.instance);
        let words = [self.number, self.realtime_ns, self.monotonic_ns, self.corrupt_pages];
        for (place, word) in datagram[24..].chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_be_bytes());
        }
        datagram
    }

    /// The tick in a datagram; `None` if it holds something else.
    pub fn decode(datagram: &[u8]) -> Option<Self> {
        let datagram: &[u8; TICK_BYTES] = datagram.try_into().ok()?;
        if datagram[..8] != MAGIC {
            return None;
        }
        let word = |at: usize| {
            datagram[at..at + 8].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
        };
        Some(Self {
            instance: datagram[8..24].try_into().ok()?,
            number: word(24),
            realtime_ns: word(32),
            monotonic_ns: word(40),
            corrupt_pages: word(48),
        })
    }
}

/// An instance as people write it.
pub fn instance_name(instance: &[u8; 16]) -> String {
    let hex: String = instance.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[repr(C)]
struct TimeSpec {
    seconds: i64,
    nanoseconds: i64,
}

unsafe extern "C" {
    fn clock_gettime(clock: i32, time: *mut TimeSpec) -> i32;
    fn signal(number: i32, handler: extern "C" fn(i32)) -> usize;
}

fn clock_ns(clock: i32) -> u64 {
    let mut time = TimeSpec { seconds: 0, nanoseconds: 0 };
    // SAFETY: `time` is valid for writes and has the layout of the C library's
    // 64-bit timespec.
    unsafe { clock_gettime(clock, &mut time) };
    time.seconds as u64 * 1_000_000_000 + time.nanoseconds as u64
}

/// Now, by `CLOCK_REALTIME`.
pub fn realtime_ns() -> u64 {
    clock_ns(0)
}

/// Now, by `CLOCK_MONOTONIC`.
pub fn monotonic_ns() -> u64 {
    clock_ns(1)
}

static ENDING: AtomicBool = AtomicBool::new(false);

extern "C" fn end(_: i32) {
    ENDING.store(true, Ordering::Relaxed);
}

/// From now on SIGTERM and SIGINT only make [`is_ending`] true. As pid 1 of a
/// container a program that sets no handler cannot be ended by them at all.
pub fn end_on_signals() {
    for number in [2, 15] {
        // SAFETY: the handler does nothing but store to an atomic.
        unsafe { signal(number, end) };
    }
}

/// Has somebody asked this process to end?
pub fn is_ending() -> bool {
    ENDING.load(Ordering::Relaxed)
}
