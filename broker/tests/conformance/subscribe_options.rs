//! What MQTT 5 adds to a subscription: No Local, and identifiers.

use std::num::NonZeroU32;

use rmqtt_codec::types::{Publish, QoS};
use rmqtt_codec::v5::{Subscribe, SubscriptionOptions};

use crate::client::{Client, Hub, clean, lasting, options, retained, subscribe, text};
use crate::wire::Version;

fn identifiers(publish: &Publish) -> Vec<u32> {
    let properties = publish.properties.as_ref().expect("MQTT 5");
    let mut found: Vec<_> = properties.subscription_ids.iter().map(|id| id.get()).collect();
    found.sort_unstable();
    found
}

async fn identified(client: &mut Client, filter: &str, number: u32) {
    let packet = subscribe(client.next_id(), &[(filter, options(QoS::AtLeastOnce))]);
    client.subscribe_packet(Subscribe { id: NonZeroU32::new(number), ..packet }).await;
}

/// [MQTT-3.8.3-3]
#[tokio::test]
async fn mqtt5_3_8_3_1_no_local_keeps_a_clients_own_messages_from_it() {
    let hub = Hub::start().await;
    let no_local = SubscriptionOptions { no_local: true, ..options(QoS::AtLeastOnce) };
    let mut one = hub.join(Version::V5, clean("a")).await;
    let mut two = hub.join(Version::V5, clean("b")).await;
    one.subscribe_with("t", no_local).await;
    two.subscribe_with("t", no_local).await;
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        one.publish("t", "of one", qos).await;
        assert_eq!(two.heard().await, "of one");
        one.hears_nothing().await;
    }
    // Another subscription of the same client may match without it.
    one.subscribe("#", QoS::AtLeastOnce).await;
    one.publish("t", "again", QoS::AtLeastOnce).await;
    assert_eq!(one.heard().await, "again");
    one.hears_nothing().await;
}

/// [MQTT-3.3.4-3], [MQTT-3.3.4-4]: of every subscription that matches, up to the largest number
/// there is (3.8.2.1.2).
#[tokio::test]
async fn mqtt5_3_3_4_a_message_names_the_subscriptions_that_it_comes_by() {
    let hub = Hub::start().await;
    let mut client = hub.join(Version::V5, clean("a")).await;
    identified(&mut client, "a/#", 1).await;
    identified(&mut client, "a/+", 268_435_455).await;
    identified(&mut client, "a/b", 1).await;
    client.subscribe("#", QoS::AtLeastOnce).await;
    for (topic, expected) in
        [("a", &[1][..]), ("a/c", &[1, 268_435_455]), ("a/b", &[1, 1, 268_435_455]), ("b", &[])]
    {
        client.publish(topic, "x", QoS::AtLeastOnce).await;
        let heard = client.take().await;
        assert_eq!(identifiers(&heard), expected, "{topic}");
        client.hears_nothing().await;
    }
}

/// 3.8.4: another subscription to the filter has another identifier, or none.
#[tokio::test]
async fn mqtt5_3_8_4_an_identifier_is_replaced_with_its_subscription() {
    let hub = Hub::start().await;
    let mut client = hub.join(Version::V5, clean("a")).await;
    for number in [1, 2] {
        identified(&mut client, "t", number).await;
        client.publish("t", "x", QoS::AtLeastOnce).await;
        assert_eq!(identifiers(&client.take().await), [number]);
    }
    client.subscribe("t", QoS::AtLeastOnce).await;
    client.publish("t", "x", QoS::AtLeastOnce).await;
    assert!(identifiers(&client.take().await).is_empty());
}

/// [MQTT-3.3.4-3] for retained messages, shared subscriptions, and over a break; 3.1.2.11.2:
/// identifiers are part of the session.
#[tokio::test]
async fn mqtt5_3_3_4_identifiers_are_kept_with_the_session() {
    let hub = Hub::start().await;
    let mut client = hub.join(Version::V5, lasting("a")).await;
    client.publish_packet(retained("kept", "kept", QoS::AtLeastOnce)).await;
    identified(&mut client, "kept", 7).await;
    let heard = client.take().await;
    assert_eq!((text(&heard).as_str(), identifiers(&heard)), ("kept", vec![7]));
    identified(&mut client, "$share/g/t", 8).await;
    client.leave().await;
    let mut sender = hub.join(Version::V5, clean("sender")).await;
    sender.publish("t", "queued", QoS::AtLeastOnce).await;
    let mut client = hub.join(Version::V5, lasting("a")).await;
    assert_eq!(identifiers(&client.take().await), [8]);
    sender.publish("kept", "live", QoS::AtLeastOnce).await;
    assert_eq!(identifiers(&client.take().await), [7]);
}

/// 3.8.2.1.2: 0 is a Protocol Error.
#[tokio::test]
async fn mqtt5_3_8_2_1_2_an_identifier_of_zero_ends_the_connection() {
    let hub = Hub::start().await;
    let mut client = hub.join(Version::V5, clean("a")).await;
    client.send_raw(b"\x82\x09\0\x01\x02\x0b\0\0\x01t\0").await;
    assert!(client.ended().await.is_some());
}

/// [MQTT-3.8.4-4]: nothing is lost, and nothing comes twice, where a subscription is replaced.
#[tokio::test]
async fn mqtt5_3_8_4_no_message_is_lost_where_a_subscription_is_replaced() {
    let hub = Hub::start().await;
    let mut client = hub.join(Version::V5, clean("a")).await;
    client.subscribe("t", QoS::AtLeastOnce).await;
    let mut sender = hub.join(Version::V5, clean("sender")).await;
    let sending = async {
        for n in 0..100 {
            sender.publish("t", &n.to_string(), QoS::AtLeastOnce).await;
        }
    };
    let receiving = async {
        for n in 0..100 {
            if n % 10 == 0 {
                client.subscribe("t", QoS::AtLeastOnce).await;
            }
            assert_eq!(client.heard().await, n.to_string());
        }
        client.hears_nothing().await;
    };
    tokio::join!(sending, receiving);
}
