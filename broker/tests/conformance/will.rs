//! Wills: what is published for a client that went without a word.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use rmqtt_codec::types::QoS;
use rmqtt_codec::v5::{
    Connect, ConnectAckReason, Disconnect, DisconnectReasonCode, LastWill, SubscriptionOptions,
};

use crate::client::{Client, Hub, clean, lasting, options, text, will};
use crate::wire::{BOTH, Version};

async fn watcher(hub: &Hub) -> Client {
    let mut watcher = hub.join(Version::V5, clean("watcher")).await;
    let as_published =
        SubscriptionOptions { retain_as_published: true, ..options(QoS::ExactlyOnce) };
    watcher.subscribe_with("will/#", as_published).await;
    watcher
}

fn with_will(connect: Connect, last: LastWill) -> Connect {
    Connect { last_will: Some(last), ..connect }
}

fn delayed(seconds: u32) -> LastWill {
    LastWill { will_delay_interval_sec: Some(seconds), ..will("will/t", "delayed") }
}

/// [MQTT-3.1.2-7], [MQTT-3.1.2-8]; 3.1.1: [MQTT-3.1.2-8]
#[tokio::test]
async fn mqtt_3_1_2_5_the_will_of_a_client_that_vanishes_is_published() {
    let hub = Hub::start().await;
    let mut watcher = watcher(&hub).await;
    for version in BOTH {
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let last = LastWill { qos, ..will("will/t", "gone") };
            drop(hub.join(version, with_will(clean("a"), last)).await);
            let heard = watcher.take().await;
            assert_eq!((text(&heard).as_str(), heard.qos, heard.retain), ("gone", qos, false));
        }
    }
}

/// [MQTT-3.1.2-8]: a protocol error of the client counts as well.
#[tokio::test]
async fn mqtt_3_1_2_5_the_will_of_a_client_that_breaks_the_rules_is_published() {
    let hub = Hub::start().await;
    let mut watcher = watcher(&hub).await;
    for version in BOTH {
        let last = will("will/t", "gone");
        let mut client = hub.join(version, with_will(clean("a"), last)).await;
        client.send_raw(&[0xf0, 0]).await;
        client.ended().await;
        assert_eq!(watcher.heard().await, "gone");
    }
}

/// [MQTT-3.1.2-10], [MQTT-3.14.4-3]; 3.1.1: [MQTT-3.1.2-10], [MQTT-3.14.4-3]. Not even a client
/// that is back at once finds its will published.
#[tokio::test]
async fn mqtt_3_14_4_a_polite_disconnect_discards_the_will() {
    let hub = Hub::start().await;
    let mut watcher = watcher(&hub).await;
    for version in BOTH {
        let mut half_open = Vec::new();
        for _ in 0..20 {
            let last = will("will/t", "gone");
            let client = hub.join(version, with_will(clean("a"), last)).await;
            half_open.push(client.leave_with(Disconnect::default()).await);
        }
        let mut client = hub.join(version, clean("a")).await;
        client.publish("will/t", "marker", QoS::AtLeastOnce).await;
        assert_eq!(watcher.heard().await, "marker");
    }
}

/// MQTT 5, 3.14.2.1: 0x04 disconnects with the will.
#[tokio::test]
async fn mqtt_3_14_2_1_a_client_can_leave_and_have_its_will_published() {
    let hub = Hub::start().await;
    let mut watcher = watcher(&hub).await;
    let client = hub.join(Version::V5, with_will(clean("a"), will("will/t", "gone"))).await;
    let reason_code = DisconnectReasonCode::DisconnectWithWillMessage;
    client.leave_with(Disconnect { reason_code, ..Disconnect::default() }).await;
    assert_eq!(watcher.heard().await, "gone");
}

/// [MQTT-3.1.2-14], [MQTT-3.1.2-15]; 3.1.1: [MQTT-3.1.2-16], [MQTT-3.1.2-17]
#[tokio::test]
async fn mqtt_3_1_2_7_a_will_is_retained_if_it_says_so() {
    let hub = Hub::start().await;
    let mut watcher = watcher(&hub).await;
    for version in BOTH {
        let topic = format!("will/{version:?}");
        let plain = will(&topic, "plain");
        drop(hub.join(version, with_will(clean("a"), plain)).await);
        assert!(!watcher.take().await.retain);
        let mut late = hub.join(version, clean("late")).await;
        late.subscribe(&topic, QoS::AtLeastOnce).await;
        late.hears_nothing().await;
        let kept = LastWill { retain: true, ..will(&topic, "kept") };
        drop(hub.join(version, with_will(clean("a"), kept)).await);
        assert!(watcher.take().await.retain, "it is forwarded as it was published");
        assert_eq!(late.heard().await, "kept");
        late.subscribe(&topic, QoS::AtLeastOnce).await;
        let replay = late.take().await;
        assert_eq!((text(&replay).as_str(), replay.retain), ("kept", true));
    }
}

