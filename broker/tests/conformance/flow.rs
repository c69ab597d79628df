//! QoS 1 and 2, both ways: once, in order, and again after a break.

use rmqtt_codec::types::{Publish, QoS};
use rmqtt_codec::v5::{Packet, PublishAck, PublishAck2Reason, PublishAckReason};

use crate::client::{Hub, ack, ack2, clean, id, lasting, message, text};
use crate::wire::{BOTH, Version};

/// [MQTT-3.3.4-1], [MQTT-4.3.1-1], [MQTT-4.3.2-4], [MQTT-4.3.3-8], [MQTT-4.3.3-11],
/// [MQTT-2.2.1-5]; what is sent has DUP 0 [MQTT-4.3.2-2], [MQTT-4.3.3-2], and an id where it has a
/// QoS [MQTT-2.2.1-2], [MQTT-2.2.1-4]
#[tokio::test]
async fn mqtt_4_3_each_quality_of_service_is_answered_with_its_packets() {
    let hub = Hub::start().await;
    for version in BOTH {
        let mut client = hub.join(version, clean("a")).await;
        client.subscribe("t", QoS::ExactlyOnce).await;
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            client.publish("t", "x", qos).await;
            let heard = client.take().await;
            assert_eq!((heard.qos, heard.dup), (qos, false));
            assert_eq!(heard.packet_id.is_some(), qos != QoS::AtMostOnce);
        }
    }
}

/// [MQTT-4.3.2-5]
#[tokio::test]
async fn mqtt_4_3_2_an_id_that_was_acknowledged_stands_for_a_new_message() {
    let hub = Hub::start().await;
    for version in BOTH {
        let mut client = hub.join(version, clean("a")).await;
        client.subscribe("t", QoS::AtMostOnce).await;
        for (payload, dup) in [("one", false), ("two", true)] {
            let publish =
                Publish { packet_id: Some(id(7)), dup, ..message("t", payload, QoS::AtLeastOnce) };
            client.send(publish).await;
            client.puback(id(7)).await;
            assert_eq!(client.heard().await, payload);
        }
    }
}

/// [MQTT-4.3.3-10], [MQTT-4.3.3-12]; 3.1.1: [MQTT-4.3.3-2]
#[tokio::test]
async fn mqtt_4_3_3_an_id_in_use_brings_no_second_copy_until_it_is_released() {
    let hub = Hub::start().await;
    for version in BOTH {
        let mut client = hub.join(version, clean("a")).await;
        client.subscribe("t", QoS::AtMostOnce).await;
        let publish = |text, dup| Publish {
            packet_id: Some(id(7)),
            dup,
            ..message("t", text, QoS::ExactlyOnce)
        };
        for dup in [false, true, false] {
            client.send(publish("one", dup)).await;
            assert_eq!(client.pubrec(id(7)).await, PublishAckReason::Success);
        }
        assert_eq!(client.heard().await, "one");
        client.hears_nothing().await;
        assert_eq!(client.release(id(7)).await, PublishAck2Reason::Success);
        client.send(publish("two", false)).await;
        client.pubrec(id(7)).await;
        assert_eq!(client.heard().await, "two");
    }
}

/// [MQTT-4.3.3-10] over a break of the connection, [MQTT-4.1.0-1]
#[tokio::test]
async fn mqtt_4_3_3_an_id_in_use_is_known_after_a_break() {
    let hub = Hub::start().await;
    for version in BOTH {
        let mut watcher = hub.join(version, clean("watcher")).await;
        watcher.subscribe("t", QoS::AtMostOnce).await;
        let publish = Publish { packet_id: Some(id(7)), ..message("t", "x", QoS::ExactlyOnce) };
        let mut client = hub.join(version, lasting("a")).await;
        client.send(publish.clone()).await;
        client.pubrec(id(7)).await;
        drop(client);
        let mut client = hub.join(version, lasting("a")).await;
        client.send(Publish { dup: true, ..publish }).await;
        client.pubrec(id(7)).await;
        assert_eq!(client.release(id(7)).await, PublishAck2Reason::Success);
        assert_eq!(watcher.heard().await, "x");
        watcher.hears_nothing().await;
        hub.join(version, clean("a")).await.leave().await;
    }
}

