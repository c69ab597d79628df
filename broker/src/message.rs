//! A message on its way through the broker, and what a client is told.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use rmqtt_codec::types::{Publish, QoS};
use rmqtt_codec::v5::{DisconnectReasonCode, Packet, PublishProperties};

/// Payloads below this are copied out of the buffer that they were read into: a small message
/// that is kept must not keep all of that buffer alive.
const COPY_BELOW: usize = 4096;

/// A connection, counted from the broker's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ConnectionId(pub(crate) u64);

/// Something for each connection.
pub(crate) type ByConnection<V> = HashMap<ConnectionId, V, BuildHasherDefault<Spread>>;

/// Hashes numbers that nobody else chooses.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Spread(u64);

impl Hasher for Spread {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }
    fn write_u64(&mut self, number: u64) {
        // The golden ratio: neighbours lie far apart.
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

/// A message as it was published; never changed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Message {
    /// Counts messages in the order of their arrival, over every life of the broker.
    pub(crate) number: u64,
    pub(crate) topic: ByteString,
    pub(crate) payload: Bytes,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    /// Without those that concern one connection only.
    pub(crate) properties: Option<Box<PublishProperties>>,
    /// The session that published it, by its serial number; 0 for the broker's own.
    pub(crate) from: u64,
    /// When it is of no more use, in milliseconds since 1970.
    pub(crate) expires_ms: Option<u64>,
}

impl Message {
    /// Takes over what a client published, with nothing of its connection left in it.
    pub(crate) fn new(number: u64, from: u64, now_ms: u64, publish: Publish) -> Self {
        let Publish { topic, payload, qos, retain, properties, .. } = publish;
        let (topic, payload) = own(topic, payload);
        let mut properties = properties.map(Box::new);
        let mut expires_ms = None;
        if let Some(properties) = &mut properties {
            properties.topic_alias = None;
            properties.subscription_ids.clear();
            expires_ms = properties
                .message_expiry_interval
                .take()
                .map(|seconds| now_ms + 1000 * u64::from(seconds.get()));
        }
        let mut properties = properties.filter(|found| **found != PublishProperties::default());
        if let Some(properties) = &mut properties {
            detach(properties);
        }
        Self { number, topic, payload, qos, retain, properties, from, expires_ms }
    }

    /// What it weighs in a queue, bookkeeping included.
    pub(crate) fn weight(&self) -> usize {
        let properties = self.properties.as_ref().map_or(0, |properties| properties.weight());
        self.topic.len() + self.payload.len() + properties + 128
    }

    /// True once it is of no more use.
    pub(crate) fn has_expired(&self, now_ms: u64) -> bool {
        self.expires_ms.is_some_and(|at| at <= now_ms)
    }
}

/// What weighs something by itself.
pub(crate) trait Weight {
    fn weight(&self) -> usize;
}

impl Weight for PublishProperties {
    fn weight(&self) -> usize {
        let texts = [&self.content_type, &self.response_topic].into_iter().flatten();
        let users = self.user_properties.iter().map(|(name, value)| name.len() + value.len());
        size_of::<Self>()
            + texts.map(|text| text.len()).sum::<usize>()
            + self.correlation_data.as_ref().map_or(0, Bytes::len)
            + self.user_properties.len() * size_of::<(ByteString, ByteString)>()
            + users.sum::<usize>()
    }
}

/// Puts properties in memory of their own, in one piece: a small message that is kept must not keep
/// the buffer alive that it was read into.
fn detach(properties: &mut PublishProperties) {
    let mut all = BytesMut::with_capacity(properties.weight());
    let mut own = |bytes: &[u8]| {
        all.extend_from_slice(bytes);
        all.split().freeze()
    };
    if let Some(data) = &mut properties.correlation_data {
        *data = own(data);
    }
    // They were strings before they were copied.
    let mut own = |text: &mut ByteString| {
        *text = ByteString::try_from(own(text.as_bytes())).unwrap_or_default();
    };
    properties.content_type.iter_mut().for_each(&mut own);
    properties.response_topic.iter_mut().for_each(&mut own);
    for (name, value) in &mut properties.user_properties {
        own(name);
        own(value);
    }
}

/// Topic and payload in memory of their own, in one piece, where they are small.
fn own(topic: ByteString, payload: Bytes) -> (ByteString, Bytes) {
    if payload.len() >= COPY_BELOW {
        // Large buffers are not shared by many messages.
        return (ByteString::from(topic.to_string()), payload);
    }
    let mut both = BytesMut::with_capacity(topic.len() + payload.len());
    both.extend_from_slice(topic.as_bytes());
    both.extend_from_slice(&payload);
    let mut both = both.freeze();
    let payload = both.split_off(topic.len());
    // It was a string before it was copied.
    (ByteString::try_from(both).unwrap_or_default(), payload)
}

/// A message on its way to one client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Delivery {
    pub(crate) message: Arc<Message>,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) is_again: bool,
    /// There is one for QoS 1 and 2.
    pub(crate) packet_id: Option<NonZeroU16>,
    pub(crate) subscriptions: Vec<NonZeroU32>,
}

/// What a connection is told to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Out {
    /// The client is accepted: CONNACK.
    Accept { is_resumed: bool },
    /// An answer.
    Packet(Packet),
    /// A message.
    Publish(Delivery),
    /// Nothing more: DISCONNECT where the version has it, and the end of the connection.
    Close(DisconnectReasonCode),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_weigh_what_they_take_and_keep_no_buffer_alive() {
        let buffer = Bytes::from(vec![b'x'; 64 << 10]);
        let text = |from: usize| ByteString::try_from(buffer.slice(from..from + 10)).unwrap();
        let properties = PublishProperties {
            correlation_data: Some(buffer.slice(..10)),
            content_type: Some(text(10)),
            response_topic: Some(text(20)),
            user_properties: vec![(text(30), text(40)); 1000],
            ..PublishProperties::default()
        };
        let publish = Publish {
            dup: false,
            retain: false,
            qos: QoS::AtLeastOnce,
            topic: "t".into(),
            packet_id: None,
            payload: Bytes::new(),
            properties: Some(properties.clone()),
        };
        let message = Message::new(1, 1, 0, publish);
        assert_eq!(message.properties.as_deref(), Some(&properties));
        let taken = 1000 * (20 + 2 * size_of::<ByteString>());
        assert!(message.weight() > taken, "{} of {taken}", message.weight());
        drop(properties);
        assert!(buffer.is_unique());
    }
}
