//! Sessions: whose they are, how long they last, what they keep.

use rmqtt_codec::types::QoS;
use rmqtt_codec::v5::{Connect, Disconnect, DisconnectReasonCode};

use crate::client::{Hub, clean, lasting, will};
use crate::wire::{BOTH, Version};

fn for_seconds(client: &str, seconds: u32) -> Connect {
    Connect { session_expiry_interval_secs: seconds, ..lasting(client) }
}

fn with_expiry(seconds: u32) -> Disconnect {
    Disconnect { session_expiry_interval_secs: Some(seconds), ..Disconnect::default() }
}

/// [MQTT-3.1.2-4], [MQTT-3.1.2-5], [MQTT-3.1.2-6], [MQTT-3.2.2-2], [MQTT-3.2.2-3]; 3.1.1:
/// [MQTT-3.1.2-4], [MQTT-3.1.2-6], [MQTT-3.2.2-1], [MQTT-3.2.2-2], [MQTT-3.2.2-3]
#[tokio::test]
async fn mqtt_3_1_2_4_clean_start_begins_anew_and_without_it_the_session_is_present() {
    let hub = Hub::start().await;
    for version in BOTH {
        let (client, is_present) = hub.rejoin(version, lasting("a")).await;
        assert!(!is_present, "there was none");
        client.leave().await;
        let (client, is_present) = hub.rejoin(version, lasting("a")).await;
        assert!(is_present);
        client.leave().await;
        let (client, is_present) = hub.rejoin(version, clean("a")).await;
        assert!(!is_present, "it began anew");
        client.leave().await;
        let (client, is_present) = hub.rejoin(version, lasting("a")).await;
        assert!(!is_present, "the last one left nothing");
        client.leave().await;
        hub.join(version, clean("a")).await.leave().await;
    }
}

/// [MQTT-3.1.2-23], [MQTT-4.1.0-1]; 3.1.1: [MQTT-3.1.2-5], [MQTT-4.1.0-1]
#[tokio::test]
async fn mqtt_3_1_2_11_2_a_session_keeps_subscriptions_and_messages_of_qos_1_and_2() {
    let hub = Hub::start().await;
    let mut sender = hub.join(Version::V5, clean("sender")).await;
    for version in BOTH {
        let mut client = hub.join(version, lasting("a")).await;
        client.subscribe("news", QoS::ExactlyOnce).await;
        client.leave().await;
        for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
            sender.publish("news", &format!("{qos:?}"), qos).await;
        }
        let (mut client, is_present) = hub.rejoin(version, lasting("a")).await;
        assert!(is_present);
        assert_eq!(client.heard().await, "AtLeastOnce");
        assert_eq!(client.heard().await, "ExactlyOnce");
        sender.publish("news", "still subscribed", QoS::AtMostOnce).await;
        assert_eq!(client.heard().await, "still subscribed");
        hub.join(version, clean("a")).await.leave().await;
    }
}

/// [MQTT-3.1.2-4]; 3.1.1: [MQTT-3.1.2-6]
#[tokio::test]
async fn mqtt_3_1_2_4_clean_start_drops_subscriptions_and_what_was_queued() {
    let hub = Hub::start().await;
    let mut sender = hub.join(Version::V5, clean("sender")).await;
    for version in BOTH {
        let mut client = hub.join(version, lasting("a")).await;
        client.subscribe("news", QoS::AtLeastOnce).await;
        client.leave().await;
        sender.publish("news", "queued", QoS::AtLeastOnce).await;
        let mut client = hub.join(version, clean("a")).await;
        sender.publish("news", "fresh", QoS::AtLeastOnce).await;
        client.hears_nothing().await;
        client.leave().await;
    }
}

/// 3.1.1: [MQTT-3.1.2-7]
#[tokio::test]
async fn mqtt_4_1_0_retained_messages_are_no_part_of_the_session() {
    let hub = Hub::start().await;
    for version in BOTH {
        let mut client = hub.join(version, clean("a")).await;
        let kept = crate::client::retained("kept", "here", QoS::AtLeastOnce);
        client.publish_packet(kept).await;
        client.leave().await;
        let mut client = hub.join(version, clean("a")).await;
        client.subscribe("kept", QoS::AtLeastOnce).await;
        assert_eq!(client.heard().await, "here");
    }
}

/// MQTT 5, 3.1.2.11.2: the interval is absent or 0: the session ends with its connection.
#[tokio::test]
async fn mqtt_3_1_2_11_2_a_session_without_expiry_ends_with_its_connection() {
    let hub = Hub::start().await;
    for _ in 0..20 {
        let (client, is_present) = hub.rejoin(Version::V5, for_seconds("a", 0)).await;
        assert!(!is_present);
        client.leave().await;
    }
}

