//! Shared subscriptions.

use super::*;

#[test]
fn one_of_the_group_has_each_message_in_turn() {
    let mut world = World::new();
    let (publisher, _) = world.connect(Hello::clean("p"));
    let members = ["a", "b", "c"].map(|name| world.connect(Hello::clean(name)).0);
    let (outsider, _) = world.connect(Hello::clean("o"));
    members.iter().for_each(|member| world.subscribe(*member, "$share/g/t/#", 1));
    world.subscribe(outsider, "t/x", 0);
    (0..9).for_each(|n| world.publish(publisher, "t/x", &n.to_string(), 1));
    assert_eq!(world.heard(outsider).len(), 9);
    let heard = members.map(|member| world.heard(member).len());
    assert_eq!(heard, [3, 3, 3]);
}

/// MQTT 5, 4.8.2: what a member had not acknowledged when its session ended goes to another.
#[test]
fn what_a_member_did_not_finish_another_one_has() {
    let mut world = World::new();
    let (publisher, _) = world.connect(Hello::clean("p"));
    let (dying, _) = world.connect(Hello::clean("dying"));
    world.subscribe(dying, "$share/g/t", 1);
    (0..3).for_each(|n| world.publish(publisher, "t", &n.to_string(), 1));
    let sent = world.sent(dying);
    world.event(Event::Done(dying, sent[0].packet_id.expect("an id")));
    let (other, _) = world.connect(Hello::clean("other"));
    world.subscribe(other, "$share/g/t", 1);
    world.leave(dying, false);
    assert_eq!(world.heard(other), ["1", "2"]);
    world.publish(publisher, "t", "3", 1);
    assert_eq!(world.heard(other), ["3"]);
}

#[test]
fn a_member_that_is_away_is_passed_over_while_another_is_there() {
    let mut world = World::new();
    let (publisher, _) = world.connect(Hello::clean("p"));
    let (away, _) = world.connect(Hello::lasting("away"));
    let (here, _) = world.connect(Hello::lasting("here"));
    world.subscribe(away, "$share/g/t", 1);
    world.subscribe(here, "$share/g/t", 1);
    world.leave(away, true);
    (0..4).for_each(|n| world.publish(publisher, "t", &n.to_string(), 1));
    assert_eq!(world.heard(here), ["0", "1", "2", "3"]);
    world.leave(here, true);
    world.publish(publisher, "t", "kept", 1);
    let heard = [Hello::lasting("away"), Hello::lasting("here")].map(|hello| {
        let (client, _) = world.connect(hello);
        world.heard(client)
    });
    assert_eq!(heard.concat().iter().filter(|text| *text == "kept").count(), 1, "{heard:?}");
}

#[test]
fn a_group_has_no_retained_messages_and_ends_with_its_last_member() {
    let mut world = World::new();
    let (client, _) = world.connect(Hello::clean("c"));
    let kept = Publish { retain: true, ..publish("t", "kept", 1) };
    world.event(Event::Publish(client, Box::new(kept)));
    world.subscribe(client, "$share/g/t", 1);
    assert!(world.sent(client).is_empty());
    world.unsubscribe(client, "$share/g/t");
    world.publish(client, "t", "m", 1);
    assert!(world.sent(client).is_empty());
    assert!(world.core.shares.is_empty());
}

#[test]
fn one_copy_comes_by_the_own_filters_and_one_by_the_group_in_whatever_order_they_match() {
    let mut world = World::new();
    let (client, _) = world.connect(Hello::clean("c"));
    // The walk finds the group's between the two others.
    for filter in ["a/#", "$share/g/a/b", "a/+"] {
        world.subscribe(client, filter, 1);
    }
    world.publish(client, "a/b", "m", 1);
    assert_eq!(world.heard(client), ["m", "m"]);
}
