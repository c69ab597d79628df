//! Message expiry.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use rmqtt_codec::types::{Publish, QoS};
use rmqtt_codec::v5::{Packet, PublishAck2Reason, PublishProperties};

use crate::client::{Client, Hub, ack2, clean, lasting, message, retained, text, with};
use crate::wire::Version;

fn lasts(seconds: u32, publish: Publish) -> Publish {
    let message_expiry_interval = NonZeroU32::new(seconds);
    with(PublishProperties { message_expiry_interval, ..PublishProperties::default() }, publish)
}

fn left(publish: &Publish) -> Option<u32> {
    publish.properties.as_ref()?.message_expiry_interval.map(NonZeroU32::get)
}

/// Lets so many milliseconds pass: what is tested is that they passed.
async fn pass(milliseconds: u64) {
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
}

async fn with_queue(hub: &Hub) -> Client {
    let mut client = hub.join(Version::V5, lasting("a")).await;
    client.subscribe("t", QoS::ExactlyOnce).await;
    client.leave().await;
    hub.join(Version::V5, clean("sender")).await
}

/// [MQTT-3.3.2-5] and [MQTT-3.3.2-6]: what waited too long is not delivered; the rest says what is
/// left of its time.
#[tokio::test]
async fn mqtt5_3_3_2_3_3_what_has_expired_in_a_queue_is_not_delivered_and_the_rest_has_aged() {
    let hub = Hub::start().await;
    let mut sender = with_queue(&hub).await;
    let began = Instant::now();
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        sender.publish_packet(lasts(1, message("t", "late", qos))).await;
        sender.publish_packet(lasts(60, message("t", "in time", qos))).await;
        sender.publish("t", "for ever", qos).await;
    }
    pass(1100).await;
    let mut client = hub.join(Version::V5, lasting("a")).await;
    for _ in 0..2 {
        let heard = client.take().await;
        assert_eq!(text(&heard), "in time");
        let most = 60 - u32::try_from(began.elapsed().as_secs()).expect("small");
        let remaining = left(&heard).expect("an interval");
        assert!((50..=59).contains(&remaining) && remaining <= most, "{remaining} left");
        let heard = client.take().await;
        assert_eq!((text(&heard).as_str(), left(&heard)), ("for ever", None));
    }
    client.hears_nothing().await;
}

/// 3.3.2.3.3: a message that waits for nobody has its interval as it was.
#[tokio::test]
async fn mqtt5_3_3_2_3_3_a_message_that_goes_on_at_once_keeps_its_interval() {
    let hub = Hub::start().await;
    let mut client = hub.join(Version::V5, clean("a")).await;
    client.subscribe("t", QoS::AtLeastOnce).await;
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
        client.publish_packet(lasts(100, message("t", "x", qos))).await;
        assert_eq!(left(&client.take().await), Some(100));
    }
}

/// 3.3.1.3: a retained message expires as well.
#[tokio::test]
async fn mqtt5_3_3_1_3_a_retained_message_ages_and_expires() {
    let hub = Hub::start().await;
    let mut client = hub.join(Version::V5, clean("a")).await;
    client.publish_packet(lasts(1, retained("kept/short", "x", QoS::AtLeastOnce))).await;
    client.publish_packet(lasts(60, retained("kept/long", "x", QoS::AtLeastOnce))).await;
    pass(1100).await;
    client.subscribe("kept/#", QoS::AtLeastOnce).await;
    let heard = client.take().await;
    assert_eq!(&*heard.topic, "kept/long");
    assert!(left(&heard).is_some_and(|seconds| (50..=59).contains(&seconds)), "{heard:?}");
    client.hears_nothing().await;
}

/// [MQTT-4.3.3-7], [MQTT-4.3.3-13]: what was sent once is completed however old it is.
#[tokio::test]
async fn mqtt5_4_3_3_what_was_sent_does_not_expire_any_more() {
    let hub = Hub::start().await;
    let mut client = hub.join(Version::V5, lasting("a")).await;
    client.subscribe("t", QoS::ExactlyOnce).await;
    client.publish_packet(lasts(1, message("t", "x", QoS::ExactlyOnce))).await;
    let sent = client.next().await.packet_id.expect("an id");
    drop(client);
    pass(1100).await;
    let mut client = hub.join(Version::V5, lasting("a")).await;
    let again = client.next().await;
    assert_eq!((again.packet_id, again.dup), (Some(sent), true));
    assert_eq!(client.received(sent).await, PublishAck2Reason::Success);
    client.send(Packet::PublishComplete(ack2(sent))).await;
    client.hears_nothing().await;
}

/// 3.3.2.3.3 allows an interval of 0: nobody that is away has it.
#[tokio::test]
async fn mqtt5_3_3_2_3_3_an_interval_of_zero_is_no_error() {
    let hub = Hub::start().await;
    let mut sender = with_queue(&hub).await;
    sender.send_raw(b"\x32\x0b\0\x01t\0\x07\x05\x02\0\0\0\0").await;
    sender.puback(crate::client::id(7)).await;
    pass(1100).await;
    let mut client = hub.join(Version::V5, lasting("a")).await;
    client.hears_nothing().await;
}
