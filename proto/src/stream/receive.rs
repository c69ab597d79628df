//! The receiving end: what it holds, what it asked for, what must be lost.
//!
//! Feed it with what arrives, then ask [`Receiver::poll`] for the want to send, again
//! no later than [`Receiver::wake_at`]. Only bytes that are stored for good may be
//! reported to it as [`Receiver::stored`]: the next want acknowledges them. Bytes that
//! wait in memory for those before them are [`Receiver::held`].

use std::time::Duration;

use crate::id::Digest;
use crate::stream::asked::AskedList;
use crate::stream::extent::Extent;
use crate::stream::frame::{ChunkHeader, HELD, MAX_MISSING, Missing, Offer, StreamId, Want};
use crate::stream::pace::{MAX_WINDOW_BYTES, Rate, window_bytes};
use crate::stream::range::{RangeSet, Span};

/// The most holes that are asked for at a time; as many spans may be held between them.
const MAX_HOLES: usize = MAX_MISSING / 2;
/// The silence after which everything outstanding is asked for again, while nothing
/// is known of the link.
const FIRST_PATIENCE: Duration = Duration::from_secs(1);
const MIN_PATIENCE: Duration = Duration::from_millis(100);
const MAX_PATIENCE: Duration = Duration::from_secs(10);
/// How often a sender is reminded that says "not yet", or nothing: it, or the broker,
/// may have restarted and forgotten.
const REMINDER: Duration = Duration::from_secs(2);

/// What the receiver knows of the sender's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Source {
    version: u64,
    extent: Extent,
}

impl Source {
    /// The same file, with what another statement adds about it.
    fn merge(self, other: Self) -> Option<Self> {
        let extent = self.extent.merge(other.extent)?;
        (self.version == other.version).then_some(Self { extent, ..self })
    }
}

/// What an offer told the receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OfferNews {
    /// Nothing about the file that was not known.
    Nothing,
    /// There is more of it, or it is whole.
    Grown,
    /// For the first time which file it is: storage can be made.
    Known,
    /// Another version than the one that bytes are held of: all of them are void.
    Replaced,
}

/// What a chunk was to the receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// Holds bytes that lack: store them, then report [`Receiver::stored`].
    /// (or [`Receiver::held`] until they can be).
    Lacking,
    /// Holds nothing new.
    Duplicate,
    /// Is of another version than the one being received.
    Foreign,
}

/// The receiving end of one stream, without clock, socket or disk.
#[derive(Debug)]
pub struct Receiver {
    stream: StreamId,
    session: u64,
    number: u32,
    bwlimit: Option<u64>,
    window_cap: u64,
    source: Option<Source>,
    digest: Option<Digest>,
    /// What arrived: stored, or held.
    stored: RangeSet,
    /// What of it waits in memory.
    held: RangeSet,
    /// What lacks below `limit`, ascending.
    asked: AskedList,
    limit: u64,
    rate: Rate,
    wire_rate: Rate,
    round_trip: Option<Duration>,
    /// The want whose answer is being timed, and when it was sent.
    probe: Option<(u32, Duration)>,
    last_sign: Duration,
    backoff: u32,
    reminding: bool,
    due: bool,
}

impl Receiver {
    /// A receiver that holds nothing. `session` must be above that of every receiver
    /// of the stream before it: senders ignore what is older.
    pub fn new(stream: StreamId, session: u64, bwlimit: Option<u64>) -> Self {
        Self {
            stream,
            session,
            number: 0,
            bwlimit,
            window_cap: MAX_WINDOW_BYTES,
            source: None,
            digest: None,
            stored: RangeSet::new(),
            held: RangeSet::new(),
            asked: AskedList::default(),
            limit: 0,
            rate: Rate::default(),
            wire_rate: Rate::default(),
            round_trip: None,
            probe: None,
            last_sign: Duration::ZERO,
            backoff: 0,
            reminding: false,
            due: true,
        }
    }

    /// Takes up what an earlier receiver stored.
    #[must_use]
    pub fn resume(mut self, version: u64, extent: Extent, stored: RangeSet) -> Self {
        self.source = Some(Source { version, extent });
        self.stored = stored;
        self
    }

    /// Caps the window, for receivers that share a node's memory.
    pub fn set_window_cap(&mut self, bytes: u64) {
        self.window_cap = bytes;
    }

    /// Hears of the sender's file.
    pub fn on_offer(&mut self, now: Duration, offer: &Offer) -> OfferNews {
        self.sign_of_life(now);
        self.reminding = false;
        let news = self.learn(Source { version: offer.version, extent: offer.extent });
        if offer.digest.is_some() {
            self.digest = offer.digest;
        }
        news
    }

