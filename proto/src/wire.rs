//! How agents' frames look as bytes: one version byte, then postcard.
//!
//! A frame of another version is a typed error, so that an old agent says "update
//! me" instead of guessing. Every kind of frame has a size limit that is checked
//! before anything is decoded.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The version that this build speaks.
pub const VERSION: u8 = 4;

/// A kind of message between agents and controller.
pub trait Frame: Serialize + DeserializeOwned {
    /// What it is called in errors.
    const NAME: &'static str;
    /// The largest encoding that is accepted, in bytes, version byte included.
    const LIMIT_BYTES: usize;
}

/// Why bytes are not a frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Nothing at all arrived.
    #[error("an empty {frame}")]
    Empty {
        /// The kind of frame that was expected.
        frame: &'static str,
    },
    /// The sender speaks another version.
    #[error("a {frame} of version {found}, this build speaks {VERSION}: update the older side")]
    Version {
        /// The kind of frame that was expected.
        frame: &'static str,
        /// The version byte that arrived.
        found: u8,
    },
    /// Larger than its kind may be.
    #[error("a {frame} of {size_bytes} bytes, the limit is {limit_bytes}")]
    TooLarge {
        /// The kind of frame that was expected.
        frame: &'static str,
        /// What arrived.
        size_bytes: usize,
        /// What is allowed.
        limit_bytes: usize,
    },
    /// Truncated or garbled.
    #[error("a {frame} that does not decode: {why}")]
    Garbled {
        /// The kind of frame that was expected.
        frame: &'static str,
        /// postcard's word.
        why: String,
    },
}

/// Encodes a frame.
///
/// # Errors
/// [`FrameError::TooLarge`] when the encoding exceeds the kind's limit.
pub fn encode<F: Frame>(frame: &F) -> Result<Vec<u8>, FrameError> {
    let bytes = postcard::to_extend(frame, vec![VERSION])
        .map_err(|e| FrameError::Garbled { frame: F::NAME, why: e.to_string() })?;
    check_size::<F>(bytes.len())?;
    Ok(bytes)
}

/// Decodes a frame that must fill `bytes` exactly.
///
/// # Errors
/// Every way in which bytes can fail to be the frame is a [`FrameError`]; nothing panics.
pub fn decode<F: Frame>(bytes: &[u8]) -> Result<F, FrameError> {
    match decode_with_tail(bytes)? {
        (frame, []) => Ok(frame),
        (_, tail) => Err(FrameError::Garbled {
            frame: F::NAME,
            why: format!("{} bytes left over", tail.len()),
        }),
    }
}

/// Decodes a frame and answers the bytes that follow it: bulk data, which is not copied.
///
/// # Errors
/// As [`decode`].
pub fn decode_with_tail<F: Frame>(bytes: &[u8]) -> Result<(F, &[u8]), FrameError> {
    check_size::<F>(bytes.len())?;
    match bytes {
        [] => Err(FrameError::Empty { frame: F::NAME }),
        [VERSION, body @ ..] => postcard::take_from_bytes(body)
            .map_err(|e| FrameError::Garbled { frame: F::NAME, why: e.to_string() }),
        [found, ..] => Err(FrameError::Version { frame: F::NAME, found: *found }),
    }
}

fn check_size<F: Frame>(size_bytes: usize) -> Result<(), FrameError> {
    if size_bytes > F::LIMIT_BYTES {
        return Err(FrameError::TooLarge {
            frame: F::NAME,
            size_bytes,
            limit_bytes: F::LIMIT_BYTES,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Ping {
        number: u32,
        text: String,
    }
    impl Frame for Ping {
        const NAME: &'static str = "ping";
        const LIMIT_BYTES: usize = 32;
    }
    fn ping() -> Ping {
        Ping { number: 7, text: "hello".into() }
    }

    #[test]
    fn a_frame_survives_the_wire() {
        assert_eq!(decode::<Ping>(&encode(&ping()).unwrap()), Ok(ping()));
    }

    #[test]
    fn another_version_is_told_apart_from_garbage() {
        let mut bytes = encode(&ping()).unwrap();
        bytes[0] = 9;
        assert_eq!(decode::<Ping>(&bytes), Err(FrameError::Version { frame: "ping", found: 9 }));
    }

    #[test]
    fn every_truncation_is_an_error() {
        let bytes = encode(&ping()).unwrap();
        for end in 0..bytes.len() {
            assert!(decode::<Ping>(&bytes[..end]).is_err(), "{end} bytes were accepted");
        }
    }

    #[test]
    fn what_is_left_over_is_an_error_unless_it_is_asked_for() {
        let mut bytes = encode(&ping()).unwrap();
        bytes.extend([1, 2, 3]);
        assert!(matches!(decode::<Ping>(&bytes), Err(FrameError::Garbled { .. })));
        assert_eq!(decode_with_tail::<Ping>(&bytes), Ok((ping(), &[1, 2, 3][..])));
    }

    #[test]
    fn size_is_checked_both_ways() {
        let big = Ping { number: 1, text: "x".repeat(40) };
        assert!(matches!(encode(&big), Err(FrameError::TooLarge { .. })));
        assert!(matches!(decode::<Ping>(&[1; 33]), Err(FrameError::TooLarge { .. })));
    }
}
