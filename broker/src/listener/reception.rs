//! What a client begins with decides what it speaks.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncBufReadExt;
use tokio::time::timeout;

use super::config::WebSocketConfig;
use super::peer::Transport;
use super::socket::Socket;
use super::stream::Stream;
use super::tls::Tls;
use super::upgrade::{UpgradeError, upgrade};
use crate::metrics::Refused;

/// MQTT begins with CONNECT, packet type 1 without flags.
const CONNECT: u8 = 0x10;
/// TLS begins with a record of type handshake.
const HANDSHAKE: u8 = 0x16;
/// A WebSocket begins with `GET`. No MQTT packet that a client may begin with does.
const GET: u8 = b'G';

/// What an endpoint's clients are told to keep to.
#[derive(Debug)]
pub(super) struct Reception {
    /// What is welcome.
    pub(super) accept: BTreeSet<Transport>,
    /// `Some` if anything secure is welcome.
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) websocket: WebSocketConfig,
    /// How long a client may take for everything here together.
    pub(super) patience: Duration,
}

/// Why a client is turned away.
#[derive(Debug, thiserror::Error)]
pub(super) enum TurnedAway {
    #[error("it left before it said anything")]
    Gone,
    #[error("it was not ready in time")]
    Late,
    #[error("it speaks {}, which is not accepted here", language(*.0))]
    Foreign(u8),
    #[error("connection lost")]
    Io(#[from] io::Error),
    #[error("TLS handshake failed")]
    Tls(#[source] io::Error),
    #[error("WebSocket handshake failed")]
    Upgrade(#[from] UpgradeError),
}

impl TurnedAway {
    /// What it is counted by.
    pub(super) fn cause(&self) -> Refused {
        match self {
            Self::Gone | Self::Io(_) => Refused::Gone,
            Self::Late => Refused::Timeout,
            Self::Foreign(_) => Refused::NotMqtt,
            Self::Tls(_) | Self::Upgrade(_) => Refused::Handshake,
        }
    }

    /// The whole story, for a log that shows one text only.
    pub(super) fn with_cause(&self) -> String {
        match std::error::Error::source(self) {
            Some(cause) => format!("{self}: {cause}"),
            None => self.to_string(),
        }
    }
}

/// What begins with this byte, for those who look for the mistake in a client's settings.
fn language(first: u8) -> Cow<'static, str> {
    match first {
        CONNECT => "MQTT".into(),
        HANDSHAKE => "TLS".into(),
        GET => "HTTP, as WebSockets do,".into(),
        other => format!("something that begins with {other:#04x}").into(),
    }
}

impl fmt::Display for Reception {
    /// What is welcome, as it is configured.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.accept.iter().map(|transport| transport.name()).collect();
        f.write_str(&names.join("+"))
    }
}

impl Reception {
    /// Finds out what a client speaks, and gets it to speak MQTT.
    pub(super) async fn receive(&self, socket: Socket) -> Result<(Stream, Transport), TurnedAway> {
        timeout(self.patience, self.greet(socket)).await.map_err(|_| TurnedAway::Late)?
    }

    // The handshakes are boxed: a client that says nothing does not pay for their state.
    async fn greet(&self, socket: Socket) -> Result<(Stream, Transport), TurnedAway> {
        match (socket.first_byte().await?.ok_or(TurnedAway::Gone)?, &self.tls) {
            (CONNECT, _) if self.accepts(Transport::Mqtt) => {
                Ok((Stream::plain(socket), Transport::Mqtt))
            }
            (HANDSHAKE, Some(tls)) => Box::pin(self.secure(tls, socket)).await,
            (GET, _) if self.accepts(Transport::WebSocket) => {
                let stream = Box::pin(upgrade(socket, &self.websocket)).await?;
                Ok((Stream::websocket(stream), Transport::WebSocket))
            }
            (byte, _) => Err(TurnedAway::Foreign(byte)),
        }
    }

    async fn secure(&self, tls: &Tls, socket: Socket) -> Result<(Stream, Transport), TurnedAway> {
        let mut stream = tls.acceptor().accept(socket).await.map_err(TurnedAway::Tls)?;
        match stream.fill_buf().await?.first().ok_or(TurnedAway::Gone)? {
            &CONNECT if self.accepts(Transport::Tls) => Ok((Stream::tls(stream), Transport::Tls)),
            &GET if self.accepts(Transport::SecureWebSocket) => {
                let stream = upgrade(stream, &self.websocket).await?;
                Ok((Stream::secure_websocket(stream), Transport::SecureWebSocket))
            }
            byte => Err(TurnedAway::Foreign(*byte)),
        }
    }

    fn accepts(&self, transport: Transport) -> bool {
        self.accept.contains(&transport)
    }
}
