//! Packets on and off the wire. A test says everything in the words of MQTT 5; to a client of 3.1.1
//! what its version does not have is a mistake of the test.

use bytes::BytesMut;
use rmqtt_codec::v3;
use rmqtt_codec::v5::{
    self, Packet, PublishAck, PublishAck2, SubscribeAckReason, UnsubscribeAckReason,
};
use tokio_util::codec::{Decoder, Encoder};

/// The version of MQTT that a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V3,
    V5,
}

/// For tests of what both versions have.
pub(crate) const BOTH: [Version; 2] = [Version::V3, Version::V5];

/// The codec of one connection, the client's side of it.
#[derive(Debug)]
pub(crate) struct Wire {
    version: Version,
    v3: v3::Codec,
    v5: v5::Codec,
}

impl Wire {
    pub(crate) fn new(version: Version) -> Self {
        Self { version, v3: v3::Codec::default(), v5: v5::Codec::default() }
    }

    pub(crate) fn version(&self) -> Version {
        self.version
    }

    pub(crate) fn write(&mut self, packet: Packet) -> BytesMut {
        let mut out = BytesMut::new();
        match self.version {
            Version::V5 => self.v5.encode(packet, &mut out),
            Version::V3 => self.v3.encode(ancient(packet), &mut out),
        }
        .expect("a packet that can be written");
        out
    }

    pub(crate) fn read(&mut self, buffer: &mut BytesMut) -> Option<Packet> {
        match self.version {
            Version::V5 => self.v5.decode(buffer).expect("a packet").map(|(packet, _)| packet),
            Version::V3 => {
                let packet = self.v3.decode(buffer).expect("a packet");
                packet.map(|(packet, _)| modern(packet))
            }
        }
    }
}

/// What the client says, in the words of 3.1.1.
fn ancient(packet: Packet) -> v3::Packet {
    match packet {
        Packet::Connect(connect) => v3::Packet::from(v3::Connect {
            clean_session: connect.clean_start,
            keep_alive: connect.keep_alive,
            last_will: connect.last_will.map(|will| v3::LastWill {
                qos: will.qos,
                retain: will.retain,
                topic: will.topic,
                message: will.message,
            }),
            client_id: connect.client_id,
            username: connect.username,
            password: connect.password,
            ..v3::Connect::default()
        }),
        Packet::Publish(publish) => v3::Packet::Publish(publish),
        Packet::PublishAck(ack) => v3::Packet::PublishAck { packet_id: ack.packet_id },
        Packet::PublishReceived(ack) => v3::Packet::PublishReceived { packet_id: ack.packet_id },
        Packet::PublishRelease(ack) => v3::Packet::PublishRelease { packet_id: ack.packet_id },
        Packet::PublishComplete(ack) => v3::Packet::PublishComplete { packet_id: ack.packet_id },
        Packet::Subscribe(subscribe) => v3::Packet::Subscribe {
            packet_id: subscribe.packet_id,
            topic_filters: subscribe
                .topic_filters
                .into_iter()
                .map(|(filter, options)| (filter, options.qos))
                .collect(),
        },
        Packet::Unsubscribe(unsubscribe) => v3::Packet::Unsubscribe {
            packet_id: unsubscribe.packet_id,
            topic_filters: unsubscribe.topic_filters,
        },
        Packet::PingRequest => v3::Packet::PingRequest,
        Packet::Disconnect(_) => v3::Packet::Disconnect,
        other => panic!("3.1.1 has no {other:?}"),
    }
}

/// What the broker says, in the words of 5.
fn modern(packet: v3::Packet) -> Packet {
    match packet {
        v3::Packet::ConnectAck(ack) => Packet::from(v5::ConnectAck {
            session_present: ack.session_present,
            reason_code: match ack.return_code {
                v3::ConnectAckReason::ConnectionAccepted => v5::ConnectAckReason::Success,
                v3::ConnectAckReason::UnacceptableProtocolVersion => {
                    v5::ConnectAckReason::UnsupportedProtocolVersion
                }
                v3::ConnectAckReason::IdentifierRejected => {
                    v5::ConnectAckReason::ClientIdentifierNotValid
                }
                v3::ConnectAckReason::NotAuthorized => v5::ConnectAckReason::NotAuthorized,
                v3::ConnectAckReason::BadUserNameOrPassword => {
                    v5::ConnectAckReason::BadUserNameOrPassword
                }
                _ => v5::ConnectAckReason::ServerUnavailable,
            },
            ..v5::ConnectAck::default()
        }),
        v3::Packet::Publish(publish) => Packet::Publish(publish),
        v3::Packet::PublishAck { packet_id } => {
            Packet::PublishAck(PublishAck { packet_id, ..PublishAck::default() })
        }
        v3::Packet::PublishReceived { packet_id } => {
            Packet::PublishReceived(PublishAck { packet_id, ..PublishAck::default() })
        }
        v3::Packet::PublishRelease { packet_id } => {
            Packet::PublishRelease(PublishAck2 { packet_id, ..PublishAck2::default() })
        }
        v3::Packet::PublishComplete { packet_id } => {
            Packet::PublishComplete(PublishAck2 { packet_id, ..PublishAck2::default() })
        }
        v3::Packet::SubscribeAck { packet_id, status } => Packet::SubscribeAck(v5::SubscribeAck {
            packet_id,
            properties: Vec::new(),
            reason_string: None,
            status: status
                .into_iter()
                .map(|status| match status {
                    v3::SubscribeReturnCode::Success(qos) => {
                        SubscribeAckReason::try_from(u8::from(qos)).expect("0 to 2")
                    }
                    v3::SubscribeReturnCode::Failure => SubscribeAckReason::UnspecifiedError,
                })
                .collect(),
        }),
        v3::Packet::UnsubscribeAck { packet_id } => Packet::UnsubscribeAck(v5::UnsubscribeAck {
            packet_id,
            properties: Vec::new(),
            reason_string: None,
            status: Vec::<UnsubscribeAckReason>::new(),
        }),
        v3::Packet::PingResponse => Packet::PingResponse,
        other => panic!("no broker says {other:?}"),
    }
}
