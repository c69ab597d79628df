//! One client, from its first byte to its last.
//!
//! Reading and writing never wait for each other: a client that sends while it is sent to would
//! otherwise stand still with us, both writing, nobody reading. What it reads too slowly makes it
//! write more slowly: nothing is read from a client whose outbox is full.

mod aliases;
mod greet;
mod read;
mod write;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rmqtt_codec::v5::DisconnectReasonCode;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::admission::Admission;
use crate::bulk::Traffic;
use crate::config::Config;
use crate::core::{Event, Parting};
use crate::lane::Lane;
use crate::listener::Peer;
use crate::message::ConnectionId;
use crate::metrics::Metrics;
use crate::outbox::Outboxes;
use crate::rates::Rates;

/// What all connections share.
pub(crate) struct Door {
    pub(crate) config: Config,
    pub(crate) lane: Lane,
    pub(crate) outboxes: Outboxes,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) rates: Arc<Rates>,
    pub(crate) next: AtomicU64,
    /// Cancelled when nobody answers any more.
    pub(crate) stopped: CancellationToken,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    /// DISCONNECT: polite, with what it said.
    #[error("the client disconnected")]
    Farewell(Parting),
    #[error("the client went away")]
    Gone,
    #[error("connection lost: {0}")]
    Io(#[from] std::io::Error),
    /// The client broke a rule, and is told which.
    #[error("{what}: {reason:?}")]
    Broken { reason: DisconnectReasonCode, what: String },
    /// The broker ended it, and has said so.
    #[error("ended by the broker: {0:?}")]
    Closed(DisconnectReasonCode),
}

impl Ended {
    /// What the session makes of it.
    fn parting(&self) -> Option<Parting> {
        match self {
            Self::Farewell(parting) => Some(*parting),
            Self::Closed(DisconnectReasonCode::ServerShuttingDown) => None,
            _ => Some(Parting { is_will_void: false, expiry_seconds: None }),
        }
    }
}

/// Serves one client until it leaves, is ended, or `shutdown`.
pub(crate) async fn serve<S>(
    door: &Arc<Door>,
    stream: S,
    peer: Peer,
    traffic: &Arc<Traffic>,
    shutdown: &CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut socket_in, mut socket_out) = tokio::io::split(stream);
    let connection = ConnectionId(door.next.fetch_add(1, Ordering::Relaxed));
    let greeted = greet::greet(door, connection, &mut socket_in, &mut socket_out, &peer, traffic);
    // What it needs, an idle client does not keep.
    let greeted = Box::pin(greeted);
    let greeted = tokio::select! {
        () = shutdown.cancelled() => return,
        greeted = greeted => greeted,
    };
    let greet::Guest { arrival, mut reader, mut writer, keep_alive, notices } = match greeted {
        Ok(guest) => guest,
        Err(reason) => {
            door.metrics.connections_refused.add(reason.cause(), 1);
            info!(from = %peer.address, reason = reason.to_string(), "no client");
            if reason.is_said() {
                linger(&mut socket_in).await;
            }
            return;
        }
    };
    let client = arrival.client.clone();
    let outbox = door.outboxes.add(connection, notices);
    door.metrics.connections.fetch_add(1, Ordering::Relaxed);
    // Ends with this function however it ends.
    let mut here = Presence { door: door.clone(), connection, parting: Ended::Gone.parting() };
    info!(
        // Texts, not what they print as: a line break in one must not begin a line of the log.
        client.id = &*client,
        user = arrival.user.as_deref(),
        from = %peer.address,
        over = peer.transport.name(),
        keep_alive,
        "client connected"
    );
    tokio::select! {
        () = shutdown.cancelled() => return,
        () = door.lane.send(vec![Event::Connect(Box::new(arrival))]) => {}
    }

    let ended = tokio::select! {
        biased;
        () = shutdown.cancelled() => Ended::Closed(DisconnectReasonCode::ServerShuttingDown),
        ended = writer.run(&outbox, &mut socket_out) => ended,
        ended = reader.run(&outbox, &mut socket_in) => ended,
    };
    // Before the client can know of the end: one that is back at once finds its session at rest.
    here.leave(ended.parting());
    let patience = Duration::from_millis(door.config.write_timeout_ms);
    let last_words = writer.finish(&ended, &mut socket_out);
    if let Ok(Ok(())) = tokio::time::timeout(patience, last_words).await {
        linger(&mut socket_in).await;
    }
    match &ended {
        Ended::Farewell(_) => info!(client.id = &*client, "client disconnected"),
        other => info!(client.id = &*client, reason = other.to_string(), "client lost"),
    }
}

/// Lets a client read the last words. A socket that is closed with something in it to be read is
/// reset, and what was written to it last is lost.
async fn linger(socket: &mut (impl AsyncRead + Unpin)) {
    const LINGER: Duration = Duration::from_millis(500);
    const LINGER_BYTES: u64 = 256 << 10;
    let rest = &mut socket.take(LINGER_BYTES);
    let _gone = tokio::time::timeout(LINGER, tokio::io::copy(rest, &mut tokio::io::sink())).await;
}

/// A connection that the engine knows of.
struct Presence {
    door: Arc<Door>,
    connection: ConnectionId,
    /// How it ended; `None` where the broker ends, and the client has its time to come back.
    parting: Option<Parting>,
}

impl Presence {
    /// Says once how it ended.
    fn leave(&mut self, parting: Option<Parting>) {
        self.door.outboxes.remove(self.connection);
        self.parting = None;
        if let Some(parting) = parting {
            // In its place behind all that the client sent.
            self.door.lane.send_now(Event::Leave(self.connection, parting));
        }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.leave(self.parting);
    }
}
