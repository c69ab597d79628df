//! Where a sender's files come from.

use std::path::PathBuf;

use godwit_proto::stream::{StopReason, StreamId};
use godwit_proto::topic::Peer;

use crate::stream::link::Pending;

/// Makes files for streams that nobody offered beforehand, and hears how sending ended.
pub trait StreamSource: Send + Sync + 'static {
    /// Asked once when `to` wants a stream that is not offered to it. The answer may take
    /// as long as it takes to make the file: the receiver is told to wait meanwhile. Two
    /// peers that want the same stream are two calls.
    ///
    /// After [`Resolution::NotYet`] the receiver waits until the stream is offered.
    fn resolve<'a>(&'a self, stream: &'a StreamId, to: &'a Peer) -> Pending<'a, Resolution>;

    /// `to` needs the stream no more. Not called when a receiver vanishes without a word.
    fn ended(&self, stream: &StreamId, to: &Peer, reason: &StopReason) {
        let _ = (stream, to, reason);
    }
}

/// What a [`StreamSource`] says to a want.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution {
    /// Here it is. The file must not change while it is offered.
    Ready(PathBuf),
    /// It will be offered later.
    NotYet,
    /// It will not.
    Refused {
        /// Why, for people.
        reason: String,
    },
}

/// Answers every want for what was not offered with [`Resolution::NotYet`].
#[derive(Debug, Clone, Copy, Default)]
pub struct OffersOnly;

impl StreamSource for OffersOnly {
    fn resolve<'a>(&'a self, _: &'a StreamId, _: &'a Peer) -> Pending<'a, Resolution> {
        Box::pin(async { Resolution::NotYet })
    }
}
