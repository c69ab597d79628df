//! Receive maximum and maximum packet size, both ways.

use std::num::{NonZeroU16, NonZeroU32};

use rmqtt_codec::types::{Publish, QoS};
use rmqtt_codec::v5::{Connect, DisconnectReasonCode, Packet, PublishAckReason};

use crate::client::{Hub, ack, ack2, clean, id, lasting, message};
use crate::wire::Version;

fn taking(messages: u16, connect: Connect) -> Connect {
    Connect { receive_max: NonZeroU16::new(messages), ..connect }
}

/// [MQTT-3.3.4-9], [MQTT-4.9.0-1], [MQTT-4.9.0-2]; other packets are not held up [MQTT-3.3.4-10],
/// [MQTT-4.9.0-3]; messages of QoS 0 do not count.
#[tokio::test]
async fn mqtt5_4_9_no_more_is_under_way_than_the_client_takes() {
    let hub = Hub::start().await;
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let mut client = hub.join(Version::V5, taking(2, clean("a"))).await;
        client.subscribe("t", QoS::ExactlyOnce).await;
        for n in 0..4 {
            client.publish("t", &n.to_string(), qos).await;
        }
        let (first, second) = (client.next().await, client.next().await);
        client.hears_nothing().await;
        client.publish("t", "fleeting", QoS::AtMostOnce).await;
        assert_eq!(client.heard().await, "fleeting");
        for (sent, next) in [(first, "2"), (second, "3")] {
            let packet_id = sent.packet_id.expect("an id");
            if qos == QoS::ExactlyOnce {
                client.received(packet_id).await;
                client.hears_nothing().await;
                client.send(Packet::PublishComplete(ack2(packet_id))).await;
            } else {
                client.send(Packet::PublishAck(ack(packet_id))).await;
            }
            assert_eq!(crate::client::text(&client.next().await), next);
        }
    }
}

/// [MQTT-3.3.4-9]: what is sent again counts from the beginning, by what the client says now.
#[tokio::test]
async fn mqtt5_4_9_what_is_sent_again_is_no_more_than_the_client_takes_now() {
    let hub = Hub::start().await;
    let mut client = hub.join(Version::V5, taking(10, lasting("a"))).await;
    client.subscribe("t", QoS::ExactlyOnce).await;
    let mut sent = Vec::new();
    for n in 0..5 {
        client.publish("t", &n.to_string(), QoS::AtLeastOnce).await;
        sent.push(client.next().await);
    }
    client.publish("t", "released", QoS::ExactlyOnce).await;
    let released = client.next().await.packet_id.expect("an id");
    client.received(released).await;
    client.publish("t", "queued", QoS::AtLeastOnce).await;
    client.next().await;
    drop(client);
    let mut client = hub.join(Version::V5, taking(2, lasting("a"))).await;
    // PUBREL is no PUBLISH, and does not wait.
    client.pubrel(released).await;
    client.send(Packet::PublishComplete(ack2(released))).await;
    let mut under_way = vec![client.next().await, client.next().await];
    client.hears_nothing().await;
    for (n, before) in sent.into_iter().enumerate() {
        let again = under_way.remove(0);
        assert_eq!(again, Publish { dup: true, ..before }, "{n}");
        let packet_id = again.packet_id.expect("an id");
        client.send(Packet::PublishAck(ack(packet_id))).await;
        if n < 4 {
            under_way.push(client.next().await);
            client.hears_nothing().await;
        }
    }
    assert_eq!(crate::client::text(&under_way[0]), "queued");
    client.hears_nothing().await;
}

/// MQTT 5, 3.3.4 and [MQTT-3.3.4-7]: a client that sends more than the broker takes gets 0x93.
#[tokio::test]
async fn mqtt5_3_3_4_a_client_that_sends_more_than_the_broker_takes_is_ended() {
    let hub = Hub::start_with(|config| config.limits.receive_max = 3).await;
    let (mut client, ack) = hub.greet(Version::V5, clean("a")).await;
    assert_eq!(ack.receive_max.get(), 3);
    let publish = |n| Publish { packet_id: Some(id(n)), ..message("t", "x", QoS::ExactlyOnce) };
    for n in 1..=3 {
        client.send(publish(n)).await;
        assert_eq!(client.pubrec(id(n)).await, PublishAckReason::Success);
    }
    client.release(id(1)).await;
    client.send(publish(4)).await;
    client.pubrec(id(4)).await;
    client.send(publish(5)).await;
    client.is_ended_for(DisconnectReasonCode::ReceiveMaximumExceeded).await;
}

/// 3.1.1 has no receive maximum: its client may have as many messages of QoS 2 under way as there
/// are packet ids (4.3.3, 2.3.1).
#[tokio::test]
async fn mqtt311_4_3_3_a_client_that_cannot_be_told_a_limit_has_none() {
    let hub = Hub::start_with(|config| config.limits.receive_max = 3).await;
    let mut client = hub.join(Version::V3, clean("a")).await;
    for n in 1..=10 {
        let publish = Publish { packet_id: Some(id(n)), ..message("t", "x", QoS::ExactlyOnce) };
        client.send(publish).await;
        client.pubrec(id(n)).await;
    }
    for n in 1..=10 {
        client.release(id(n)).await;
    }
}

