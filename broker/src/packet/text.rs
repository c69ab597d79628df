//! Strings without U+0000, which is in none (MQTT 5, 1.5.4).

use bytestring::ByteString;
use rmqtt_codec::v5::{LastWill, Packet, PublishProperties, UserProperties};

/// True where a string of a client's packet has U+0000 in it.
pub(super) fn has_null(packet: &Packet) -> bool {
    match packet {
        Packet::Connect(connect) => {
            is_null(&connect.client_id)
                || some(&connect.username)
                || some(&connect.auth_method)
                || pairs(&connect.user_properties)
                || connect.last_will.as_ref().is_some_and(will)
        }
        Packet::Publish(publish) => {
            is_null(&publish.topic) || publish.properties.as_ref().is_some_and(message)
        }
        Packet::PublishAck(ack) | Packet::PublishReceived(ack) => {
            some(&ack.reason_string) || pairs(&ack.properties)
        }
        Packet::PublishRelease(ack) | Packet::PublishComplete(ack) => {
            some(&ack.reason_string) || pairs(&ack.properties)
        }
        Packet::Subscribe(subscribe) => {
            subscribe.topic_filters.iter().any(|(filter, _)| is_null(filter))
                || pairs(&subscribe.user_properties)
        }
        Packet::Unsubscribe(unsubscribe) => {
            unsubscribe.topic_filters.iter().any(is_null) || pairs(&unsubscribe.user_properties)
        }
        Packet::Disconnect(bye) => some(&bye.reason_string) || pairs(&bye.user_properties),
        Packet::Auth(auth) => {
            some(&auth.auth_method) || some(&auth.reason_string) || pairs(&auth.user_properties)
        }
        _ => false,
    }
}

fn will(will: &LastWill) -> bool {
    is_null(&will.topic)
        || some(&will.content_type)
        || some(&will.response_topic)
        || pairs(&will.user_properties)
}

fn message(properties: &PublishProperties) -> bool {
    some(&properties.content_type)
        || some(&properties.response_topic)
        || pairs(&properties.user_properties)
}

fn pairs(properties: &UserProperties) -> bool {
    properties.iter().any(|(name, value)| is_null(name) || is_null(value))
}

fn some(text: &Option<ByteString>) -> bool {
    text.as_ref().is_some_and(is_null)
}

fn is_null(text: &ByteString) -> bool {
    text.contains('\0')
}
