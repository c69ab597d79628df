//! Who belongs to the fabric, and how a node comes to belong.
//!
//! The fabric has one [`Authority`], which signs the broker's certificate and each node's.
//! A node joins in four steps: its operator makes a [`Token`] and the controller keeps the
//! [`Invitation`]; the node reaches a broker and trusts it by the token's fingerprint alone
//! ([`PinnedVerifier`]); it shows the token's [`Secret`] once ([`redeem`]) with a request
//! that it made itself ([`request_node`]); it gets a certificate, and from then on needs no
//! token. [`Revocations`] take that certificate away again.
//!
//! Nothing here reads the clock, touches a file or opens a socket: time is passed in, texts
//! come and go. Only key material and secrets are drawn from the system's randomness.
//!
//! How to read it: `authority` (signs), `validity` (how long), `request` (what a node asks
//! for), `particulars` (what a certificate says), `revocation`; then `token`, `secret`,
//! `invitation`; last `pin` and `client`, how a broker is believed.

mod authority;
mod client;
mod fingerprint;
mod hex;
mod invitation;
mod key;
mod name;
mod particulars;
mod pin;
mod random;
mod request;
mod revocation;
mod secret;
mod serial;
mod token;
mod validity;

pub use authority::{Authority, AuthorityError, Issued, ServerIdentity};
pub use client::{Bearer, BearerError, client};
pub use fingerprint::{Fingerprint, FingerprintError};
pub use invitation::{Invitation, JoinError, redeem};
pub use key::KeyPem;
pub use name::NodeNameError;
pub use particulars::{Particulars, ParticularsError};
pub use pin::{PinError, PinnedVerifier};
pub use random::NoRandomness;
pub use request::{NodeRequest, RequestError, request_node};
pub use revocation::Revocations;
pub use secret::{Secret, SecretHash, SecretHashError};
pub use serial::{Serial, SerialError};
pub use token::{Token, TokenError};
pub use validity::{ClockError, Validity};

#[cfg(test)]
mod tests;