/// MQTT 5, 3.1.2.11.3: a receive maximum of 0 is a Protocol Error.
#[tokio::test]
async fn mqtt5_3_1_2_11_3_a_receive_maximum_of_zero_is_refused() {
    let hub = Hub::start().await;
    let mut client = hub.socket(Version::V5).await;
    client.send_raw(b"\x10\x11\0\x04MQTT\x05\x02\0\x3c\x03\x21\0\0\0\x01a").await;
    let answer = client.last_bytes().await;
    assert_eq!(answer, b"\x20\x03\0\x81\0");
}

/// [MQTT-3.1.2-24], [MQTT-3.1.2-25]: what is too large for the client is as good as delivered to
/// it, and to nobody else.
#[tokio::test]
async fn mqtt5_3_1_2_11_4_a_packet_larger_than_the_client_takes_is_not_sent() {
    let hub = Hub::start().await;
    let small = Connect { max_packet_size: NonZeroU32::new(60), ..taking(1, clean("small")) };
    let mut small = hub.join(Version::V5, small).await;
    let mut large = hub.join(Version::V5, clean("large")).await;
    small.subscribe("t", QoS::ExactlyOnce).await;
    large.subscribe("t", QoS::ExactlyOnce).await;
    // 1 + 1 of header, 2 + 1 of topic, 2 of id, 1 of properties.
    for (qos, overhead) in [(QoS::AtMostOnce, 6), (QoS::AtLeastOnce, 8), (QoS::ExactlyOnce, 8)] {
        let (fits, does_not) = ("y".repeat(60 - overhead), "n".repeat(61 - overhead));
        large.publish("t", &does_not, qos).await;
        large.publish("t", &fits, qos).await;
        assert_eq!(small.heard().await, fits);
        assert_eq!(large.heard().await, does_not);
        assert_eq!(large.heard().await, fits);
    }
}

/// [MQTT-3.1.2-24], [MQTT-3.14.2-3]: other packets do not exceed it either.
#[tokio::test]
async fn mqtt5_3_14_2_2_3_a_reason_string_that_makes_the_packet_too_large_is_left_out() {
    let hub = Hub::start().await;
    for (size, has_text) in [(20, false), (200, true)] {
        let connect = Connect { max_packet_size: NonZeroU32::new(size), ..clean("a") };
        let mut client = hub.join(Version::V5, connect.clone()).await;
        client.send(connect).await;
        let bye = client.farewell().await.expect("DISCONNECT");
        assert_eq!(bye.reason_code, DisconnectReasonCode::ProtocolError);
        assert_eq!(bye.reason_string.is_some(), has_text);
    }
}

/// [MQTT-3.1.2-24]: a client that takes not even its CONNACK is closed.
#[tokio::test]
async fn mqtt5_3_1_2_11_4_a_client_that_takes_no_connack_is_closed() {
    let hub = Hub::start().await;
    let connect = Connect { max_packet_size: NonZeroU32::new(5), ..clean("a") };
    let mut client = hub.socket(Version::V5).await;
    client.send(connect).await;
    assert_eq!(client.last_bytes().await, b"");
}

/// [MQTT-3.2.2-15], 3.2.2.3.6: the broker says what it takes, exactly, and 0x95 to what is larger;
/// 3.1.1 is closed.
#[tokio::test]
async fn mqtt_3_2_2_3_6_a_packet_larger_than_the_broker_takes_ends_the_connection() {
    let hub = Hub::start_with(|config| config.max_packet_bytes = 200).await;
    for (version, overhead) in [(Version::V3, 6), (Version::V5, 7)] {
        let (mut client, ack) = hub.greet(version, clean("a")).await;
        assert_eq!(ack.max_packet_size, (version == Version::V5).then_some(200));
        // 1 + 2 of header, 2 + 1 of topic, with MQTT 5 one of properties.
        client.publish("t", &"x".repeat(200 - overhead), QoS::AtMostOnce).await;
        client.send(message("t", &"x".repeat(201 - overhead), QoS::AtMostOnce)).await;
        client.is_ended_for(DisconnectReasonCode::PacketTooLarge).await;
    }
}

/// MQTT 5, 3.2.2.3.6 of CONNECT itself: CONNACK 0x95.
#[tokio::test]
async fn mqtt5_3_2_2_3_6_a_connect_larger_than_the_broker_takes_is_refused() {
    let hub = Hub::start_with(|config| config.max_packet_bytes = 200).await;
    let mut client = hub.socket(Version::V5).await;
    client.send(clean(&"x".repeat(250))).await;
    assert_eq!(client.last_bytes().await, b"\x20\x03\0\x95\0");
}
