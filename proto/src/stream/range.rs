//! Spans of bytes, and sets of them.

use serde::{Deserialize, Serialize};

/// The bytes from `start` up to and without `end`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Span {
    /// The first byte.
    pub start: u64,
    /// The byte after the last.
    pub end: u64,
}

impl std::fmt::Debug for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}

impl Span {
    /// The span from `start` up to `end`.
    pub fn new(start: u64, end: u64) -> Self {
        Self { start, end }
    }
    /// How many bytes it holds; none when it ends before it starts.
    pub fn len(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }
    /// True when it holds no byte.
    pub fn is_empty(&self) -> bool {
        self.end <= self.start
    }
    /// What it shares with another; may be empty.
    pub fn overlap(&self, other: Span) -> Span {
        Span::new(self.start.max(other.start), self.end.min(other.end))
    }
}

/// A set of bytes, kept as ascending spans that neither overlap nor touch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RangeSet {
    spans: Vec<Span>,
    bytes: u64,
}

impl RangeSet {
    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }
    /// How many bytes it holds.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
    /// True when it holds no byte.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }
    /// Its spans, ascending.
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }
    /// The end of the span that begins at byte 0: how far it holds everything.
    pub fn prefix(&self) -> u64 {
        match self.spans.first() {
            Some(first) if first.start == 0 => first.end,
            _ => 0,
        }
    }

    /// Adds a span and answers how many of its bytes are new.
    pub fn insert(&mut self, span: Span) -> u64 {
        if span.is_empty() {
            return 0;
        }
        let first = self.spans.partition_point(|s| s.end < span.start);
        let last = self.spans.partition_point(|s| s.start <= span.end);
        let mut whole = span;
        let mut held = 0;
        for s in &self.spans[first..last] {
            whole = Span::new(whole.start.min(s.start), whole.end.max(s.end));
            held += s.len();
        }
        self.spans.splice(first..last, [whole]);
        let added = whole.len() - held;
        self.bytes += added;
        added
    }

    /// Removes a span's bytes, as far as the set holds them.
    pub fn remove(&mut self, span: Span) {
        let mut kept = Self::new();
        for held in &self.spans {
            kept.insert(Span::new(held.start, held.end.min(span.start)));
            kept.insert(Span::new(held.start.max(span.end), held.end));
        }
        if !span.is_empty() {
            *self = kept;
        }
    }

    /// The lowest span.
    pub fn first(&self) -> Option<Span> {
        self.spans.first().copied()
    }

    /// The spans within `within` that the set lacks, ascending.
    pub fn missing(&self, within: Span) -> impl Iterator<Item = Span> + '_ {
        let mut at = within.start;
        let first = self.spans.partition_point(|s| s.end <= within.start);
        let held = self.spans[first..].iter().copied();
        let end = Span::new(within.end, within.end);
        held.take_while(move |s| s.start < within.end).chain([end]).filter_map(move |s| {
            let gap = Span::new(at, s.start.min(within.end));
            at = at.max(s.end);
            (!gap.is_empty()).then_some(gap)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn spans() -> impl Strategy<Value = Vec<(u64, u64)>> {
        proptest::collection::vec((0u64..64, 0u64..16), 0..24)
    }

    proptest! {
        #[test]
        fn a_set_of_spans_is_a_set_of_bytes(spans in spans(), from in 0u64..70, len in 0u64..30) {
            let mut set = RangeSet::new();
            let mut model = [false; 100];
            for (start, len) in spans {
                let bytes = &mut model[start as usize..(start + len) as usize];
                let fresh = bytes.iter().filter(|held| !**held).count() as u64;
                bytes.fill(true);
                prop_assert_eq!(set.insert(Span::new(start, start + len)), fresh);
            }
            prop_assert_eq!(set.bytes(), model.iter().filter(|held| **held).count() as u64);
            prop_assert!(set.spans().windows(2).all(|w| w[0].end < w[1].start));
            prop_assert!(set.spans().iter().all(|s| !s.is_empty()));
            let prefix = model.iter().take_while(|held| **held).count() as u64;
            prop_assert_eq!(set.prefix(), prefix);

            let mut rest = set.clone();
            rest.remove(Span::new(from, from + len));
            for at in 0..100u64 {
                let removed = from <= at && at < from + len;
                let held = rest.missing(Span::new(at, at + 1)).next().is_none();
                prop_assert_eq!(held, model[at as usize] && !removed, "byte {}", at);
            }
            prop_assert_eq!(rest.bytes(), rest.spans().iter().map(Span::len).sum::<u64>());

            let mut lacking = model.map(|_| false);
            for gap in set.missing(Span::new(from, from + len)) {
                prop_assert!(!gap.is_empty());
                lacking[gap.start as usize..gap.end as usize].fill(true);
            }
            for at in 0..100u64 {
                let within = from <= at && at < from + len;
                prop_assert_eq!(lacking[at as usize], within && !model[at as usize], "byte {}", at);
            }
        }
    }
}
