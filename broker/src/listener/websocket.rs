//! A WebSocket as a byte stream: the bounds of its messages mean nothing to MQTT.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

/// Memory that every WebSocket has, and the most that is read at once.
const READ_BYTES: usize = 16 << 10;
/// The largest message that we send.
const WRITE_BYTES: usize = 64 << 10;
/// Room beside it for its header and for answers to pings. Further pings than fit go
/// unanswered: who does not read them does not miss them.
const SPARE_BYTES: usize = 4 << 10;

/// The server's end of a WebSocket over `S`.
#[derive(Debug)]
pub(super) struct WebSocket<S> {
    socket: WebSocketStream<S>,
    /// What is left of the last message.
    unread: Bytes,
    /// Nothing more is read: the client left, or was refused.
    is_over: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    /// Goes on after the handshake, and with `rest`, which came after it.
    pub(super) async fn new(carrier: S, rest: Vec<u8>, max_message_bytes: usize) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BYTES)
            .write_buffer_size(0)
            .max_write_buffer_size(WRITE_BYTES + SPARE_BYTES)
            .max_frame_size(Some(max_message_bytes))
            .max_message_size(Some(max_message_bytes));
        let socket =
            WebSocketStream::from_partially_read(carrier, rest, Role::Server, Some(config)).await;
        Self { socket, unread: Bytes::new(), is_over: false }
    }

    /// What the WebSocket is in.
    pub(super) fn carrier(&self) -> &S {
        self.socket.get_ref()
    }

    /// Tells the client why it is refused, and its reader as well.
    fn refuse(&mut self, code: CloseCode, why: &'static str) -> io::Error {
        self.is_over = true;
        let frame = CloseFrame { code, reason: why.into() };
        // Tried once: a client that does not read need not be told.
        let _ = Pin::new(&mut self.socket).start_send(Message::Close(Some(frame)));
        io::Error::new(io::ErrorKind::InvalidData, why)
    }

    fn fail(&mut self, error: Error) -> io::Error {
        match error {
            Error::Capacity(_) => self.refuse(CloseCode::Size, "WebSocket message too large"),
            // Only text is checked for its encoding.
            Error::Utf8(_) => self.refuse_text(),
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
                io::Error::new(io::ErrorKind::UnexpectedEof, "the client left without a goodbye")
            }
            Error::Protocol(_) => self.refuse(CloseCode::Protocol, "malformed WebSocket frame"),
            error => broken(error),
        }
    }

    fn refuse_text(&mut self) -> io::Error {
        self.refuse(CloseCode::Unsupported, "MQTT needs binary WebSocket frames")
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocket<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.unread.is_empty() && !this.is_over {
            // Pings are answered, and a farewell returned, by the poll that follows them.
            match ready!(Pin::new(&mut this.socket).poll_next(cx)) {
                Some(Ok(Message::Binary(payload))) => this.unread = payload,
                Some(Ok(Message::Text(_))) => return Poll::Ready(Err(this.refuse_text())),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(this.fail(error))),
                None => this.is_over = true,
            }
        }
        let size = this.unread.len().min(buf.remaining());
        buf.put_slice(&this.unread.split_to(size));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocket<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        // One message at a time: what a slow client has not taken must not pile up here.
        ready!(Pin::new(&mut this.socket).poll_flush(cx)).map_err(broken)?;
        let size = bufs.iter().map(|buf| buf.len()).sum::<usize>().min(WRITE_BYTES);
        if size == 0 {
            return Poll::Ready(Ok(0));
        }
        let mut payload = BytesMut::with_capacity(size);
        for buf in bufs {
            let room = size - payload.len();
            payload.extend_from_slice(&buf[..buf.len().min(room)]);
        }
        let message = Message::Binary(payload.freeze());
        Pin::new(&mut this.socket).start_send(message).map_err(broken)?;
        Poll::Ready(Ok(size))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx).map_err(broken)
    }

    /// Says goodbye, without waiting for an answer.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(Pin::new(&mut this.socket).poll_close(cx)).map_err(broken)?;
        Pin::new(this.socket.get_mut()).poll_shutdown(cx)
    }
}

/// What cannot be written any more, as a socket would say it.
fn broken(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        error => io::Error::new(io::ErrorKind::BrokenPipe, error),
    }
}