/// MQTT 5, 3.1.3.2; the order of user properties: [MQTT-3.1.3-10]
#[tokio::test]
async fn mqtt_3_1_3_2_a_will_is_published_with_its_properties() {
    let hub = Hub::start().await;
    let mut watcher = watcher(&hub).await;
    let pairs = vec![("b".into(), "1".into()), ("a".into(), "2".into()), ("b".into(), "0".into())];
    let last = LastWill {
        correlation_data: Some("7".into()),
        message_expiry_interval: NonZeroU32::new(100),
        content_type: Some("text/plain".into()),
        user_properties: pairs.clone(),
        is_utf8_payload: Some(true),
        response_topic: Some("reply".into()),
        ..will("will/t", "gone")
    };
    drop(hub.join(Version::V5, with_will(clean("a"), last)).await);
    let heard = watcher.take().await.properties.expect("properties");
    assert_eq!(heard.correlation_data.as_deref(), Some(&b"7"[..]));
    assert_eq!(heard.message_expiry_interval, NonZeroU32::new(100));
    assert_eq!(heard.content_type.as_deref(), Some("text/plain"));
    assert_eq!(heard.user_properties, pairs);
    assert!(heard.is_utf8_payload);
    assert_eq!(heard.response_topic.as_deref(), Some("reply"));
}

/// MQTT 5, 3.1.3.2.2 and [MQTT-3.1.2-8]
#[tokio::test]
async fn mqtt_3_1_3_2_2_a_delayed_will_waits_as_long_as_it_says() {
    let hub = Hub::start().await;
    let mut watcher = watcher(&hub).await;
    let client = hub.join(Version::V5, with_will(lasting("a"), delayed(1))).await;
    let began = Instant::now();
    drop(client);
    assert_eq!(watcher.heard().await, "delayed");
    let waited = began.elapsed();
    assert!(waited >= Duration::from_millis(990) && waited < Duration::from_secs(4), "{waited:?}");
}

/// MQTT 5, 3.1.3.2.2: or until the session ends, whichever is first.
#[tokio::test]
async fn mqtt_3_1_3_2_2_a_delayed_will_waits_no_longer_than_its_session_lasts() {
    let hub = Hub::start().await;
    let mut watcher = watcher(&hub).await;
    for (version, connect) in [(Version::V5, clean("a"))] {
        drop(hub.join(version, with_will(connect, delayed(1000))).await);
        assert_eq!(watcher.heard().await, "delayed");
    }
    let short = Connect { session_expiry_interval_secs: 1, ..lasting("b") };
    drop(hub.join(Version::V5, with_will(short, delayed(1000))).await);
    assert_eq!(watcher.heard().await, "delayed");
}

/// [MQTT-3.1.3-9]
#[tokio::test]
async fn mqtt_3_1_3_2_2_a_client_that_is_back_in_time_silences_its_delayed_will() {
    let hub = Hub::start().await;
    let mut watcher = watcher(&hub).await;
    drop(hub.join(Version::V5, with_will(lasting("a"), delayed(1))).await);
    let _back = hub.join(Version::V5, lasting("a")).await;
    // Another one's, which began later, tells when the first would have been due.
    let other = LastWill { topic: "will/other".into(), ..delayed(1) };
    drop(hub.join(Version::V5, with_will(lasting("b"), other)).await);
    assert_eq!(&*watcher.take().await.topic, "will/other");
}

/// [MQTT-3.1.3-11], [MQTT-4.7.0-1]: a topic with wildcards, or none, is refused with 0x90; 3.1.1
/// has no code for it, and closes.
#[tokio::test]
async fn mqtt_3_1_3_3_a_will_without_a_valid_topic_is_refused() {
    let hub = Hub::start().await;
    for topic in ["a/+", "#", ""] {
        let (mut client, ack) =
            hub.greet(Version::V5, with_will(clean("a"), will(topic, "gone"))).await;
        assert_eq!(ack.reason_code, ConnectAckReason::TopicNameInvalid, "{topic}");
        assert_eq!(client.last_bytes().await, b"");
        let mut client = hub.socket(Version::V3).await;
        client.send(with_will(clean("a"), will(topic, "gone"))).await;
        assert_eq!(client.last_bytes().await, b"", "{topic}");
    }
}