/// [MQTT-4.3.3-11]; MQTT 5, 3.7.2.1: 0x92 where the id is not known.
#[tokio::test]
async fn mqtt_3_7_2_1_pubrel_for_an_unknown_id_is_answered() {
    let hub = Hub::start().await;
    for version in BOTH {
        let mut client = hub.join(version, clean("a")).await;
        let reason = match version {
            Version::V3 => PublishAck2Reason::Success,
            Version::V5 => PublishAck2Reason::PacketIdNotFound,
        };
        assert_eq!(client.release(id(9)).await, reason);
        client.ping().await;
    }
}

/// MQTT 5, 3.6.2.1: PUBREC for an id that is not known is answered with 0x92; acknowledgements of
/// nothing are passed over.
#[tokio::test]
async fn mqtt_3_6_2_1_acknowledgements_of_nothing_do_no_harm() {
    let hub = Hub::start().await;
    for version in BOTH {
        let mut client = hub.join(version, clean("a")).await;
        client.send(Packet::PublishAck(ack(id(9)))).await;
        client.send(Packet::PublishComplete(ack2(id(9)))).await;
        let reason = match version {
            Version::V3 => PublishAck2Reason::Success,
            Version::V5 => PublishAck2Reason::PacketIdNotFound,
        };
        assert_eq!(client.received(id(9)).await, reason);
    }
}

/// [MQTT-4.4.0-1], [MQTT-3.3.1-1], [MQTT-4.6.0-1], [MQTT-4.3.2-3], [MQTT-4.3.3-3]
#[tokio::test]
async fn mqtt_4_4_what_was_not_acknowledged_is_sent_again_with_its_id_in_its_order() {
    let hub = Hub::start().await;
    let mut sender = hub.join(Version::V5, clean("sender")).await;
    for version in BOTH {
        let mut client = hub.join(version, lasting("a")).await;
        client.subscribe("t", QoS::ExactlyOnce).await;
        let mut first = Vec::new();
        for (n, qos) in [QoS::AtLeastOnce, QoS::ExactlyOnce, QoS::AtLeastOnce].iter().enumerate() {
            sender.publish("t", &n.to_string(), *qos).await;
            first.push(client.next().await);
        }
        drop(client);
        let mut client = hub.join(version, lasting("a")).await;
        for sent in first {
            assert!(!sent.dup);
            assert_eq!(client.take().await, Publish { dup: true, ..sent });
        }
        client.leave().await;
        // What is acknowledged is not sent again.
        let mut client = hub.join(version, lasting("a")).await;
        client.hears_nothing().await;
        hub.join(version, clean("a")).await.leave().await;
    }
}

/// [MQTT-4.3.3-5], [MQTT-4.3.3-6], [MQTT-4.4.0-1]
#[tokio::test]
async fn mqtt_4_4_after_pubrec_only_the_release_is_sent_again() {
    let hub = Hub::start().await;
    let mut sender = hub.join(Version::V5, clean("sender")).await;
    for version in BOTH {
        let mut client = hub.join(version, lasting("a")).await;
        client.subscribe("t", QoS::ExactlyOnce).await;
        sender.publish("t", "x", QoS::ExactlyOnce).await;
        let sent = client.next().await.packet_id.expect("an id");
        assert_eq!(client.received(sent).await, PublishAck2Reason::Success);
        drop(client);
        let mut client = hub.join(version, lasting("a")).await;
        assert_eq!(client.pubrel(sent).await, PublishAck2Reason::Success);
        client.send(Packet::PublishComplete(ack2(sent))).await;
        client.hears_nothing().await;
        client.leave().await;
        let mut client = hub.join(version, lasting("a")).await;
        client.hears_nothing().await;
        hub.join(version, clean("a")).await.leave().await;
    }
}

