//! Shared subscriptions.

use super::*;
use crate::access::{Action, Effect, Identity, Kind, Rule};

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
    assert_eq!(world.core.groups, 0);
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

/// Two members that take one message at a time, each with a full queue behind it.
fn two_full_ones(world: &mut World) -> (ConnectionId, ConnectionId) {
    let slow = |client| Hello { receive_max: 1, ..Hello::lasting(client) };
    let (publisher, _) = world.connect(Hello::clean("p"));
    let (one, _) = world.connect(slow("one"));
    world.subscribe(one, "$share/g/t", 1);
    (0..3).for_each(|n| world.publish(publisher, "t", &n.to_string(), 1));
    let (two, _) = world.connect(slow("two"));
    world.subscribe(two, "$share/g/t", 1);
    (3..6).for_each(|n| world.publish(publisher, "t", &n.to_string(), 1));
    (one, two)
}

fn everything_of(world: &mut World, client: ConnectionId) -> Vec<String> {
    let mut heard = Vec::new();
    loop {
        let sent = world.sent(client);
        let Some(last) = sent.last().and_then(|sent| sent.packet_id) else { return heard };
        heard.extend(sent.iter().map(|sent| String::from_utf8_lossy(&sent.message.payload).into()));
        world.event(Event::Done(client, last));
    }
}

#[test]
fn what_no_other_member_has_room_for_stays_with_the_one_that_goes() {
    let mut world = World::with(Limits { max_queued: 2, ..Limits::default() });
    let (one, two) = two_full_ones(&mut world);
    world.leave(one, true);
    let (one, _) = world.connect(Hello { receive_max: 1, ..Hello::lasting("one") });
    let heard = [everything_of(&mut world, one), everything_of(&mut world, two)];
    assert_eq!(heard, [["0", "1", "2"], ["3", "4", "5"]]);
    assert_eq!(world.dropped, 0);
}

#[test]
fn a_message_goes_to_the_member_that_has_room_for_it_in_its_queue() {
    let mut world = World::with(Limits { max_queued: 2, ..Limits::default() });
    let (one, two) = two_full_ones(&mut world);
    assert_eq!(world.dropped, 0, "one's queue was full before two's");
    let (publisher, _) = world.connect(Hello::clean("p"));
    world.publish(publisher, "t", "too much", 1);
    assert_eq!(world.dropped, 1);
    let heard = [everything_of(&mut world, one), everything_of(&mut world, two)];
    assert_eq!(heard.concat().len(), 6);
}

#[test]
fn what_goes_from_one_member_to_another_needs_no_room_beside_itself() {
    let message = "x".repeat(1000);
    let weight = 1000 + 1 + 128;
    let limits = Limits { max_total_queued_bytes: 3 * weight, ..Limits::default() };
    let mut world = World::with(limits);
    let of = |client, receive_max| Hello { user: Some("a"), receive_max, ..Hello::lasting(client) };
    let (one, _) = world.connect(of("one", 1));
    world.subscribe(one, "$share/g/t", 1);
    (0..3).for_each(|_| world.publish(one, "t", &message, 1));
    let (two, _) = world.connect(of("two", 10));
    world.subscribe(two, "$share/g/t", 1);
    world.leave(one, true);
    assert_eq!((world.heard(two).len(), world.crowded_out), (2, 0));
}

/// MQTT-4.8.2-5
#[test]
fn a_message_of_qos_2_that_a_member_may_have_goes_to_nobody_else_when_its_session_ends() {
    let mut world = World::new();
    let (publisher, _) = world.connect(Hello::clean("p"));
    let (dying, _) = world.connect(Hello { receive_max: 1, ..Hello::clean("dying") });
    world.subscribe(dying, "$share/g/t", 2);
    (0..2).for_each(|n| world.publish(publisher, "t", &n.to_string(), 2));
    assert_eq!(world.heard(dying), ["0"]);
    let (other, _) = world.connect(Hello::clean("other"));
    world.subscribe(other, "$share/g/t", 2);
    world.leave(dying, false);
    assert_eq!(world.heard(other), ["1"]);
}

/// What each account may do follows from its kind, as in the fabric; clients whose id begins with
/// `blind` may read `t/a` alone.
fn by_kind(user: Option<&str>, client: &str) -> Option<Rights> {
    let of = |kind| Rights::of(&kind).ok();
    match user {
        Some("ops") => of(Kind::Operator),
        Some(tenant) => of(Kind::Tenant(tenant.split('/').next()?.into())),
        None if client.starts_with("blind") => {
            let pattern = "t/a".parse().ok()?;
            let rule = Rule { effect: Effect::Allow, action: Action::Subscribe, pattern };
            Some(Rights::new(&[rule], Identity { user, client }))
        }
        None => Some(Rights::everything()),
    }
}

fn fabric() -> World {
    World { core: Core::new(Limits::default(), Arc::new(Told(by_kind))), ..World::new() }
}

#[test]
fn what_the_other_member_may_not_read_stays_with_the_one_that_goes() {
    let mut world = fabric();
    let (publisher, _) = world.connect(Hello::clean("p"));
    let slow = Hello { receive_max: 1, ..Hello::lasting("one") };
    let (one, _) = world.connect(slow.clone());
    let (blind, _) = world.connect(Hello::clean("blind"));
    world.subscribe(one, "$share/g/t/+", 1);
    world.subscribe(blind, "$share/g/t/+", 1);
    (0..3).for_each(|n| world.publish(publisher, "t/b", &n.to_string(), 1));
    world.leave(one, true);
    let (one, _) = world.connect(slow);
    assert_eq!(everything_of(&mut world, one), ["0", "1", "2"]);
    assert!(world.heard(blind).is_empty());
}

#[test]
fn in_the_fabric_a_group_is_its_tenant_s_and_strangers_take_no_turn() {
    let mut world = fabric();
    let by = |user, client| Hello { user: Some(user), ..Hello::clean(client) };
    let members = [("ops", "log"), ("alice", "1"), ("alice/press", "2")];
    let [ops, alice, press] = members.map(|(user, client)| world.connect(by(user, client)).0);
    for member in [ops, alice, press] {
        world.subscribe(member, "$share/g/app/alice/#", 1);
    }
    (0..4).for_each(|n| world.publish(alice, "app/alice/x", &n.to_string(), 1));
    let heard = [ops, alice, press].map(|member| world.heard(member).len());
    assert_eq!(heard, [4, 2, 2]);
}

#[test]
fn a_member_has_its_turn_while_it_is_there_and_none_while_it_is_away() {
    let mut world = World::new();
    let (publisher, _) = world.connect(Hello::clean("p"));
    let slow = |client| Hello { receive_max: 1, ..Hello::lasting(client) };
    let (one, _) = world.connect(slow("one"));
    let (two, _) = world.connect(slow("two"));
    [one, two].iter().for_each(|member| world.subscribe(*member, "$share/g/t", 1));
    world.leave(two, true);
    (0..4).for_each(|n| world.publish(publisher, "t", &n.to_string(), 1));
    assert_eq!(everything_of(&mut world, one), ["0", "1", "2", "3"]);
    let (two, _) = world.connect(slow("two"));
    (0..4).for_each(|n| world.publish(publisher, "t", &n.to_string(), 1));
    let heard = [one, two].map(|member| everything_of(&mut world, member).len());
    assert_eq!(heard, [2, 2]);
}
