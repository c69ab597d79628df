//! How fast a stream goes through the broker, against bytes through a plain TCP relay:
//! files, and an archive whose files grow while it is sent; and how long small messages
//! take meanwhile.
//!
//!     cargo run --release -p godwit-bus --example stream_bench [MB]
//!
//! Everything runs in this one process over loopback; read the figures as ratios.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a bench, run by hand")]

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use godwit_broker::Broker;
use godwit_bus::stream::{Audience, MqttLink, OffersOnly, ReceiveOptions, Streams};
use godwit_bus::{Config, Publication, Session};
use godwit_proto::stream::StreamId;
use godwit_proto::topic::{Filter, Peer, Topic};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const ROUNDS: usize = 5;
const CHUNK: usize = 128 << 10;

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn report(what: &str, bytes: usize, time: Duration, raw: Duration) {
    let rate = bytes as f64 / 1e6 / time.as_secs_f64();
    let ratio = raw.as_secs_f64() / time.as_secs_f64();
    println!(
        "{what:<34} {:>8.1} ms {rate:>8.0} MB/s  {ratio:.2} of the relay",
        time.as_secs_f64() * 1e3
    );
}

/// Bytes from a writer through a relay to a reader, as a broker would pass them on.
async fn relay(bytes: usize) -> Duration {
    let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let back = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (front_at, back_at) = (front.local_addr().unwrap(), back.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut input, _) = front.accept().await.unwrap();
        let (mut output, _) = back.accept().await.unwrap();
        let mut buffer = vec![0; CHUNK];
        loop {
            match input.read(&mut buffer).await.unwrap() {
                0 => return,
                n => output.write_all(&buffer[..n]).await.unwrap(),
            }
        }
    });
    let mut writer = TcpStream::connect(front_at).await.unwrap();
    let mut reader = TcpStream::connect(back_at).await.unwrap();
    let begun = Instant::now();
    tokio::spawn(async move {
        let chunk = vec![1; CHUNK];
        for _ in 0..bytes / CHUNK {
            writer.write_all(&chunk).await.unwrap();
        }
    });
    let mut buffer = vec![0; CHUNK];
    let mut seen = 0;
    while seen < bytes / CHUNK * CHUNK {
        seen += reader.read(&mut buffer).await.unwrap();
    }
    begun.elapsed()
}

/// One end; answers its session too, and what arrives beside streams.
async fn node(name: &str, broker: SocketAddr) -> (Streams, Session, mpsc::Receiver<Instant>) {
    let me: Peer = name.parse().unwrap();
    let mut config = Config::new(broker.into(), name);
    config.subscriptions = vec![Filter::Inbox(me.clone())];
    let (session, mut inbox) = Session::open(config).unwrap();
    session.up().await.unwrap();
    let link = MqttLink::new(session.clone(), me);
    let streams = Streams::new(Arc::new(link), Arc::new(OffersOnly));
    let fed = streams.clone();
    let (pings_tx, pings) = mpsc::channel(16);
    tokio::spawn(async move {
        while let Some(delivery) = inbox.recv().await {
            match delivery.topic {
                Some(Topic::PeerCtl { from, .. }) => fed.on_ctl(&from, &delivery.payload),
                Some(Topic::PeerBulk { from, .. }) => fed.on_bulk(&from, delivery.payload),
                Some(Topic::AgentCtl { .. }) => pings_tx.send(Instant::now()).await.unwrap(),
                _ => {}
            }
        }
    });
    (streams, session, pings)
}

async fn stream(source: &Streams, target: &Streams, file: &Path, into: &Path) -> Duration {
    let id = StreamId::Image("a".repeat(64).parse().unwrap());
    source.offer(id.clone(), file, Audience::Anyone).await.unwrap();
    let begun = Instant::now();
    let from = "edge-a".parse().unwrap();
    let received = target.receive(id.clone(), from, into.to_owned(), ReceiveOptions::default());
    received.await.unwrap();
    let time = begun.elapsed();
    source.withdraw(&id);
    std::fs::remove_file(into).unwrap();
    time
}

