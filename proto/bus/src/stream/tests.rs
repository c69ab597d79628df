//! Two ends of streams in one process, with a link that can be told to misbehave.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use bytes::Bytes;
use godwit_proto::id::{ContainerId, Epoch};
use godwit_proto::stream::pace::MAX_WINDOW_BYTES;
use godwit_proto::stream::{ChunkHeader, StopReason, StreamId};
use godwit_proto::topic::Peer;
use godwit_proto::wire;
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::*;

/// What becomes of a chunk on its way.
enum Fate {
    Arrives,
    Lost,
    Garbled,
}

type Weather = dyn Fn(u64, &ChunkHeader) -> Fate + Send + Sync;

/// The air between all peers.
#[derive(Default)]
struct Air {
    peers: Mutex<BTreeMap<Peer, Streams>>,
    weather: OnceLock<Box<Weather>>,
    sent: Mutex<Vec<ChunkHeader>>,
}

struct AirLink {
    air: Arc<Air>,
    me: Peer,
}

impl StreamLink for AirLink {
    fn send_ctl<'a>(&'a self, to: &'a Peer, frame: Bytes) -> Pending<'a, ()> {
        let there = self.air.peers.lock().unwrap().get(to).cloned();
        if let Some(there) = there {
            there.on_ctl(&self.me, &frame);
        }
        Box::pin(async {})
    }

    fn send_bulk<'a>(&'a self, to: &'a Peer, frame: Bytes) -> Pending<'a, ()> {
        let (header, _) = wire::decode_with_tail::<ChunkHeader>(&frame).unwrap();
        let number = {
            let mut sent = self.air.sent.lock().unwrap();
            sent.push(header.clone());
            sent.len() as u64
        };
        let fate = self.air.weather.get().map_or(Fate::Arrives, |fate| fate(number, &header));
        let frame = match fate {
            Fate::Arrives => frame,
            Fate::Lost => return Box::pin(async {}),
            Fate::Garbled => {
                let mut frame = frame.to_vec();
                *frame.last_mut().unwrap() ^= 1;
                frame.into()
            }
        };
        let there = self.air.peers.lock().unwrap().get(to).cloned();
        if let Some(there) = there {
            there.on_bulk(&self.me, frame);
        }
        // Yields, so that one end does not run ahead of the other for ever.
        Box::pin(tokio::task::yield_now())
    }
}

/// Says what it is told to, and notes how receivers ended.
struct Script {
    resolution: Resolution,
    ended: mpsc::UnboundedSender<StopReason>,
}

impl StreamSource for Script {
    fn resolve<'a>(&'a self, _: &'a StreamId, _: &'a Peer) -> Pending<'a, Resolution> {
        Box::pin(async { self.resolution.clone() })
    }
    fn ended(&self, _: &StreamId, _: &Peer, reason: &StopReason) {
        let _ = self.ended.send(reason.clone());
    }
}

struct Scene {
    air: Arc<Air>,
    source: Streams,
    target: Streams,
    ended: mpsc::UnboundedReceiver<StopReason>,
    directory: TempDir,
}

fn peer(name: &str) -> Peer {
    name.parse().unwrap()
}

fn join(air: &Arc<Air>, name: &str, source: Arc<dyn StreamSource>) -> Streams {
    let link = Arc::new(AirLink { air: air.clone(), me: peer(name) });
    let streams = Streams::new(link, source);
    air.peers.lock().unwrap().insert(peer(name), streams.clone());
    streams
}

fn scene_where(resolution: Resolution, weather: Option<Box<Weather>>) -> Scene {
    let air = Arc::new(Air::default());
    if let Some(weather) = weather {
        let _ = air.weather.set(weather);
    }
    let (ended_tx, ended) = mpsc::unbounded_channel();
    let source = join(&air, "source", Arc::new(Script { resolution, ended: ended_tx }));
    let target = join(&air, "target", Arc::new(OffersOnly));
    Scene { air, source, target, ended, directory: TempDir::new().unwrap() }
}

fn scene() -> Scene {
    scene_where(Resolution::NotYet, None)
}

fn weather(
    fate: impl Fn(u64, &ChunkHeader) -> Fate + Send + Sync + 'static,
) -> Option<Box<Weather>> {
    Some(Box::new(fate))
}

fn image(digit: char) -> StreamId {
    StreamId::Image(digit.to_string().repeat(64).parse().unwrap())
}

fn checkpoint() -> StreamId {
    let container: ContainerId = "11111111-2222-3333-4444-555555555555".parse().unwrap();
    StreamId::Checkpoint { container, epoch: Epoch { generation: 1, counter: 1 } }
}