/// [MQTT-4.4.0-1]: at no other time is anything sent again.
#[tokio::test]
async fn mqtt_4_4_nothing_is_sent_again_on_a_living_connection() {
    let hub = Hub::start().await;
    for version in BOTH {
        let mut client = hub.join(version, clean("a")).await;
        client.subscribe("t", QoS::AtLeastOnce).await;
        client.publish("t", "x", QoS::AtLeastOnce).await;
        let sent = client.next().await;
        client.subscribe("t", QoS::AtLeastOnce).await;
        client.publish("t", "y", QoS::AtLeastOnce).await;
        let other = client.next().await;
        assert_eq!(text(&other), "y");
        assert_ne!(sent.packet_id, other.packet_id, "an id in use is not given again");
        client.hears_nothing().await;
    }
}

/// [MQTT-4.4.0-2]: the message is done with; MQTT 5, 4.3.3: PUBREC with an error has no PUBREL.
#[tokio::test]
async fn mqtt5_4_4_a_message_that_the_client_refuses_is_done_with() {
    let hub = Hub::start().await;
    let mut client = hub.join(Version::V5, lasting("a")).await;
    client.subscribe("t", QoS::ExactlyOnce).await;
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        client.publish("t", "x", qos).await;
        let packet_id = client.next().await.packet_id.expect("an id");
        let no = PublishAck { reason_code: PublishAckReason::QuotaExceeded, ..ack(packet_id) };
        let no = match qos {
            QoS::ExactlyOnce => Packet::PublishReceived(no),
            _ => Packet::PublishAck(no),
        };
        client.send(no).await;
        client.hears_nothing().await;
    }
    client.leave().await;
    hub.join(Version::V5, lasting("a")).await.hears_nothing().await;
}

/// [MQTT-4.6.0-5], [MQTT-4.6.0-6]; acknowledgements in order: [MQTT-4.6.0-2], [MQTT-4.6.0-3],
/// [MQTT-4.6.0-4] for the broker as a receiver
#[tokio::test]
async fn mqtt_4_6_messages_of_a_client_keep_their_order() {
    let hub = Hub::start().await;
    for version in BOTH {
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let mut client = hub.join(version, clean("a")).await;
            let mut watcher = hub.join(version, clean("b")).await;
            watcher.subscribe("t", qos).await;
            let sent = if qos == QoS::AtMostOnce { None } else { Some(()) };
            for n in 1..=100 {
                let packet_id = sent.map(|()| id(n));
                client.send(Publish { packet_id, ..message("t", &n.to_string(), qos) }).await;
            }
            for n in 1..=100 {
                match qos {
                    QoS::AtMostOnce => {}
                    QoS::AtLeastOnce => {
                        assert!(client.puback(id(n)).await == PublishAckReason::Success)
                    }
                    QoS::ExactlyOnce => {
                        assert!(client.pubrec(id(n)).await == PublishAckReason::Success)
                    }
                }
            }
            for n in 1..=100 {
                assert_eq!(watcher.heard().await, n.to_string());
            }
        }
    }
}

/// [MQTT-3.10.4-3]: what was sent before UNSUBSCRIBE is completed.
#[tokio::test]
async fn mqtt_3_10_4_what_is_under_way_is_completed_after_unsubscribe() {
    let hub = Hub::start().await;
    for version in BOTH {
        let mut client = hub.join(version, lasting("a")).await;
        client.subscribe("t", QoS::ExactlyOnce).await;
        client.publish("t", "x", QoS::ExactlyOnce).await;
        let sent = client.next().await;
        client.unsubscribe(&["t"]).await;
        drop(client);
        let mut client = hub.join(version, lasting("a")).await;
        assert_eq!(client.take().await, Publish { dup: true, ..sent });
        hub.join(version, clean("a")).await.leave().await;
    }
}
