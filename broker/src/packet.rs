//! Packets off and onto the wire, in the client's version of MQTT. Inside the broker there is one:
//! what 3.1.1 says is said in the words of 5.

mod frame;
mod text;

use std::num::NonZeroU16;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use rmqtt_codec::error::{DecodeError, EncodeError};
use rmqtt_codec::types::{Publish, QoS};
use rmqtt_codec::v3;
use rmqtt_codec::v5::{
    self, ConnectAckReason, LastWill, Packet, PublishAck, PublishAck2, PublishAck2Reason,
    PublishAckReason, RetainHandling, Subscribe, SubscriptionOptions, Unsubscribe,
};
use tokio_util::codec::{Decoder, Encoder};

use crate::core::NEVER;
use crate::message::Delivery;

/// The version of MQTT that a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V3,
    V5,
}

/// What a client's first bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Greeting {
    /// CONNECT of a version that is served.
    Known(Version),
    /// CONNECT of another version, to be refused in words that its client may know.
    Refused { version: &'static str, words: &'static [u8] },
    /// No MQTT at all.
    Foreign,
}

/// CONNACK for MQTT 3.1: unacceptable protocol version; 3.1.1 has the same one.
const REFUSED_3: &[u8] = &[0x20, 2, 0, 1];
/// CONNACK for versions after 5: unsupported protocol version.
const REFUSED_5: &[u8] = &[0x20, 3, 0, 0x84, 0];

/// Tells what the first bytes of a connection are; `None` while there are too few of them.
pub(crate) fn greeting(bytes: &[u8]) -> Option<Greeting> {
    const CONNECT: u8 = 0x10;
    if *bytes.first()? != CONNECT {
        return Some(Greeting::Foreign);
    }
    let Some(length) = bytes.iter().skip(1).take(4).position(|byte| byte & 0x80 == 0) else {
        return (bytes.len() > 4).then_some(Greeting::Foreign);
    };
    let name = bytes.get(2 + length..)?;
    let is_like = |wanted: &[u8]| name.iter().zip(wanted).all(|(byte, want)| byte == want);
    let older = Greeting::Refused { version: "MQTT 3.1", words: REFUSED_3 };
    if is_like(b"\0\x06MQIsdp") {
        return (name.len() >= 9).then_some(older);
    }
    if !is_like(b"\0\x04MQTT") {
        return Some(Greeting::Foreign);
    }
    Some(match name.get(6)? {
        4 => Greeting::Known(Version::V3),
        5 => Greeting::Known(Version::V5),
        0..=3 => older,
        _ => Greeting::Refused { version: "a version after MQTT 5", words: REFUSED_5 },
    })
}

/// Reads and writes packets of one connection.
#[derive(Debug)]
pub(crate) struct Codec {
    version: Version,
    limit_bytes: u32,
    v3: v3::Codec,
    v5: v5::Codec,
    missing: usize,
}

impl Codec {
    /// `limit_bytes` is the largest packet that is read, all of it counted; 0 for any.
    pub(crate) fn new(version: Version, limit_bytes: u32) -> Self {
        let (v3, v5) = (v3::Codec::new(0), v5::Codec::new(0, 0));
        Self { version, limit_bytes, v3, v5, missing: 0 }
    }

    pub(crate) fn version(&self) -> Version {
        self.version
    }

    /// The next packet of the buffer, if all of it is there.
    ///
    /// # Errors
    /// When it is none that a client may send.
    pub(crate) fn read(&mut self, buffer: &mut BytesMut) -> Result<Option<Packet>, DecodeError> {
        let length = match frame::extent(buffer, self.limit_bytes)? {
            frame::Extent::Whole(length) => length,
            frame::Extent::Part { missing } => {
                self.missing = missing;
                return Ok(None);
            }
        };
        self.missing = 0;
        frame::judge(&mut buffer[..length], self.version)?;
        let packet = match self.version {
            Version::V5 => self.v5.decode(buffer)?.map(|(packet, _)| packet),
            Version::V3 => self.v3.decode(buffer)?.map(|(packet, _)| modern(packet)).transpose()?,
        };
        match packet {
            Some(packet) if text::has_null(&packet) => Err(DecodeError::Utf8Error),
            packet => Ok(packet),
        }
    }

