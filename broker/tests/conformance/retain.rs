//! Retained messages.

use rmqtt_codec::types::{Publish, QoS};
use rmqtt_codec::v5::{RetainHandling, SubscriptionOptions};

use crate::client::{Client, Hub, clean, lasting, message, options, retained, text};
use crate::wire::{BOTH, Version};

async fn joined(hub: &Hub, version: Version) -> Client {
    hub.join(version, clean("a")).await
}

/// [MQTT-3.3.1-5]; 3.1.1: [MQTT-3.3.1-5], [MQTT-3.3.1-6], [MQTT-3.3.1-8]: the last one is kept,
/// and marked; each at its quality of service [MQTT-3.8.4-8].
#[tokio::test]
async fn mqtt_3_3_1_3_the_last_retained_message_of_a_topic_greets_a_new_subscription() {
    let hub = Hub::start().await;
    for version in BOTH {
        let mut client = joined(&hub, version).await;
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let topic = format!("kept/{qos:?}");
            client.publish_packet(retained(&topic, "old", qos)).await;
            client.publish_packet(retained(&topic, "new", qos)).await;
            client.subscribe(&topic, QoS::ExactlyOnce).await;
            let heard = client.take().await;
            let seen = (text(&heard), heard.qos, heard.retain, heard.dup);
            assert_eq!(seen, ("new".into(), qos, true, false));
            client.hears_nothing().await;
        }
    }
}

/// [MQTT-3.3.1-8]; 3.1.1: [MQTT-3.3.1-12]
#[tokio::test]
async fn mqtt_3_3_1_3_a_message_that_is_not_retained_changes_nothing() {
    let hub = Hub::start().await;
    for version in BOTH {
        let mut client = joined(&hub, version).await;
        client.publish_packet(retained("kept", "kept", QoS::AtLeastOnce)).await;
        client.publish("kept", "passing", QoS::AtLeastOnce).await;
        client.publish("kept", "", QoS::AtLeastOnce).await;
        client.subscribe("kept", QoS::AtLeastOnce).await;
        assert_eq!(client.heard().await, "kept");
        client.hears_nothing().await;
    }
}

/// [MQTT-3.3.1-6], [MQTT-3.3.1-7]; 3.1.1: [MQTT-3.3.1-10], [MQTT-3.3.1-11]: an empty one clears,
/// and is itself delivered as any other.
#[tokio::test]
async fn mqtt_3_3_1_3_an_empty_message_clears_the_topic() {
    let hub = Hub::start().await;
    for version in BOTH {
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let mut client = joined(&hub, version).await;
            client.publish_packet(retained("kept", "x", qos)).await;
            client.subscribe("kept", QoS::ExactlyOnce).await;
            assert_eq!(client.heard().await, "x");
            client.publish_packet(retained("kept", "", qos)).await;
            let heard = client.take().await;
            assert_eq!((heard.payload.len(), heard.qos, heard.retain), (0, qos, false));
            client.subscribe("kept", QoS::ExactlyOnce).await;
            client.hears_nothing().await;
        }
    }
}

/// [MQTT-3.3.1-12]; 3.1.1: [MQTT-3.3.1-9]
#[tokio::test]
async fn mqtt_3_3_1_3_a_living_subscription_sees_no_retain_flag() {
    let hub = Hub::start().await;
    for version in BOTH {
        let mut client = joined(&hub, version).await;
        client.subscribe("t", QoS::AtLeastOnce).await;
        client.publish_packet(retained("t", "x", QoS::AtLeastOnce)).await;
        assert!(!client.take().await.retain);
        client.publish_packet(retained("t", "", QoS::AtLeastOnce)).await;
        client.take().await;
    }
}

/// [MQTT-3.3.1-13]
#[tokio::test]
async fn mqtt5_3_3_1_3_retain_as_published_leaves_the_flag_as_it_was() {
    let hub = Hub::start().await;
    let mut client = joined(&hub, Version::V5).await;
    let as_published =
        SubscriptionOptions { retain_as_published: true, ..options(QoS::AtLeastOnce) };
    client.subscribe_with("t", as_published).await;
    for retain in [true, false] {
        let publish = Publish { retain, ..message("t", "x", QoS::AtLeastOnce) };
        client.publish_packet(publish).await;
        assert_eq!(client.take().await.retain, retain);
    }
}

