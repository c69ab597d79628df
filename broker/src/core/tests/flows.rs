//! Messages on their way, on one life of the broker.

use rmqtt_codec::v5::DisconnectReasonCode;

use super::*;

#[test]
fn a_message_goes_to_those_who_asked_at_the_lower_quality() {
    let mut world = World::new();
    let (publisher, _) = world.connect(Hello::clean("p"));
    let (one, _) = world.connect(Hello::clean("one"));
    let (other, _) = world.connect(Hello::clean("other"));
    world.subscribe(one, "a/+", 1);
    world.subscribe(other, "b", 2);
    world.publish(publisher, "a/x", "m", 2);
    let sent = world.sent(one);
    assert_eq!((sent.len(), sent[0].qos, sent[0].retain), (1, QoS::AtLeastOnce, false));
    assert!(world.sent(other).is_empty());
    world.unsubscribe(one, "a/+");
    world.publish(publisher, "a/x", "m", 0);
    assert!(world.sent(one).is_empty());
}

/// MQTT 5, 3.3.4: one copy, the highest quality, and the identifiers of all.
#[test]
fn overlapping_filters_bring_one_copy() {
    let mut world = World::new();
    let (client, _) = world.connect(Hello::clean("c"));
    for (filter, level, number) in [("a/#", 0, 7), ("a/b", 1, 8), ("x", 2, 9)] {
        let packet = Subscribe {
            packet_id: id(1),
            id: std::num::NonZeroU32::new(number),
            user_properties: Vec::new(),
            topic_filters: vec![(filter.into(), options(level))],
        };
        world.event(Event::Subscribe(client, packet));
    }
    world.publish(client, "a/b", "m", 2);
    let sent = world.sent(client);
    assert_eq!(sent.len(), 1);
    let mut numbers: Vec<_> = sent[0].subscriptions.iter().map(|n| n.get()).collect();
    numbers.sort_unstable();
    assert_eq!((sent[0].qos, numbers), (QoS::AtLeastOnce, vec![7, 8]));
}

#[test]
fn no_local_keeps_a_clients_own_words_from_it() {
    let mut world = World::new();
    let (client, _) = world.connect(Hello::clean("c"));
    let (other, _) = world.connect(Hello::clean("o"));
    let deaf = SubscriptionOptions { no_local: true, ..options(1) };
    world.subscribe_with(client, "a", deaf);
    world.publish(client, "a", "own", 1);
    world.publish(other, "a", "other's", 1);
    assert_eq!(world.heard(client), ["other's"]);
}

/// MQTT 5, 4.3.3: however often it is sent before it is released, it is one message.
#[test]
fn quality_two_arrives_once_each_way() {
    let mut world = World::new();
    let (publisher, _) = world.connect(Hello::clean("p"));
    let (subscriber, _) = world.connect(Hello::clean("s"));
    world.subscribe(subscriber, "a", 2);
    let message = Publish { packet_id: Some(id(9)), ..publish("a", "m", 2) };
    world.event(Event::Publish(publisher, Box::new(message.clone())));
    world.event(Event::Publish(publisher, Box::new(Publish { dup: true, ..message.clone() })));
    let sent = world.sent(subscriber);
    assert_eq!(sent.len(), 1);
    assert_eq!(world.told(publisher).len(), 2, "PUBREC twice");
    world.event(Event::Release(publisher, id(9)));
    world.event(Event::Publish(publisher, Box::new(message)));
    assert_eq!(world.sent(subscriber).len(), 1, "a new message with an old id");

    let packet_id = sent[0].packet_id.expect("an id");
    world.event(Event::Received(subscriber, packet_id));
    let told = world.told(subscriber);
    assert!(
        matches!(&told[..], [Out::Packet(Packet::PublishRelease(r))] if r.packet_id == packet_id)
    );
    world.event(Event::Done(subscriber, packet_id));
}

