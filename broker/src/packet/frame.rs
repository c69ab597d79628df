//! A packet as it lies in the buffer, before it is decoded: where it ends, and what the codec would
//! let pass that the standard does not.

use bytes::Buf;
use rmqtt_codec::error::DecodeError;

use super::Version;

const CONNECT: u8 = 1;
const PUBLISH: u8 = 3;
const SUBSCRIBE: u8 = 8;
const PINGREQ: u8 = 12;
const DISCONNECT: u8 = 14;

/// Flags of CONNECT.
const CLEAN_START: u8 = 0x02;
const WILL: u8 = 0x04;
const WILL_QOS_AND_RETAIN: u8 = 0x38;
const PASSWORD: u8 = 0x40;
const USER_NAME: u8 = 0x80;

/// How much of a packet is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// All of it: so many bytes.
    Whole(usize),
    /// Not all of it: so many bytes are missing, or 0 where that cannot be told yet.
    Part { missing: usize },
}

/// How much there is of the packet at the beginning of the buffer.
///
/// # Errors
/// When it is longer than `limit_bytes`, or its length is none.
pub(super) fn extent(buffer: &[u8], limit_bytes: u32) -> Result<Extent, DecodeError> {
    let Some((header, rest)) = lengths(buffer)? else { return Ok(Extent::Part { missing: 0 }) };
    let whole = header + rest;
    if limit_bytes != 0 && whole > limit_bytes as usize {
        let size = u32::try_from(whole).unwrap_or(u32::MAX);
        return Err(DecodeError::MaxSizeExceeded { size, max: limit_bytes });
    }
    match whole.checked_sub(buffer.len()) {
        None | Some(0) => Ok(Extent::Whole(whole)),
        Some(missing) => Ok(Extent::Part { missing }),
    }
}

/// The lengths of the fixed header and of what follows it, as far as they are there.
fn lengths(bytes: &[u8]) -> Result<Option<(usize, usize)>, DecodeError> {
    let mut rest = 0;
    for (at, byte) in bytes.iter().skip(1).take(4).enumerate() {
        rest |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok(Some((at + 2, rest)));
        }
    }
    if bytes.len() > 4 { Err(DecodeError::InvalidLength) } else { Ok(None) }
}

/// Judges a whole packet. What the standard allows and the codec does not is put in words that the
/// codec knows.
///
/// # Errors
/// When the standard does not allow it. What the codec sees by itself is left to it.
pub(super) fn judge(frame: &mut [u8], version: Version) -> Result<(), DecodeError> {
    let Some((header, _)) = lengths(frame)? else { return Ok(()) };
    let (head, body) = frame.split_at_mut(header);
    let is_fine = match head[0] >> 4 {
        CONNECT => return connect(body, version).unwrap_or(Ok(())),
        PUBLISH => {
            let (qos, is_again) = (head[0] >> 1 & 3, head[0] & 8 != 0);
            if version == Version::V5 {
                publish(body, qos);
            }
            qos > 0 || !is_again
        }
        SUBSCRIBE if version == Version::V3 => subscribe(body).unwrap_or(true),
        DISCONNECT if version == Version::V3 => body.is_empty(),
        PINGREQ => body.is_empty(),
        _ => true,
    };
    if is_fine { Ok(()) } else { Err(DecodeError::MalformedPacket) }
}

/// `None` for a packet that is too short, here and below: the codec finds that out.
fn connect(body: &mut [u8], version: Version) -> Option<Result<(), DecodeError>> {
    // Behind the name and the level.
    const FLAGS: usize = 7;
    let flags = *body.get(FLAGS)?;
    let has_lone_password = flags & PASSWORD != 0 && flags & USER_NAME == 0;
    if (flags & WILL == 0 && flags & WILL_QOS_AND_RETAIN != 0)
        || (version == Version::V3 && has_lone_password)
    {
        return Some(Err(DecodeError::InvalidConnectFlags));
    }
    let mut rest = body.get_mut(FLAGS + 3..)?;
    if version == Version::V5 {
        (_, rest) = properties(rest)?;
    }
    let (client, mut rest) = field(rest)?;
    let is_unnamed = client.is_empty();
    if flags & WILL != 0 {
        if version == Version::V5 {
            let of_will;
            (of_will, rest) = properties(rest)?;
            lengthen(of_will);
        }
        (_, rest) = field(rest)?;
        (_, rest) = field(rest)?;
    }
    for flag in [USER_NAME, PASSWORD] {
        if flags & flag != 0 {
            (_, rest) = field(rest)?;
        }
    }
    if !rest.is_empty() {
        return Some(Err(DecodeError::InvalidLength));
    }
    if is_unnamed && version == Version::V5 {
        // It is given a name that nobody has: there is nothing to go on with.
        body[FLAGS] |= CLEAN_START;
    }
    Some(Ok(()))
}