    /// How much is missing of the packet that the last read found the beginning of; 0 where that
    /// cannot be told.
    pub(crate) fn missing(&self) -> usize {
        self.missing
    }

    /// Appends a packet; what the client's version does not have is left out.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn write(&mut self, packet: Packet, out: &mut BytesMut) -> Result<(), EncodeError> {
        match self.version {
            Version::V5 => self.v5.encode(packet, out),
            Version::V3 => match ancient(packet) {
                Some(packet) => self.v3.encode(packet, out),
                None => Ok(()),
            },
        }
    }

    /// Appends all of a PUBLISH that stands before its payload. `alias` stands for the topic, which
    /// is written as well where the client does not know the alias yet.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn write_head(
        &mut self,
        sent: &Delivery,
        alias: Option<(NonZeroU16, bool)>,
        now_ms: u64,
        out: &mut BytesMut,
    ) -> Result<(), EncodeError> {
        let topic = match alias {
            Some((_, true)) => "",
            _ => &*sent.message.topic,
        };
        let properties = match self.version {
            Version::V3 => Bytes::new(),
            Version::V5 => self.properties(sent, alias, now_ms)?,
        };
        let id = sent.packet_id.map_or(0, |_| 2);
        let rest = 2 + topic.len() + id + properties.len() + sent.message.payload.len();
        let again = u8::from(sent.is_again) << 3;
        out.put_u8(0x30 | again | sent.qos.value() << 1 | u8::from(sent.retain));
        put_length(rest, out);
        out.put_u16(u16::try_from(topic.len()).map_err(|_| EncodeError::InvalidLength)?);
        out.put_slice(topic.as_bytes());
        if let Some(id) = sent.packet_id {
            out.put_u16(id.get());
        }
        out.put_slice(&properties);
        Ok(())
    }

    /// The properties of a PUBLISH as they are written, with their length before them.
    fn properties(
        &mut self,
        sent: &Delivery,
        alias: Option<(NonZeroU16, bool)>,
        now_ms: u64,
    ) -> Result<Bytes, EncodeError> {
        let message = &sent.message;
        let is_plain = message.properties.is_none()
            && message.expires_ms.is_none()
            && sent.subscriptions.is_empty()
            && alias.is_none();
        if is_plain {
            return Ok(Bytes::from_static(&[0]));
        }
        let mut properties = message.properties.as_deref().cloned().unwrap_or_default();
        properties.topic_alias = alias.map(|(alias, _)| alias);
        properties.subscription_ids.clone_from(&sent.subscriptions);
        // What is left of it, and no less than a second: it had not expired when it was sent.
        let left = |at: u64| u32::try_from(at.saturating_sub(now_ms).div_ceil(1000)).ok();
        properties.message_expiry_interval = message
            .expires_ms
            .and_then(left)
            .map(|seconds| std::num::NonZeroU32::new(seconds).unwrap_or(std::num::NonZeroU32::MIN));
        let bare = Publish {
            dup: false,
            retain: false,
            qos: QoS::AtMostOnce,
            topic: Default::default(),
            packet_id: None,
            payload: Bytes::new(),
            properties: Some(properties),
        };
        let mut whole = BytesMut::new();
        self.v5.encode(Packet::Publish(Box::new(bare)), &mut whole)?;
        // Behind the first byte, the length, and an empty topic.
        let length = whole.iter().skip(1).take_while(|byte| **byte & 0x80 != 0).count() + 1;
        whole.advance(1 + length + 2);
        Ok(whole.freeze())
    }
}

fn put_length(mut length: usize, out: &mut BytesMut) {
    loop {
        let byte = (length % 128) as u8;
        length /= 128;
        out.put_u8(if length > 0 { byte | 0x80 } else { byte });
        if length == 0 {
            return;
        }
    }
}