#[test]
fn no_more_is_under_way_than_the_client_takes() {
    let mut world = World::new();
    let (client, _) = world.connect(Hello { receive_max: 2, ..Hello::clean("c") });
    world.subscribe(client, "a", 1);
    (1..=5).for_each(|n| world.publish(client, "a", &n.to_string(), 1));
    let first = world.sent(client);
    assert_eq!(first.len(), 2);
    world.event(Event::Done(client, first[1].packet_id.expect("an id")));
    assert_eq!(world.heard(client), ["3"]);
    world.event(Event::Done(client, first[0].packet_id.expect("an id")));
    assert_eq!(world.heard(client), ["4"]);
    // One that is not under way changes nothing.
    world.event(Event::Done(client, id(999)));
    assert!(world.heard(client).is_empty());
}

#[test]
fn a_full_queue_drops_what_comes_last_and_counts_it() {
    let limits = Limits { max_in_flight: 1, max_queued: 2, ..Limits::default() };
    let mut world = World::with(limits);
    let (client, _) = world.connect(Hello::clean("c"));
    world.subscribe(client, "a", 1);
    (1..=5).for_each(|n| world.publish(client, "a", &n.to_string(), 1));
    assert_eq!(world.dropped, 2);
    let mut heard = Vec::new();
    loop {
        let sent = world.sent(client);
        let Some(next) = sent.first() else { break };
        heard.push(String::from_utf8_lossy(&next.message.payload).into_owned());
        world.event(Event::Done(client, next.packet_id.expect("an id")));
    }
    assert_eq!(heard, ["1", "2", "3"]);
}

#[test]
fn retained_messages_greet_new_subscriptions_as_they_asked() {
    let mut world = World::new();
    let (publisher, _) = world.connect(Hello::clean("p"));
    let kept = |topic: &str, text: &str| Publish { retain: true, ..publish(topic, text, 0) };
    for (topic, text) in [("a/1", "one"), ("a/2", "two"), ("a/1", "newer"), ("b", "x")] {
        world.event(Event::Publish(publisher, Box::new(kept(topic, text))));
    }
    let (client, _) = world.connect(Hello::clean("c"));
    world.subscribe(client, "a/#", 1);
    let sent = world.sent(client);
    assert!(sent.iter().all(|sent| sent.retain));
    assert_eq!(sent.len(), 2);
    // Living ones are not marked, but for those who asked for it.
    world.event(Event::Publish(publisher, Box::new(kept("a/2", "live"))));
    assert!(!world.sent(client)[0].retain);
    let as_published = SubscriptionOptions {
        retain_as_published: true,
        retain_handling: RetainHandling::NoAtSubscribe,
        ..options(1)
    };
    world.subscribe_with(client, "b", as_published);
    assert!(world.sent(client).is_empty(), "retain handling 2");
    world.event(Event::Publish(publisher, Box::new(kept("b", "live"))));
    assert!(world.sent(client)[0].retain);
    let only_new =
        SubscriptionOptions { retain_handling: RetainHandling::AtSubscribeNew, ..options(1) };
    world.subscribe_with(client, "b", only_new);
    assert!(world.sent(client).is_empty(), "retain handling 1, known");
    world.event(Event::Publish(publisher, Box::new(kept("a/1", ""))));
    world.sent(client);
    world.subscribe(client, "a/1", 0);
    assert!(world.sent(client).is_empty(), "an empty one clears it");
}

#[test]
fn what_has_expired_is_not_sent() {
    let mut world = World::new();
    let (publisher, _) = world.connect(Hello::clean("p"));
    let (client, _) = world.connect(Hello::lasting("c"));
    world.subscribe(client, "a", 1);
    world.leave(client, true);
    let short = Publish { packet_id: Some(id(1)), ..expiring("a", "short", 5) };
    world.event(Event::Publish(publisher, Box::new(short)));
    let long = Publish { packet_id: Some(id(2)), retain: true, ..expiring("a", "long", 60) };
    world.event(Event::Publish(publisher, Box::new(long)));
    world.pass(6);
    let (client, is_resumed) = world.connect(Hello::lasting("c"));
    assert!(is_resumed);
    assert_eq!(world.heard(client), ["long"]);
    world.pass(60);
    world.subscribe(client, "a", 0);
    assert!(world.heard(client).is_empty(), "retained, and its time is over");
}