/// As [`stream`], but the file is written, 4 MiB at a time, while it is sent; the time
/// includes the writing.
async fn archive(
    source: &Streams,
    target: &Streams,
    contents: &[u8],
    directory: &Path,
) -> Duration {
    let id = StreamId::Image("b".repeat(64).parse().unwrap());
    let archive = source.offer_archive(id.clone(), Audience::Anyone);
    let path = directory.join("growing");
    let mut file = std::fs::File::create(&path).unwrap();
    let read = Arc::new(std::fs::File::open(&path).unwrap());
    let into = directory.join("unpacked");
    let from = "edge-a".parse().unwrap();
    let received =
        target.receive_archive(id.clone(), from, into.clone(), ReceiveOptions::default());
    let begun = Instant::now();
    let contents = contents.to_vec();
    let copied = begun.elapsed();
    let offered = tokio::task::spawn_blocking(move || {
        let mut at = 0;
        for piece in contents.chunks(4 << 20) {
            file.write_all(piece).unwrap();
            archive.append("pages-1.img", &read, at..at + piece.len() as u64).unwrap();
            at += piece.len() as u64;
        }
        archive.finish(None).unwrap()
    });
    let manifest = offered.await.unwrap().manifest().await.unwrap();
    assert_eq!(received.await.unwrap().manifest, manifest);
    let time = begun.elapsed() - copied;
    source.withdraw(&id);
    std::fs::remove_dir_all(into).unwrap();
    std::fs::remove_file(path).unwrap();
    time
}

#[tokio::main]
async fn main() {
    let megabytes = std::env::args().nth(1).map_or(256, |text| text.parse().unwrap());
    let bytes = megabytes << 20;
    let config = godwit_broker::Config::open_to_all(SocketAddr::from(([127, 0, 0, 1], 0)));
    let broker = Broker::bind(config).await.unwrap();
    let address = broker.tcp_address().unwrap();
    tokio::spawn(broker.run(CancellationToken::new()));
    let (source, pinger, _) = node("edge-a", address).await;
    let (target, _session, mut pings) = node("edge-b", address).await;

    let shm = Path::new("/dev/shm");
    let directory = tempfile::tempdir_in(shm).unwrap();
    let mut noise = vec![0; bytes];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    let file = |name: &str, contents: &[u8]| {
        let path = directory.path().join(name);
        std::fs::write(&path, contents).unwrap();
        path
    };
    let noise_file = file("noise", &noise);
    let pages = noise.clone();
    for (at, page) in noise.chunks_mut(4096).enumerate() {
        if at % 2 == 0 {
            page.fill(0);
        }
    }
    let half_file = file("half", &noise);
    drop(noise);
    let into = directory.path().join("into");

    let (mut raw, mut noisy, mut half, mut growing) = (vec![], vec![], vec![], vec![]);
    for _ in 0..ROUNDS {
        raw.push(relay(bytes).await);
        noisy.push(stream(&source, &target, &noise_file, &into).await);
        half.push(stream(&source, &target, &half_file, &into).await);
        growing.push(archive(&source, &target, &pages, directory.path()).await);
    }
    let raw = median(raw);
    report("TCP relay", bytes, raw, raw);
    report("stream, incompressible", bytes, median(noisy), raw);
    report("stream, every other page zero", bytes, median(half), raw);
    report("archive, written meanwhile", bytes, median(growing), raw);

    let pinging = tokio::spawn(async move {
        let topic = Topic::AgentCtl { node: "edge-b".parse().unwrap() };
        let mut times = vec![];
        loop {
            let begun = Instant::now();
            pinger.publish(Publication::new(&topic, "ping")).await.unwrap();
            let arrived = tokio::select! {
                arrived = pings.recv() => arrived.unwrap(),
                () = tokio::time::sleep(Duration::from_secs(5)) => return times,
            };
            times.push(arrived - begun);
            tokio::time::sleep(Duration::from_millis(1)).await;
            if times.len() == 1000 {
                return times;
            }
        }
    });
    while !pinging.is_finished() {
        stream(&source, &target, &noise_file, &into).await;
    }
    let mut times = pinging.await.unwrap();
    times.sort();
    let at = |percent: usize| times[times.len() * percent / 100].as_secs_f64() * 1e3;
    println!(
        "small messages meanwhile: median {:.2} ms, p99 {:.2} ms ({} sent)",
        at(50),
        at(99),
        times.len()
    );
}