/// What a client of 3.1.1 says, in the words of 5.
fn modern(packet: v3::Packet) -> Result<Packet, DecodeError> {
    let ack = |packet_id| PublishAck {
        packet_id,
        reason_code: PublishAckReason::Success,
        properties: Vec::new(),
        reason_string: None,
    };
    let ack2 = |packet_id| PublishAck2 {
        packet_id,
        reason_code: PublishAck2Reason::Success,
        properties: Vec::new(),
        reason_string: None,
    };
    Ok(match packet {
        v3::Packet::Connect(connect) => {
            let connect = *connect;
            Packet::Connect(Box::new(v5::Connect {
                clean_start: connect.clean_session,
                keep_alive: connect.keep_alive,
                session_expiry_interval_secs: if connect.clean_session { 0 } else { NEVER },
                last_will: connect.last_will.map(|will| LastWill {
                    qos: will.qos,
                    retain: will.retain,
                    topic: will.topic,
                    message: will.message,
                    will_delay_interval_sec: None,
                    correlation_data: None,
                    message_expiry_interval: None,
                    content_type: None,
                    user_properties: Vec::new(),
                    is_utf8_payload: None,
                    response_topic: None,
                }),
                client_id: connect.client_id,
                username: connect.username,
                password: connect.password,
                ..v5::Connect::default()
            }))
        }
        v3::Packet::Publish(publish) => Packet::Publish(publish),
        v3::Packet::PublishAck { packet_id } => Packet::PublishAck(ack(packet_id)),
        v3::Packet::PublishReceived { packet_id } => Packet::PublishReceived(ack(packet_id)),
        v3::Packet::PublishRelease { packet_id } => Packet::PublishRelease(ack2(packet_id)),
        v3::Packet::PublishComplete { packet_id } => Packet::PublishComplete(ack2(packet_id)),
        v3::Packet::Subscribe { packet_id, topic_filters } => {
            let options = |qos| SubscriptionOptions {
                qos,
                no_local: false,
                retain_as_published: false,
                retain_handling: RetainHandling::AtSubscribe,
            };
            Packet::Subscribe(Subscribe {
                packet_id,
                id: None,
                user_properties: Vec::new(),
                topic_filters: topic_filters
                    .into_iter()
                    .map(|(filter, qos)| (filter, options(qos)))
                    .collect(),
            })
        }
        v3::Packet::Unsubscribe { packet_id, topic_filters } => {
            let user_properties = Vec::new();
            Packet::Unsubscribe(Unsubscribe { packet_id, user_properties, topic_filters })
        }
        v3::Packet::PingRequest => Packet::PingRequest,
        v3::Packet::Disconnect => Packet::Disconnect(v5::Disconnect::default()),
        // A broker's words.
        v3::Packet::ConnectAck(_)
        | v3::Packet::SubscribeAck { .. }
        | v3::Packet::UnsubscribeAck { .. }
        | v3::Packet::PingResponse => return Err(DecodeError::UnsupportedPacketType),
    })
}

/// What the broker says, in the words of 3.1.1; `None` for what it has no words for.
fn ancient(packet: Packet) -> Option<v3::Packet> {
    use v3::SubscribeReturnCode::{Failure, Success};
    Some(match packet {
        Packet::ConnectAck(ack) => v3::Packet::ConnectAck(v3::ConnectAck {
            return_code: refusal(ack.reason_code)?,
            session_present: ack.session_present,
        }),
        Packet::PublishAck(ack) => v3::Packet::PublishAck { packet_id: ack.packet_id },
        Packet::PublishReceived(ack) => v3::Packet::PublishReceived { packet_id: ack.packet_id },
        Packet::PublishRelease(ack) => v3::Packet::PublishRelease { packet_id: ack.packet_id },
        Packet::PublishComplete(ack) => v3::Packet::PublishComplete { packet_id: ack.packet_id },
        Packet::SubscribeAck(ack) => v3::Packet::SubscribeAck {
            packet_id: ack.packet_id,
            status: ack
                .status
                .into_iter()
                .map(|status| match status {
                    v5::SubscribeAckReason::GrantedQos0 => Success(QoS::AtMostOnce),
                    v5::SubscribeAckReason::GrantedQos1 => Success(QoS::AtLeastOnce),
                    v5::SubscribeAckReason::GrantedQos2 => Success(QoS::ExactlyOnce),
                    _ => Failure,
                })
                .collect(),
        },
        Packet::UnsubscribeAck(ack) => v3::Packet::UnsubscribeAck { packet_id: ack.packet_id },
        Packet::PingResponse => v3::Packet::PingResponse,
        _ => return None,
    })
}