fn publish(body: &mut [u8], qos: u8) -> Option<()> {
    let (_topic, rest) = field(body)?;
    let rest = rest.get_mut(if qos > 0 { 2 } else { 0 }..)?;
    let (found, _payload) = properties(rest)?;
    lengthen(found);
    Some(())
}

/// 3.1.1 has no option but the QoS.
fn subscribe(body: &mut [u8]) -> Option<bool> {
    let mut rest = body.get_mut(2..)?;
    while !rest.is_empty() {
        let (_filter, behind) = field(rest)?;
        let (qos, behind) = behind.split_first_mut()?;
        if *qos > 2 {
            return Some(false);
        }
        rest = behind;
    }
    Some(true)
}

/// A field with two bytes of length before it, and what is behind.
fn field(bytes: &mut [u8]) -> Option<(&mut [u8], &mut [u8])> {
    let length = usize::from((&*bytes).try_get_u16().ok()?);
    bytes.get_mut(2..)?.split_at_mut_checked(length)
}

/// The properties at the beginning, and what is behind.
fn properties(bytes: &mut [u8]) -> Option<(&mut [u8], &mut [u8])> {
    let size = bytes.iter().take(4).position(|byte| byte & 0x80 == 0)? + 1;
    let length = |sum, (at, byte): (usize, &u8)| sum | usize::from(byte & 0x7f) << (7 * at);
    let length = bytes[..size].iter().enumerate().fold(0, length);
    bytes[size..].split_at_mut_checked(length)
}

/// Makes a message that is to last for 0 seconds, which the codec does not know, last for one.
fn lengthen(mut properties: &mut [u8]) -> Option<()> {
    const EXPIRY: u8 = 0x02;
    loop {
        let (kind, rest) = properties.split_first_mut()?;
        let length = match *kind {
            // Payload format.
            0x01 => 1,
            // Message expiry, will delay.
            EXPIRY | 0x18 => 4,
            // Content type, response topic, correlation data.
            0x03 | 0x08 | 0x09 => 2 + field(rest)?.0.len(),
            // Topic alias.
            0x23 => 2,
            // User property.
            0x26 => {
                let name = 2 + field(rest)?.0.len();
                name + 2 + field(rest.get_mut(name..)?)?.0.len()
            }
            _ => return None,
        };
        let (value, behind) = rest.split_at_mut_checked(length)?;
        if *kind == EXPIRY && value.iter().all(|byte| *byte == 0) {
            value[3] = 1;
        }
        properties = behind;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_packet_is_whole_when_its_last_byte_is_there() {
        let packet = [&[0x30, 0x80, 0x01][..], &[b'x'; 128]].concat();
        for end in 0..packet.len() {
            let missing = if end < 3 { 0 } else { packet.len() - end };
            let found = extent(&packet[..end], 131);
            assert!(matches!(found, Ok(Extent::Part { missing: m }) if m == missing), "{end}");
        }
        let all = [&packet[..], b"more"].concat();
        assert!(matches!(extent(&all, 131), Ok(Extent::Whole(131))));
        assert!(matches!(extent(&all, 130), Err(DecodeError::MaxSizeExceeded { .. })));
        assert!(extent(b"\x30\xff\xff\xff\xff", 0).is_err());
    }

    #[test]
    fn a_message_that_lasts_for_nothing_lasts_for_a_second() {
        // Behind a user property without name and value.
        let mut frame = *b"\x30\x0e\0\x01t\x0a\x26\0\0\0\0\x02\0\0\0\0";
        assert!(judge(&mut frame, Version::V5).is_ok());
        assert_eq!(frame[12..], [0, 0, 0, 1]);
    }

    proptest! {
        #[test]
        fn nothing_that_is_sent_makes_it_panic(
            kind in any::<u8>(),
            body in prop::collection::vec(prop_oneof![0..8_u8, any::<u8>()], 0..100),
        ) {
            let mut frame = vec![kind, body.len() as u8];
            frame.extend(body);
            for version in [Version::V3, Version::V5] {
                let _ = judge(&mut frame, version);
            }
        }
    }
}
