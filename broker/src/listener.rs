//! From sockets to byte streams: whatever way a client came, MQTT is read off the same
//! [`Stream`].
//!
//! ```text
//!  0.0.0.0:1883 ─┐          ┌ first byte 0x10 ─────────────────────────▶ mqtt
//!  [::]:8883    ─┼─ accept ─┼ 0x16 ─▶ TLS handshake ─┬ 0x10 ────────────▶ tls
//!  /run/g.sock  ─┘          │                        └ `G` ─▶ upgrade ──▶ secure-websocket
//!                           └ `G` ─▶ upgrade ──────────────────────────▶ websocket
//! ```
//!
//! An endpoint says which of the four it takes; whatever else a client begins with closes
//! its connection. Everything up to the end of the arrow has one deadline, and runs in a
//! task of its own: a client that dawdles keeps its socket busy and nobody else.
//!
//! Reading order: `config` and `address` (what is asked for), this file, `bind` and
//! `unix` (sockets), `accept` (the loop) with `doorstep` (who is let try), `reception` (the picture
//! above), `stream` with `socket`, `tls` with `identity`, `upgrade` and `websocket`.
//!
//! Who reads a [`Stream`] must flush what it writes: TLS and WebSocket keep back what the
//! kernel did not take at once.

mod accept;
mod address;
mod bind;
mod complaint;
mod config;
mod doorstep;
mod identity;
mod peer;
mod reception;
mod socket;
mod stream;
mod tls;
mod unix;
mod upgrade;
mod websocket;

#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::info;

pub use self::address::{Address, AddressError, BoundAddress};
pub use self::config::{Clients, Config, Endpoint, EndpointError, TlsConfig, WebSocketConfig};
pub use self::identity::identity_of;
pub use self::peer::{Peer, PeerAddress, Transport};
pub use self::stream::Stream;
pub use self::tls::{Tls, TlsError};

pub(crate) use self::doorstep::Doorstep;

use self::bind::Listener;
use self::reception::Reception;

/// Why a listener cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// No endpoint is configured.
    #[error("a broker needs an address to listen on: add an endpoint to `listen`")]
    Nowhere,
    /// An endpoint accepts no transport.
    #[error("{address} accepts nothing: name mqtt, tls, websocket or secure-websocket")]
    Deaf {
        /// The endpoint's address.
        address: Address,
    },
    /// An endpoint accepts TLS, but there is no certificate.
    #[error("{address} accepts TLS, which needs a certificate: set `tls.certificate`, `tls.key`")]
    NoCertificate {
        /// The endpoint's address.
        address: Address,
    },
    /// A certificate or key cannot be used.
    #[error("TLS cannot be offered")]
    Tls(#[from] TlsError),
    /// A host has no address.
    #[error("cannot resolve {address}: is the host's name known on this machine?")]
    Resolve {
        /// The address as configured.
        address: Address,
        /// What the resolver said.
        source: io::Error,
    },
    /// An address is taken, or not ours.
    #[error("cannot listen on {address}: is another broker running there?")]
    Listen {
        /// The address.
        address: BoundAddress,
        /// What the kernel said.
        source: io::Error,
    },
    /// Something that is no socket has a Unix socket's path.
    #[error("{path} is in the way and is no socket: move it, or choose another path")]
    Obstructed {
        /// The path as configured.
        path: std::path::PathBuf,
    },
}

/// Sockets that listen: clients may connect, and are served once these run.
#[derive(Debug)]
pub struct Listeners {
    doors: Vec<(Listener, Arc<Reception>)>,
    addresses: Vec<BoundAddress>,
    tls: Option<Arc<Tls>>,
}

impl Listeners {
    /// Binds every address of `config`. From here on clients can connect.
    ///
    /// # Errors
    /// When an address cannot be bound, a certificate cannot be read, or an endpoint
    /// asks for what the rest of `config` does not provide.
    pub async fn bind(config: Config) -> Result<Self, ListenError> {
        let tls = match config.tls {
            Some(files) => Some(Arc::new(Tls::load(files)?)),
            None => None,
        };
        let (mut doors, mut addresses) = (Vec::new(), Vec::new());
        for Endpoint { address, accept } in config.listen {
            if accept.is_empty() {
                return Err(ListenError::Deaf { address });
            }
            let secure = accept.iter().any(|transport| transport.is_secure());
            let tls = tls.clone().filter(|_| secure);
            if secure && tls.is_none() {
                return Err(ListenError::NoCertificate { address });
            }
            let reception = Arc::new(Reception {
                accept,
                tls,
                websocket: config.websocket.clone(),
                patience: Duration::from_millis(config.handshake_timeout_ms),
            });
            for (bound, listener) in bind::bind(&address).await? {
                addresses.push(bound);
                doors.push((listener, Arc::clone(&reception)));
            }
        }
        if doors.is_empty() {
            return Err(ListenError::Nowhere);
        }
        Ok(Self { doors, addresses, tls })
    }

    /// The bound addresses, in the configured order, with their real ports. A host name
    /// stands for all of its addresses.
    pub fn addresses(&self) -> &[BoundAddress] {
        &self.addresses
    }

    /// The certificate that all endpoints share, to [reload](Tls::reload) it while they
    /// run; `None` if none is configured.
    pub fn tls(&self) -> Option<Arc<Tls>> {
        self.tls.clone()
    }

    /// Hands clients to `sink` until `shutdown`, or until nobody receives from it.
    ///
    /// While `sink` is full, nobody is accepted: further clients wait in the kernel. The
    /// ports are free and the socket files gone when it returns; streams that were handed
    /// over live on.
    pub(crate) async fn run(
        self,
        doorstep: Arc<Doorstep>,
        sink: mpsc::Sender<(Stream, Peer)>,
        shutdown: CancellationToken,
    ) {
        let written = self.addresses.iter().zip(&self.doors);
        let written = written.map(|(address, (_, reception))| format!("{address}={reception}"));
        let addresses = written.collect::<Vec<_>>().join(" ");
        info!(%addresses, "listening for MQTT clients");
        let mut doors = JoinSet::new();
        for (listener, reception) in self.doors {
            let (doorstep, sink) = (doorstep.clone(), sink.clone());
            doors.spawn(accept::accept(listener, reception, doorstep, sink, shutdown.clone()));
        }
        while doors.join_next().await.is_some() {}
    }
}
