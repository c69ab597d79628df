//! The broker is killed at any moment, over and over: nothing that it acknowledged is lost, and what
//! is to arrive once arrives once.

#![expect(clippy::unwrap_used, reason = "what fails here fails its test")]

mod link;
mod program;
mod publisher;
mod subscriber;

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use link::{Link, lasting};
use program::Program;
use publisher::{Plan, Progress, Publisher};
use rmqtt_codec::types::QoS;
use rmqtt_codec::v5::{
    Connect, Packet, RetainHandling, Subscribe, SubscribeAckReason, SubscriptionOptions,
};
use subscriber::{Heard, Subscriber};
use tokio::sync::watch;

const KILLS: u64 = 12;
/// What waits for the broker's patience with a client that it lost by its own death waits for 30 s.
const LIMIT: Duration = Duration::from_secs(240);
/// How many topics are retained.
const KEPT: u64 = 3;

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.expect("it never happened")
}

/// Waits until so many more are acknowledged.
async fn advance(progress: &mut watch::Receiver<Progress>, count: u64) {
    let goal = progress.borrow().acknowledged + count;
    in_time(progress.wait_for(|now| now.acknowledged >= goal)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_every_kill() {
    let seed = fastrand::u64(..);
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut program = Program::start();
    let address = program.address;
    // One is there all the time, one comes again at the end.
    let (mut steady, mut away) = (Subscriber::new("steady"), Subscriber::new("away"));
    in_time(steady.subscribe(address)).await;
    in_time(away.subscribe(address)).await;

    let (end, ends) = watch::channel(u64::MAX);
    let mut publishers = Vec::new();
    let mut start = |plan| {
        let (publisher, progress) = Publisher::new(plan);
        publishers.push(tokio::spawn(publisher.run(address, ends.clone())));
        progress
    };
    let plan = |client, qos| Plan { client, qos, retain: false, topics: 1, window: 20 };
    let mut once = start(plan("once", QoS::ExactlyOnce));
    let mut least = start(plan("least", QoS::AtLeastOnce));
    let kept =
        Plan { client: "kept", qos: QoS::AtLeastOnce, retain: true, topics: KEPT, window: 1 };
    let mut keeping = start(kept);
    let is_finished = |heard: &Heard| {
        let wills = heard.keys().filter(|client| client.starts_with("mortal")).count() as u64;
        heard.contains_key("end") && wills == KILLS
    };
    let listening = tokio::spawn(async move {
        steady.listen(address, is_finished).await;
        steady.heard
    });

    for kill in 0..KILLS {
        // It does not come back. The first is there when the broker dies, the others have gone.
        let (mortal, _) =
            in_time(Link::join(address, &lasting(&format!("mortal-{kill}"), 1))).await;
        let mortal = (kill == 0).then_some(mortal);
        for progress in [&mut once, &mut least] {
            advance(progress, rng.u64(1..40)).await;
        }
        advance(&mut keeping, rng.u64(1..5)).await;
        // Anywhere between two events.
        tokio::time::sleep(Duration::from_micros(rng.u64(0..3000))).await;
        program.die_and_rise().await;
        drop(mortal);
        let acknowledged = keeping.borrow().acknowledged;
        for (topic, found) in in_time(retained(address)).await {
            let sent = keeping.borrow().sent;
            let last = (0..acknowledged).rev().find(|number| number % KEPT == topic);
            assert!(last.is_none_or(|last| last <= found), "seed {seed}: {found} on {topic}");
            assert!(found < sent, "seed {seed}: {found} was never sent");
        }
    }

    end.send_replace(0);
    for publisher in publishers {
        in_time(publisher).await.unwrap();
    }
    let sent = |progress: &watch::Receiver<Progress>| progress.borrow().sent;
    let (once, least, keeping) = (sent(&once), sent(&least), sent(&keeping));
    // All is acknowledged: what is retained is the last of each topic.
    let last: BTreeMap<_, _> = (keeping - KEPT..keeping).map(|n| (n % KEPT, n)).collect();
    assert_eq!(in_time(retained(address)).await, last, "seed {seed}");
    // The last message of all: whoever has it has all that came before.
    let last = Plan { client: "end", qos: QoS::ExactlyOnce, retain: false, topics: 1, window: 1 };
    let (_, one) = watch::channel(1);
    in_time(Publisher::new(last).0.run(address, one)).await;

    let steady = in_time(listening).await.unwrap();
    in_time(away.listen(address, is_finished)).await;
    for heard in [steady, away.heard] {
        let of = |client: &str| heard.get(client).cloned().unwrap_or_default();
        let each = |count: u64| (0..count).map(|number| (number, 1)).collect::<BTreeMap<_, _>>();
        assert!(of("once") == each(once), "seed {seed}: {:?}", odd(&of("once"), once));
        for (client, count) in [("least", least), ("kept", keeping)] {
            assert!(of(client).keys().copied().eq(0..count), "seed {seed}: {client} misses some");
        }
        for kill in 0..KILLS {
            let will = of(&format!("mortal-{kill}"));
            assert_eq!(will, each(1), "seed {seed}: the will of mortal-{kill}");
        }
        let others = ["once", "least", "kept", "end"].map(|client| of(client).len() as u64);
        assert_eq!(
            others,
            [once, least, keeping, 1],
            "seed {seed}: no wills of those who came back"
        );
    }
}

/// What is wrong with those that should have come once.
fn odd(heard: &BTreeMap<u64, u64>, count: u64) -> Vec<(u64, u64)> {
    let found = (0..count).map(|number| (number, heard.get(&number).copied().unwrap_or(0)));
    found.filter(|(_, times)| *times != 1).collect()
}

/// What is retained of `kept`, by topic.
async fn retained(address: std::net::SocketAddr) -> BTreeMap<u64, u64> {
    let connect = Connect { client_id: "looks".into(), clean_start: true, ..Connect::default() };
    'again: loop {
        let (mut link, _) = Link::join(address, &connect).await;
        let options = SubscriptionOptions {
            qos: QoS::AtMostOnce,
            no_local: false,
            retain_as_published: true,
            retain_handling: RetainHandling::AtSubscribe,
        };
        let packet = Subscribe {
            packet_id: std::num::NonZeroU16::MIN,
            id: None,
            user_properties: Vec::new(),
            topic_filters: vec![("work/kept/+".into(), options)],
        };
        let asked = [Packet::Subscribe(packet), Packet::PingRequest];
        let mut found = BTreeMap::new();
        for packet in asked {
            if link.send(packet).await.is_none() {
                continue 'again;
            }
        }
        loop {
            match link.next().await {
                Some(Packet::Publish(publish)) => {
                    let number: u64 = String::from_utf8_lossy(&publish.payload).parse().unwrap();
                    found.insert(number % KEPT, number);
                }
                Some(Packet::SubscribeAck(ack)) => {
                    assert_eq!(ack.status, [SubscribeAckReason::GrantedQos0]);
                }
                Some(Packet::PingResponse) => return found,
                _ => continue 'again,
            }
        }
    }
}
