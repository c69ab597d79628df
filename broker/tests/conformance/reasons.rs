//! Reason codes and strings, and DISCONNECT from the broker.

use rmqtt_codec::types::QoS;
use rmqtt_codec::v5::{Connect, Disconnect, DisconnectReasonCode, Packet, PublishAckReason};

use crate::client::{Hub, clean, id, lasting, message, options, subscribe};
use crate::wire::{BOTH, Version};

/// MQTT 5, 4.13.1 and 3.14.2.2.3: DISCONNECT says what was wrong in a code and in words; after it
/// comes nothing [MQTT-3.14.4-1], [MQTT-3.14.4-2], and no session expiry [MQTT-3.14.2-2].
#[tokio::test]
async fn mqtt5_4_13_an_error_is_answered_with_its_reason() {
    let hub = Hub::start().await;
    let mut client = hub.join(Version::V5, clean("a")).await;
    client.send(clean("a")).await;
    let bye = client.farewell().await.expect("DISCONNECT");
    assert_eq!(bye.reason_code, DisconnectReasonCode::ProtocolError);
    assert!(bye.reason_string.is_some_and(|text| text.contains("CONNECT")));
    assert_eq!(bye.session_expiry_interval_secs, None);
}

/// MQTT 5, 4.13 (3.14.2.1, 0x8B): a broker that stops says so, and wills are not published while
/// their clients can come back; 3.1.1 is closed.
#[tokio::test]
async fn mqtt5_3_14_2_1_a_broker_that_stops_says_so() {
    let hub = Hub::start().await;
    let mut clients = Vec::new();
    for version in BOTH {
        clients.push(hub.join(version, clean(&format!("{version:?}"))).await);
    }
    hub.stop();
    let Ok::<[_; 2], _>([mut old, mut new]) = clients.try_into() else { panic!("one of each") };
    old.is_ended_for(DisconnectReasonCode::ServerShuttingDown).await;
    let bye = new.farewell().await.expect("DISCONNECT");
    assert_eq!(bye.reason_code, DisconnectReasonCode::ServerShuttingDown);
    assert!(bye.reason_string.is_some_and(|text| text.contains("connect again")));
}

/// [MQTT-3.1.2-29]: a client that wants no reason strings gets none but in CONNACK and DISCONNECT.
#[tokio::test]
async fn mqtt5_3_1_2_11_7_a_client_that_wants_no_reasons_gets_none_in_acknowledgements() {
    let hub = Hub::start().await;
    let connect = Connect { request_problem_info: false, ..clean("a") };
    let mut client = hub.join(Version::V5, connect).await;
    let reserved = subscribe(id(1), &[("t", options(QoS::AtLeastOnce))]);
    let ack = client.subscribe_packet(reserved).await;
    assert_eq!((ack.reason_string, ack.properties.len()), (None, 0));
    client
        .send(rmqtt_codec::types::Publish {
            packet_id: Some(id(2)),
            ..message("$SYS/mine", "x", QoS::AtLeastOnce)
        })
        .await;
    let ack = client.expect("PUBACK", |packet| match packet {
        Packet::PublishAck(ack) => Some(ack.clone()),
        _ => None,
    });
    let ack = ack.await;
    assert_eq!(ack.reason_code, PublishAckReason::NotAuthorized);
    assert_eq!((ack.reason_string, ack.properties.len()), (None, 0));
    let ack = client.unsubscribe(&["none"]).await;
    assert_eq!((ack.reason_string, ack.properties.len()), (None, 0));
}

/// MQTT 5, 3.4.2.1 and 3.5.2.1: what may not be published is refused with 0x87, and its id is free
/// [MQTT-4.3.3-9]; 3.1.1 has no way to say it (3.3.5) and is acknowledged.
#[tokio::test]
async fn mqtt_3_4_2_1_a_refused_publish_is_answered() {
    let hub = Hub::start().await;
    for version in BOTH {
        let mut client = hub.join(version, clean("a")).await;
        client.subscribe("$SYS/#", QoS::AtLeastOnce).await;
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let reason = client.publish_packet(message("$SYS/mine", "x", qos)).await;
            let is_told = version == Version::V5 && qos != QoS::AtMostOnce;
            let expected = match is_told {
                true => PublishAckReason::NotAuthorized,
                false => PublishAckReason::Success,
            };
            assert_eq!(reason, expected, "{version:?} {qos:?}");
        }
        client.hears_nothing().await;
    }
}

/// MQTT 5, 3.14.2.1: a client may leave for any of its reasons.
#[tokio::test]
async fn mqtt5_3_14_2_1_a_client_may_say_why_it_leaves() {
    let hub = Hub::start().await;
    for reason_code in [
        DisconnectReasonCode::NormalDisconnection,
        DisconnectReasonCode::DisconnectWithWillMessage,
        DisconnectReasonCode::UnspecifiedError,
        DisconnectReasonCode::PacketTooLarge,
        DisconnectReasonCode::AdministrativeAction,
    ] {
        let bye = Disconnect {
            reason_code,
            reason_string: Some("because".into()),
            user_properties: vec![("a".into(), "b".into())],
            ..Disconnect::default()
        };
        hub.join(Version::V5, lasting("a")).await.leave_with(bye).await;
    }
}

/// [MQTT-3.14.4-2], 3.14.4: after DISCONNECT nothing of a client is processed.
#[tokio::test]
async fn mqtt_3_14_4_nothing_is_processed_after_disconnect() {
    let hub = Hub::start().await;
    for version in BOTH {
        let mut watcher = hub.join(version, clean("watcher")).await;
        watcher.subscribe("t", QoS::AtLeastOnce).await;
        let mut client = hub.join(version, clean("a")).await;
        client.send(message("t", "before", QoS::AtMostOnce)).await;
        client.send(Disconnect::default()).await;
        client.send(message("t", "after", QoS::AtMostOnce)).await;
        assert_eq!(client.ended().await, None);
        assert_eq!(watcher.heard().await, "before");
        watcher.hears_nothing().await;
    }
}

/// MQTT 5, 4.13.1: DISCONNECT comes before the end. A client that goes on sending until it has read
/// why is not reset meanwhile: a reset can take what it has not read yet.
#[tokio::test]
async fn mqtt5_4_13_the_reason_reaches_a_client_that_goes_on_sending() {
    let hub = Hub::start().await;
    let mut client = hub.join(Version::V5, clean("a")).await;
    client.send(clean("a")).await;
    for n in 0..10 {
        let sent = client.try_send_raw(&[0xc0, 0]).await;
        assert!(sent.is_ok(), "{sent:?} after {n}");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    client.is_ended_for(DisconnectReasonCode::ProtocolError).await;
}