#[test]
fn the_newest_connection_of_a_client_is_the_client() {
    let mut world = World::new();
    let (old, _) = world.connect(Hello::clean("c"));
    let (new, is_resumed) = world.connect(Hello::clean("c"));
    assert!(!is_resumed);
    assert_eq!(world.told(old), [Out::Close(DisconnectReasonCode::SessionTakenOver)]);
    world.subscribe(new, "a", 0);
    // What the old one sent before it heard of it is nobody's.
    world.publish(old, "a", "late", 0);
    world.leave(old, false);
    assert!(world.heard(new).is_empty());
    assert_eq!(world.core.clients(), (1, 1));
}

#[test]
fn a_will_speaks_for_the_lost_and_not_for_the_polite() {
    let mut world = World::new();
    let (watcher, _) = world.connect(Hello::clean("w"));
    world.subscribe(watcher, "will/#", 0);
    let (polite, _) = world.connect(Hello::clean("a").with_will("will/a", 0));
    world.leave(polite, true);
    assert!(world.heard(watcher).is_empty());
    let (lost, _) = world.connect(Hello::clean("b").with_will("will/b", 0));
    world.leave(lost, false);
    assert_eq!(world.heard(watcher), ["gone"]);
}

#[test]
fn a_delayed_will_waits_and_a_return_silences_it() {
    let mut world = World::new();
    let (watcher, _) = world.connect(Hello::clean("w"));
    world.subscribe(watcher, "will", 0);
    let hello = Hello { expiry_seconds: 100, ..Hello::lasting("c") }.with_will("will", 10);
    let (client, _) = world.connect(hello.clone());
    world.leave(client, false);
    world.pass(9);
    assert!(world.heard(watcher).is_empty());
    let (client, is_resumed) = world.connect(hello.clone());
    assert!(is_resumed);
    world.pass(5);
    assert!(world.heard(watcher).is_empty(), "it is back");
    world.leave(client, false);
    world.pass(10);
    assert_eq!(world.heard(watcher), ["gone"]);
    // Whatever delay it asked for, a session takes its will with it.
    let (client, _) = world.connect(Hello { expiry_seconds: 5, ..hello });
    world.leave(client, false);
    world.pass(5);
    assert_eq!(world.heard(watcher), ["gone"]);
    assert_eq!(world.core.clients(), (1, 1));
}

#[test]
fn one_packet_does_not_ask_for_more_than_is_taken() {
    let limits = Limits { max_subscriptions: 50, max_outbox_bytes: 100_000, ..Limits::default() };
    let mut world = World::with(limits);
    let (client, _) = world.connect(Hello::clean("c"));
    let retained = Publish { retain: true, ..publish("t", &"x".repeat(10_000), 0) };
    world.event(Event::Publish(client, Box::new(retained)));
    let packet = Subscribe {
        packet_id: id(1),
        id: None,
        user_properties: Vec::new(),
        topic_filters: vec![("t".into(), options(0)); 100_000],
    };
    world.event(Event::Subscribe(client, packet));
    assert_eq!(world.sent(client).len(), 9, "so many fit into an outbox");
    assert_eq!(world.dropped, 41);
    let Some(Out::Packet(Packet::SubscribeAck(ack))) = world.told(client).pop() else {
        panic!("no SUBACK");
    };
    let granted = ack.status.iter().filter(|status| u8::from(**status) < 0x80);
    assert_eq!((granted.count(), ack.status.len()), (50, 100_000));
}
