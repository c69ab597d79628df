//! What is told to those who ask what a broker holds; as JSON, times are RFC 3339.

use jiff::Timestamp;
use serde::Serialize;

/// A session, and the connection that it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SessionReport {
    /// The account that it signed in with.
    pub user: Option<String>,
    /// Its client id.
    pub client: String,
    /// `None` while its client is away.
    pub connection: Option<ConnectionReport>,
    /// How many filters it is subscribed to.
    pub subscriptions: usize,
    /// Which, in their order.
    pub filters: Vec<String>,
    /// Messages that wait for it.
    pub queued_messages: usize,
    /// The same in bytes, bookkeeping included.
    pub queued_bytes: usize,
    /// Messages that it was sent and has not acknowledged.
    pub in_flight: usize,
    /// When it ends if its client stays away; `None` for one that is connected, or stays for ever.
    pub ends: Option<Timestamp>,
}

/// The connection of a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConnectionReport {
    /// Where the client is.
    pub address: String,
    /// How it speaks: `mqtt`, `tls`, `websocket` or `secure-websocket`.
    pub transport: &'static str,
    /// `3.1.1` or `5`.
    pub version: &'static str,
    /// How long it may be silent; 0 for ever.
    pub keep_alive_seconds: u16,
    /// When it came.
    pub since: Timestamp,
}

/// A retained message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RetainedReport {
    /// Its topic.
    pub topic: String,
    /// The size of its payload.
    pub bytes: usize,
    /// As it was published.
    pub qos: u8,
    /// When it is of no more use.
    pub expires: Option<Timestamp>,
}

/// A filter that somebody is subscribed to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TopicReport {
    /// The filter.
    pub filter: String,
    /// The group that shares it.
    pub group: Option<String>,
    /// How many sessions are subscribed.
    pub subscribers: usize,
}

/// How much there is of everything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Inventory {
    /// Sessions, with a connection or without.
    pub sessions: usize,
    /// Those with a connection.
    pub connected: usize,
    /// Subscriptions, those in groups included.
    pub subscriptions: usize,
    /// Shared subscriptions: groups and what each shares.
    pub shared_subscriptions: usize,
    /// Retained messages, without the broker's own of `$SYS`.
    pub retained_messages: usize,
    /// The same in bytes, bookkeeping included.
    pub retained_bytes: usize,
    /// Messages that wait for a client, counted for each.
    pub queued_messages: usize,
    /// The same in bytes.
    pub queued_bytes: usize,
    /// Messages that were sent and are not acknowledged.
    pub in_flight: usize,
}
