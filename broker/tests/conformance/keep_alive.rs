//! Keep alive: who is silent for too long is gone.

use std::time::{Duration, Instant};

use rmqtt_codec::types::QoS;
use rmqtt_codec::v5::{Connect, DisconnectReasonCode};

use crate::client::{Hub, clean, will};
use crate::wire::{BOTH, Version};

fn every(seconds: u16, client: &str) -> Connect {
    Connect { keep_alive: seconds, ..clean(client) }
}

/// [MQTT-3.1.2-22], [MQTT-3.2.2-22]; 3.1.1: [MQTT-3.1.2-24]. Its will is published
/// [MQTT-3.1.2-8].
#[tokio::test]
async fn mqtt_3_1_2_10_a_silent_client_is_ended_after_one_and_a_half_times_its_keep_alive() {
    let hub = Hub::start().await;
    let mut watcher = hub.join(Version::V5, clean("watcher")).await;
    watcher.subscribe("will", QoS::AtLeastOnce).await;
    let mut clients = Vec::new();
    for version in BOTH {
        let last_will = Some(will("will", "silent"));
        let connect = Connect { last_will, ..every(1, &format!("{version:?}")) };
        clients.push((hub.join(version, connect).await, Instant::now()));
    }
    for (mut client, since) in clients {
        client.is_ended_for(DisconnectReasonCode::KeepAliveTimeout).await;
        let after = since.elapsed();
        assert!(
            after >= Duration::from_millis(1490) && after < Duration::from_millis(2900),
            "{after:?}"
        );
        assert_eq!(watcher.heard().await, "silent");
    }
}

/// [MQTT-3.12.4-1], [MQTT-3.1.2-20]: PINGREQ is answered, and is enough.
#[tokio::test]
async fn mqtt_3_12_a_client_that_pings_is_kept() {
    let hub = Hub::start().await;
    for version in BOTH {
        let mut client = hub.join(version, every(1, "a")).await;
        let began = Instant::now();
        // Until after the time at which it would have been ended.
        while began.elapsed() < Duration::from_millis(2000) {
            client.ping().await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        client.ping().await;
        client.leave().await;
    }
}

/// 3.1.2.10 of both: 0 turns it off. Another client's end tells that time has passed.
#[tokio::test]
async fn mqtt_3_1_2_10_a_keep_alive_of_zero_lets_a_client_be_silent() {
    let hub = Hub::start().await;
    for version in BOTH {
        let mut silent = hub.join(version, every(0, "silent")).await;
        let mut other = hub.join(version, every(1, "other")).await;
        other.is_ended_for(DisconnectReasonCode::KeepAliveTimeout).await;
        silent.ping().await;
    }
}

/// [MQTT-3.1.2-21], [MQTT-3.2.2-21], 3.2.2.3.14: the broker's own keep alive is told, and counts;
/// whoever asks for less has its own [MQTT-3.2.2-22].
#[tokio::test]
async fn mqtt5_3_2_2_3_14_the_server_keep_alive_takes_the_place_of_the_clients() {
    let hub = Hub::start_with(|config| config.max_keep_alive_seconds = 1).await;
    let mut clients = Vec::new();
    for (asked, told) in [(1, None), (2, Some(1)), (0, Some(1))] {
        let (client, ack) = hub.greet(Version::V5, every(asked, &format!("{asked}"))).await;
        assert_eq!(ack.server_keepalive_sec, told, "{asked}");
        clients.push(client);
    }
    let began = Instant::now();
    for mut client in clients {
        client.is_ended_for(DisconnectReasonCode::KeepAliveTimeout).await;
    }
    assert!(began.elapsed() < Duration::from_millis(2900), "{:?}", began.elapsed());
}
