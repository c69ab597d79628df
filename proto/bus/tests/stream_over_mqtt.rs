//! A stream over a real broker, which restarts in the middle, to a receiver that dies
//! in the middle.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use godwit_broker::{Broker, BrokerError};
use godwit_bus::stream::{
    MqttLink, OffersOnly, Pending, ReceiveOptions, Receiving, StreamLink, Streams,
};
use godwit_bus::{Config, Session};
use godwit_proto::id::{ContainerId, Epoch};
use godwit_proto::stream::pace::MAX_WINDOW_BYTES;
use godwit_proto::stream::{ChunkHeader, StreamId};
use godwit_proto::topic::{Filter, Peer, Topic};
use godwit_proto::wire;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const SIZE: usize = 100 << 20;

/// A broker that can be stopped.
struct Running {
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<Result<(), BrokerError>>,
}

async fn start_broker(address: SocketAddr) -> Running {
    let broker =
        Broker::bind(godwit_broker::Config::open_to_all(address)).await.expect("the port is free");
    let address = broker.tcp_address().expect("it has a port");
    let stop = CancellationToken::new();
    let task = tokio::spawn(broker.run(stop.clone()));
    Running { address, stop, task }
}

impl Running {
    async fn stop(self) -> SocketAddr {
        self.stop.cancel();
        self.task.await.expect("no panic").expect("the broker ended well");
        self.address
    }
}

/// Counts the bytes of the stream that go out.
struct Counting {
    link: MqttLink,
    sent: Arc<AtomicU64>,
}

impl StreamLink for Counting {
    fn send_ctl<'a>(&'a self, to: &'a Peer, frame: Bytes) -> Pending<'a, ()> {
        self.link.send_ctl(to, frame)
    }
    fn send_bulk<'a>(&'a self, to: &'a Peer, frame: Bytes) -> Pending<'a, ()> {
        let (header, _) = wire::decode_with_tail::<ChunkHeader>(&frame).expect("a chunk");
        self.sent.fetch_add(header.span.len(), Ordering::Relaxed);
        self.link.send_bulk(to, frame)
    }
}

/// One end, fed by its session.
async fn node(name: &str, broker: SocketAddr) -> (Streams, Arc<AtomicU64>) {
    let me: Peer = name.parse().expect("a name");
    let mut config = Config::new(broker.into(), name);
    config.subscriptions = vec![Filter::Inbox(me.clone())];
    let (session, mut inbox) = Session::open(config).expect("a session");
    session.up().await.expect("a broker");
    let sent = Arc::new(AtomicU64::new(0));
    let link = Counting { link: MqttLink::new(session, me), sent: sent.clone() };
    let streams = Streams::new(Arc::new(link), Arc::new(OffersOnly));
    let fed = streams.clone();
    tokio::spawn(async move {
        while let Some(delivery) = inbox.recv().await {
            match delivery.topic {
                Some(Topic::PeerCtl { from, .. }) => fed.on_ctl(&from, &delivery.payload),
                Some(Topic::PeerBulk { from, .. }) => fed.on_bulk(&from, delivery.payload),
                _ => {}
            }
        }
    });
    (streams, sent)
}

fn checkpoint() -> StreamId {
    let container: ContainerId = "11111111-2222-3333-4444-555555555555".parse().expect("an id");
    StreamId::Checkpoint { container, epoch: Epoch { generation: 1, counter: 1 } }
}

fn receive(target: &Streams, into: &Path) -> Receiving {
    let from = "edge-a".parse().expect("a name");
    target.receive(checkpoint(), from, into.to_owned(), ReceiveOptions::default())
}

async fn reaches(receiving: &Receiving, bytes: usize) -> u64 {
    let mut progress = receiving.progress();
    let there = progress.wait_for(|progress| progress.bytes >= bytes as u64).await;
    there.expect("it is being received").bytes
}

#[test]
fn a_stream_outlives_its_broker_and_its_receiver() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut bytes = vec![0; SIZE];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    let (file, into) = (directory.path().join("file"), directory.path().join("into/file"));
    fs::write(&file, &bytes).expect("a file");

    let here = Runtime::new().expect("a runtime");
    let broker = here.block_on(start_broker(SocketAddr::from(([127, 0, 0, 1], 0))));
    let (source, sent) = here.block_on(node("edge-a", broker.address));
    let offered =
        here.block_on(source.offer(checkpoint(), file, "edge-b".parse::<Peer>().expect("a name")));
    let offered = offered.expect("the file can be read");

    let doomed = Runtime::new().expect("a runtime");
    let (target, _) = doomed.block_on(node("edge-b", broker.address));
    let receiving = {
        let _inside = doomed.enter();
        receive(&target, &into)
    };
    doomed.block_on(reaches(&receiving, SIZE / 4));

    let address = here.block_on(broker.stop());
    let broker = here.block_on(start_broker(address));
    let stored = doomed.block_on(reaches(&receiving, SIZE / 2));

    // As good as kill -9 for the tasks; the threads end because nobody feeds them.
    doomed.shutdown_timeout(Duration::from_secs(30));
    drop((receiving, target));

    let (manifest, received) = here.block_on(async {
        let (target, _) = node("edge-b", broker.address).await;
        let receiving = receive(&target, &into);
        let resumed = reaches(&receiving, 1).await;
        assert!(resumed >= stored, "{stored} bytes were stored, {resumed} are remembered");
        (offered.manifest().await, receiving.await.expect("it arrives"))
    });
    assert_eq!(Some(received.manifest), manifest);
    assert!(fs::read(&received.path).expect("the file") == bytes, "other bytes arrived");

    let again = sent.load(Ordering::Relaxed) - SIZE as u64;
    assert!(again > 0, "nothing was on its way when things broke: the test shows nothing");
    assert!(again <= 2 * MAX_WINDOW_BYTES, "{again} bytes were sent twice");
    here.block_on(source.shutdown());
    here.block_on(broker.stop());
}
