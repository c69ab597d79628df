//! Listening sockets, of either family.

use std::io;
use std::net::SocketAddr;

use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpListener, TcpSocket, UnixListener, lookup_host};
use tracing::debug;

use super::ListenError;
use super::address::{Address, BoundAddress};
use super::peer::PeerAddress;
use super::socket::Socket;
use super::unix::{self, SocketFile};

/// How many clients may wait in the kernel: as many as it allows by default.
pub(super) const BACKLOG: u32 = 4096;

/// A socket that listens.
#[derive(Debug)]
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix {
        // Dropped before the socket, which keeps the inode's number from being reused.
        _file: SocketFile,
        listener: UnixListener,
    },
}

/// Listens on everything that `address` stands for.
pub(super) async fn bind(address: &Address) -> Result<Vec<(BoundAddress, Listener)>, ListenError> {
    match address {
        Address::Tcp(name) => {
            let resolve = |source| ListenError::Resolve { address: address.clone(), source };
            let mut listeners = Vec::new();
            for address in lookup_host(name).await.map_err(resolve)? {
                let listen =
                    |source| ListenError::Listen { address: BoundAddress::Tcp(address), source };
                let listener = bind_tcp(address).map_err(listen)?;
                let bound = listener.local_addr().map_err(listen)?;
                listeners.push((BoundAddress::Tcp(bound), Listener::Tcp(listener)));
            }
            Ok(listeners)
        }
        Address::Unix(path) => {
            let (listener, file) = unix::bind(path).await?;
            let listener = Listener::Unix { _file: file, listener };
            Ok(vec![(BoundAddress::Unix(path.clone()), listener)])
        }
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => {
            let socket = TcpSocket::new_v6()?;
            // Each family listens for itself: [::] would otherwise take 0.0.0.0 as well,
            // or not, as the machine's settings have it.
            setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
            socket
        }
    };
    // A broker can come back at once.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

impl Listener {
    /// The next client. Cancel-safe.
    pub(super) async fn accept(&self) -> io::Result<(Socket, PeerAddress)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                if let Err(error) = stream.set_nodelay(true) {
                    debug!(%error, "TCP_NODELAY refused");
                }
                Ok((Socket::from(stream), PeerAddress::Tcp(address)))
            }
            Self::Unix { listener, .. } => {
                let (stream, _) = listener.accept().await?;
                let credentials = stream.peer_cred()?;
                let (uid, pid) = (credentials.uid(), credentials.pid());
                Ok((Socket::from(stream), PeerAddress::Unix { uid, pid }))
            }
        }
    }
}
