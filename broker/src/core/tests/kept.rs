//! What outlives a connection, and the broker.

use std::path::Path;

use super::*;
use crate::access::Kind;
use crate::config::Durability;
use crate::report::Inventory;
use crate::store::Store;

#[test]
fn a_session_is_resumed_with_what_was_under_way_and_what_came_since() {
    let mut world = World::new();
    let (publisher, _) = world.connect(Hello::clean("p"));
    let (client, is_resumed) = world.connect(Hello { receive_max: 2, ..Hello::lasting("c") });
    assert!(!is_resumed);
    world.subscribe(client, "a", 2);
    (1..=3).for_each(|n| world.publish(publisher, "a", &n.to_string(), 2));
    let sent = world.sent(client);
    let ids: Vec<_> = sent.iter().map(|sent| sent.packet_id).collect();
    world.event(Event::Received(client, ids[0].expect("an id")));
    world.told(client);
    world.leave(client, false);
    world.publish(publisher, "a", "4", 1);
    world.publish(publisher, "a", "nobody keeps this", 0);
    let (client, is_resumed) = world.connect(Hello::lasting("c"));
    assert!(is_resumed);
    let told = world.told(client);
    assert!(
        matches!(&told[0], Out::Packet(Packet::PublishRelease(r)) if Some(r.packet_id) == ids[0]),
        "{told:?}"
    );
    let sent: Vec<_> = told[1..]
        .iter()
        .map(|out| match out {
            Out::Publish(sent) => (&sent.message.payload[..], sent.is_again, sent.packet_id),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!((sent[0].0, sent[0].1, sent[0].2), (&b"2"[..], true, ids[1]));
    assert_eq!((sent[1].0, sent[1].1), (&b"3"[..], false));
    assert_eq!((sent[2].0, sent[2].1), (&b"4"[..], false));
    assert_eq!(sent.len(), 3);
}

#[test]
fn a_session_ends_when_its_time_is_over_or_somebody_begins_anew() {
    let mut world = World::new();
    let hello = Hello { expiry_seconds: 10, ..Hello::lasting("c") };
    let (client, _) = world.connect(hello.clone());
    world.subscribe(client, "a", 1);
    world.leave(client, true);
    world.pass(9);
    let (client, is_resumed) = world.connect(hello.clone());
    assert!(is_resumed);
    world.leave(client, true);
    world.pass(10);
    assert_eq!(world.core.clients(), (0, 0));
    let (client, is_resumed) = world.connect(hello.clone());
    assert!(!is_resumed);
    world.subscribe(client, "a", 1);
    world.leave(client, true);
    let (client, is_resumed) = world.connect(Hello { is_clean: true, ..hello });
    assert!(!is_resumed);
    world.publish(client, "a", "m", 1);
    assert!(world.sent(client).is_empty(), "it never subscribed");
    assert!(world.core.alarms.is_empty(), "{:?}", world.core.alarms);
}

/// Opens the store, writes what the world did, and answers the next life of the broker.
pub(super) async fn next_life(world: &mut World, path: &Path) -> World {
    let (store, _, mut kept) =
        Store::open(path, Durability::Process, Arc::default()).expect("store");
    store.write(1, std::mem::take(&mut world.ops));
    let written = tokio::time::timeout(std::time::Duration::from_secs(10), kept.recv()).await;
    assert_eq!(written, Ok(Some(1)), "the store takes it");
    drop(store);
    let (_store, image, _) = Store::open(path, Durability::Process, Arc::default()).expect("store");
    let limits = world.core.limits;
    let mut next = World::with(limits);
    next.now_ms = world.now_ms;
    next.next_connection = 1000;
    let mut effects = Effects::default();
    next.core = Core::restore(limits, image, Arc::new(ANYBODY), next.now_ms, &mut effects);
    next.take_in(effects);
    next
}

#[tokio::test]
async fn what_was_kept_goes_on_in_the_next_life() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("broker.db");
    let mut world = World::new();
    let (publisher, _) = world.connect(Hello::lasting("p"));
    let (client, _) = world.connect(Hello { receive_max: 2, ..Hello::lasting("c") });
    world.subscribe(client, "a/#", 2);
    let kept = Publish { retain: true, packet_id: Some(id(7)), ..expiring("r", "kept", 60) };
    world.event(Event::Publish(publisher, Box::new(kept)));
    (1..=4).for_each(|n| world.publish(publisher, "a/b", &n.to_string(), 2));
    let sent = world.sent(client);
    let received = sent[0].packet_id.expect("an id");
    world.event(Event::Received(client, received));
    let unreleased = world.next_id - 1;

    let mut next = next_life(&mut world, &path).await;
    let (publisher, is_resumed) = next.connect(Hello::lasting("p"));
    assert!(is_resumed);
    // It was acknowledged, but not released: sent again it is the same message.
    let again = Publish { packet_id: Some(id(unreleased)), ..publish("a/b", "4", 2) };
    next.event(Event::Publish(publisher, Box::new(again)));
    let (client, is_resumed) = next.connect(Hello::lasting("c"));
    assert!(is_resumed);
    let told = next.told(client);
    assert!(
        matches!(&told[0], Out::Packet(Packet::PublishRelease(r)) if r.packet_id == received),
        "{told:?}"
    );
    let texts: Vec<_> = told[1..]
        .iter()
        .map(|out| match out {
            Out::Publish(sent) => {
                (String::from_utf8_lossy(&sent.message.payload).into_owned(), sent.is_again)
            }
            other => panic!("{other:?}"),
        })
        .collect();
    let expected = [("2", true), ("3", false), ("4", false)];
    assert_eq!(texts, expected.map(|(text, again)| (text.to_owned(), again)));
    next.subscribe(client, "r", 1);
    assert_eq!(next.heard(client), ["kept"]);
    next.publish(publisher, "a/c", "subscribed still", 0);
    assert_eq!(next.heard(client), ["subscribed still"]);
}

#[tokio::test]
async fn what_is_done_with_is_gone_from_the_store() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("broker.db");
    let mut world = World::new();
    let hello = Hello { expiry_seconds: 100, ..Hello::lasting("c") };
    let (client, _) = world.connect(hello.clone().with_will("w", 50));
    let (other, _) = world.connect(Hello { client: "o", ..hello });
    world.subscribe(client, "a", 2);
    world.subscribe(other, "a", 1);
    for level in [1, 2] {
        world.publish(client, "a", "m", level);
        world.event(Event::Release(client, id(world.next_id - 1)));
    }
    for client in [client, other] {
        for sent in world.sent(client) {
            world.event(Event::Done(client, sent.packet_id.expect("an id")));
        }
    }
    let kept = Publish { retain: true, ..publish("r", "kept", 0) };
    world.event(Event::Publish(client, Box::new(kept)));
    world.event(Event::Publish(client, Box::new(Publish { retain: true, ..publish("r", "", 0) })));
    let mut next = next_life(&mut world, &path).await;
    assert!(next.core.kept.is_empty() && next.core.retained.size() == (0, 0));
    assert_eq!(next.core.clients(), (2, 0));
    // Both were there when the broker ended, and do not come back.
    next.pass(101);
    assert_eq!(next.core.clients(), (0, 0));
    let last = next_life(&mut next, &path).await;
    assert_eq!(last.core.clients(), (0, 0));
}

