//! Two connections of one client id: the newer one is the client.

use rmqtt_codec::types::QoS;
use rmqtt_codec::v5::{Connect, DisconnectReasonCode};

use crate::client::{Hub, clean, lasting, will};
use crate::wire::{BOTH, Version};

/// [MQTT-3.1.4-3]; 3.1.1: [MQTT-3.1.4-2]
#[tokio::test]
async fn mqtt_3_1_4_the_older_connection_of_a_client_id_is_ended_and_told_why() {
    let hub = Hub::start().await;
    for version in BOTH {
        for connect in [clean("a"), lasting("a")] {
            let mut old = hub.join(version, connect.clone()).await;
            let mut new = hub.join(version, connect).await;
            old.is_ended_for(DisconnectReasonCode::SessionTakenOver).await;
            new.ping().await;
            new.leave().await;
        }
    }
}

/// [MQTT-3.1.2-5]; 3.1.1: [MQTT-3.1.2-4]
#[tokio::test]
async fn mqtt_3_1_4_a_session_with_expiry_goes_on_at_the_newer_connection() {
    let hub = Hub::start().await;
    for version in BOTH {
        let mut old = hub.join(version, lasting("a")).await;
        old.subscribe("t", QoS::AtLeastOnce).await;
        let (mut new, is_present) = hub.rejoin(version, lasting("a")).await;
        assert!(is_present);
        new.publish("t", "mine", QoS::AtLeastOnce).await;
        assert_eq!(new.heard().await, "mine");
        hub.join(version, clean("a")).await.leave().await;
    }
}

/// MQTT 5, 3.1.2.11.2: a session without expiry ends when its connection is closed; 3.1.1:
/// [MQTT-3.1.2-6], state of a clean session is never used again.
#[tokio::test]
async fn mqtt_3_1_4_a_session_without_expiry_ends_when_it_is_taken_over() {
    let hub = Hub::start().await;
    for version in BOTH {
        let mut old = hub.join(version, clean("a")).await;
        old.subscribe("t", QoS::AtLeastOnce).await;
        let (mut new, is_present) = hub.rejoin(version, lasting("a")).await;
        assert!(!is_present, "{version:?}");
        new.publish("t", "mine", QoS::AtLeastOnce).await;
        new.hears_nothing().await;
        hub.join(version, clean("a")).await.leave().await;
    }
}

/// [MQTT-3.1.2-8], [MQTT-3.1.4-3]: the older connection ended without a DISCONNECT of its own.
#[tokio::test]
async fn mqtt_3_1_4_the_will_of_a_client_that_is_taken_over_is_published() {
    let hub = Hub::start().await;
    let mut watcher = hub.join(Version::V5, clean("watcher")).await;
    watcher.subscribe("will", QoS::AtLeastOnce).await;
    for version in BOTH {
        let last_will = Some(will("will", "taken over"));
        let _old = hub.join(version, Connect { last_will, ..clean("a") }).await;
        let new = hub.join(version, clean("a")).await;
        assert_eq!(watcher.heard().await, "taken over");
        new.leave().await;
    }
}

/// [MQTT-3.1.3-9]: the new connection is there before the delay is over; [MQTT-3.1.2-8]: unless it
/// begins anew, for then the session has ended.
#[tokio::test]
async fn mqtt_3_1_3_2_2_a_delayed_will_is_silenced_by_a_take_over_that_goes_on() {
    let hub = Hub::start().await;
    let mut watcher = hub.join(Version::V5, clean("watcher")).await;
    watcher.subscribe("will", QoS::AtLeastOnce).await;
    let mut last = will("will", "delayed");
    last.will_delay_interval_sec = Some(1000);
    let with_will = Connect { last_will: Some(last), ..lasting("a") };
    let _first = hub.join(Version::V5, with_will.clone()).await;
    let _second = hub.join(Version::V5, with_will).await;
    watcher.hears_nothing().await;
    let _third = hub.join(Version::V5, clean("a")).await;
    assert_eq!(watcher.heard().await, "delayed");
}
