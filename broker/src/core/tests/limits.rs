//! How much clients may hold, alone and together.

use proptest::prelude::*;

use super::*;
use crate::core::{BYTES, SESSIONS, SUBSCRIPTIONS};

fn of(user: &'static str, client: &'static str) -> Hello {
    Hello { user: Some(user), ..Hello::lasting(client) }
}

/// So many bytes as a message weighs with this topic of one letter.
fn sized(weight: usize) -> String {
    "x".repeat(weight - 129)
}

fn retained(topic: &str, payload: &str) -> Publish {
    Publish { retain: true, ..publish(topic, payload, 0) }
}

impl World {
    fn keep(&mut self, connection: ConnectionId, message: Publish) {
        self.event(Event::Publish(connection, Box::new(message)));
    }

    fn kept_topics(&self) -> Vec<String> {
        let reports = self.core.retained_reports("#", None, 1000);
        reports.into_iter().map(|report| report.topic).collect()
    }
}

#[test]
fn no_more_bytes_are_under_way_to_a_client_than_its_limit_but_one_message_always() {
    let limits = Limits { max_in_flight_bytes: 1000, ..Limits::default() };
    let mut world = World::with(limits);
    let (publisher, _) = world.connect(Hello::clean("p"));
    let (client, _) = world.connect(Hello::lasting("c"));
    world.subscribe(client, "a", 1);
    for _ in 0..4 {
        world.publish(publisher, "a", &sized(500), 1);
    }
    world.publish(publisher, "a", &sized(5000), 1);
    let sent = world.sent(client);
    assert_eq!(sent.len(), 2);
    let done = |sent: &Delivery| Event::Done(client, sent.packet_id.expect("an id"));
    world.event(done(&sent[0]));
    let next = world.sent(client);
    assert_eq!(next.len(), 1);
    world.event(done(&sent[1]));
    world.event(done(&next[0]));
    let rest = world.sent(client);
    assert_eq!(rest.len(), 2, "the fourth, and the large one behind it");
    world.publish(publisher, "a", "waits", 1);
    assert!(world.sent(client).is_empty());
    rest.iter().for_each(|sent| world.event(done(sent)));
    assert_eq!(world.heard(client), ["waits"]);
}

#[test]
fn what_came_under_way_before_is_sent_again_however_much_it_is() {
    let limits = Limits { max_in_flight_bytes: 1000, ..Limits::default() };
    let mut world = World::with(limits);
    let (publisher, _) = world.connect(Hello::clean("p"));
    let (client, _) = world.connect(Hello::lasting("c"));
    world.subscribe(client, "a", 1);
    (0..3).for_each(|_| world.publish(publisher, "a", &sized(600), 1));
    assert_eq!(world.sent(client).len(), 2);
    world.leave(client, false);
    let (client, _) = world.connect(Hello::lasting("c"));
    let sent = world.sent(client);
    assert_eq!(sent.iter().map(|sent| sent.is_again).collect::<Vec<_>>(), [true, true]);
}

#[test]
fn an_account_that_fills_all_queues_leaves_the_others_their_share() {
    let limits = Limits { max_total_queued_bytes: 10_000, ..Limits::default() };
    let mut world = World::with(limits);
    let (publisher, _) = world.connect(Hello::clean("p"));
    for client in ["1", "2"] {
        let (greedy, _) = world.connect(of("greedy", client));
        world.subscribe(greedy, "g", 1);
        world.leave(greedy, true);
    }
    let (modest, _) = world.connect(of("modest", "c"));
    world.subscribe(modest, "m", 1);
    world.leave(modest, true);
    (0..20).for_each(|_| world.publish(publisher, "g", &sized(1000), 1));
    assert_eq!((world.core.held.held(BYTES), world.crowded_out), (10_000, 30));
    // Three accounts are there, the publisher's among them.
    (0..5).for_each(|n| world.publish(publisher, "m", &format!("{n}{}", sized(999)), 1));
    assert_eq!(world.crowded_out, 32);
    let (modest, _) = world.connect(of("modest", "c"));
    let heard = world.heard(modest);
    assert_eq!(heard.iter().map(|text| &text[..1]).collect::<Vec<_>>(), ["0", "1", "2"]);
}

