//! What a client says: packets with what a test is about, and nothing else in them.

use std::num::NonZeroU16;

use bytes::Bytes;
use rmqtt_codec::types::{Publish, QoS};
use rmqtt_codec::v5::{
    Connect, LastWill, PublishAck, PublishAck2, PublishProperties, Subscribe, SubscriptionOptions,
};

/// Begins anew, and leaves nothing.
pub(crate) fn clean(client: &str) -> Connect {
    Connect { clean_start: true, client_id: client.into(), ..Connect::default() }
}

/// Goes on with its session, which outlives it by long.
pub(crate) fn lasting(client: &str) -> Connect {
    let session_expiry_interval_secs = 1000;
    Connect { clean_start: false, session_expiry_interval_secs, ..clean(client) }
}

pub(crate) fn will(topic: &str, payload: &str) -> LastWill {
    LastWill {
        qos: QoS::AtLeastOnce,
        retain: false,
        topic: topic.into(),
        message: Bytes::copy_from_slice(payload.as_bytes()),
        will_delay_interval_sec: None,
        correlation_data: None,
        message_expiry_interval: None,
        content_type: None,
        user_properties: Vec::new(),
        is_utf8_payload: None,
        response_topic: None,
    }
}

pub(crate) fn message(topic: &str, payload: &str, qos: QoS) -> Publish {
    Publish {
        dup: false,
        retain: false,
        qos,
        topic: topic.into(),
        packet_id: None,
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        properties: None,
    }
}

pub(crate) fn retained(topic: &str, payload: &str, qos: QoS) -> Publish {
    Publish { retain: true, ..message(topic, payload, qos) }
}

pub(crate) fn with(properties: PublishProperties, publish: Publish) -> Publish {
    Publish { properties: Some(properties), ..publish }
}

pub(crate) fn options(qos: QoS) -> SubscriptionOptions {
    SubscriptionOptions { qos, ..SubscriptionOptions::default() }
}

pub(crate) fn subscribe(
    packet_id: NonZeroU16,
    filters: &[(&str, SubscriptionOptions)],
) -> Subscribe {
    let topic_filters =
        filters.iter().map(|(filter, options)| ((*filter).into(), *options)).collect();
    Subscribe { packet_id, id: None, user_properties: Vec::new(), topic_filters }
}

pub(crate) fn ack(packet_id: NonZeroU16) -> PublishAck {
    PublishAck { packet_id, ..PublishAck::default() }
}

pub(crate) fn ack2(packet_id: NonZeroU16) -> PublishAck2 {
    PublishAck2 { packet_id, ..PublishAck2::default() }
}

pub(crate) fn id(number: u16) -> NonZeroU16 {
    NonZeroU16::new(number).expect("not 0")
}

pub(crate) fn text(publish: &Publish) -> String {
    String::from_utf8_lossy(&publish.payload).into_owned()
}
