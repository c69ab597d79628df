//! The real program against clients that nobody controls; `scripts/hostile` does the same at length.

#![expect(clippy::unwrap_used, reason = "what fails here fails its test")]
#![allow(dead_code, reason = "the command uses all of it")]

#[path = "../examples/hostile/siege/mod.rs"]
mod siege;

use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;

use siege::attack::{Plan, attack};
use siege::bystander::{Bystanders, Seen};
use siege::line::connect;
use siege::subject::{PREFIX, Subject, account};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn start() -> Subject {
    Subject::start(Path::new(env!("CARGO_BIN_EXE_godwit-broker")), 10_000).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bystanders_see_nothing_of_hostile_clients_and_nothing_is_left_of_those() {
    let mut subject = start().await;
    let address = subject.address;
    let bystander = account("bystander");
    let bystanders = Bystanders::start(address, PREFIX, 1, Some(&bystander)).await;
    let fresh = fastrand::u64(..);
    for seed in [5, fresh] {
        let plan = Plan {
            address,
            seed,
            sequences: 5000,
            connections: 50,
            prefix: PREFIX.into(),
            account: Some(account("hostile")),
            until: None,
        };
        let tally = attack(&plan).await;
        let alarms = subject.alarms();
        assert!(subject.is_alive(), "seed {seed}: {alarms:?}");
        assert!(alarms.is_empty(), "seed {seed}: {alarms:?}");
        assert_eq!(tally.sequences.load(Relaxed), plan.sequences, "seed {seed}");
        assert_eq!(tally.ignored.load(Relaxed), 0, "seed {seed}: no answer: {tally:?}");
        let inside = tally.inside.load(Relaxed);
        assert!(inside > plan.sequences / 2, "seed {seed}: only {inside} came in");
    }
    subject.settle(2, 1).await.unwrap();
    let seen = bystanders.finish().await;
    assert!(seen.sent > 0);
    let Seen { lost, doubled, cut, .. } = seen;
    assert_eq!((lost, doubled, cut), (0, 0, 0), "seed {fresh}");
}

/// 2,000 clients say that 2 MB are to come, and send the first bytes of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_packet_that_is_announced_takes_no_memory_before_it_is_there() {
    const CLIENTS: u64 = 2000;
    let subject = start().await;
    let mut held = Vec::new();
    for number in 0..CLIENTS {
        let mut socket = connect(subject.address, number).await.unwrap();
        let hello = format!("\x10\x12\0\x04MQTT\x04\x02\0\0\0\x06n{number:05}");
        socket.write_all(hello.as_bytes()).await.unwrap();
        let mut answer = [0; 4];
        socket.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, [0x20, 2, 0, 0]);
        held.push(socket);
    }
    let before = subject.usage().unwrap();
    let mut received = subject.received_bytes().await.unwrap();
    // PUBLISH of 2,000,000 bytes; when what follows is read, there is room for more.
    for piece in [&b"\x30\x80\x89\x7a"[..], b"\0\x01t", b"x"] {
        for socket in &mut held {
            socket.write_all(piece).await.unwrap();
        }
        received += CLIENTS * piece.len() as u64;
        while subject.received_bytes().await.unwrap() < received {
            tokio::task::yield_now().await;
        }
    }
    let after = subject.usage().unwrap();
    assert!(after.rss_mb < before.rss_mb + 20.0, "before {before:?}, after {after:?}");
}
