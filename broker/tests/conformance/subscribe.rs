//! SUBSCRIBE and UNSUBSCRIBE, and which message goes to whom.

use rmqtt_codec::types::QoS;
use rmqtt_codec::v5::{SubscribeAckReason, UnsubscribeAckReason};

use crate::client::{Hub, clean, id, options, subscribe};
use crate::wire::{BOTH, Version};

/// [MQTT-3.8.4-1], [MQTT-3.8.4-2], [MQTT-3.8.4-5], [MQTT-3.8.4-6], [MQTT-3.8.4-7],
/// [MQTT-3.9.3-1]; 3.1.1: [MQTT-3.8.4-1] to [MQTT-3.8.4-5], [MQTT-3.9.3-1]
#[tokio::test]
async fn mqtt_3_9_3_suback_answers_each_filter_in_order() {
    let hub = Hub::start_with(|config| config.limits.max_subscriptions = 3).await;
    for version in BOTH {
        let mut client = hub.join(version, clean("a")).await;
        let filters = [("a", QoS::ExactlyOnce), ("b", QoS::AtMostOnce), ("c", QoS::AtLeastOnce)];
        let filters = filters.map(|(filter, qos)| (filter, options(qos)));
        let packet = subscribe(id(99), &filters);
        let ack = client.subscribe_packet(packet).await;
        use SubscribeAckReason::{GrantedQos0, GrantedQos1, GrantedQos2};
        assert_eq!(ack.status, [GrantedQos2, GrantedQos0, GrantedQos1]);
        // One too many between two that are there already.
        let filters = ["a", "d", "b"].map(|filter| (filter, options(QoS::AtLeastOnce)));
        let ack = client.subscribe_packet(subscribe(id(100), &filters)).await;
        let refused = match version {
            Version::V3 => SubscribeAckReason::UnspecifiedError,
            Version::V5 => SubscribeAckReason::QuotaExceeded,
        };
        assert_eq!(ack.status, [GrantedQos1, refused, GrantedQos1]);
        client.leave().await;
    }
}

/// [MQTT-3.8.4-8]; 3.1.1: [MQTT-3.8.4-6]
#[tokio::test]
async fn mqtt_3_8_4_a_message_comes_with_the_lower_quality_of_service() {
    let all = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];
    let hub = Hub::start().await;
    for version in BOTH {
        let mut client = hub.join(version, clean("a")).await;
        for granted in all {
            client.subscribe("t", granted).await;
            for published in all {
                client.publish("t", "x", published).await;
                assert_eq!(client.take().await.qos, granted.min(published));
            }
        }
    }
}

/// [MQTT-3.8.4-3]; 3.1.1: [MQTT-3.8.4-3]
#[tokio::test]
async fn mqtt_3_8_4_the_same_filter_again_takes_the_place_of_the_subscription() {
    let hub = Hub::start().await;
    for version in BOTH {
        let mut client = hub.join(version, clean("a")).await;
        client.subscribe("t", QoS::ExactlyOnce).await;
        client.subscribe("t", QoS::AtMostOnce).await;
        client.publish("t", "x", QoS::ExactlyOnce).await;
        assert_eq!(client.take().await.qos, QoS::AtMostOnce);
        client.hears_nothing().await;
        client.unsubscribe(&["t"]).await;
        client.publish("t", "x", QoS::ExactlyOnce).await;
        client.hears_nothing().await;
    }
}

/// [MQTT-3.3.4-2]; 3.1.1: [MQTT-3.3.5-1]
#[tokio::test]
async fn mqtt_3_3_4_overlapping_subscriptions_bring_the_best_of_their_qualities() {
    let hub = Hub::start().await;
    for version in BOTH {
        let mut client = hub.join(version, clean("a")).await;
        client.subscribe("a/#", QoS::AtMostOnce).await;
        client.subscribe("a/+", QoS::ExactlyOnce).await;
        client.subscribe("a/b", QoS::AtLeastOnce).await;
        client.publish("a/b", "x", QoS::ExactlyOnce).await;
        assert_eq!(client.take().await.qos, QoS::ExactlyOnce);
        client.hears_nothing().await;
    }
}

/// [MQTT-3.10.4-1], [MQTT-3.10.4-2], [MQTT-3.10.4-4], [MQTT-3.10.4-5], [MQTT-3.10.4-6],
/// [MQTT-3.11.3-1]; 3.1.1: [MQTT-3.10.4-1] to [MQTT-3.10.4-6], without codes
#[tokio::test]
async fn mqtt_3_10_4_unsubscribe_ends_the_subscriptions_that_it_names_letter_by_letter() {
    let hub = Hub::start().await;
    for version in BOTH {
        let mut client = hub.join(version, clean("a")).await;
        for filter in ["a/+", "a/b", "$share/g/c"] {
            client.subscribe(filter, QoS::AtLeastOnce).await;
        }
        let ack = client.unsubscribe(&["a/+", "a/c", "A/b", "c", "$share/g/c"]).await;
        if version == Version::V5 {
            use UnsubscribeAckReason::{NoSubscriptionExisted, Success};
            let none = NoSubscriptionExisted;
            assert_eq!(ack.status, [Success, none, none, none, Success]);
        }
        client.publish("a/b", "still", QoS::AtLeastOnce).await;
        client.publish("a/c", "gone", QoS::AtLeastOnce).await;
        client.publish("c", "gone", QoS::AtLeastOnce).await;
        assert_eq!(client.heard().await, "still");
        client.hears_nothing().await;
    }
}

/// [MQTT-3.8.3-2], [MQTT-3.10.3-2]; 3.1.1: [MQTT-3.8.3-3], [MQTT-3.10.3-2]
#[tokio::test]
async fn mqtt_3_8_3_a_subscribe_without_a_filter_ends_the_connection() {
    let hub = Hub::start().await;
    let cases: [(Version, &[u8]); 4] = [
        (Version::V3, b"\x82\x02\0\x01"),
        (Version::V5, b"\x82\x03\0\x01\0"),
        (Version::V3, b"\xa2\x02\0\x01"),
        (Version::V5, b"\xa2\x03\0\x01\0"),
    ];
    for (version, bytes) in cases {
        let mut client = hub.join(version, clean("a")).await;
        client.send_raw(bytes).await;
        client.is_ended_for(rmqtt_codec::v5::DisconnectReasonCode::ProtocolError).await;
    }
}
