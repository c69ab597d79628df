//! The lane with a real router.

use std::pin::pin;

use futures_util::StreamExt;
use rmqtt_codec::v5::Packet as Word;

use super::*;
use crate::message::ConnectionId;

fn numbered(numbers: std::ops::Range<u64>) -> Vec<Event> {
    numbers.map(|n| Event::Answer(ConnectionId(n), Word::PingResponse)).collect()
}

async fn receive(exit: &mut Exit, count: usize) -> Vec<u64> {
    let mut found = Vec::new();
    while found.len() < count {
        let events = timeout(Duration::from_secs(60), exit.next()).await;
        found.extend(events.expect("events").0.into_iter().map(|event| match event {
            Event::Answer(ConnectionId(number), _) => number,
            other => panic!("{other:?}"),
        }));
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_each_sends_comes_out_in_its_order_and_whole() {
    let (lane, mut exit) = lane(Arc::default()).await.expect("a router");
    let senders = (0..4).map(|sender| {
        let lane = lane.clone();
        tokio::spawn(async move {
            for batch in 0..500 {
                let first = sender * 1_000_000 + batch * 7;
                lane.send(numbered(first..first + 7)).await;
            }
        })
    });
    let senders: Vec<_> = senders.collect();
    let found = receive(&mut exit, 4 * 500 * 7).await;
    for sender in 0..4 {
        let own: Vec<_> = found.iter().filter(|n| *n / 1_000_000 == sender).collect();
        assert_eq!(own.len(), 3500);
        assert!(own.is_sorted(), "out of order");
    }
    for sender in senders {
        sender.await.expect("sent");
    }
    assert_eq!(lane.room.available_permits(), ON_ITS_WAY as usize, "all of it is given back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_that_dies_is_replaced_and_nothing_is_lost() {
    let (lane, mut exit) = lane(Arc::default()).await.expect("a router");
    for first in (0..1000).step_by(10) {
        lane.send(numbered(first..first + 10)).await;
    }
    let before = receive(&mut exit, 500).await;
    // A topic that does not begin with ASCII kills rumqttd's router.
    let _ = lane.lock().link.publish(Bytes::from_static("\u{e4}".as_bytes()), Bytes::new());
    for first in (1000..2000).step_by(10) {
        lane.send(numbered(first..first + 10)).await;
    }
    let after = receive(&mut exit, 2000 - before.len()).await;
    assert_eq!([before, after].concat(), (0..2000).collect::<Vec<_>>());
    assert_eq!(exit.metrics.routers_replaced.load(Ordering::Relaxed), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_that_stands_still_is_replaced_though_each_wait_for_it_is_short() {
    let (lane, mut exit) = lane(Arc::default()).await.expect("a router");
    exit.patience = Duration::from_millis(500);
    let metrics = exit.metrics.clone();
    lane.send(numbered(0..10)).await;
    assert_eq!(receive(&mut exit, 10).await, (0..10).collect::<Vec<_>>());
    // Into another one, whose exit nobody reads.
    let (elsewhere, _unread) = start().await.expect("a router");
    lane.lock().link = elsewhere;
    lane.send(numbered(10..20)).await;
    let mut events = pin!(exit.events());
    let waited = timeout(Duration::from_secs(60), async {
        loop {
            if let Ok(next) = timeout(Duration::from_millis(20), events.next()).await {
                break next;
            }
        }
    });
    let (events, _) = waited.await.expect("it is replaced").expect("events");
    assert_eq!(events.len(), 10);
    assert_eq!(metrics.routers_replaced.load(Ordering::Relaxed), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_is_no_more_room_until_what_was_taken_is_dealt_with() {
    let (lane, mut exit) = lane(Arc::default()).await.expect("a router");
    let all = ON_ITS_WAY as usize;
    lane.send(numbered(0..10)).await;
    let (events, room) = exit.next().await;
    drop(events);
    assert!(lane.room.available_permits() < all, "they may wait for the disk");
    drop(room);
    assert_eq!(lane.room.available_permits(), all);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_the_end_everything_that_was_sent_is_there_at_once() {
    let (lane, _exit) = lane(Arc::default()).await.expect("a router");
    for first in (0..3000).step_by(10) {
        lane.send(numbered(first..first + 10)).await;
    }
    let mut count = 0;
    while let Some((events, _)) = lane.rest() {
        count += events.len();
    }
    assert_eq!(count, 3000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_holds_a_payload_that_was_handed_on() {
    let (lane, mut exit) = lane(Arc::default()).await.expect("a router");
    let payload = Bytes::from(vec![0; 5000]);
    let publish = rmqtt_codec::types::Publish {
        dup: false,
        retain: false,
        qos: rmqtt_codec::types::QoS::AtMostOnce,
        topic: "t".into(),
        packet_id: None,
        payload: payload.clone(),
        properties: None,
    };
    lane.send(vec![Event::Publish(ConnectionId(1), Box::new(publish))]).await;
    assert!(!payload.is_unique());
    drop(exit.next().await);
    assert!(payload.is_unique(), "the ring has it");
}
