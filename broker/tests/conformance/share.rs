//! Shared subscriptions (MQTT 5, 4.8.2). A client of 3.1.1 may be in a group as well.

use rmqtt_codec::types::QoS;
use rmqtt_codec::v5::{DisconnectReasonCode, Packet, SubscriptionOptions};

use crate::client::{Client, Hub, ack2, clean, lasting, options, retained, subscribe, text};
use crate::wire::{BOTH, Version};

async fn member(hub: &Hub, version: Version, name: &str) -> Client {
    let mut client = hub.join(version, clean(name)).await;
    client.subscribe("$share/g/t/#", QoS::ExactlyOnce).await;
    client
}

async fn sender(hub: &Hub) -> Client {
    hub.join(Version::V5, clean("sender")).await
}

/// 4.8.2: each message goes to one of a group, in turn; every group has it, and so has everybody
/// who subscribed for itself.
#[tokio::test]
async fn mqtt_4_8_2_a_group_shares_its_messages_fairly() {
    let hub = Hub::start().await;
    for version in BOTH {
        let mut sender = sender(&hub).await;
        let mut group = Vec::new();
        for name in ["a", "b", "c"] {
            group.push(member(&hub, version, name).await);
        }
        let mut other = hub.join(version, clean("other")).await;
        other.subscribe("$share/other/t/#", QoS::AtLeastOnce).await;
        let mut plain = hub.join(version, clean("plain")).await;
        plain.subscribe("t/#", QoS::AtLeastOnce).await;
        for n in 0..30 {
            sender.publish("t/x", &n.to_string(), QoS::AtLeastOnce).await;
        }
        let mut all = Vec::new();
        for client in &mut group {
            for _ in 0..10 {
                all.push(client.heard().await.parse::<u32>().expect("a number"));
            }
            client.hears_nothing().await;
        }
        all.sort_unstable();
        assert_eq!(all, (0..30).collect::<Vec<_>>());
        for client in [&mut other, &mut plain] {
            for n in 0..30 {
                assert_eq!(client.heard().await, n.to_string());
            }
        }
    }
}

/// 4.8.2: what a member leaves unacknowledged when its session ends goes to another one.
#[tokio::test]
async fn mqtt_4_8_2_what_a_member_did_not_acknowledge_goes_to_another() {
    let hub = Hub::start().await;
    for version in BOTH {
        let mut sender = sender(&hub).await;
        let (mut dies, mut lives) =
            (member(&hub, version, "dies").await, member(&hub, version, "lives").await);
        for n in 0..6 {
            sender.publish("t", &n.to_string(), QoS::AtLeastOnce).await;
        }
        for n in [0, 2, 4] {
            assert_eq!(text(&dies.next().await), n.to_string());
        }
        drop(dies);
        for n in [1, 3, 5, 0, 2, 4] {
            assert_eq!(lives.heard().await, n.to_string());
        }
        lives.hears_nothing().await;
        lives.leave().await;
    }
}

/// [MQTT-4.8.2-4], [MQTT-4.8.2-5]: a message of QoS 2 that is under way to a member whose session
/// goes on is completed with that member.
#[tokio::test]
async fn mqtt_4_8_2_quality_two_is_completed_with_the_member_that_has_it() {
    let hub = Hub::start().await;
    for version in BOTH {
        let mut sender = sender(&hub).await;
        let mut one = hub.join(version, lasting("one")).await;
        one.subscribe("$share/g/t", QoS::ExactlyOnce).await;
        sender.publish("t", "x", QoS::ExactlyOnce).await;
        let sent = one.next().await.packet_id.expect("an id");
        let mut two = hub.join(version, clean("two")).await;
        two.subscribe("$share/g/t", QoS::ExactlyOnce).await;
        drop(one);
        let mut one = hub.join(version, lasting("one")).await;
        assert_eq!(one.next().await.packet_id, Some(sent));
        one.received(sent).await;
        one.send(Packet::PublishComplete(ack2(sent))).await;
        one.hears_nothing().await;
        two.hears_nothing().await;
        hub.join(version, clean("one")).await.leave().await;
    }
}

/// [MQTT-4.8.2-6]: a member that refuses a message has had it.
#[tokio::test]
async fn mqtt5_4_8_2_a_message_that_a_member_refuses_goes_to_nobody_else() {
    use rmqtt_codec::v5::PublishAckReason;
    let hub = Hub::start().await;
    let mut sender = sender(&hub).await;
    let (mut one, mut two) =
        (member(&hub, Version::V5, "one").await, member(&hub, Version::V5, "two").await);
    sender.publish("t", "x", QoS::AtLeastOnce).await;
    let packet_id = one.next().await.packet_id.expect("an id");
    let reason_code = PublishAckReason::UnspecifiedError;
    let no = rmqtt_codec::v5::PublishAck { reason_code, ..crate::client::ack(packet_id) };
    one.send(Packet::PublishAck(no)).await;
    one.hears_nothing().await;
    two.hears_nothing().await;
}

