//! The number by which a certificate is revoked.

use std::fmt;
use std::str::FromStr;

use super::hex;
use super::random::{self, NoRandomness};

/// A certificate's serial number: 128 random bits, shown as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial([u8; 16]);

/// A text is not a serial number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a serial number: 32 hexadecimal digits, as the log shows a certificate's")]
pub struct SerialError(String);

impl Serial {
    /// A new one, which nobody could have foretold.
    pub(super) fn random() -> Result<Self, NoRandomness> {
        random::bytes().map(Self)
    }

    /// Reads the content of a DER integer; `None` when it is negative or over 128 bits.
    pub(super) fn of_der(integer: &[u8]) -> Option<Self> {
        // DER drops leading zeros, and adds one where the top bit would mean a minus.
        let digits = match integer {
            [0, rest @ ..] => rest,
            [first, ..] if first & 0x80 != 0 => return None,
            all => all,
        };
        let mut bytes = [0; 16];
        let start = bytes.len().checked_sub(digits.len())?;
        bytes[start..].copy_from_slice(digits);
        Some(Self(bytes))
    }

    /// The 16 bytes, the highest first.
    pub(super) fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl FromStr for Serial {
    type Err = SerialError;
    fn from_str(text: &str) -> Result<Self, SerialError> {
        hex::read(text).map(Self).ok_or_else(|| SerialError(text.chars().take(80).collect()))
    }
}
impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::write(f, &self.0)
    }
}
impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_is_read_whatever_zeros_der_dropped_or_added() {
        let small = Serial::of_der(&[5]).unwrap();
        assert_eq!(small.to_string(), "00000000000000000000000000000005");
        assert_eq!(small.to_string().parse(), Ok(small));
        let high = Serial::of_der(&[&[0][..], &[0xff; 16]].concat()).unwrap();
        assert_eq!(high.to_string(), "f".repeat(32));
    }

    #[test]
    fn a_serial_that_is_negative_or_too_long_is_not_ours() {
        assert_eq!(Serial::of_der(&[0x80]), None);
        assert_eq!(Serial::of_der(&[1; 17]), None);
    }
}
