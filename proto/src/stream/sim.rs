//! Both ends over a link that loses, doubles and reorders, in virtual time.
//!
//! A run moves one stream; it may grow while it is sent, and be written in order or as it
//! comes. On the way either end may restart, the link may go dark, and the stream may be
//! replaced by another: [`weather`]. What must hold is checked at every event.

mod cases;
mod weather;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use crate::id::{Digest, ImageId};
use crate::stream::extent::Extent;
use crate::stream::frame::{ChunkHeader, Codec, MAX_MISSING, Offer, StreamId, Want};
use crate::stream::pace::MAX_WINDOW_BYTES;
use crate::stream::range::{RangeSet, Span};
use crate::stream::receive::{Arrival, OfferNews, Receiver};
use crate::stream::send::Sender;
use weather::Weather;

#[derive(Debug, Clone)]
enum Event {
    Want(Want),
    Offer(Offer),
    NotYet,
    Chunk(ChunkHeader, Vec<u8>),
    SenderFree,
    Wake,
    ReceiverRestart,
    SenderRestart,
    Replace,
    Grow,
}

struct World {
    weather: Weather,
    random: u64,
    now: Duration,
    events: BinaryHeap<Reverse<(Duration, u64)>>,
    payloads: BTreeMap<u64, Event>,
    scheduled: u64,
    version: u64,
    extent: Extent,
    link_free: bool,
    sender: Sender,
    receiver: Receiver,
    session: u64,
    disk: Vec<u8>,
    on_disk: RangeSet,
    /// What waits in the receiver's memory for what comes before it.
    in_memory: BTreeMap<u64, (ChunkHeader, Vec<u8>)>,
    /// What the newest want that the sender heard acknowledges.
    acknowledged: RangeSet,
    sent_bytes: u64,
    wants: u64,
    /// The most that was asked for at a time, once the link was known.
    most_asked_bytes: u64,
}

fn stream() -> StreamId {
    let image: ImageId = "7".repeat(64).parse().unwrap();
    StreamId::Image(image)
}

/// What the file holds there: every KiB differs from its neighbours and from the same
/// place in another version.
fn contents(version: u64, span: Span) -> Vec<u8> {
    let mut bytes = vec![0; span.len() as usize];
    let mut at = span.start;
    while at < span.end {
        let next = span.end.min((at | 1023) + 1);
        let kib = ((at >> 10).wrapping_mul(31) + version * 101) as u8;
        bytes[(at - span.start) as usize..(next - span.start) as usize].fill(kib);
        at = next;
    }
    bytes
}

impl World {
    fn new(weather: Weather) -> Self {
        let extent = match weather.growths_ms[..] {
            [] => Extent::whole(weather.size_bytes),
            _ => Extent::growing(0),
        };
        let mut world = Self {
            random: weather.seed,
            now: Duration::ZERO,
            events: BinaryHeap::new(),
            payloads: Default::default(),
            scheduled: 0,
            version: 1,
            link_free: true,
            extent,
            sender: Sender::new(1, extent),
            receiver: Receiver::new(stream(), 1, None),
            session: 1,
            disk: vec![0; weather.size_bytes as usize],
            on_disk: RangeSet::new(),
            acknowledged: RangeSet::new(),
            in_memory: BTreeMap::new(),
            sent_bytes: 0,
            wants: 0,
            most_asked_bytes: 0,
            weather,
        };
        for at in world.weather.receiver_restarts.clone() {
            world.schedule(Duration::from_millis(at), Event::ReceiverRestart);
        }
        for at in world.weather.sender_restarts.clone() {
            world.schedule(Duration::from_millis(at), Event::SenderRestart);
        }
        for at in world.weather.growths_ms.clone() {
            world.schedule(Duration::from_millis(at), Event::Grow);
        }
        if let Some(at) = world.weather.replaced_at_ms {
            world.schedule(Duration::from_millis(at), Event::Replace);
        }
        world
    }

