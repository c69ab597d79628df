//! Resumable streams: how bytes travel from one end of the fabric to the other.
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
//! A stream may be sent while it is still being made ([`Extent`]). The receiver asks for
//! a full window beyond what it knows to exist; the sender remembers, and sends what
//! appears without being asked again. It says when the stream is whole, and then its
//! digest:
//!
//! ```text
//!    │ Want 7: lack 2M..3M                        │
//!    ├───────────────────────────────────────────▶│ has 2 MiB so far
//!    │          NotYet (a sign of life, no more)  │
//!    │◀───────────────────────────────────────────┤
//!    │    chunks 2M..2.25M, stamped want 7        │ has 2.25 MiB
//!    │◀═══════════════════════════════════════════┤
//! ```
//!
//! Four rules carry it:
//! - **An acknowledgement is a promise to remember.** Bytes below [`Want::limit`] that
//!   a want does not list are stored where a restart finds them; they are never sent
//!   again.
//! - **A loss is proved by what overtakes it.** Every chunk carries the number of the
//!   newest want that its sender knew. A chunk of want *n* at a higher offset was sent
//!   after everything that want *n* asked for below it; what still lacks then is
//!   asked for anew. Only silence needs a timer.
//! - **A version binds bytes together.** It names one state of the sender's file;
//!   with another version the receiver begins anew. Within one a stream only grows.
//! - **What waits in memory is not stored.** A receiver that writes in order holds what
//!   came too early; a want lists it as [`frame::HELD`]: not to be sent, not acknowledged.
//!
//! The files: [`frame`] what is sent, [`extent`] how long a stream is, [`range`] sets of
//! byte spans, [`receive`] (with `asked`, what it waits for) and
//! [`send`] the two ends as pure state, [`pace`] rates, windows and limits, [`codec`]
//! which compression pays, [`record`] how a stream carries many files. The asynchronous shell is `godwit_bus::stream`.

mod asked;
pub mod codec;
pub mod extent;
pub mod frame;
pub mod pace;
pub mod range;
pub mod receive;
pub mod record;
pub mod send;

#[cfg(test)]
mod sim;

pub use extent::Extent;
pub use frame::{
    ChunkHeader, Codec, Manifest, Missing, Offer, StopReason, StreamFrame, StreamId, Want,
};
pub use range::{RangeSet, Span};
pub use receive::{Arrival, OfferNews, Receiver};
pub use send::Sender;
