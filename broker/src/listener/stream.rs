//! A client's bytes, whatever carries them.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

use super::socket::Socket;
use super::websocket::WebSocket;

/// A client's bytes: MQTT packets back to back, whatever carries them.
///
/// Plain sockets are read and written without a detour. What is written must be flushed:
/// TLS and WebSocket keep back what the kernel did not take at once. All of them take
/// vectored writes; in WebSocket, what is written at once is one message.
#[derive(Debug)]
pub struct Stream(Carrier);

#[derive(Debug)]
enum Carrier {
    Plain(Socket),
    Tls(Box<TlsStream<Socket>>),
    WebSocket(Box<WebSocket<Socket>>),
    SecureWebSocket(Box<WebSocket<TlsStream<Socket>>>),
}

/// The same call on whatever carries the stream.
macro_rules! on {
    ($carrier:expr, $inner:ident => $call:expr) => {
        match $carrier {
            Carrier::Plain($inner) => $call,
            Carrier::Tls($inner) => $call,
            Carrier::WebSocket($inner) => $call,
            Carrier::SecureWebSocket($inner) => $call,
        }
    };
}

impl Stream {
    pub(super) fn plain(socket: Socket) -> Self {
        Self(Carrier::Plain(socket))
    }

    pub(super) fn tls(stream: TlsStream<Socket>) -> Self {
        Self(Carrier::Tls(Box::new(stream)))
    }

    pub(super) fn websocket(stream: WebSocket<Socket>) -> Self {
        Self(Carrier::WebSocket(Box::new(stream)))
    }

    pub(super) fn secure_websocket(stream: WebSocket<TlsStream<Socket>>) -> Self {
        Self(Carrier::SecureWebSocket(Box::new(stream)))
    }

    /// The client's certificate in DER, if it showed one that is trusted.
    pub fn certificate(&self) -> Option<Vec<u8>> {
        let tls = match &self.0 {
            Carrier::Plain(_) | Carrier::WebSocket(_) => return None,
            Carrier::Tls(stream) => stream,
            Carrier::SecureWebSocket(stream) => stream.carrier(),
        };
        let (_, session) = tls.get_ref();
        Some(session.peer_certificates()?.first()?.to_vec())
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        on!(&mut self.get_mut().0, carrier => Pin::new(carrier).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        on!(&mut self.get_mut().0, carrier => Pin::new(carrier).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on!(&mut self.get_mut().0, carrier => Pin::new(carrier).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        on!(&self.0, carrier => carrier.is_write_vectored())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on!(&mut self.get_mut().0, carrier => Pin::new(carrier).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on!(&mut self.get_mut().0, carrier => Pin::new(carrier).poll_shutdown(cx))
    }
}