/// Half of it compresses well, half not at all.
fn contents(size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes[..size / 2]);
    for (at, byte) in bytes[size / 2..].iter_mut().enumerate() {
        *byte = (at >> 8) as u8;
    }
    bytes
}

impl Scene {
    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        path
    }
    fn receive(&self, stream: StreamId) -> Receiving {
        self.receive_with(stream, ReceiveOptions::default())
    }
    fn receive_with(&self, stream: StreamId, options: ReceiveOptions) -> Receiving {
        self.target.receive(stream, peer("source"), self.path("into/file"), options)
    }
    fn sent_bytes(&self) -> u64 {
        self.air.sent.lock().unwrap().iter().map(|header| header.span.len()).sum()
    }
    /// Everything in the receiver's directory.
    fn left(&self) -> Vec<String> {
        names(&self.path("into"))
    }
}

fn names(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut names: Vec<_> =
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_arrives_whole_and_both_ends_agree_on_it() {
    let mut scene = scene();
    let bytes = contents(5 << 20);
    let path = scene.file("file", &bytes);
    let offered = scene.source.offer(checkpoint(), path, peer("target")).await.unwrap();
    let receiving = scene.receive(checkpoint());
    let progress = receiving.progress();
    let received = receiving.await.unwrap();

    assert_eq!(fs::read(&received.path).unwrap(), bytes);
    let manifest = offered.manifest().await.unwrap();
    assert_eq!(received.manifest, manifest);
    assert_eq!(manifest.digest, chunk::digest(&bytes));
    assert_eq!(manifest_digest(&received.manifest), manifest_digest(&manifest));
    assert_eq!(scene.ended.recv().await, Some(StopReason::Complete));
    assert_eq!(scene.sent_bytes(), 5 << 20, "a good link was sent something twice");
    assert_eq!(scene.left(), ["file"], "something was left over");

    let total = Some(5 << 20);
    let (at_target, at_source) = (*progress.borrow(), *offered.progress().borrow());
    assert_eq!((at_target.bytes, at_target.total_bytes), (5 << 20, total));
    assert_eq!((at_source.bytes, at_source.total_bytes), (5 << 20, total));
    assert_eq!(at_target.wire_bytes, at_source.wire_bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_comes_later_is_sent_as_soon_as_it_is_there() {
    let scene = scene();
    let receiving = scene.receive(checkpoint());
    let path = scene.file("file", &contents(300_000));
    scene.source.offer(checkpoint(), path, peer("target")).await.unwrap();
    assert_eq!(receiving.await.unwrap().manifest.size_bytes, 300_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_made_on_demand_arrives() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("saved");
    fs::write(&path, contents(300_000)).unwrap();
    let scene = scene_where(Resolution::Ready(path), None);
    assert_eq!(scene.receive(image('a')).await.unwrap().manifest.size_bytes, 300_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_file_arrives() {
    let scene = scene();
    let path = scene.file("file", b"");
    scene.source.offer(image('a'), path, Audience::Anyone).await.unwrap();
    let received = scene.receive(image('a')).await.unwrap();
    assert_eq!(fs::read(received.path).unwrap(), b"");
    assert_eq!(scene.left(), ["file"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lossy_link_delivers_all_the_same() {
    let lossy = weather(|number, _| if number % 5 == 0 { Fate::Lost } else { Fate::Arrives });
    let scene = scene_where(Resolution::NotYet, lossy);
    let bytes = contents(3 << 20);
    let path = scene.file("file", &bytes);
    scene.source.offer(image('a'), path, Audience::Anyone).await.unwrap();
    let received = scene.receive(image('a')).await.unwrap();
    assert_eq!(fs::read(received.path).unwrap(), bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_garbled_chunk_is_asked_for_again() {
    let garbling = weather(|number, _| if number % 4 == 0 { Fate::Garbled } else { Fate::Arrives });
    let scene = scene_where(Resolution::NotYet, garbling);
    let bytes = contents(2 << 20);
    let path = scene.file("file", &bytes);
    scene.source.offer(image('a'), path, Audience::Anyone).await.unwrap();
    let received = scene.receive(image('a')).await.unwrap();
    assert_eq!(fs::read(received.path).unwrap(), bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_only_garbles_is_given_up() {
    let scene = scene_where(Resolution::NotYet, weather(|_, _| Fate::Garbled));
    let path = scene.file("file", &contents(2 << 20));
    scene.source.offer(image('a'), path, Audience::Anyone).await.unwrap();
    let error = scene.receive(image('a')).await.unwrap_err();
    assert!(matches!(error, ReceiveError::Garbled { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_stream_is_resumed_without_sending_again_what_was_stored() {
    const SIZE: u64 = 12 << 20;
    const HALF: u64 = SIZE / 2;
    // The first session's link breaks in the middle.
    let first = Mutex::new(None);
    let breaking = weather(move |_, header| {
        let first = *first.lock().unwrap().get_or_insert(header.session);
        let broken = header.session == first && header.span.start >= HALF;
        if broken { Fate::Lost } else { Fate::Arrives }
    });
    let mut scene = scene_where(Resolution::NotYet, breaking);
    let bytes = contents(SIZE as usize);
    let path = scene.file("file", &bytes);
    scene.source.offer(checkpoint(), path, peer("target")).await.unwrap();

    let receiving = scene.receive(checkpoint());
    let mut progress = receiving.progress();
    progress.wait_for(|progress| progress.bytes >= HALF).await.unwrap();
    let stored = progress.borrow().bytes;
    drop(receiving);
    assert_eq!(scene.ended.recv().await, Some(StopReason::Cancelled));
    let before = scene.sent_bytes();

    let received = scene.receive(checkpoint()).await.unwrap();
    assert_eq!(fs::read(received.path).unwrap(), bytes);
    let again = scene.sent_bytes() - before;
    assert_eq!(again, SIZE - stored, "the second session was sent what the first had stored");
    assert!(before <= stored + MAX_WINDOW_BYTES);
    assert_eq!(scene.left(), ["file"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_sender_goes_on_where_the_receiver_is() {
    const SIZE: u64 = 12 << 20;
    let scene = scene();
    let bytes = contents(SIZE as usize);
    let path = scene.file("file", &bytes);
    // Slow at first, so that there is a middle.
    scene.source.set_node_limit(Some(2_000_000));
    scene.source.offer(checkpoint(), path.clone(), peer("target")).await.unwrap();
    let receiving = scene.receive(checkpoint());
    receiving.progress().wait_for(|progress| progress.bytes > 200_000).await.unwrap();
    scene.source.shutdown().await;

    let successor = join(&scene.air, "source", Arc::new(OffersOnly));
    successor.offer(checkpoint(), path, peer("target")).await.unwrap();
    let received = receiving.await.unwrap();
    assert_eq!(fs::read(received.path).unwrap(), bytes);
    assert!(scene.sent_bytes() <= SIZE + MAX_WINDOW_BYTES);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_replaced_is_received_anew() {
    const SIZE: u64 = 12 << 20;
    let scene = scene();
    let path = scene.file("old", &vec![7; SIZE as usize]);
    scene.source.set_node_limit(Some(50_000));
    scene.source.offer(image('a'), path, Audience::Anyone).await.unwrap();
    let receiving = scene.receive(image('a'));
    receiving.progress().wait_for(|progress| progress.bytes > 0).await.unwrap();
    scene.source.set_node_limit(None);
    let bytes = contents(1 << 20);
    let path = scene.file("new", &bytes);
    scene.source.offer(image('a'), path, Audience::Anyone).await.unwrap();
    let received = receiving.await.unwrap();
    assert_eq!(fs::read(received.path).unwrap(), bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changed_while_it_was_offered_is_discarded() {
    let scene = scene();
    let mut bytes = contents(1 << 20);
    let path = scene.file("file", &bytes);
    let offered = scene.source.offer(image('a'), path.clone(), Audience::Anyone).await.unwrap();
    offered.manifest().await.unwrap();
    bytes[77] ^= 1;
    fs::write(path, bytes).unwrap();
    let error = scene.receive(image('a')).await.unwrap_err();
    assert!(matches!(error, ReceiveError::Corrupt { .. }), "{error}");
    assert!(scene.left().is_empty(), "{:?} was kept", scene.left());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_noticed_before_the_first_byte_and_the_sender_is_told() {
    let mut scene = scene();
    let path = scene.path("file");
    let huge = fs::File::create(&path).unwrap();
    const SIZE: u64 = 1 << 43; // sparse: larger than any disk under a test, small on this one
    huge.set_len(SIZE).unwrap();
    scene.source.offer(image('a'), path, Audience::Anyone).await.unwrap();
    let error = scene.receive(image('a')).await.unwrap_err();
    let ReceiveError::NoSpace { path, needed_bytes, free_bytes } = error else {
        panic!("{error}");
    };
    assert_eq!((path, needed_bytes), (scene.path("into/file"), SIZE));
    assert_eq!(scene.ended.recv().await, Some(StopReason::NoSpace { needed_bytes, free_bytes }));
    assert!(scene.left().is_empty());
    scene.source.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_reaches_the_receiver_with_its_reason() {
    let refusing = Resolution::Refused { reason: "no such image here".into() };
    let scene = scene_where(refusing, None);
    let error = scene.receive(image('a')).await.unwrap_err();
    assert!(matches!(&error, ReceiveError::Refused { .. }));
    assert!(error.to_string().contains("no such image here"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_offered_to_one_peer_is_not_sent_to_another() {
    let refusing = Resolution::Refused { reason: "not for you".into() };
    let scene = scene_where(refusing, None);
    let path = scene.file("file", &contents(1000));
    scene.source.offer(image('a'), path, peer("friend")).await.unwrap();
    let error = scene.receive(image('a')).await.unwrap_err();
    assert!(error.to_string().contains("not for you"), "{error}");
    assert_eq!(scene.sent_bytes(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_withdrawn_stream_ends_its_receivers() {
    let scene = scene();
    let path = scene.file("file", &contents(12 << 20));
    scene.source.set_node_limit(Some(50_000));
    scene.source.offer(image('a'), path, Audience::Anyone).await.unwrap();
    let receiving = scene.receive(image('a'));
    receiving.progress().wait_for(|progress| progress.bytes > 0).await.unwrap();
    scene.source.withdraw(&image('a'));
    let error = receiving.await.unwrap_err();
    assert!(matches!(error, ReceiveError::Refused { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_received_once_at_a_time() {
    let scene = scene();
    let first = scene.receive(image('a'));
    // The first one is registered once the sender has heard of it.
    let error = scene.receive(image('a'));
    let (first, second) = (first, error);
    let busy = tokio::select! {
        outcome = first => outcome,
        outcome = second => outcome,
    };
    assert!(matches!(busy, Err(ReceiveError::Busy { .. })), "{busy:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_sender_exhausts_a_limited_patience() {
    let scene = scene();
    let patience = Some(Duration::from_millis(20));
    let options = ReceiveOptions { patience, ..ReceiveOptions::default() };
    let into = scene.path("into/file");
    let receiving = scene.target.receive(image('a'), peer("nobody"), into, options);
    let error = receiving.await.unwrap_err();
    assert!(matches!(error, ReceiveError::Silent { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limited_stream_travels_in_chunks_that_do_not_hold_up_the_link() {
    let scene = scene();
    let path = scene.file("file", &contents(400_000));
    scene.source.offer(image('a'), path, Audience::Anyone).await.unwrap();
    let limit = 1_000_000;
    let options = ReceiveOptions { bwlimit: Some(limit), ..ReceiveOptions::default() };
    scene.receive_with(image('a'), options).await.unwrap();
    let largest = scene.air.sent.lock().unwrap().iter().map(|header| header.span.len()).max();
    assert!(largest.unwrap() <= limit / 50, "{largest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_compresses_is_compressed_on_a_slow_link() {
    let scene = scene();
    let path = scene.file("file", &b"as the crow flies ".repeat(200_000));
    scene.source.offer(image('a'), path, Audience::Anyone).await.unwrap();
    let options = ReceiveOptions { bwlimit: Some(1_000_000), ..ReceiveOptions::default() };
    let received = scene.receive_with(image('a'), options).await.unwrap();
    assert!(received.wire_bytes < received.manifest.size_bytes / 2, "{received:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_in_both_directions_do_not_disturb_each_other() {
    let scene = scene();
    let mut receiving = Vec::new();
    for (digit, bytes) in ['a', 'b', 'c', 'd'].into_iter().zip(1..) {
        let path = scene.file(&format!("{digit}"), &contents(bytes << 20));
        let here = if bytes % 2 == 0 { &scene.source } else { &scene.target };
        let there = if bytes % 2 == 0 { &scene.target } else { &scene.source };
        let name = if bytes % 2 == 0 { "source" } else { "target" };
        here.offer(image(digit), path, Audience::Anyone).await.unwrap();
        let into = scene.path(&format!("into/{digit}"));
        let options = ReceiveOptions::default();
        receiving.push((bytes, there.receive(image(digit), peer(name), into, options)));
    }
    for (bytes, receiving) in receiving {
        let received = receiving.await.unwrap();
        assert_eq!(fs::read(received.path).unwrap(), contents(bytes << 20));
    }
    scene.source.shutdown().await;
    scene.target.shutdown().await;
}
