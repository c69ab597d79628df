//! Resumable streams: how a file travels from one end of the fabric to the other.
//!
//! The receiver pulls. It says which bytes it lacks ([`Want`]), never more of them
//! than a window; the sender sends those in chunks, lowest first, and keeps no timer.
//! A want is the whole truth about the receiver, so the newest one replaces all
//! before it and any of them may be lost:
//!
//! ```text
//! receiver                                     sender
//!    │ Want 1: lack 0..512k                       │
//!    ├───────────────────────────────────────────▶│ the file is not there yet:
//!    │                                     NotYet │ remembers the want
//!    │◀───────────────────────────────────────────┤
//!    │                  Offer: 64 MiB, version v  │ the file is there: answers the
//!    │◀───────────────────────────────────────────┤ remembered want at once
//!    │            chunks 0..512k, stamped want 1  │
//!    │◀═══════════════════════════════════════════┤
//!    │ Want 2: lack 128k..640k                    │ everything below 640k that is
//!    ├───────────────────────────────────────────▶│ not listed is stored for good
//!    │                  Offer: the digest as well │ hashed meanwhile
//!    │◀───────────────────────────────────────────┤
//!    │ Stop: complete                             │
//!    ├───────────────────────────────────────────▶│ forgets the receiver
//! ```
//!
//! Three rules carry it:
//! - **An acknowledgement is a promise to remember.** Bytes below [`Want::limit`] that
//!   a want does not list are stored where a restart finds them; they are never sent
//!   again.
//! - **A loss is proved by what overtakes it.** Every chunk carries the number of the
//!   newest want that its sender knew. A chunk of want *n* at a higher offset was sent
//!   after everything that want *n* asked for below it; what still lacks then is
//!   asked for anew. Only silence needs a timer.
//! - **A version binds bytes together.** It names one state of the sender's file;
//!   with another version the receiver begins anew.
//!
//! The files: [`frame`] what is sent, [`range`] sets of byte spans, [`receive`] and
//! [`send`] the two ends as pure state, [`pace`] rates, windows and limits, [`codec`]
//! which compression pays. The asynchronous shell is `godwit_bus::stream`.

pub mod codec;
pub mod frame;
pub mod pace;
pub mod range;
pub mod receive;
pub mod send;

#[cfg(test)]
mod sim;

pub use frame::{
    ChunkHeader, Codec, Manifest, Missing, Offer, StopReason, StreamFrame, StreamId, Want,
};
pub use range::{RangeSet, Span};
pub use receive::{Arrival, OfferNews, Receiver};
pub use send::Sender;
