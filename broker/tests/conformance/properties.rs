//! Properties of a message, which go through the broker as they are.

use rmqtt_codec::types::{Publish, QoS};
use rmqtt_codec::v5::{Connect, DisconnectReasonCode, PublishProperties};

use crate::client::{Client, Hub, clean, lasting, message, retained, with};
use crate::wire::Version;

fn all() -> PublishProperties {
    PublishProperties {
        correlation_data: Some(b"\0\xff\x80"[..].into()),
        content_type: Some("text/plain".into()),
        user_properties: [("b", "1"), ("a", "2"), ("b", "0"), ("", "\u{e4}")]
            .map(|(name, value)| (name.into(), value.into()))
            .to_vec(),
        is_utf8_payload: true,
        response_topic: Some("reply/\u{20ac}".into()),
        ..PublishProperties::default()
    }
}

async fn subscriber(hub: &Hub, name: &str) -> Client {
    let mut client = hub.join(Version::V5, clean(name)).await;
    client.subscribe("t", QoS::ExactlyOnce).await;
    client
}

/// [MQTT-3.3.2-4], [MQTT-3.3.2-15], [MQTT-3.3.2-16], [MQTT-3.3.2-17], [MQTT-3.3.2-18],
/// [MQTT-3.3.2-20]: to every subscriber, at each quality of service.
#[tokio::test]
async fn mqtt5_3_3_2_3_properties_arrive_unaltered_and_in_order() {
    let hub = Hub::start().await;
    let (mut one, mut two) = (subscriber(&hub, "a").await, subscriber(&hub, "b").await);
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        one.publish_packet(with(all(), message("t", "x", qos))).await;
        for client in [&mut one, &mut two] {
            assert_eq!(client.take().await.properties, Some(all()));
        }
    }
}

/// The same over a queue and as a retained message.
#[tokio::test]
async fn mqtt5_3_3_2_3_properties_are_kept_with_the_message() {
    let hub = Hub::start().await;
    let mut away = hub.join(Version::V5, lasting("away")).await;
    away.subscribe("t", QoS::AtLeastOnce).await;
    away.leave().await;
    let mut sender = hub.join(Version::V5, clean("sender")).await;
    sender.publish_packet(with(all(), retained("t", "x", QoS::AtLeastOnce))).await;
    let mut away = hub.join(Version::V5, lasting("away")).await;
    assert_eq!(away.take().await.properties, Some(all()));
    let mut late = subscriber(&hub, "late").await;
    assert_eq!(late.take().await.properties, Some(all()));
}

/// Clients of 3.1.1 have the message without them, and theirs arrive without any.
#[tokio::test]
async fn mqtt_3_3_the_versions_understand_each_other() {
    let hub = Hub::start().await;
    let mut old = hub.join(Version::V3, clean("old")).await;
    old.subscribe("t", QoS::ExactlyOnce).await;
    let mut new = subscriber(&hub, "new").await;
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        new.publish_packet(with(all(), message("t", "from 5", qos))).await;
        let heard = old.take().await;
        assert_eq!((&heard.payload[..], heard.qos), (&b"from 5"[..], qos));
        assert_eq!(new.take().await.qos, qos);
        old.publish("t", "from 3.1.1", qos).await;
        assert_eq!(new.take().await.properties, Some(PublishProperties::default()));
        assert_eq!(old.heard().await, "from 3.1.1");
    }
}

/// MQTT 5, 4.10: who answers has all that it needs.
#[tokio::test]
async fn mqtt5_4_10_a_request_is_answered_where_it_asked_for_it() {
    let hub = Hub::start().await;
    let mut asker = hub.join(Version::V5, clean("asker")).await;
    asker.subscribe("reply/1", QoS::AtLeastOnce).await;
    let mut server = subscriber(&hub, "server").await;
    let request = PublishProperties {
        response_topic: Some("reply/1".into()),
        correlation_data: Some("42".into()),
        ..PublishProperties::default()
    };
    asker.publish_packet(with(request, message("t", "?", QoS::AtLeastOnce))).await;
    let asked = server.take().await.properties.expect("properties");
    let topic = asked.response_topic.expect("a topic");
    let answer =
        PublishProperties { correlation_data: asked.correlation_data, ..Default::default() };
    server.publish_packet(with(answer, message(&topic, "!", QoS::AtLeastOnce))).await;
    let heard = asker.take().await;
    assert_eq!(&heard.payload[..], b"!");
    let found = heard.properties.expect("properties").correlation_data;
    assert_eq!(found.as_deref(), Some(&b"42"[..]));
}

/// [MQTT-3.1.2-28]: without being asked the broker gives no response information.
#[tokio::test]
async fn mqtt5_3_1_2_11_6_no_response_information_is_given_unasked() {
    let hub = Hub::start().await;
    for request_response_info in [false, true] {
        let connect = Connect { request_response_info, ..clean("a") };
        let (_client, ack) = hub.greet(Version::V5, connect).await;
        assert_eq!(ack.response_info, None, "it may be asked for, and has none");
    }
}

/// [MQTT-3.3.2-14]
#[tokio::test]
async fn mqtt5_3_3_2_3_5_a_response_topic_with_wildcards_ends_the_connection() {
    let hub = Hub::start().await;
    for topic in ["a/+", "#"] {
        let mut client = hub.join(Version::V5, clean("a")).await;
        let properties =
            PublishProperties { response_topic: Some(topic.into()), ..Default::default() };
        client.send(with(properties, message("t", "x", QoS::AtMostOnce))).await;
        client.is_ended_for(DisconnectReasonCode::ProtocolError).await;
    }
}

/// [MQTT-3.3.4-6]
#[tokio::test]
async fn mqtt5_3_3_4_a_client_may_not_publish_with_a_subscription_identifier() {
    let hub = Hub::start().await;
    let mut client = hub.join(Version::V5, clean("a")).await;
    let subscription_ids = vec![std::num::NonZeroU32::MIN];
    let properties = PublishProperties { subscription_ids, ..Default::default() };
    client.send(with(properties, message("t", "x", QoS::AtMostOnce))).await;
    client.is_ended_for(DisconnectReasonCode::ProtocolError).await;
}

/// 3.3.3: a payload of zero length is a valid one, and so is a large one.
#[tokio::test]
async fn mqtt_3_3_3_a_payload_is_anything_from_nothing_to_the_largest() {
    let hub = Hub::start().await;
    let mut client = subscriber(&hub, "a").await;
    for size in [0, 1, 127, 128, 16_383, 16_384, 300_000] {
        let payload: Vec<u8> = (0..size).map(|n| n as u8).collect();
        let publish =
            Publish { payload: payload.clone().into(), ..message("t", "", QoS::AtLeastOnce) };
        client.publish_packet(publish).await;
        assert!(client.take().await.payload == payload, "{size} bytes arrive changed");
    }
}
