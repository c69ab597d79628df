//! A connected socket of either kind.

use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::task::{Context, Poll};

use nix::sys::socket::{MsgFlags, recv};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// So little may be an acknowledgement, which is not answered. The kernel then waits for 40 ms before
/// it confirms what came, and a client that delays small packets (Nagle) sends nothing meanwhile.
const NO_ANSWER: usize = 64;

/// A connected socket.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// The same call on whichever socket it is.
macro_rules! on {
    ($socket:expr, $inner:ident => $call:expr) => {
        match $socket {
            Socket::Tcp($inner) => $call,
            Socket::Unix($inner) => $call,
        }
    };
}

impl Socket {
    /// The first byte that the client sent, which stays to be read; `None` if it left
    /// without one. Cancel-safe.
    pub(super) async fn first_byte(&self) -> io::Result<Option<u8>> {
        let mut byte = [0];
        let received = match self {
            Self::Tcp(stream) => stream.peek(&mut byte).await?,
            Self::Unix(stream) => {
                let peek = || Ok(recv(stream.as_raw_fd(), &mut byte, MsgFlags::MSG_PEEK)?);
                stream.async_io(Interest::READABLE, peek).await?
            }
        };
        Ok((received > 0).then_some(byte[0]))
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let socket = self.get_mut();
        let read = on!(socket, stream => Pin::new(stream).poll_read(cx, buf));
        let count = buf.filled().len() - before;
        if let Self::Tcp(stream) = socket
            && (1..=NO_ANSWER).contains(&count)
        {
            // It is slower without, and no less right.
            let _ = stream.set_quickack(true);
        }
        read
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        on!(self.get_mut(), socket => Pin::new(socket).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on!(self.get_mut(), socket => Pin::new(socket).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        on!(self, socket => socket.is_write_vectored())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on!(self.get_mut(), socket => Pin::new(socket).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on!(self.get_mut(), socket => Pin::new(socket).poll_shutdown(cx))
    }
}