/// The return code of CONNACK that comes nearest; `None` for a CONNECT that is none, which 3.1.1
/// does not answer (3.1.4).
fn refusal(reason: ConnectAckReason) -> Option<v3::ConnectAckReason> {
    use v3::ConnectAckReason as Old;
    Some(match reason {
        ConnectAckReason::MalformedPacket
        | ConnectAckReason::ProtocolError
        | ConnectAckReason::PacketTooLarge
        | ConnectAckReason::TopicNameInvalid => return None,
        ConnectAckReason::Success => Old::ConnectionAccepted,
        ConnectAckReason::UnsupportedProtocolVersion => Old::UnacceptableProtocolVersion,
        ConnectAckReason::ClientIdentifierNotValid => Old::IdentifierRejected,
        ConnectAckReason::BadUserNameOrPassword => Old::BadUserNameOrPassword,
        ConnectAckReason::NotAuthorized | ConnectAckReason::Banned => Old::NotAuthorized,
        _ => Old::ServiceUnavailable,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_packet_tells_the_version_however_it_is_cut() {
        let v4 = b"\x10\x0c\0\x04MQTT\x04\x02\0\x3c\0\0";
        let v5 = b"\x10\x8d\0\0\x04MQTT\x05\x02\0\x3c\0\0\0";
        for (packet, version, needed) in [(&v4[..], Version::V3, 9), (&v5[..], Version::V5, 10)] {
            for end in 0..packet.len() {
                let found = greeting(&packet[..end]);
                assert_eq!(found, (end >= needed).then_some(Greeting::Known(version)), "{end}");
            }
        }
    }

    #[test]
    fn other_versions_are_refused_in_their_own_words() {
        let refused = |text: &[u8]| matches!(greeting(text), Some(Greeting::Refused { .. }));
        assert!(refused(b"\x10\x0e\0\x06MQIsdp\x03\x02\0\x3c\0\0"));
        assert!(refused(b"\x10\x0c\0\x04MQTT\x03\x02\0\x3c\0\0"));
        let later = greeting(b"\x10\x0c\0\x04MQTT\x06");
        assert!(matches!(later, Some(Greeting::Refused { words: REFUSED_5, .. })));
    }

    #[test]
    fn what_is_missing_is_told_and_a_packet_comes_out_however_it_is_cut() {
        let mut whole = BytesMut::from(&b"\x30"[..]);
        put_length(2 + 1 + 300, &mut whole);
        whole.put_slice(b"\0\x01t");
        whole.put_slice(&[7; 300]);
        for end in 0..whole.len() {
            let mut codec = Codec::new(Version::V3, 1000);
            let mut buffer = BytesMut::from(&whole[..end]);
            assert_eq!(codec.read(&mut buffer).unwrap(), None);
            assert_eq!(codec.missing(), if end < 3 { 0 } else { whole.len() - end });
            buffer.extend_from_slice(&whole[end..]);
            let Some(Packet::Publish(publish)) = codec.read(&mut buffer).unwrap() else {
                panic!("no PUBLISH after {end}");
            };
            assert_eq!(publish.payload.len(), 300);
        }
    }

    #[test]
    fn a_packet_above_the_limit_is_refused_before_it_is_there() {
        let mut codec = Codec::new(Version::V3, 1000);
        let refused = codec.read(&mut BytesMut::from(&b"\x30\xff\x7f"[..]));
        assert!(matches!(refused, Err(DecodeError::MaxSizeExceeded { .. })), "{refused:?}");
    }

    #[test]
    fn what_is_no_mqtt_is_not_waited_for() {
        for foreign in [
            &b"GET / HTTP/1.1"[..],
            b"\x16\x03\x01",
            b"\x10\xff\xff\xff\xff\xff\xff",
            b"\x10\x0c\0\x04HTTP",
        ] {
            assert_eq!(greeting(foreign), Some(Greeting::Foreign));
        }
    }
}
