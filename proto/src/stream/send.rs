//! The sending end: what is still to be sent to one receiver.
//!
//! It holds no timer and resends nothing by itself; the receiver's newest [`Want`]
//! says everything.

use crate::stream::extent::Extent;
use crate::stream::frame::{HELD, Want};
use crate::stream::range::{RangeSet, Span};

/// What one receiver is still to be sent.
#[derive(Debug)]
pub struct Sender {
    extent: Extent,
    version: u64,
    session: u64,
    number: u32,
    /// Sent and not yet stored, with the want that it was sent under; ascending.
    sent: Vec<(Span, u32)>,
    /// To be sent; may reach beyond what there is so far.
    queue: RangeSet,
    stored_bytes: u64,
}

impl Sender {
    /// The state towards a receiver whose first want is still to be heard.
    pub fn new(version: u64, extent: Extent) -> Self {
        Self {
            extent,
            version,
            session: 0,
            number: 0,
            sent: Vec::new(),
            queue: RangeSet::new(),
            stored_bytes: 0,
        }
    }

    /// There is more of the stream, or it is whole. What was asked for beyond the former
    /// end can be taken now.
    pub fn grow(&mut self, extent: Extent) {
        self.extent = extent;
    }

    /// Takes in what the receiver lacks; false when the want is older than one already heard.
    ///
    /// A want of another version asks for nothing: its receiver has first to hear of
    /// this one.
    pub fn on_want(&mut self, want: &Want) -> bool {
        // Sessions rise: a former life's late wants must not bring it back.
        if (want.session, want.number) <= (self.session, self.number) {
            return false;
        }
        if want.session != self.session {
            self.sent.clear();
        }
        (self.session, self.number) = (want.session, want.number);
        self.stored_bytes = want.stored_bytes.min(self.extent.bytes);
        self.queue = RangeSet::new();
        if want.version.is_some_and(|version| version != self.version) {
            return true;
        }
        let mut in_flight = Vec::new();
        for missing in want.missing.iter().filter(|missing| missing.asked != HELD) {
            let lacks = missing.span;
            let mut at = lacks.start;
            for &(span, under) in &self.sent {
                let part = span.overlap(lacks);
                if part.is_empty() {
                    continue;
                }
                self.queue.insert(Span::new(at, part.start));
                if under < missing.asked {
                    self.queue.insert(part);
                } else {
                    in_flight.push((part, under));
                }
                at = part.end;
            }
            self.queue.insert(Span::new(at, lacks.end));
        }
        self.sent = in_flight;
        true
    }

    /// The next bytes to send, lowest first, up to the next multiple of `max_bytes`; they
    /// count as sent. `None` when nothing is asked for of what there is.
    pub fn take(&mut self, max_bytes: u32) -> Option<Span> {
        let first = self.queue.first()?;
        let max_bytes = u64::from(max_bytes);
        let fit = (first.start / max_bytes).saturating_add(1).saturating_mul(max_bytes);
        let span = Span::new(first.start, first.end.min(fit).min(self.extent.ready()));
        if span.is_empty() {
            return None;
        }
        self.queue.remove(span);
        let at = self.sent.partition_point(|(other, _)| other.start < span.start);
        self.sent.insert(at, (span, self.number));
        Some(span)
    }

    /// True when the receiver lacks nothing that can be sent, and more is to come.
    pub fn is_ahead(&self) -> bool {
        let end = self.extent.ready();
        let beyond = |span: Span| span.start >= end;
        !self.extent.is_whole && self.sent.is_empty() && self.queue.first().is_none_or(beyond)
    }

    /// The session and number of the newest want: what a chunk is stamped with.
    pub fn newest_want(&self) -> (u64, u32) {
        (self.session, self.number)
    }

    /// What the receiver has stored, by its own word.
    pub fn stored_bytes(&self) -> u64 {
        self.stored_bytes
    }

