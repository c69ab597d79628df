//! What a receiver asked for and still lacks, and what of it must be lost.

use crate::stream::frame::Missing;
use crate::stream::range::Span;

/// A span is lost when so many later chunks arrived before it.
const OVERTAKEN_BY: u8 = 3;

/// A span that lacks, as it was asked for.
#[derive(Debug, Clone, Copy)]
struct Asked {
    span: Span,
    under: u32,
    overtaken: u8,
}

/// Everything asked for that lacks, ascending.
#[derive(Debug, Default)]
pub(super) struct AskedList(Vec<Asked>);

impl AskedList {
    /// How many spans there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
    /// How many bytes they are.
    pub(super) fn bytes(&self) -> u64 {
        self.0.iter().map(|asked| asked.span.len()).sum()
    }

    /// Adds a span above all others, asked for under this want.
    pub(super) fn push(&mut self, span: Span, want: u32) {
        self.0.push(Asked { span, under: want, overtaken: 0 });
    }

    /// Takes out what arrived, or does not exist.
    pub(super) fn strike(&mut self, span: Span) {
        let mut left = Vec::with_capacity(self.0.len() + 1);
        for asked in self.0.drain(..) {
            for end in [
                Span::new(asked.span.start, asked.span.end.min(span.start)),
                Span::new(asked.span.start.max(span.end), asked.span.end),
            ] {
                if !end.is_empty() {
                    left.push(Asked { span: end, ..asked });
                }
            }
        }
        self.0 = left;
    }

    /// Counts a chunk against everything below it that its want had asked for.
    pub(super) fn overtake(&mut self, want: u32, arrived: Span) {
        for asked in &mut self.0 {
            if asked.under <= want && asked.span.end <= arrived.start {
                asked.overtaken = asked.overtaken.saturating_add(1);
            }
        }
    }

    /// Takes for lost whatever touches the span.
    pub(super) fn give_up(&mut self, span: Span) {
        for asked in &mut self.0 {
            if !asked.span.overlap(span).is_empty() {
                asked.overtaken = OVERTAKEN_BY;
            }
        }
    }

    /// True when something is lost and not yet asked for again.
    pub(super) fn has_lost(&self) -> bool {
        self.0.iter().any(|asked| asked.overtaken >= OVERTAKEN_BY)
    }

    /// Asks for everything lost anew, under this want.
    pub(super) fn ask_again(&mut self, want: u32) {
        for asked in &mut self.0 {
            if asked.overtaken >= OVERTAKEN_BY {
                (asked.under, asked.overtaken) = (want, 0);
            }
        }
    }

    /// Keeps the lowest spans; answers where the first of those begins that are dropped.
    pub(super) fn truncate(&mut self, len: usize) -> Option<u64> {
        let cut = self.0.get(len)?.span.start;
        self.0.truncate(len);
        Some(cut)
    }

    /// As a want lists them.
    pub(super) fn missing(&self) -> impl Iterator<Item = Missing> + '_ {
        self.0.iter().map(|asked| Missing { span: asked.span, asked: asked.under })
    }
}