#[tokio::test]
async fn a_will_that_was_published_is_not_published_in_the_next_life() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("broker.db");
    let mut world = World::new();
    let (watcher, _) = world.connect(Hello::lasting("w"));
    world.subscribe(watcher, "gone", 1);
    let (mortal, _) = world.connect(Hello::lasting("c").with_will("gone", 10));
    world.leave(mortal, false);
    world.pass(10);
    assert_eq!(world.heard(watcher).len(), 1);
    let mut next = next_life(&mut world, &path).await;
    next.pass(1000);
    let (watcher, _) = next.connect(Hello::lasting("w"));
    assert_eq!(next.heard(watcher).len(), 1, "what it did not acknowledge, and nothing else");
}

#[test]
fn a_retained_message_whose_time_is_over_takes_no_room() {
    let mut world = World::with(Limits { max_retained: 2, ..Limits::default() });
    let (client, _) = world.connect(Hello::clean("p"));
    let retain = |world: &mut World, topic: &str, seconds| {
        let publish =
            Publish { retain: true, packet_id: Some(id(1)), ..expiring(topic, "x", seconds) };
        world.event(Event::Publish(client, Box::new(publish)));
    };
    retain(&mut world, "short", 10);
    retain(&mut world, "replaced", 10);
    retain(&mut world, "replaced", 100);
    assert_eq!(world.core.alarm_ms(), Some(world.now_ms + 10_000));
    world.ops.clear();
    world.pass(10);
    assert!(matches!(&world.ops[..], [Op::Unretain { topic }] if *topic == "short"));
    retain(&mut world, "another", 1000);
    assert_eq!(world.core.inventory().retained_messages, 2);
    world.pass(1000);
    assert_eq!(
        world.core.inventory(),
        Inventory { sessions: 1, connected: 1, ..Default::default() }
    );
    assert_eq!(world.core.alarm_ms(), None);
}