#[test]
fn sessions_are_limited_and_those_who_have_one_come_back_to_it() {
    let limits = Limits { max_sessions: 2, ..Limits::default() };
    let mut world = World::with(limits);
    let (first, _) = world.connect(of("a", "1"));
    world.leave(first, true);
    world.connect(of("a", "2"));
    let refused = world.try_connect(of("a", "3"));
    let bye = Out::Close(DisconnectReasonCode::QuotaExceeded);
    assert_eq!(world.told(refused), [bye]);
    let (_, is_resumed) = world.connect(of("a", "1"));
    assert!(is_resumed);
    // Another account has its share, which is one of two.
    world.connect(of("b", "1"));
    let refused = world.try_connect(of("b", "2"));
    assert_eq!(world.told(refused).len(), 1);
}

#[test]
fn subscriptions_are_limited_for_all_together() {
    let limits = Limits { max_total_subscriptions: 2, ..Limits::default() };
    let mut world = World::with(limits);
    let (client, _) = world.connect(of("a", "1"));
    let (other, _) = world.connect(of("a", "2"));
    world.subscribe(client, "1", 0);
    world.subscribe(other, "2", 0);
    let refused = world.subscribe_with(other, "3", options(0));
    assert_eq!(refused, SubscribeAckReason::QuotaExceeded);
    world.subscribe(client, "1", 1);
    world.unsubscribe(client, "1");
    world.subscribe(other, "3", 0);
}

#[tokio::test]
async fn an_account_that_has_everything_retained_leaves_the_others_their_share_in_every_life() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("broker.db");
    let limits = Limits { max_retained: 10, ..Limits::default() };
    let mut world = World::with(limits);
    let (greedy, _) = world.connect(of("greedy", "1"));
    for n in 0..20 {
        world.keep(greedy, retained(&format!("g/{n:02}"), "mine"));
    }
    assert_eq!((world.kept_topics().len(), world.unretained), (10, 10));
    let mut world = kept::next_life(&mut world, &path).await;
    let (greedy, _) = world.connect(of("greedy", "1"));
    let (modest, _) = world.connect(of("modest", "1"));
    world.keep(greedy, retained("g/20", "more"));
    for n in 0..9 {
        world.keep(modest, retained(&format!("m/{n}"), "mine"));
    }
    let of = |letter: char| world.kept_topics().iter().filter(|t| t.starts_with(letter)).count();
    assert_eq!((of('g'), of('m')), (10, 5));
    // What is there may be changed, and what is taken away makes room.
    let unretained = world.unretained;
    world.keep(greedy, retained("g/00", "new"));
    world.keep(modest, retained("m/0", ""));
    world.keep(modest, retained("m/9", "mine"));
    assert_eq!(world.unretained, unretained);
}

#[test]
fn what_is_retained_and_has_expired_makes_room() {
    let limits = Limits { max_retained: 2, ..Limits::default() };
    let mut world = World::with(limits);
    let (client, _) = world.connect(of("a", "1"));
    world.keep(client, Publish { retain: true, qos: QoS::AtMostOnce, ..expiring("old", "1", 5) });
    world.keep(client, retained("stays", "2"));
    world.keep(client, retained("no room", "3"));
    assert_eq!(world.kept_topics(), ["old", "stays"]);
    world.pass(6);
    world.keep(client, retained("new", "4"));
    assert_eq!(world.kept_topics(), ["new", "stays"]);
    assert!(world.ops.contains(&Op::Unretain { topic: "old".into() }));
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Connect(usize, bool),
    Leave(usize),
    Subscribe(usize, usize, u8),
    Unsubscribe(usize, usize),
    Publish(usize, usize, u8, u32),
    Answer(usize),
    Pass(u64),
}

