//! Two ends of streams in one process, with a link that can be told to misbehave.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use bytes::Bytes;
use godwit_proto::id::{ContainerId, Epoch};
use godwit_proto::stream::{ChunkHeader, StopReason, StreamId};
use godwit_proto::topic::Peer;
use godwit_proto::wire;
use tempfile::TempDir;
use tokio::sync::mpsc;

use crate::stream::*;

/// What becomes of a chunk on its way.
pub(super) enum Fate {
    Arrives,
    Lost,
    Garbled,
}

pub(super) type Weather = dyn Fn(u64, &ChunkHeader) -> Fate + Send + Sync;

/// The air between all peers.
#[derive(Default)]
pub(super) struct Air {
    peers: Mutex<BTreeMap<Peer, Streams>>,
    weather: OnceLock<Box<Weather>>,
    pub(super) sent: Mutex<Vec<ChunkHeader>>,
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

pub(super) struct Scene {
    pub(super) air: Arc<Air>,
    pub(super) source: Streams,
    pub(super) target: Streams,
    pub(super) ended: mpsc::UnboundedReceiver<StopReason>,
    pub(super) directory: TempDir,
}

pub(super) fn peer(name: &str) -> Peer {
    name.parse().unwrap()
}

pub(super) fn join(air: &Arc<Air>, name: &str, source: Arc<dyn StreamSource>) -> Streams {
    let link = Arc::new(AirLink { air: air.clone(), me: peer(name) });
    let streams = Streams::new(link, source);
    air.peers.lock().unwrap().insert(peer(name), streams.clone());
    streams
}

pub(super) fn scene_where(resolution: Resolution, weather: Option<Box<Weather>>) -> Scene {
    let air = Arc::new(Air::default());
    if let Some(weather) = weather {
        let _ = air.weather.set(weather);
    }
    let (ended_tx, ended) = mpsc::unbounded_channel();
    let source = join(&air, "source", Arc::new(Script { resolution, ended: ended_tx }));
    let target = join(&air, "target", Arc::new(OffersOnly));
    Scene { air, source, target, ended, directory: TempDir::new().unwrap() }
}

pub(super) fn scene() -> Scene {
    scene_where(Resolution::NotYet, None)
}

pub(super) fn weather(
    fate: impl Fn(u64, &ChunkHeader) -> Fate + Send + Sync + 'static,
) -> Option<Box<Weather>> {
    Some(Box::new(fate))
}

pub(super) fn image(digit: char) -> StreamId {
    StreamId::Image(digit.to_string().repeat(64).parse().unwrap())
}

pub(super) fn checkpoint() -> StreamId {
    let container: ContainerId = "11111111-2222-3333-4444-555555555555".parse().unwrap();
    StreamId::Checkpoint { container, epoch: Epoch { generation: 1, counter: 1 } }
}

/// Half of it compresses well, half not at all.
pub(super) fn contents(size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes[..size / 2]);
    for (at, byte) in bytes[size / 2..].iter_mut().enumerate() {
        *byte = (at >> 8) as u8;
    }
    bytes
}

impl Scene {
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
    pub(super) fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        path
    }
    pub(super) fn receive(&self, stream: StreamId) -> Receiving {
        self.receive_with(stream, ReceiveOptions::default())
    }
    pub(super) fn receive_with(&self, stream: StreamId, options: ReceiveOptions) -> Receiving {
        self.target.receive(stream, peer("source"), self.path("into/file"), options)
    }
    pub(super) fn sent_bytes(&self) -> u64 {
        self.air.sent.lock().unwrap().iter().map(|header| header.span.len()).sum()
    }
    /// Everything in the receiver's directory.
    pub(super) fn left(&self) -> Vec<String> {
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
