//! Packets off and onto a socket, in the client's version of MQTT, and nothing that
//! the router would not survive.

use bytes::{Bytes, BytesMut};
use rumqttd::protocol::v4::V4;
use rumqttd::protocol::v5::V5;
use rumqttd::protocol::{Error, LastWill, Packet, Protocol, valid_filter};
use tokio::io::AsyncReadExt;
use tokio::net::tcp::OwnedReadHalf;

/// Payloads below this are copied: a small retained message must not keep a whole
/// read buffer alive.
const COPY_BELOW: usize = 4096;

/// The version of MQTT that a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V4,
    V5,
}

/// Why a client cannot be understood, or may not be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("the client went away")]
    Gone,
    #[error("connection lost")]
    Io(#[from] std::io::Error),
    #[error("not MQTT 3.1.1 or 5")]
    Foreign,
    #[error("malformed packet: {0}")]
    Malformed(#[from] Error),
    #[error("packet type {0} is not a client's")]
    Type(u8),
    #[error("`{0}` cannot be a topic here")]
    Topic(String),
    #[error("`{0}` cannot be a filter here")]
    Filter(String),
}

impl Version {
    /// Appends `packet` to `out`.
    pub(crate) fn write(self, packet: Packet, out: &mut BytesMut) -> Result<(), Error> {
        match self {
            Self::V4 => V4.write(packet, out),
            Self::V5 => V5.write(packet, out),
        }
        .map(drop)
    }

    fn read(self, buffer: &mut BytesMut, limit: usize) -> Result<Packet, Error> {
        match self {
            Self::V4 => V4.read_mut(buffer, limit),
            Self::V5 => V5.read_mut(buffer, limit),
        }
    }

    /// The version that a CONNECT packet names; `None` while too little of it is there.
    fn of_connect(packet: &[u8]) -> Result<Option<Self>, ReadError> {
        const CONNECT: u8 = 0x10;
        if packet.first().is_some_and(|first| *first != CONNECT) {
            return Err(ReadError::Foreign);
        }
        let Some(length) = packet.iter().skip(1).take(4).position(|byte| byte & 0x80 == 0) else {
            return if packet.len() > 4 { Err(ReadError::Foreign) } else { Ok(None) };
        };
        match packet.get(2 + length..9 + length) {
            Some([0, 4, b'M', b'Q', b'T', b'T', 4]) => Ok(Some(Self::V4)),
            Some([0, 4, b'M', b'Q', b'T', b'T', 5]) => Ok(Some(Self::V5)),
            Some(_) => Err(ReadError::Foreign),
            None => Ok(None),
        }
    }
}

/// The reading half of a client's socket.
pub(crate) struct Reader {
    socket: OwnedReadHalf,
    buffer: BytesMut,
    limit: usize,
}

impl Reader {
    pub(crate) fn new(socket: OwnedReadHalf, limit: usize) -> Self {
        Self { socket, buffer: BytesMut::with_capacity(4096), limit }
    }

    /// The first packet, which tells the version. Not cancel-safe only in that a
    /// cancelled call ends the connection.
    pub(crate) async fn connect(&mut self) -> Result<(Version, Packet), ReadError> {
        loop {
            if let Some(version) = Version::of_connect(&self.buffer)? {
                return self.next(version).await.map(|packet| (version, packet));
            }
            self.fill().await?;
        }
    }

    /// The next packet. Cancel-safe.
    pub(crate) async fn next(&mut self, version: Version) -> Result<Packet, ReadError> {
        loop {
            if let Some(packet) = self.buffered(version)? {
                return Ok(packet);
            }
            self.fill().await?;
        }
    }

    /// The next packet, if it has been read already.
    pub(crate) fn buffered(&mut self, version: Version) -> Result<Option<Packet>, ReadError> {
        // rumqttd's decoder panics on the types that no client sends.
        if let Some(first) = self.buffer.first()
            && ![1, 3, 4, 5, 6, 7, 8, 10, 12, 14].contains(&(first >> 4))
        {
            return Err(ReadError::Type(first >> 4));
        }
        match version.read(&mut self.buffer, self.limit) {
            Ok(packet) => screen(packet).map(Some),
            Err(Error::InsufficientBytes(missing)) => {
                self.buffer.reserve(missing.max(COPY_BELOW));
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn fill(&mut self) -> Result<(), ReadError> {
        match self.socket.read_buf(&mut self.buffer).await? {
            0 => Err(ReadError::Gone),
            _ => Ok(()),
        }
    }
}

/// Refuses what would kill the router or disconnect a client behind our back.
fn screen(packet: Packet) -> Result<Packet, ReadError> {
    match packet {
        Packet::Publish(mut publish, properties) => {
            // Empty where an MQTT 5 alias stands for it.
            if !publish.topic.is_empty() || properties.is_none() {
                check_topic(&publish.topic)?;
            }
            if publish.payload.len() < COPY_BELOW {
                publish.topic = Bytes::copy_from_slice(&publish.topic);
                publish.payload = Bytes::copy_from_slice(&publish.payload);
            }
            Ok(Packet::Publish(publish, properties))
        }
        Packet::Subscribe(subscribe, properties) => {
            for filter in &subscribe.filters {
                let of_the_broker =
                    filter.path.starts_with('$') && !filter.path.starts_with("$share/");
                if of_the_broker || !valid_filter(&filter.path) {
                    return Err(ReadError::Filter(filter.path.clone()));
                }
            }
            Ok(Packet::Subscribe(subscribe, properties))
        }
        Packet::Connect(connect, properties, Some(will), will_properties, login) => {
            let LastWill { topic, .. } = &will;
            check_topic(topic)?;
            Ok(Packet::Connect(connect, properties, Some(will), will_properties, login))
        }
        packet => Ok(packet),
    }
}

/// A topic that the router can match: it slices off the first byte as a character.
fn check_topic(topic: &[u8]) -> Result<(), ReadError> {
    let wrong = || ReadError::Topic(String::from_utf8_lossy(topic).chars().take(80).collect());
    let text = std::str::from_utf8(topic).map_err(|_| wrong())?;
    let first = text.as_bytes().first().ok_or_else(wrong)?;
    if !first.is_ascii() || *first == b'$' || text.contains(['+', '#', '\0']) {
        return Err(wrong());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_packet_tells_the_version_however_it_is_cut() {
        let v4 = b"\x10\x0c\0\x04MQTT\x04\x02\0\x3c\0\0";
        let v5 = b"\x10\x8d\0\0\x04MQTT\x05\x02\0\x3c\0\0\0";
        for (packet, version) in [(&v4[..], Version::V4), (&v5[..], Version::V5)] {
            assert_eq!(Version::of_connect(packet).unwrap(), Some(version));
            for end in 0..9 {
                assert_eq!(Version::of_connect(&packet[..end]).unwrap(), None, "{end}");
            }
        }
    }

    #[test]
    fn another_protocol_is_not_waited_for() {
        for foreign in [&b"GET / HTTP/1.1"[..], b"\x16\x03\x01", b"\x10\xff\xff\xff\xff\xff\xff"] {
            assert!(Version::of_connect(foreign).is_err());
        }
        assert!(Version::of_connect(b"\x10\x0e\0\x06MQIsdp\x03\x02").is_err());
    }

    #[test]
    fn a_topic_that_kills_the_router_is_refused() {
        for topic in ["ä", "", "a/+", "#", "$SYS/x", "a\0"] {
            assert!(check_topic(topic.as_bytes()).is_err(), "{topic}");
        }
        assert!(check_topic(b"\xff").is_err());
        assert!(check_topic("a/ä".as_bytes()).is_ok());
    }
}