#[tokio::test]
async fn a_message_that_is_forgotten_may_be_kept_again_in_the_same_commit() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("broker.db");
    let mut world = World::new();
    let (publisher, _) = world.connect(Hello::clean("p"));
    let (own, _) = world.connect(Hello::lasting("own"));
    world.subscribe(own, "a", 1);
    let (fleeting, _) = world.connect(Hello::clean("fleeting"));
    world.subscribe(fleeting, "$share/g/a", 1);
    world.publish(publisher, "a", "1", 1);
    let id = world.sent(own)[0].packet_id.expect("an id");
    world.event(Event::Done(own, id));
    assert!(
        world.ops.iter().any(|op| matches!(op, Op::Forget { .. })),
        "nobody has it in the store"
    );
    let (heir, _) = world.connect(Hello::lasting("heir"));
    world.subscribe(heir, "$share/g/a", 1);
    world.leave(fleeting, true);
    assert_eq!(world.heard(heir), ["1"]);
    let mut next = next_life(&mut world, &path).await;
    let (heir, _) = next.connect(Hello::lasting("heir"));
    assert_eq!(next.heard(heir), ["1"]);
}

#[test]
fn a_will_that_came_in_with_other_rights_retains_no_command() {
    let mut world = World::new();
    let alice = Told(|_, _| Rights::of(&Kind::Tenant("alice".into())).ok());
    world.core = Core::new(Limits::default(), Arc::new(alice));
    let (watcher, _) = world.connect(Hello::clean("w"));
    world.subscribe(watcher, "godwit/v1/tenant/alice/#", 0);
    for retain in [false, true] {
        let mut hello = Hello::clean("c").with_will("godwit/v1/tenant/alice/command/stop", 0);
        hello.will.iter_mut().for_each(|will| will.retain = retain);
        let (mortal, _) = world.connect(hello);
        world.leave(mortal, false);
        assert_eq!(world.heard(watcher).len(), usize::from(!retain), "retained: {retain}");
    }
    assert_eq!(world.core.retained.size(), (0, 0));
}

#[tokio::test]
async fn no_local_takes_nobody_for_a_publisher_of_an_earlier_life() {
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("broker.db");
    let mut world = World::new();
    let (sleeper, _) = world.connect(Hello::lasting("sleeper"));
    world.subscribe(sleeper, "queued", 1);
    world.leave(sleeper, true);
    let (publisher, _) = world.connect(Hello::clean("p"));
    let kept = Publish { retain: true, ..publish("r", "kept", 0) };
    world.event(Event::Publish(publisher, Box::new(kept)));
    let (other, _) = world.connect(Hello::clean("q"));
    world.publish(other, "queued", "m", 1);

    let mut next = next_life(&mut world, &path).await;
    for client in ["a", "b"] {
        let (client, _) = next.connect(Hello::clean(client));
        let no_local = SubscriptionOptions { no_local: true, ..options(1) };
        next.subscribe_with(client, "r", no_local);
        assert_eq!(next.heard(client), ["kept"]);
        let serial = next.core.sessions[next.core.by_connection[&client]].serial;
        assert!(serial > 3, "{serial} published what waits");
    }
}