const FILTERS: [&str; 4] = ["a", "b", "#", "$share/g/a"];
const CLIENTS: [&str; 4] = ["1", "2", "3", "4"];

fn step() -> impl Strategy<Value = Step> {
    let client = 0..CLIENTS.len();
    prop_oneof![
        2 => (client.clone(), any::<bool>()).prop_map(|(c, clean)| Step::Connect(c, clean)),
        1 => client.clone().prop_map(Step::Leave),
        3 => (client.clone(), 0..FILTERS.len(), 0..3_u8).prop_map(|(c, f, q)| Step::Subscribe(c, f, q)),
        1 => (client.clone(), 0..FILTERS.len()).prop_map(|(c, f)| Step::Unsubscribe(c, f)),
        8 => (client.clone(), 0..2_usize, 0..3_u8, 0..4_u32)
            .prop_map(|(c, t, q, expiry)| Step::Publish(c, t, q, expiry)),
        6 => client.prop_map(Step::Answer),
        1 => (0..5_u64).prop_map(Step::Pass),
    ]
}

proptest! {
    /// What is counted is what is there, at every step; and nothing once everybody is gone.
    #[test]
    fn what_sessions_hold_is_counted_and_given_back(steps in prop::collection::vec(step(), 1..120)) {
        let limits = Limits {
            max_in_flight: 3, max_queued: 6, max_total_queued_bytes: 3000, ..Limits::default()
        };
        let mut world = World::with(limits);
        let mut online: [Option<ConnectionId>; 4] = [None; 4];
        for step in steps {
            match step {
                Step::Connect(at, is_clean) => {
                    let expiry_seconds = if is_clean { 0 } else { 4 };
                    let hello = Hello { expiry_seconds, is_clean, ..of("a", CLIENTS[at]) };
                    online[at] = Some(world.connect(hello).0);
                }
                Step::Leave(at) => {
                    if let Some(connection) = online[at].take() {
                        world.leave(connection, true);
                    }
                }
                Step::Pass(seconds) => world.pass(seconds),
                Step::Subscribe(at, filter, level) => {
                    if let Some(connection) = online[at] {
                        world.subscribe_with(connection, FILTERS[filter], options(level));
                    }
                }
                Step::Unsubscribe(at, filter) => {
                    if let Some(connection) = online[at] {
                        world.unsubscribe(connection, FILTERS[filter]);
                    }
                }
                Step::Publish(at, topic, level, expiry) => {
                    if let Some(connection) = online[at] {
                        let message = expiring(["a", "b"][topic], &sized(300), expiry);
                        let packet_id = (level > 0).then(|| id(world.next_id));
                        world.next_id += 1;
                        let message = Publish { qos: qos(level), packet_id, ..message };
                        world.event(Event::Publish(connection, Box::new(message)));
                        if let (2, Some(packet_id)) = (level, packet_id) {
                            world.event(Event::Release(connection, packet_id));
                        }
                    }
                }
                Step::Answer(at) => {
                    let Some(connection) = online[at] else { continue };
                    let key = world.core.by_connection[&connection];
                    let Some(sent) = world.core.sessions[key].in_flight.front() else { continue };
                    let id = sent.packet_id;
                    let is_half = sent.due.qos == QoS::ExactlyOnce && !sent.is_received;
                    world.event(match is_half {
                        true => Event::Received(connection, id),
                        false => Event::Done(connection, id),
                    });
                }
            }
            let all = world.core.inventory();
            let under_way: usize =
                world.core.sessions.iter().map(|(_, session)| session.in_flight_bytes).sum();
            prop_assert_eq!(world.core.held.held(BYTES), all.queued_bytes + under_way);
            prop_assert_eq!(world.core.held.held(SESSIONS), all.sessions);
            prop_assert_eq!(world.core.held.held(SUBSCRIPTIONS), all.subscriptions);
        }
        for client in CLIENTS {
            let hello = Hello { is_clean: true, expiry_seconds: 0, ..of("a", client) };
            let (connection, _) = world.connect(hello);
            world.leave(connection, true);
        }
        let held = [SESSIONS, SUBSCRIPTIONS, BYTES].map(|good| world.core.held.held(good));
        prop_assert_eq!(held, [0; 3]);
        prop_assert!(world.core.kept.is_empty(), "the store has messages for nobody");
    }
}