/// 4.8.2: members that are there come first; what waits for one that is away is its own.
#[tokio::test]
async fn mqtt_4_8_2_a_member_that_is_away_is_passed_over() {
    let hub = Hub::start().await;
    for version in BOTH {
        let mut sender = sender(&hub).await;
        let mut away = hub.join(version, lasting("away")).await;
        away.subscribe("$share/g/t/#", QoS::AtLeastOnce).await;
        away.leave().await;
        let mut here = member(&hub, version, "here").await;
        for n in 0..4 {
            sender.publish("t", &n.to_string(), QoS::AtLeastOnce).await;
            assert_eq!(here.heard().await, n.to_string());
        }
        here.leave().await;
        sender.publish("t", "for the last one", QoS::AtLeastOnce).await;
        let mut away = hub.join(version, lasting("away")).await;
        assert_eq!(away.heard().await, "for the last one");
        away.hears_nothing().await;
        hub.join(version, clean("away")).await.leave().await;
    }
}

/// [MQTT-4.8.2-3]: each member has its own quality of service.
#[tokio::test]
async fn mqtt_4_8_2_each_member_has_the_quality_that_it_was_granted() {
    let hub = Hub::start().await;
    for version in BOTH {
        let mut sender = sender(&hub).await;
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let mut client = hub.join(version, clean("a")).await;
            client.subscribe("$share/g/t", qos).await;
            sender.publish("t", "x", QoS::ExactlyOnce).await;
            assert_eq!(client.take().await.qos, qos);
        }
        hub.join(version, clean("a")).await.leave().await;
    }
}

/// 4.8.2 (and 3.3.1.3): a group is sent no retained messages.
#[tokio::test]
async fn mqtt_4_8_2_a_group_has_no_retained_messages() {
    let hub = Hub::start().await;
    for version in BOTH {
        let mut sender = sender(&hub).await;
        sender.publish_packet(retained("t", "kept", QoS::AtLeastOnce)).await;
        let mut client = member(&hub, version, "a").await;
        client.hears_nothing().await;
        client.leave().await;
    }
}

/// [MQTT-3.8.3-4]
#[tokio::test]
async fn mqtt5_3_8_3_1_no_local_on_a_shared_subscription_ends_the_connection() {
    let hub = Hub::start().await;
    let mut client = hub.join(Version::V5, clean("a")).await;
    let no_local = SubscriptionOptions { no_local: true, ..options(QoS::AtLeastOnce) };
    let packet = subscribe(client.next_id(), &[("$share/g/t", no_local)]);
    client.send(Packet::Subscribe(packet)).await;
    client.is_ended_for(DisconnectReasonCode::ProtocolError).await;
}

/// [MQTT-4.8.2-1], [MQTT-4.8.2-2]
#[tokio::test]
async fn mqtt_4_8_2_a_group_without_a_name_or_a_filter_ends_the_connection() {
    let hub = Hub::start().await;
    for version in BOTH {
        for filter in
            ["$share/g", "$share//t", "$share/g+/t", "$share/#/t", "$share/g/", "$share/g/a#"]
        {
            let mut client = hub.join(version, clean("a")).await;
            let packet = subscribe(client.next_id(), &[(filter, options(QoS::AtLeastOnce))]);
            client.send(Packet::Subscribe(packet)).await;
            client.is_ended_for(DisconnectReasonCode::MalformedPacket).await;
        }
    }
}

/// MQTT 5, 4.8.2: a topic is `$share/…` for nobody: groups see what their filter matches.
#[tokio::test]
async fn mqtt_4_8_2_leaving_a_group_leaves_the_plain_subscription() {
    let hub = Hub::start().await;
    for version in BOTH {
        let mut client = member(&hub, version, "a").await;
        client.subscribe("t/#", QoS::AtLeastOnce).await;
        client.publish("t", "twice", QoS::AtLeastOnce).await;
        assert_eq!([client.heard().await, client.heard().await], ["twice", "twice"]);
        client.unsubscribe(&["$share/g/t/#"]).await;
        client.publish("t", "once", QoS::AtLeastOnce).await;
        assert_eq!(client.heard().await, "once");
        client.hears_nothing().await;
        client.leave().await;
    }
}