    /// Hears that the file is not there yet.
    pub fn on_not_yet(&mut self, now: Duration) {
        self.sign_of_life(now);
        // The wait is for the file, not for the link.
        self.probe = None;
        self.reminding = true;
    }

    /// Hears of the sender's file from a chunk, which may arrive before the offer.
    ///
    /// Only a chunk that [`Receiver::judge`] found [`Arrival::Lacking`].
    pub fn on_chunk_header(&mut self, header: &ChunkHeader) -> OfferNews {
        self.learn(Source { version: header.version, extent: header.extent })
    }

    /// Judges a chunk by its header, before it is unpacked.
    pub fn judge(&mut self, now: Duration, header: &ChunkHeader) -> Arrival {
        self.sign_of_life(now);
        let source = Source { version: header.version, extent: header.extent };
        match self.source {
            Some(known) if known.merge(source).is_none() => Arrival::Foreign,
            _ if self.stored.missing(header.span).next().is_none() => Arrival::Duplicate,
            _ => Arrival::Lacking,
        }
    }

    /// A chunk's bytes are stored where a restart finds them.
    ///
    /// `wire_bytes` is what the chunk weighed on the wire.
    pub fn stored(&mut self, now: Duration, header: &ChunkHeader, wire_bytes: u64) {
        let was_held = self.held.missing(header.span).next().is_none();
        self.held.remove(header.span);
        if was_held {
            self.due |= self.is_full();
        } else {
            self.arrived(now, header, wire_bytes);
        }
    }

    /// A chunk's bytes are in memory and will be stored when those before them are. Until
    /// then they are neither asked for nor acknowledged.
    pub fn held(&mut self, now: Duration, header: &ChunkHeader, wire_bytes: u64) {
        self.held.insert(header.span);
        self.arrived(now, header, wire_bytes);
    }

    fn arrived(&mut self, now: Duration, header: &ChunkHeader, wire_bytes: u64) {
        let span = header.span;
        self.sign_of_life(now);
        self.reminding = false;
        let fresh = self.stored.insert(span);
        self.rate.add(now, fresh);
        self.wire_rate.add(now, wire_bytes);
        self.asked.strike(span);
        if header.session == self.session {
            self.asked.overtake(header.want, span);
            if let Some((number, sent)) = self.probe
                && header.want >= number
            {
                let sample = now.saturating_sub(sent);
                self.round_trip = Some(self.round_trip.map_or(sample, |best| best.min(sample)));
                self.probe = None;
            }
        }
        if self.is_dry() {
            // What follows says how fast the stream grows, not how fast the link is.
            self.rate.pause();
            self.wire_rate.pause();
        }
        self.due |= self.is_full();
    }

    /// A chunk arrived whose bytes are not what its digest says: ask again at once.
    pub fn on_corrupt(&mut self, now: Duration, span: Span) {
        self.sign_of_life(now);
        self.asked.give_up(span);
    }

    /// The want to send now, if any.
    pub fn poll(&mut self, now: Duration) -> Option<Want> {
        let silent = self.number > 0 && now >= self.wake_at();
        if silent {
            self.backoff += 1;
            self.rate.pause();
            self.wire_rate.pause();
            self.probe = None;
            self.asked.give_up(Span::new(0, u64::MAX));
        }
        let window = window_bytes(
            self.rate.total(),
            self.wanted_rate(),
            self.wire_rate.peak(),
            self.round_trip.unwrap_or_default(),
            self.window_cap,
        );
        let outstanding = self.asked.bytes() + self.held.bytes();
        let mut room = window.saturating_sub(outstanding);
        if self.asked.bytes() == 0 {
            // What is held waits for what was never asked for: by a receiver that took over from one
            // whose chunks were still on their way.
            room = room.max(window / 4);
        }
        let grant = room >= window / 4 && self.limit < self.end();
        if !(silent || self.asked.has_lost() || grant || self.due) {
            return None;
        }
        self.due = false;
        self.number += 1;
        self.last_sign = now;
        self.asked.ask_again(self.number);
        self.grant(room);
        self.probe = self.probe.or(Some((self.number, now)));
        Some(self.want())
    }

