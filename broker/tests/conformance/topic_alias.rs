//! Topic aliases, both ways.

use std::num::NonZeroU16;

use rmqtt_codec::types::{Publish, QoS};
use rmqtt_codec::v5::{Connect, DisconnectReasonCode, PublishProperties};

use crate::client::{Client, Hub, clean, lasting, message, with};
use crate::wire::Version;

fn aliased(alias: u16, topic: &str, payload: &str) -> Publish {
    let topic_alias = NonZeroU16::new(alias);
    let properties = PublishProperties { topic_alias, ..PublishProperties::default() };
    with(properties, message(topic, payload, QoS::AtLeastOnce))
}

fn alias(publish: &Publish) -> Option<u16> {
    publish.properties.as_ref()?.topic_alias.map(NonZeroU16::get)
}

async fn joined(hub: &Hub, aliases: u16, filter: &str) -> Client {
    let connect = Connect { topic_alias_max: aliases, ..clean("a") };
    let mut client = hub.join(Version::V5, connect).await;
    client.subscribe(filter, QoS::AtLeastOnce).await;
    client
}

/// [MQTT-3.3.2-12], 3.3.2.3.4: an alias stands for its topic until it stands for another one; it
/// is not passed on.
#[tokio::test]
async fn mqtt5_3_3_2_3_4_an_alias_stands_for_the_topic_that_it_came_with_last() {
    let hub = Hub::start().await;
    let mut client = joined(&hub, 0, "t/#").await;
    for (topic, arrives) in [("t/1", "t/1"), ("", "t/1"), ("t/2", "t/2"), ("", "t/2")] {
        client.publish_packet(aliased(1, topic, "x")).await;
        let heard = client.take().await;
        assert_eq!((&*heard.topic, alias(&heard)), (arrives, None));
    }
    client.publish_packet(aliased(64, "t/64", "x")).await;
    client.publish_packet(aliased(64, "", "x")).await;
    client.publish_packet(aliased(1, "", "x")).await;
    for topic in ["t/64", "t/64", "t/2"] {
        assert_eq!(&*client.take().await.topic, topic);
    }
}

/// [MQTT-3.3.2-8], [MQTT-3.3.2-9], 3.2.2.3.8: 0 and more than the broker said are refused.
#[tokio::test]
async fn mqtt5_3_3_2_3_4_an_alias_out_of_range_ends_the_connection() {
    let hub = Hub::start().await;
    let (mut client, ack) = hub.greet(Version::V5, clean("a")).await;
    assert_eq!(ack.topic_alias_max, 64);
    client.send(Publish { packet_id: NonZeroU16::new(1), ..aliased(65, "t", "x") }).await;
    client.is_ended_for(DisconnectReasonCode::TopicAliasInvalid).await;
    let mut client = hub.join(Version::V5, clean("a")).await;
    client.send_raw(b"\x30\x08\0\x01t\x03\x23\0\0x").await;
    client.is_ended_for(DisconnectReasonCode::MalformedPacket).await;
}

/// 4.13 (0x97): what has an alias is remembered as long as the connection lasts, and is at most
/// 64 KiB together, in each direction.
#[tokio::test]
async fn mqtt5_4_13_topics_with_an_alias_are_remembered_up_to_a_limit() {
    let hub = Hub::start().await;
    let long = |end: &str| format!("t/{}/{end}", "x".repeat(40_000));
    let mut client = joined(&hub, 2, "t/#").await;
    for (topic, given) in [(long("1"), Some(1)), (long("2"), None), ("t/3".into(), Some(2))] {
        // Its alias stands for another topic each time.
        client.publish_packet(aliased(1, &topic, "x")).await;
        let heard = client.take().await;
        assert_eq!((&*heard.topic, alias(&heard)), (&*topic, given));
    }
    client.publish_packet(aliased(1, &long("1"), "x")).await;
    client.take().await;
    let second = aliased(2, &long("2"), "x");
    client.send(Publish { packet_id: NonZeroU16::new(1), ..second }).await;
    client.is_ended_for(DisconnectReasonCode::QuotaExceeded).await;
}

/// 3.3.2.3.4: an alias that stands for nothing, and no topic at all, are Protocol Errors.
#[tokio::test]
async fn mqtt5_3_3_2_1_a_message_without_a_topic_ends_the_connection() {
    let hub = Hub::start().await;
    for publish in [aliased(3, "", "x"), aliased(0, "", "x")] {
        let mut client = hub.join(Version::V5, clean("a")).await;
        client.send(Publish { packet_id: NonZeroU16::new(1), ..publish }).await;
        client.is_ended_for(DisconnectReasonCode::ProtocolError).await;
    }
}

/// [MQTT-3.3.2-7]
#[tokio::test]
async fn mqtt5_3_3_2_3_4_aliases_end_with_their_connection() {
    let hub = Hub::start().await;
    let mut client = hub.join(Version::V5, lasting("a")).await;
    client.publish_packet(aliased(1, "t", "x")).await;
    client.leave().await;
    let mut client = hub.join(Version::V5, lasting("a")).await;
    client.send(Publish { packet_id: NonZeroU16::new(1), ..aliased(1, "", "x") }).await;
    client.is_ended_for(DisconnectReasonCode::ProtocolError).await;
}

/// [MQTT-3.1.2-26], [MQTT-3.3.2-11]: the broker uses as many as the client takes, each with its
/// topic the first time.
#[tokio::test]
async fn mqtt5_3_1_2_11_5_the_broker_uses_the_aliases_that_the_client_takes() {
    let hub = Hub::start().await;
    let mut client = joined(&hub, 2, "t/#").await;
    let seen = [
        ("t/1", "t/1", Some(1)),
        ("t/2", "t/2", Some(2)),
        ("t/1", "", Some(1)),
        ("t/3", "t/3", None),
        ("t/2", "", Some(2)),
    ];
    for (topic, written, by) in seen {
        client.publish(topic, "x", QoS::AtLeastOnce).await;
        let heard = client.take().await;
        assert_eq!((&*heard.topic, alias(&heard)), (written, by));
    }
}

/// [MQTT-3.1.2-27]
#[tokio::test]
async fn mqtt5_3_1_2_11_5_a_client_that_takes_no_alias_gets_none() {
    let hub = Hub::start().await;
    let mut client = joined(&hub, 0, "t").await;
    for _ in 0..2 {
        client.publish("t", "x", QoS::AtLeastOnce).await;
        let heard = client.take().await;
        assert_eq!((&*heard.topic, alias(&heard)), ("t", None));
    }
}

/// [MQTT-3.3.2-7] of the broker as a sender: on a new connection the topic comes with its alias
/// again, also of what is sent again.
#[tokio::test]
async fn mqtt5_3_3_2_3_4_what_is_sent_again_has_its_topic() {
    let hub = Hub::start().await;
    let connect = Connect { topic_alias_max: 5, ..lasting("a") };
    let mut client = hub.join(Version::V5, connect.clone()).await;
    client.subscribe("t", QoS::AtLeastOnce).await;
    for _ in 0..2 {
        client.publish("t", "x", QoS::AtLeastOnce).await;
        client.next().await;
    }
    drop(client);
    let mut client = hub.join(Version::V5, connect).await;
    assert_eq!(&*client.take().await.topic, "t");
    let second = client.take().await;
    assert_eq!((&*second.topic, second.dup), ("", true));
}