/// [MQTT-3.3.1-9], [MQTT-3.3.1-10], [MQTT-3.3.1-11]; [MQTT-3.8.4-4]
#[tokio::test]
async fn mqtt5_3_3_1_3_retain_handling_says_when_retained_messages_are_sent() {
    let hub = Hub::start().await;
    let mut client = joined(&hub, Version::V5).await;
    client.publish_packet(retained("t", "kept", QoS::AtLeastOnce)).await;
    for (retain_handling, first, second) in [
        (RetainHandling::AtSubscribe, true, true),
        (RetainHandling::AtSubscribeNew, true, false),
        (RetainHandling::NoAtSubscribe, false, false),
    ] {
        let options = SubscriptionOptions { retain_handling, ..options(QoS::AtLeastOnce) };
        for is_sent in [first, second] {
            client.subscribe_with("t", options).await;
            if is_sent {
                assert_eq!(client.heard().await, "kept");
            }
            client.hears_nothing().await;
        }
        client.unsubscribe(&["t"]).await;
    }
}

/// [MQTT-3.8.4-4]; 3.1.1: [MQTT-3.8.4-3]: the same filter again is sent them again.
#[tokio::test]
async fn mqtt_3_8_4_a_subscription_that_is_repeated_is_greeted_again() {
    let hub = Hub::start().await;
    for version in BOTH {
        let mut client = joined(&hub, version).await;
        client.publish_packet(retained("t", "kept", QoS::AtLeastOnce)).await;
        for _ in 0..2 {
            client.subscribe("t", QoS::AtLeastOnce).await;
            assert_eq!(client.heard().await, "kept");
        }
        client.hears_nothing().await;
    }
}

/// A session that is resumed subscribes to nothing anew: 3.3.1.3 sends them when a subscription is
/// made.
#[tokio::test]
async fn mqtt_3_3_1_3_a_resumed_session_is_not_greeted_again() {
    let hub = Hub::start().await;
    for version in BOTH {
        let mut client = hub.join(version, lasting("a")).await;
        client.publish_packet(retained("t", "kept", QoS::AtLeastOnce)).await;
        client.subscribe("t", QoS::AtLeastOnce).await;
        client.heard().await;
        client.leave().await;
        let mut client = hub.join(version, lasting("a")).await;
        client.hears_nothing().await;
        hub.join(version, clean("a")).await.leave().await;
    }
}

/// [MQTT-3.3.1-9] with wildcards, and [MQTT-4.7.2-1]
#[tokio::test]
async fn mqtt_3_3_1_3_every_matching_retained_message_is_sent() {
    let hub = Hub::start().await;
    for version in BOTH {
        let mut client = joined(&hub, version).await;
        for topic in ["k", "k/a", "k/a/b", "k/b", "other"] {
            client.publish_packet(retained(topic, topic, QoS::AtLeastOnce)).await;
        }
        for (filter, expected) in [
            ("k/#", &["k", "k/a", "k/a/b", "k/b"][..]),
            ("k/+", &["k/a", "k/b"]),
            ("+/a/#", &["k/a", "k/a/b"]),
            ("#", &["k", "k/a", "k/a/b", "k/b", "other"]),
        ] {
            client.subscribe(filter, QoS::AtLeastOnce).await;
            for topic in expected {
                assert_eq!(&client.heard().await, topic, "{filter}");
            }
            client.hears_nothing().await;
        }
    }
}

/// [MQTT-3.8.3-3]: nothing of its own is forwarded to a client that asked for that.
#[tokio::test]
async fn mqtt5_3_8_3_1_no_local_holds_for_retained_messages() {
    let hub = Hub::start().await;
    let mut client = joined(&hub, Version::V5).await;
    client.publish_packet(retained("t", "own", QoS::AtLeastOnce)).await;
    let no_local = SubscriptionOptions { no_local: true, ..options(QoS::AtLeastOnce) };
    client.subscribe_with("t", no_local).await;
    client.hears_nothing().await;
    let mut other = hub.join(Version::V5, clean("other")).await;
    other.subscribe_with("t", no_local).await;
    assert_eq!(other.heard().await, "own");
}
