//! Topics and filters.

use rmqtt_codec::types::QoS;
use rmqtt_codec::v5::{DisconnectReasonCode, Packet, Unsubscribe};

use crate::client::{Hub, clean, message, options, subscribe};
use crate::wire::{BOTH, Version};

/// 4.7.1, its examples; [MQTT-3.3.2-3]
#[tokio::test]
async fn mqtt_4_7_1_wildcards_match_as_in_the_examples_of_the_standard() {
    let hub = Hub::start().await;
    for version in BOTH {
        let mut client = hub.join(version, clean("a")).await;
        for (filter, yes, no) in [
            (
                "sport/tennis/player1/#",
                &["sport/tennis/player1", "sport/tennis/player1/score/wimbledon"][..],
                &["sport/tennis", "sport/tennis/player10"][..],
            ),
            ("sport/#", &["sport", "sport/", "sport/a"], &["sports", "Sport/a"]),
            ("sport/tennis/+", &["sport/tennis/player1"], &["sport/tennis/player1/ranking"]),
            ("sport/+", &["sport/"], &["sport", "sport/a/b"]),
            ("+/+", &["/finance", "a/b", "/"], &["finance"]),
            ("/+", &["/finance"], &["finance", "a/finance"]),
            ("+", &["finance"], &["/finance"]),
            ("+/tennis/#", &["sport/tennis", "/tennis/x"], &["tennis"]),
            ("#", &["a", "/", "a//b"], &[]),
        ] {
            client.subscribe(filter, QoS::AtLeastOnce).await;
            for topic in yes {
                client.publish(topic, "x", QoS::AtLeastOnce).await;
                assert_eq!(&*client.take().await.topic, *topic, "{filter}");
            }
            for topic in no {
                client.publish(topic, "x", QoS::AtLeastOnce).await;
                client.hears_nothing().await;
            }
            client.unsubscribe(&[filter]).await;
        }
    }
}

/// [MQTT-4.7.2-1]
#[tokio::test]
async fn mqtt_4_7_2_wildcards_at_the_beginning_match_no_topic_of_the_broker() {
    let hub = Hub::start().await;
    for version in BOTH {
        let mut client = hub.join(version, clean("a")).await;
        for filter in ["#", "+/mine", "+/+"] {
            client.subscribe(filter, QoS::AtLeastOnce).await;
        }
        client.publish("$other/mine", "x", QoS::AtLeastOnce).await;
        client.hears_nothing().await;
        client.leave().await;
    }
}

/// [MQTT-4.7.1-1], [MQTT-4.7.1-2], [MQTT-4.7.3-1]; 3.1.1: [MQTT-4.7.1-2], [MQTT-4.7.1-3],
/// [MQTT-4.7.3-1], [MQTT-4.8.0-1]. Whoever sends such a packet is ended (4.13).
#[tokio::test]
async fn mqtt_4_7_1_a_filter_that_is_none_ends_the_connection() {
    let hub = Hub::start().await;
    for version in BOTH {
        for filter in ["", "sport/tennis#", "sport/tennis/#/ranking", "#/a", "sport+", "a/+b/c"] {
            let mut client = hub.join(version, clean("a")).await;
            let fine = ("fine", options(QoS::AtMostOnce));
            let packet = subscribe(client.next_id(), &[fine, (filter, options(QoS::AtMostOnce))]);
            client.send(Packet::Subscribe(packet)).await;
            client.is_ended_for(DisconnectReasonCode::MalformedPacket).await;
            let mut client = hub.join(version, clean("a")).await;
            let (packet_id, user_properties) = (client.next_id(), Vec::new());
            let topic_filters = vec![filter.into()];
            let packet = Unsubscribe { packet_id, user_properties, topic_filters };
            client.send(Packet::Unsubscribe(packet)).await;
            client.is_ended_for(DisconnectReasonCode::MalformedPacket).await;
        }
    }
}

/// [MQTT-3.3.2-2], [MQTT-4.7.0-1]; 3.1.1: [MQTT-3.3.2-2], [MQTT-4.7.1-1]
#[tokio::test]
async fn mqtt_3_3_2_1_a_topic_with_wildcards_ends_the_connection() {
    let hub = Hub::start().await;
    for version in BOTH {
        let mut watcher = hub.join(version, clean("watcher")).await;
        watcher.subscribe("#", QoS::AtMostOnce).await;
        for topic in ["a/+", "#", "a+b", "a#"] {
            let mut client = hub.join(version, clean("a")).await;
            client.send(message(topic, "x", QoS::AtMostOnce)).await;
            client.is_ended_for(DisconnectReasonCode::TopicNameInvalid).await;
        }
        watcher.hears_nothing().await;
    }
}

/// [MQTT-4.7.3-1]; 3.1.1: [MQTT-4.7.3-1]
#[tokio::test]
async fn mqtt311_4_7_3_a_topic_of_no_length_ends_the_connection() {
    let hub = Hub::start().await;
    let mut client = hub.join(Version::V3, clean("a")).await;
    client.send_raw(b"\x30\x03\0\0x").await;
    assert_eq!(client.last_bytes().await, b"");
}

/// [MQTT-4.7.3-3], [MQTT-4.7.3-4] and 4.7.3: long ones, odd ones, and each for itself.
#[tokio::test]
async fn mqtt_4_7_3_topics_are_compared_letter_by_letter() {
    let hub = Hub::start().await;
    for version in BOTH {
        let mut client = hub.join(version, clean("a")).await;
        let long = "x".repeat(65_535);
        // The last two look the same, and are not.
        let topics = [&*long, "a b", " ", "ACCOUNTS", "Accounts", "\u{e4}", "a\u{308}"];
        for topic in topics {
            client.subscribe(topic, QoS::AtLeastOnce).await;
        }
        for topic in topics {
            client.publish(topic, "x", QoS::AtLeastOnce).await;
            assert!(*client.take().await.topic == *topic);
            client.hears_nothing().await;
        }
    }
}

/// 4.7.1.1 names no number of levels; the broker has one, and keeps it against those who do not.
#[tokio::test]
async fn mqtt_4_7_1_1_topics_and_filters_have_at_most_200_levels() {
    let hub = Hub::start().await;
    for version in BOTH {
        let mut bystander = hub.join(version, clean("bystander")).await;
        let deepest = "/".repeat(199);
        bystander.subscribe(&deepest, QoS::AtLeastOnce).await;
        bystander.publish(&deepest, "x", QoS::AtLeastOnce).await;
        assert!(*bystander.take().await.topic == *deepest);
        for levels in [200, 65_535] {
            let deeper = "/".repeat(levels);
            let mut client = hub.join(version, clean("a")).await;
            let packet = subscribe(client.next_id(), &[(&*deeper, options(QoS::AtMostOnce))]);
            client.send(Packet::Subscribe(packet)).await;
            client.is_ended_for(DisconnectReasonCode::MalformedPacket).await;
            let mut client = hub.join(version, clean("a")).await;
            client.send(message(&deeper, "x", QoS::AtMostOnce)).await;
            client.is_ended_for(DisconnectReasonCode::TopicNameInvalid).await;
        }
        bystander.hears_nothing().await;
    }
}