#[test]
fn what_has_expired_in_a_full_queue_makes_room() {
    let mut world = World::with(Limits { max_queued: 3, ..Limits::default() });
    let (publisher, _) = world.connect(Hello::clean("p"));
    let (client, _) = world.connect(Hello::lasting("c"));
    world.subscribe(client, "t", 1);
    world.leave(client, true);
    world.publish(publisher, "t", "lasts", 1);
    (0..2).for_each(|_| world.keep(publisher, expiring("t", "short", 10)));
    world.pass(20);
    ["fresh", "fresher"].iter().for_each(|text| world.publish(publisher, "t", text, 1));
    assert_eq!(world.dropped, 0);
    world.publish(publisher, "t", "too much", 1);
    assert_eq!(world.dropped, 1);
    let (client, _) = world.connect(Hello::lasting("c"));
    assert_eq!(world.heard(client), ["lasts", "fresh", "fresher"]);
}

#[test]
fn a_subscription_keeps_nothing_of_the_buffer_that_it_was_read_into() {
    let mut world = World::new();
    let (client, _) = world.connect(Hello::clean("c"));
    let buffer = Bytes::from("a/b".repeat(100_000));
    let filter = bytestring::ByteString::try_from(buffer.slice(..3)).expect("text");
    let packet = Subscribe {
        packet_id: id(1),
        id: None,
        user_properties: Vec::new(),
        topic_filters: vec![(filter, options(1))],
    };
    world.event(Event::Subscribe(client, packet));
    assert!(buffer.is_unique());
}

#[test]
fn a_subscription_that_takes_much_memory_counts_as_several() {
    let mut world = World::with(Limits { max_total_subscriptions: 100, ..Limits::default() });
    let (client, _) = world.connect(Hello::clean("c"));
    let granted = |world: &mut World, filters: &mut dyn Iterator<Item = String>| {
        let is_granted =
            |filter: &String| u8::from(world.subscribe_with(client, filter, options(1))) < 0x80;
        filters.take_while(is_granted).collect::<Vec<_>>()
    };
    let deep = granted(&mut world, &mut (0..).map(|n| format!("{n}{}", "/x".repeat(199))));
    assert!((1..10).contains(&deep.len()), "{}", deep.len());
    deep.iter().for_each(|filter| world.unsubscribe(client, filter));
    assert_eq!(world.core.held.held(SUBSCRIPTIONS), 0);
    let usual = granted(&mut world, &mut (0..).map(|n| format!("site/hall/press/{n}/state")));
    assert_eq!(usual.len(), 100);
}

#[test]
fn many_sessions_that_end_at_once_leave_others_their_turn() {
    let mut world = World::new();
    for client in 0..1000 {
        let name: &'static str = Box::leak(client.to_string().into_boxed_str());
        let (client, _) = world.connect(Hello { expiry_seconds: 10, ..Hello::lasting(name) });
        world.subscribe(client, "t", 1);
        world.leave(client, true);
    }
    let mut turns = 0;
    world.pass(10);
    while world.core.clients().0 > 0 {
        assert!(world.core.alarm_ms().is_some_and(|at| at <= world.now_ms), "at once");
        world.pass(0);
        turns += 1;
    }
    assert_eq!(turns, 3);
    assert_eq!(world.core.held.held(SUBSCRIPTIONS), 0);
}