    fn random(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below.max(1)
    }

    fn schedule(&mut self, after: Duration, event: Event) {
        self.scheduled += 1;
        self.payloads.insert(self.scheduled, event);
        self.events.push(Reverse((self.now + after, self.scheduled)));
    }

    /// Puts a message on the link, with whatever the link does to it.
    fn post(&mut self, after: Duration, event: Event) {
        let dark = self.weather.dark_ms;
        let at = self.now.as_millis() as u64;
        if dark.0 <= at && at < dark.1 {
            return;
        }
        let copies = if self.random(100) < self.weather.doubled_percent { 2 } else { 1 };
        for _ in 0..copies {
            if self.random(100) >= self.weather.lost_percent {
                let late = self.weather.latency_ms + self.random(self.weather.jitter_ms);
                self.schedule(after + Duration::from_millis(late), event.clone());
            }
        }
    }

    fn offer(&mut self) {
        let offer = Offer {
            stream: stream(),
            version: self.version,
            extent: self.extent,
            digest: self.extent.is_whole.then_some(Digest([0; 32])),
        };
        self.post(Duration::ZERO, Event::Offer(offer));
    }

    fn hear(&mut self, want: Want) {
        self.wants += 1;
        assert!(want.missing.len() <= MAX_MISSING);
        let asked_bytes = want.missing.iter().map(|m| m.span.len()).sum::<u64>();
        assert!(asked_bytes <= MAX_WINDOW_BYTES);
        if self.now > Duration::from_millis(500) {
            self.most_asked_bytes = self.most_asked_bytes.max(asked_bytes);
        }
        if !self.sender.on_want(&want) {
            return;
        }
        let same = want.version == Some(self.version);
        if !same || (!want.knows_digest && self.extent.is_whole) {
            self.offer();
        } else if self.sender.is_ahead() {
            self.post(Duration::ZERO, Event::NotYet);
        }
        self.acknowledged = RangeSet::new();
        if same {
            let mut lacking = RangeSet::new();
            for missing in &want.missing {
                lacking.insert(missing.span);
            }
            for span in lacking.missing(Span::new(0, want.limit)) {
                self.acknowledged.insert(span);
            }
            let held = self.acknowledged.bytes();
            assert!(held <= self.on_disk.bytes(), "{want:?} claims what is not on disk");
        }
        self.transmit();
    }

    fn transmit(&mut self) {
        if !self.link_free {
            return;
        }
        let Some(span) = self.sender.take(self.weather.chunk_bytes) else { return };
        let lacking = self.acknowledged.missing(span).map(|s| s.len()).sum::<u64>();
        assert_eq!(lacking, span.len(), "{span:?} was acknowledged and is sent again");
        assert!(self.sender.in_flight_bytes() <= MAX_WINDOW_BYTES);
        self.sent_bytes += span.len();
        let (session, want) = self.sender.newest_want();
        let header = ChunkHeader {
            stream: stream(),
            version: self.version,
            extent: self.extent,
            span,
            session,
            want,
            codec: Codec::None,
            digest: Digest([0; 32]),
        };
        assert!(header.is_sane());
        let bytes = contents(self.version, span);
        let rate = self.weather.bytes_per_second as f64;
        let busy = Duration::from_secs_f64(span.len() as f64 / rate);
        self.link_free = false;
        self.schedule(busy, Event::SenderFree);
        self.post(busy, Event::Chunk(header, bytes));
    }

    fn take_in(&mut self, header: ChunkHeader, bytes: Vec<u8>) {
        if self.receiver.judge(self.now, &header) == Arrival::Lacking {
            let news = self.receiver.on_chunk_header(&header);
            assert_ne!(news, OfferNews::Replaced, "a late chunk brought an old version back");
            let wire_bytes = bytes.len() as u64;
            if self.weather.is_in_order && header.span.start > self.on_disk.prefix() {
                self.receiver.held(self.now, &header, wire_bytes);
                self.in_memory.insert(header.span.start, (header, bytes));
                return;
            }
            self.write(&header, &bytes);
            while let Some(next) = self.in_memory.first_entry()
                && *next.key() <= self.on_disk.prefix()
            {
                let (header, bytes) = next.remove();
                self.write(&header, &bytes);
            }
        }
    }

