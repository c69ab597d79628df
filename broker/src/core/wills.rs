//! Wills: what is published for a client that went without a word.

use std::sync::Arc;

use rmqtt_codec::types::Publish;
use rmqtt_codec::v5::{LastWill, PublishProperties};

use crate::core::session::Will;
use crate::core::{Core, Effects};
use crate::message::Message;

impl Core {
    /// The will of a session that connects.
    pub(super) fn make_will(&mut self, key: usize, will: LastWill) -> Will {
        let delay_seconds = will.will_delay_interval_sec.unwrap_or(0);
        let properties = PublishProperties {
            topic_alias: None,
            correlation_data: will.correlation_data,
            // Counted from its publication.
            message_expiry_interval: will.message_expiry_interval,
            content_type: will.content_type,
            user_properties: will.user_properties,
            is_utf8_payload: will.is_utf8_payload.unwrap_or(false),
            response_topic: will.response_topic,
            subscription_ids: Vec::new(),
        };
        let publish = Publish {
            dup: false,
            retain: will.retain,
            qos: will.qos,
            topic: will.topic,
            packet_id: None,
            payload: will.message,
            properties: Some(properties),
        };
        let from = self.sessions[key].serial;
        // Its number and time are those of its publication.
        let message = Message::new(0, from, 0, publish);
        Will { message: Arc::new(message), delay_seconds }
    }

    /// Publishes the session's will, if it has one.
    pub(super) fn publish_will(&mut self, key: usize, effects: &mut Effects) {
        let session = &mut self.sessions[key];
        if let Some(at) = session.will_at_ms.take() {
            self.alarms.remove(&(at, key));
        }
        let Some(Will { message, .. }) = session.will.take() else { return };
        let Message { topic, retain, payload, .. } = &*message;
        if !session.rights.may_publish_message(topic, *retain, payload) {
            effects.counts.refused += 1;
            let notice = session.notice(self.now_ms, "will dropped", "not authorised", topic);
            effects.notices.extend(notice);
            return;
        }
        let message = Message {
            number: self.next_message,
            topic: message.topic.clone(),
            payload: message.payload.clone(),
            qos: message.qos,
            retain: message.retain,
            properties: message.properties.clone(),
            from: message.from,
            expires_ms: message.expires_ms.map(|lasts_ms| self.now_ms + lasts_ms),
        };
        self.next_message += 1;
        self.route(&Arc::new(message), Some(key), effects);
    }
}
