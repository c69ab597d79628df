//! The HTTP request that a WebSocket begins with.
//!
//! It is read here rather than by tungstenite's own handshake, which takes up to 64 KiB
//! from anybody, and leaves a request that is no upgrade without an answer.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::handshake::machine::TryParse;
use tokio_tungstenite::tungstenite::handshake::server::{
    Request, Response, create_response, write_response,
};
use tokio_tungstenite::tungstenite::http::header::SEC_WEBSOCKET_PROTOCOL;
use tokio_tungstenite::tungstenite::http::{HeaderMap, HeaderValue};

use super::config::WebSocketConfig;
use super::websocket::WebSocket;

/// The largest request: what web servers take as well.
const REQUEST_BYTES: usize = 8 << 10;
const END_OF_HEADERS: &[u8] = b"\r\n\r\n";
/// What MQTT is called as a subprotocol: by the standard, and by clients of MQTT 3.1.
const SUBPROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];

/// Why a request does not become a WebSocket.
#[derive(Debug, thiserror::Error)]
pub(super) enum UpgradeError {
    #[error("connection lost")]
    Io(#[from] io::Error),
    #[error("the client left before its request was complete")]
    Gone,
    #[error("the request is larger than {REQUEST_BYTES} bytes")]
    TooLarge,
    #[error("there is no WebSocket at {asked}: it is at {path}")]
    OtherPath { asked: String, path: String },
    #[error("not a WebSocket handshake: {0}")]
    NotAnUpgrade(#[source] tungstenite::Error),
    #[error("offer the subprotocol mqtt")]
    OtherProtocol,
}

/// Reads a request, answers it, and goes on as a WebSocket.
pub(super) async fn upgrade<S>(
    mut carrier: S,
    config: &WebSocketConfig,
) -> Result<WebSocket<S>, UpgradeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let answered = match read(&mut carrier).await {
        Ok((request, rest)) => answer(&request, config).map(|answer| (answer, rest)),
        Err(error) => Err(error),
    };
    match answered {
        Ok((answer, rest)) => {
            carrier.write_all(&answer).await?;
            carrier.flush().await?;
            Ok(WebSocket::new(carrier, rest, config.max_message_bytes).await)
        }
        Err(error) => {
            if let Some(refusal) = error.refusal() {
                carrier.write_all(refusal.as_bytes()).await?;
                carrier.shutdown().await?;
            }
            Err(error)
        }
    }
}

/// A request, and what came after it.
async fn read<S>(carrier: &mut S) -> Result<(Request, Vec<u8>), UpgradeError>
where
    S: AsyncRead + Unpin,
{
    let mut head = Vec::with_capacity(1024);
    let end = loop {
        // The end may have come in two pieces.
        let seen = head.len().saturating_sub(END_OF_HEADERS.len() - 1);
        let room = (REQUEST_BYTES - head.len()) as u64;
        if room == 0 {
            return Err(UpgradeError::TooLarge);
        }
        if (&mut *carrier).take(room).read_buf(&mut head).await? == 0 {
            return Err(UpgradeError::Gone);
        }
        let fresh = head[seen..].windows(END_OF_HEADERS.len());
        if let Some(at) = fresh.into_iter().position(|bytes| bytes == END_OF_HEADERS) {
            break seen + at + END_OF_HEADERS.len();
        }
    };
    let rest = head.split_off(end);
    match Request::try_parse(&head).map_err(UpgradeError::NotAnUpgrade)? {
        Some((size, request)) if size == head.len() => Ok((request, rest)),
        _ => Err(UpgradeError::NotAnUpgrade(ProtocolError::HandshakeIncomplete.into())),
    }
}

/// The answer that makes `request` a WebSocket.
fn answer(request: &Request, config: &WebSocketConfig) -> Result<Vec<u8>, UpgradeError> {
    let (asked, path) = (request.uri().path(), &config.path);
    // Many clients are told of a host and a port alone.
    if asked != path && asked != "/" {
        let (asked, path) = (asked.to_owned(), path.clone());
        return Err(UpgradeError::OtherPath { asked, path });
    }
    let mut response: Response = create_response(request).map_err(UpgradeError::NotAnUpgrade)?;
    let protocol = subprotocol(request.headers()).ok_or(UpgradeError::OtherProtocol)?;
    response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    let mut answer = Vec::new();
    write_response(&mut answer, &response).map_err(UpgradeError::NotAnUpgrade)?;
    Ok(answer)
}

/// The first subprotocol on the client's list that is MQTT.
fn subprotocol(headers: &HeaderMap) -> Option<&'static str> {
    headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|offers| offers.to_str().ok())
        .flat_map(|offers| offers.split(','))
        .find_map(|offer| SUBPROTOCOLS.into_iter().find(|known| *known == offer.trim()))
}

impl UpgradeError {
    /// What to tell the client; `None` if it is not there any more.
    fn refusal(&self) -> Option<String> {
        let status = match self {
            Self::Io(_) | Self::Gone => return None,
            Self::TooLarge => "431 Request Header Fields Too Large",
            Self::OtherPath { .. } => "404 Not Found",
            Self::NotAnUpgrade(_) | Self::OtherProtocol => "400 Bad Request",
        };
        let text = format!("{self}\n");
        let length = text.len();
        Some(format!(
            "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: text/plain\r\n\
             Content-Length: {length}\r\n\r\n{text}"
        ))
    }
}