    /// Sent and not yet stored, as far as the sender knows: what a test bounds.
    #[cfg(test)]
    pub(crate) fn in_flight_bytes(&self) -> u64 {
        self.sent.iter().map(|(span, _)| span.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ImageId;
    use crate::stream::frame::{MAX_CHUNK_BYTES, Missing, StreamId};

    fn want(session: u64, number: u32, missing: &[(u64, u64, u32)]) -> Want {
        let image: ImageId = "0".repeat(64).parse().unwrap();
        let span = |&(start, end, asked)| Missing { span: Span { start, end }, asked };
        Want {
            stream: StreamId::Image(image),
            session,
            number,
            version: None,
            knows_digest: false,
            limit: 0,
            missing: missing.iter().map(span).collect(),
            stored_bytes: 0,
            wire_rate: 0,
            bwlimit: None,
        }
    }

    fn drain(sender: &mut Sender) -> Vec<(u64, u64)> {
        std::iter::from_fn(|| sender.take(1000)).map(|s| (s.start, s.end)).collect()
    }

    #[test]
    fn what_is_in_flight_is_sent_again_only_when_it_is_asked_for_anew() {
        let mut sender = Sender::new(1, Extent::whole(10_000));
        assert!(sender.on_want(&want(9, 1, &[(0, 2000, 1)])));
        assert_eq!(drain(&mut sender), [(0, 1000), (1000, 2000)]);
        assert!(sender.on_want(&want(9, 2, &[(1000, 2000, 1), (2000, 3000, 2)])));
        assert_eq!(drain(&mut sender), [(2000, 3000)]);
        assert!(sender.on_want(&want(9, 3, &[(1000, 2000, 3), (2000, 3000, 2)])));
        assert_eq!(drain(&mut sender), [(1000, 2000)]);
        assert_eq!(sender.in_flight_bytes(), 2000);
    }

    #[test]
    fn a_want_that_was_overtaken_changes_nothing() {
        let mut sender = Sender::new(1, Extent::whole(10_000));
        assert!(sender.on_want(&want(9, 2, &[(1000, 2000, 2)])));
        assert!(!sender.on_want(&want(9, 1, &[(0, 1000, 1)])));
        assert!(!sender.on_want(&want(9, 2, &[(1000, 2000, 2)])));
        assert_eq!(drain(&mut sender), [(1000, 2000)]);
    }

    #[test]
    fn a_receiver_that_began_anew_does_not_fall_back_to_its_former_life() {
        let mut sender = Sender::new(1, Extent::whole(10_000));
        assert!(sender.on_want(&want(9, 5, &[(0, 1000, 1)])));
        assert!(sender.on_want(&want(10, 1, &[(500, 1000, 1)])));
        assert!(!sender.on_want(&want(9, 6, &[(0, 1000, 6)])));
        assert_eq!(drain(&mut sender), [(500, 1000)]);
    }

    #[test]
    fn a_want_beyond_the_end_is_cut() {
        let mut sender = Sender::new(1, Extent::whole(1500));
        assert!(sender.on_want(&want(9, 1, &[(0, u64::MAX, 1), (7, 3, 1)])));
        assert_eq!(drain(&mut sender), [(0, 1000), (1000, 1500)]);
    }

    #[test]
    fn what_appears_is_sent_for_the_remembered_want() {
        let mut sender = Sender::new(1, Extent::growing(0));
        assert!(sender.on_want(&want(9, 1, &[(0, 3000, 1)])));
        assert!(drain(&mut sender).is_empty() && sender.is_ahead());
        sender.grow(Extent::growing(1500));
        assert_eq!(drain(&mut sender), [(0, 1000), (1000, 1500)]);
        assert!(!sender.is_ahead(), "it does not know yet that they arrived");
        sender.grow(Extent::whole(5000));
        assert_eq!(drain(&mut sender), [(1500, 2000), (2000, 3000)], "more was not asked for");
    }

    #[test]
    fn a_block_that_grows_waits_to_be_full_but_for_the_first() {
        let block = u64::from(MAX_CHUNK_BYTES);
        let mut sender = Sender::new(1, Extent::growing(1000));
        assert!(sender.on_want(&want(9, 1, &[(0, 10 * block, 1)])));
        let mut drain = |extent| {
            sender.grow(extent);
            let spans = std::iter::from_fn(|| sender.take(MAX_CHUNK_BYTES));
            spans.map(|s| (s.start, s.end)).collect::<Vec<_>>()
        };
        assert_eq!(drain(Extent::growing(1000)), [(0, 1000)]);
        assert_eq!(drain(Extent::growing(2 * block - 1)), [(1000, block)]);
        assert_eq!(drain(Extent::growing(2 * block + 5)), [(block, 2 * block)]);
        assert_eq!(drain(Extent::whole(2 * block + 6)), [(2 * block, 2 * block + 6)]);
    }

    #[test]
    fn what_the_receiver_holds_is_not_sent_again() {
        let mut sender = Sender::new(1, Extent::whole(10_000));
        assert!(sender.on_want(&want(9, 1, &[(0, 1000, 1), (1000, 2000, HELD)])));
        assert_eq!(drain(&mut sender), [(0, 1000)]);
    }
}
