//! What comes in: events, and what they say of a client.

use std::num::NonZeroU16;
use std::sync::Arc;

use bytestring::ByteString;
use rmqtt_codec::types::Publish;
use rmqtt_codec::v5::{LastWill, Packet, Subscribe, Unsubscribe};

use crate::accounts::SharedRights;
use crate::core::inspect::Question;
use crate::listener::{PeerAddress, Transport};
use crate::message::ConnectionId;

/// What happened, in the order of the router.
#[derive(Debug)]
pub(crate) enum Event {
    /// A client was let in.
    Connect(Box<Arrival>),
    /// A client published; its topic is one, and it may.
    Publish(ConnectionId, Box<Publish>),
    /// An answer that a connection gives itself, in its place between the others.
    Answer(ConnectionId, Packet),
    /// PUBREL: a publisher knows that its message arrived.
    Release(ConnectionId, NonZeroU16),
    /// PUBACK or PUBCOMP, or a message that the client does not take: it is done with.
    Done(ConnectionId, NonZeroU16),
    /// PUBREC: the client has a message of QoS 2.
    Received(ConnectionId, NonZeroU16),
    Subscribe(ConnectionId, Subscribe),
    Unsubscribe(ConnectionId, Unsubscribe),
    /// A connection ended.
    Leave(ConnectionId, Parting),
    /// Accounts or their rules changed: every session is judged again.
    AccountsChanged,
    /// The broker itself publishes.
    Announce(Box<Publish>),
    /// Somebody inside the broker asks.
    Ask(Question),
}

/// A client as it comes in.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) connection: ConnectionId,
    /// The account that it signed in with.
    pub(crate) user: Option<ByteString>,
    pub(crate) client: ByteString,
    pub(crate) is_clean: bool,
    pub(crate) expiry_seconds: u32,
    /// How many messages of QoS 1 and 2 it takes at a time.
    pub(crate) receive_max: u16,
    /// How many messages of QoS 2 it may publish before it releases the first.
    pub(crate) quota: u16,
    pub(crate) will: Option<LastWill>,
    /// Shared with the connection, which judges what is published by them.
    pub(crate) rights: SharedRights,
    pub(crate) facts: Arc<Facts>,
}

/// What is known of a connection and told to those who ask.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) address: PeerAddress,
    pub(crate) transport: Transport,
    /// 3 for MQTT 3.1.1, 5 for MQTT 5.
    pub(crate) version: u8,
    pub(crate) keep_alive_seconds: u16,
    pub(crate) since_ms: u64,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parting {
    /// DISCONNECT without a word of the will: it is void.
    pub(crate) is_will_void: bool,
    /// What DISCONNECT said of the session's expiry.
    pub(crate) expiry_seconds: Option<u32>,
}
