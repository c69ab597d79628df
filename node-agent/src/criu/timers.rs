//! Timers that CRIU lets stand still.
//!
//! A timerfd that fires again and again is wound up by whoever reads it. One that has fired and was
//! not read yet has nothing left, and that is what CRIU writes down: restored, it never fires again.
//! Here it is wound up in the image of the files.

use prost::Message as _;
use prost::encoding::{decode_varint, encode_varint};

/// The image that has the open files of all processes.
pub(crate) const IMAGE: &str = "files.img";
/// Two magic numbers.
const HEAD: usize = 8;
/// `file_entry.tfd`: field 12, with a length.
const TIMER: u64 = 12 << 3 | 2;

/// The times of a `timerfd_entry`.
#[derive(Clone, PartialEq, prost::Message)]
struct Timer {
    #[prost(uint64, optional, tag = "7")]
    left_s: Option<u64>,
    #[prost(uint64, optional, tag = "8")]
    left_ns: Option<u64>,
    #[prost(uint64, optional, tag = "9")]
    every_s: Option<u64>,
    #[prost(uint64, optional, tag = "10")]
    every_ns: Option<u64>,
}

/// The image with those timers wound up, to fire at once; `None` if it has none of them, or is not
/// what is expected.
pub(crate) fn wind(image: &[u8]) -> Option<Vec<u8>> {
    let mut wound = image.get(..HEAD)?.to_vec();
    let mut rest = &image[HEAD..];
    let mut is_any = false;
    while let Some((size, after)) = rest.split_first_chunk() {
        let (entry, after) = after.split_at_checked(u32::from_le_bytes(*size) as usize)?;
        rest = after;
        let other = wind_entry(entry);
        is_any |= other.is_some();
        let entry = other.as_deref().unwrap_or(entry);
        wound.extend(u32::try_from(entry.len()).ok()?.to_le_bytes());
        wound.extend(entry);
    }
    (is_any && rest.is_empty()).then_some(wound)
}

/// The entry of a file, if it is such a timer.
fn wind_entry(entry: &[u8]) -> Option<Vec<u8>> {
    let mut rest = entry;
    loop {
        let before = entry.len() - rest.len();
        let key = decode_varint(&mut rest).ok()?;
        let value = decode_varint(&mut rest).ok()?;
        if key & 7 == 0 {
            continue;
        }
        let (field, after) = rest.split_at_checked(usize::try_from(value).ok()?)?;
        rest = after;
        if key != TIMER {
            continue;
        }
        let timer = Timer::decode(field).ok()?;
        let is_zero = |s: Option<u64>, ns: Option<u64>| s.unwrap_or(0) == 0 && ns.unwrap_or(0) == 0;
        if !is_zero(timer.left_s, timer.left_ns) || is_zero(timer.every_s, timer.every_ns) {
            return None;
        }
        // Of a number that is there twice the last one counts.
        let soon = Timer { left_ns: Some(1), ..Timer::default() }.encode_to_vec();
        let mut wound = entry[..before].to_vec();
        encode_varint(TIMER, &mut wound);
        encode_varint((field.len() + soon.len()) as u64, &mut wound);
        wound.extend([field, &soon, rest].concat());
        return Some(wound);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An image of those entries.
    fn image(entries: &[&[u8]]) -> Vec<u8> {
        let sized =
            entries.iter().flat_map(|entry| [&(entry.len() as u32).to_le_bytes(), *entry].concat());
        [1, 2, 3, 4, 5, 6, 7, 8].into_iter().chain(sized).collect()
    }

    /// type = TIMERFD, id = 3, tfd { id = 3, vnsec = `left`, insec = `every` }
    fn timer(left: u8, every: u8) -> Vec<u8> {
        vec![8, 17, 16, 3, 0x62, 6, 8, 3, 0x40, left, 0x50, every]
    }

    #[test]
    fn a_timer_that_fires_again_and_has_nothing_left_fires_at_once() {
        let other = [8, 1, 16, 2, 0x1a, 1, 9];
        let wound = wind(&image(&[&other, &timer(0, 5), &timer(2, 5)])).expect("one");
        let expected = [8, 17, 16, 3, 0x62, 8, 8, 3, 0x40, 0, 0x50, 5, 0x40, 1];
        assert_eq!(wound, image(&[&other, &expected, &timer(2, 5)]));
        let again = Timer::decode(&expected[6..]).expect("decode");
        assert_eq!((again.left_ns, again.every_ns), (Some(1), Some(5)));
    }

    #[test]
    fn one_that_stands_still_or_runs_is_left_alone() {
        assert_eq!(wind(&image(&[&timer(0, 0), &timer(2, 5)])), None);
        assert_eq!(wind(&image(&[&timer(0, 5)])[..12]), None, "cut short");
        assert_eq!(wind(&[]), None);
    }
}
