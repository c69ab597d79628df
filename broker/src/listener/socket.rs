//! A connected socket of either kind.

use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::task::{Context, Poll};

use nix::sys::socket::{MsgFlags, recv};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::bulk::Side;

/// So little may be an acknowledgement, which is not answered. The kernel then waits for 40 ms before
/// it confirms what came, and a client that delays small packets (Nagle) sends nothing meanwhile.
const NO_ANSWER: usize = 64;

/// A connected socket. The threads that read and write it are told when it is ready, also after
/// others have done so before.
#[derive(Debug)]
pub(super) struct Socket {
    kind: Kind,
    /// The threads that are told.
    at: Side,
}

#[derive(Debug)]
enum Kind {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// It could not be moved to other threads.
    Lost,
}

/// The same call on whichever socket it is.
macro_rules! on {
    ($socket:expr, $inner:ident => $call:expr) => {
        match &mut $socket.here()?.kind {
            Kind::Tcp($inner) => $call,
            Kind::Unix($inner) => $call,
            Kind::Lost => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    };
}

impl From<TcpStream> for Socket {
    fn from(stream: TcpStream) -> Self {
        Self { kind: Kind::Tcp(stream), at: Side::current() }
    }
}

impl From<UnixStream> for Socket {
    fn from(stream: UnixStream) -> Self {
        Self { kind: Kind::Unix(stream), at: Side::current() }
    }
}

impl Socket {
    /// The first byte that the client sent, which stays to be read; `None` if it left
    /// without one. Cancel-safe.
    pub(super) async fn first_byte(&self) -> io::Result<Option<u8>> {
        let mut byte = [0];
        let received = match &self.kind {
            Kind::Tcp(stream) => stream.peek(&mut byte).await?,
            Kind::Lost => 0,
            Kind::Unix(stream) => {
                let peek = || Ok(recv(stream.as_raw_fd(), &mut byte, MsgFlags::MSG_PEEK)?);
                stream.async_io(Interest::READABLE, peek).await?
            }
        };
        Ok((received > 0).then_some(byte[0]))
    }

    /// Has this side's threads told of it from now on.
    fn here(&mut self) -> io::Result<&mut Self> {
        let side = Side::current();
        if self.at != side {
            self.at = side;
            self.kind = match std::mem::replace(&mut self.kind, Kind::Lost) {
                Kind::Tcp(stream) => Kind::Tcp(TcpStream::from_std(stream.into_std()?)?),
                Kind::Unix(stream) => Kind::Unix(UnixStream::from_std(stream.into_std()?)?),
                Kind::Lost => Kind::Lost,
            };
        }
        Ok(self)
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
        if let Kind::Tcp(stream) = &socket.kind
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
        !matches!(self.kind, Kind::Lost)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on!(self.get_mut(), socket => Pin::new(socket).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on!(self.get_mut(), socket => Pin::new(socket).poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::mpsc;

    use super::*;
    use crate::bulk::{Bulk, Traffic};

    /// Answers each byte, and says where.
    async fn echo(mut socket: Socket, side: mpsc::UnboundedSender<Side>) {
        while let Ok(byte) = socket.read_u8().await {
            socket.write_u8(byte).await.expect("the other end is there");
            side.send(Side::current()).expect("somebody wants to know");
        }
    }

    #[tokio::test]
    async fn a_socket_goes_with_its_connection_from_thread_to_thread() {
        let (mut client, server) = UnixStream::pair().expect("sockets");
        let bulk = Bulk::start().expect("threads");
        let (told, mut sides) = mpsc::unbounded_channel();
        let traffic = Arc::new(Traffic::new(Instant::now()));
        let serving = bulk.serve(traffic.clone(), echo(Socket::from(server), told));
        let serving = tokio::spawn(serving);
        let mut ask = async || {
            client.write_u8(7).await.expect("it reads");
            assert_eq!(client.read_u8().await.expect("an answer"), 7);
            sides.recv().await.expect("a side")
        };
        assert_eq!(ask().await, Side::Others);
        traffic.tell(1 << 20);
        while ask().await == Side::Others {}
        // Until it is calm.
        while ask().await == Side::Bulk {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        assert_eq!(ask().await, Side::Others);
        drop(client);
        serving.await.expect("it ends with its client");
    }
}