/// MQTT 5, 3.1.2.11.2. The clock runs from the end of the connection.
#[tokio::test]
async fn mqtt_3_1_2_11_2_a_session_ends_when_its_time_is_over() {
    let hub = Hub::start().await;
    let mut watcher = hub.join(Version::V5, clean("watcher")).await;
    watcher.subscribe("ended", QoS::AtLeastOnce).await;
    // Its will, delayed for longer than the session lasts, tells when that ends [MQTT-3.1.2-8].
    let mut last = will("ended", "now");
    last.will_delay_interval_sec = Some(1000);
    let client =
        hub.join(Version::V5, Connect { last_will: Some(last), ..for_seconds("a", 1) }).await;
    let began = std::time::Instant::now();
    drop(client);
    assert_eq!(watcher.heard().await, "now");
    assert!(began.elapsed().as_millis() >= 990, "{:?}", began.elapsed());
    let (client, is_present) = hub.rejoin(Version::V5, for_seconds("a", 1)).await;
    assert!(!is_present);
    client.leave().await;
    // One that comes back in time finds it, and the clock is stopped.
    let (_client, is_present) = hub.rejoin(Version::V5, for_seconds("a", 1)).await;
    assert!(is_present);
}

/// MQTT 5, 3.14.2.2.2: DISCONNECT says another interval. The end of the connection is not seen
/// before it has been taken to heart.
#[tokio::test]
async fn mqtt_3_14_2_2_2_disconnect_changes_the_sessions_expiry() {
    let hub = Hub::start().await;
    let mut half_open = Vec::new();
    for _ in 0..20 {
        let (client, is_present) = hub.rejoin(Version::V5, for_seconds("a", 1000)).await;
        assert!(!is_present, "it was to end with its connection");
        half_open.push(client.leave_with(with_expiry(0)).await);
    }
    hub.join(Version::V5, for_seconds("a", 1)).await.leave_with(with_expiry(1000)).await;
    let mut watcher = hub.join(Version::V5, clean("watcher")).await;
    watcher.subscribe("ended", QoS::AtLeastOnce).await;
    let mut last = will("ended", "now");
    last.will_delay_interval_sec = Some(1000);
    let other = Connect { last_will: Some(last), ..for_seconds("b", 1) };
    drop(hub.join(Version::V5, other).await);
    assert_eq!(watcher.heard().await, "now");
    let (_client, is_present) = hub.rejoin(Version::V5, for_seconds("a", 1)).await;
    assert!(is_present, "another session of one second that ended later is over");
}

/// MQTT 5, 3.14.2.2.2: from zero to another value is a Protocol Error, and no valid DISCONNECT:
/// the will is published.
#[tokio::test]
async fn mqtt_3_14_2_2_2_a_session_without_expiry_cannot_get_one_at_disconnect() {
    let hub = Hub::start().await;
    let mut watcher = hub.join(Version::V5, clean("watcher")).await;
    watcher.subscribe("will", QoS::AtLeastOnce).await;
    let last_will = Some(will("will", "lost"));
    let mut client = hub.join(Version::V5, Connect { last_will, ..for_seconds("a", 0) }).await;
    client.send(with_expiry(10)).await;
    client.is_ended_for(DisconnectReasonCode::ProtocolError).await;
    assert_eq!(watcher.heard().await, "lost");
    let (_client, is_present) = hub.rejoin(Version::V5, for_seconds("a", 0)).await;
    assert!(!is_present);
}

/// MQTT 5, 3.2.2.3.2: a broker that keeps sessions for less says so, and holds to it at DISCONNECT
/// as well.
#[tokio::test]
async fn mqtt_3_2_2_3_2_a_shorter_expiry_than_asked_for_is_said() {
    let hub = Hub::start_with(|config| config.limits.max_session_expiry_seconds = 1).await;
    let (client, ack) = hub.greet(Version::V5, for_seconds("a", 50)).await;
    assert_eq!(ack.session_expiry_interval_secs, Some(1));
    client.leave_with(with_expiry(1000)).await;
    let (client, ack) = hub.greet(Version::V5, for_seconds("a", 1)).await;
    assert_eq!(ack.session_expiry_interval_secs, None);
    assert!(ack.session_present);
    client.leave_with(with_expiry(1000)).await;
    let mut watcher = hub.join(Version::V5, clean("watcher")).await;
    watcher.subscribe("ended", QoS::AtLeastOnce).await;
    let mut last = will("ended", "now");
    last.will_delay_interval_sec = Some(1000);
    drop(hub.join(Version::V5, Connect { last_will: Some(last), ..for_seconds("b", 1) }).await);
    assert_eq!(watcher.heard().await, "now");
    let (_client, is_present) = hub.rejoin(Version::V5, for_seconds("a", 1)).await;
    assert!(!is_present, "it outlived what the broker grants");
}