    fn write(&mut self, header: &ChunkHeader, bytes: &[u8]) {
        let Span { start, end } = header.span;
        self.disk[start as usize..end as usize].copy_from_slice(bytes);
        self.on_disk.insert(header.span);
        self.receiver.stored(self.now, header, bytes.len() as u64);
    }

    fn grow(&mut self) {
        let growths = self.weather.growths_ms.len() as u64;
        let step = self.weather.size_bytes / growths;
        let last = *self.weather.growths_ms.iter().max().unwrap();
        if self.now >= Duration::from_millis(last) {
            if self.extent.is_whole {
                return;
            }
            self.extent = Extent::whole(self.weather.size_bytes);
        } else {
            self.extent = Extent::growing(self.extent.bytes + step);
        }
        self.sender.grow(self.extent);
        if self.extent.is_whole {
            self.offer();
        }
        self.transmit();
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Want(want) => self.hear(want),
            Event::Offer(offer) => {
                if self.receiver.on_offer(self.now, &offer) == OfferNews::Replaced {
                    self.on_disk = RangeSet::new();
                    self.in_memory.clear();
                }
            }
            Event::NotYet => self.receiver.on_not_yet(self.now),
            Event::Grow => self.grow(),
            Event::Chunk(header, bytes) => self.take_in(header, bytes),
            Event::SenderFree => {
                self.link_free = true;
                self.transmit();
            }
            Event::Wake => {}
            Event::ReceiverRestart => {
                self.session += 1;
                let fresh = Receiver::new(stream(), self.session, None);
                self.in_memory.clear();
                self.receiver = match self.receiver.source() {
                    // Only what is on disk is known of the stream's length.
                    Some((version, _)) if self.weather.is_in_order => {
                        let extent = Extent::growing(self.on_disk.prefix());
                        fresh.resume(version, extent, self.on_disk.clone())
                    }
                    Some((version, extent)) => fresh.resume(version, extent, self.on_disk.clone()),
                    None => fresh,
                };
            }
            Event::SenderRestart => {
                self.sender = Sender::new(self.version, self.extent);
                self.acknowledged = RangeSet::new();
            }
            Event::Replace => {
                self.version += 1;
                self.handle(Event::SenderRestart);
            }
        }
        if let Some(want) = self.receiver.poll(self.now) {
            self.post(Duration::ZERO, Event::Want(want));
        }
    }

    fn is_done(&self) -> bool {
        self.receiver.is_full()
            && self.receiver.digest().is_some()
            && self.receiver.source().is_some_and(|(version, _)| version == self.version)
    }

    /// Runs until everything arrived.
    fn run(mut self) -> Self {
        self.handle(Event::Wake);
        while !self.is_done() {
            let wake = self.receiver.wake_at();
            let next = self.events.peek().map(|Reverse((at, _))| *at);
            match next {
                Some(at) if at <= wake => {
                    let Some(Reverse((at, number))) = self.events.pop() else { unreachable!() };
                    self.now = at;
                    let event = self.payloads.remove(&number).unwrap();
                    self.handle(event);
                }
                _ => {
                    assert!(wake > self.now, "the receiver spins");
                    self.now = wake;
                    self.handle(Event::Wake);
                }
            }
            assert!(self.now < Duration::from_secs(600), "stuck: {:?}", self.receiver);
        }
        let whole = contents(self.version, Span::new(0, self.weather.size_bytes));
        assert!(self.disk == whole, "the bytes are not those of version {}", self.version);
        self
    }
}