    /// When [`Receiver::poll`] has something to say although nothing arrived.
    pub fn wake_at(&self) -> Duration {
        let patience = match (self.reminding, self.rate.per_second()) {
            (true, _) => REMINDER,
            _ if self.is_dry() => REMINDER,
            (false, None) => FIRST_PATIENCE,
            (false, Some(rate)) => {
                let drain = Duration::from_secs_f64(self.asked.bytes() as f64 / rate.max(1) as f64);
                (2 * (drain + self.round_trip.unwrap_or_default())).max(MIN_PATIENCE)
            }
        };
        let patience = patience.min(MAX_PATIENCE);
        self.last_sign + patience.max((patience * (1 << self.backoff.min(6))).min(REMINDER))
    }

    /// True when every byte is stored; the whole digest may still be unknown.
    pub fn is_full(&self) -> bool {
        let total = self.source.and_then(|source| source.extent.total());
        total.is_some_and(|total| self.stored_bytes() == total)
    }

    /// True when everything that can be sent so far arrived, and more is to come.
    fn is_dry(&self) -> bool {
        let extent = self.source.map(|source| source.extent);
        extent.is_some_and(|extent| !extent.is_whole && self.stored.bytes() >= extent.ready())
    }

    /// The digest of the whole, once the sender told it.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }
    /// Version and length of the sender's file, once known.
    pub fn source(&self) -> Option<(u64, Extent)> {
        self.source.map(|source| (source.version, source.extent))
    }
    /// Bytes stored so far.
    pub fn stored_bytes(&self) -> u64 {
        self.stored.bytes() - self.held.bytes()
    }
    /// Bytes of the stream per second, once measured.
    pub fn rate(&self) -> Option<u64> {
        self.rate.per_second()
    }

    /// What the link could store a second at its best, of what now comes: bytes that shrink by
    /// half are stored twice as fast as they travel.
    fn wanted_rate(&self) -> Option<u64> {
        let (rate, wire) = (self.rate.per_second()?, self.wire_rate.per_second()?);
        Some((rate as f64 * self.wire_rate.peak() as f64 / wire.max(1) as f64) as u64)
    }

    fn end(&self) -> u64 {
        self.source.and_then(|source| source.extent.total()).unwrap_or(u64::MAX)
    }

    fn sign_of_life(&mut self, now: Duration) {
        self.last_sign = now;
        self.backoff = 0;
    }

    fn learn(&mut self, source: Source) -> OfferNews {
        let (source, news) = match self.source.map(|known| (known, known.merge(source))) {
            Some((known, Some(merged))) if known == merged => return OfferNews::Nothing,
            Some((_, Some(merged))) => (merged, OfferNews::Grown),
            Some((_, None)) => {
                (self.stored, self.held) = (RangeSet::new(), RangeSet::new());
                self.asked = AskedList::default();
                (self.limit, self.digest, self.due) = (0, None, true);
                (source, OfferNews::Replaced)
            }
            None => (source, OfferNews::Known),
        };
        self.source = Some(source);
        // What was asked for before the length was known may reach beyond it.
        let end = self.end();
        self.limit = self.limit.min(end);
        self.asked.strike(Span::new(end, u64::MAX));
        self.due |= self.is_full();
        news
    }

    /// Asks for `room` more bytes above the limit.
    fn grant(&mut self, mut room: u64) {
        if let Some(cut) = self.asked.truncate(MAX_HOLES) {
            // More holes than a want can list: the upper ones wait for their turn.
            self.limit = cut;
        }
        let end = self.end();
        while room > 0 && self.limit < end && self.asked.len() < MAX_HOLES {
            let Some(gap) = self.stored.missing(Span::new(self.limit, end)).next() else {
                self.limit = end;
                break;
            };
            let span = Span::new(gap.start, gap.end.min(gap.start.saturating_add(room)));
            room -= span.len();
            self.limit = span.end;
            self.asked.push(span, self.number);
        }
    }

    fn want(&self) -> Want {
        let below = self.held.spans().iter().map(|span| span.overlap(Span::new(0, self.limit)));
        let held = below.filter(|span| !span.is_empty());
        let held = held.map(|span| Missing { span, asked: HELD });
        let mut missing: Vec<_> = self.asked.missing().chain(held).collect();
        missing.sort_by_key(|missing| missing.span.start);
        Want {
            stream: self.stream.clone(),
            session: self.session,
            number: self.number,
            version: self.source.map(|source| source.version),
            knows_digest: self.digest.is_some(),
            limit: self.limit,
            missing,
            stored_bytes: self.stored_bytes(),
            wire_rate: self.wire_rate.per_second().unwrap_or(0),
            bwlimit: self.bwlimit,
        }
    }
}
