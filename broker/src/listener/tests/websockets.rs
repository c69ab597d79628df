//! WebSocket clients, the polite and the others.

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode};
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::{Error, Message, handshake::client::Response};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::super::WebSocketConfig;
use super::*;

/// A client's end.
pub(super) struct Client<S>(WebSocketStream<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub(super) async fn say(&mut self, bytes: &[u8]) {
        self.send(Message::binary(bytes.to_vec())).await;
    }

    async fn send(&mut self, message: Message) {
        in_time(self.0.send(message)).await.unwrap();
    }

    async fn send_fragment(&mut self, bytes: &[u8], kind: Data, is_last: bool) {
        let frame = Frame::message(bytes.to_vec(), OpCode::Data(kind), is_last);
        self.send(Message::Frame(frame)).await;
    }

    pub(super) async fn hear(&mut self) -> Vec<u8> {
        match self.next().await {
            Message::Binary(bytes) => bytes.to_vec(),
            other => panic!("{other:?}"),
        }
    }

    async fn next(&mut self) -> Message {
        in_time(self.0.next()).await.unwrap().unwrap()
    }

    async fn farewell(&mut self) -> CloseCode {
        match self.next().await {
            Message::Close(Some(frame)) => frame.code,
            other => panic!("{other:?}"),
        }
    }
}

async fn ask<S>(
    socket: S,
    path: &str,
    protocols: Option<&str>,
) -> Result<(Client<S>, Response), Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut request = format!("ws://localhost{path}").into_client_request().unwrap();
    if let Some(protocols) = protocols {
        let protocols = HeaderValue::from_str(protocols).unwrap();
        request.headers_mut().insert("sec-websocket-protocol", protocols);
    }
    let (client, response) = in_time(client_async(request, socket)).await?;
    Ok((Client(client), response))
}

pub(super) async fn open_websocket<S>(socket: S) -> Client<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    Box::pin(ask(socket, "/mqtt", Some("mqtt"))).await.unwrap().0
}

async fn hall() -> Hall {
    let websocket = WebSocketConfig { max_message_bytes: 1000, ..WebSocketConfig::default() };
    Hall::open(Config { websocket, ..config(&[Transport::WebSocket]) }).await
}

async fn pair(hall: &mut Hall) -> (Client<TcpStream>, Stream) {
    let client = open_websocket(TcpStream::connect(hall.address()).await.unwrap()).await;
    let (stream, peer) = hall.arrival().await;
    assert_eq!(peer.transport, Transport::WebSocket);
    (client, stream)
}

#[tokio::test]
async fn the_bounds_of_messages_and_frames_mean_nothing() {
    let mut hall = hall().await;
    let (mut client, mut stream) = pair(&mut hall).await;
    client.send_fragment(b"one ", Data::Binary, false).await;
    client.send_fragment(b"packet in ", Data::Continue, false).await;
    client.send_fragment(b"three frames", Data::Continue, true).await;
    assert_eq!(read(&mut stream, 26).await, b"one packet in three frames");
    client.say(b"a packet in two ").await;
    client.say(b"").await;
    client.say(b"messages").await;
    assert_eq!(read(&mut stream, 24).await, b"a packet in two messages");
    client.say(b"two packetsin one message").await;
    assert_eq!(read(&mut stream, 11).await, b"two packets");
    assert_eq!(read(&mut stream, 14).await, b"in one message");
}

#[tokio::test]
async fn what_is_written_at_once_is_one_message() {
    let mut hall = hall().await;
    let (mut client, mut stream) = pair(&mut hall).await;
    let buffers = [io::IoSlice::new(b"one"), io::IoSlice::new(b""), io::IoSlice::new(b"two")];
    assert_eq!(stream.write_vectored(&buffers).await.unwrap(), 6);
    stream.flush().await.unwrap();
    assert_eq!(client.hear().await, b"onetwo");
}

#[tokio::test]
async fn much_more_than_fits_a_message_passes_both_ways() {
    let mut hall = hall().await;
    let (mut client, stream) = pair(&mut hall).await;
    let letter: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    let (mut reader, mut writer) = tokio::io::split(stream);
    let writing = tokio::spawn({
        let letter = letter.clone();
        async move {
            writer.write_all(&letter).await.unwrap();
            writer.flush().await.unwrap();
            writer
        }
    });
    let mut heard = Vec::new();
    while heard.len() < letter.len() {
        heard.extend(client.hear().await);
    }
    assert!(heard == letter);
    let _writer = writing.await.unwrap();

    let reading = tokio::spawn(async move { read(&mut reader, 3_000_000).await });
    for part in letter.chunks(1000) {
        client.say(part).await;
    }
    assert!(reading.await.unwrap() == letter);
}

#[tokio::test]
async fn text_is_refused() {
    let mut hall = hall().await;
    for text in [&b"hello"[..], b"\xff\xfe"] {
        let (mut client, mut stream) = pair(&mut hall).await;
        client.say(b"before").await;
        client.send_fragment(text, Data::Text, true).await;
        client.say(b"after").await;
        assert_eq!(read(&mut stream, 6).await, b"before");
        let error = in_time(stream.read_u8()).await.unwrap_err();
        assert!(error.to_string().contains("binary"), "{error}");
        assert_eq!(client.farewell().await, CloseCode::Unsupported);
        // What comes after it is not read, and nothing can be written.
        assert_eq!(in_time(stream.read(&mut [0; 8])).await.unwrap(), 0);
        assert!(stream.write_all(b"x").await.is_err());
    }
}

#[tokio::test]
async fn a_message_that_is_too_large_is_refused() {
    let mut hall = hall().await;
    let (mut client, mut stream) = pair(&mut hall).await;
    client.say(&[1; 1000]).await;
    read(&mut stream, 1000).await;
    client.say(&[1; 1001]).await;
    in_time(stream.read_u8()).await.unwrap_err();
    assert_eq!(client.farewell().await, CloseCode::Size);

    let (mut client, mut stream) = pair(&mut hall).await;
    client.send_fragment(&[1; 600], Data::Binary, false).await;
    client.send_fragment(&[1; 600], Data::Continue, false).await;
    in_time(stream.read_u8()).await.unwrap_err();
    assert_eq!(client.farewell().await, CloseCode::Size);
}

#[tokio::test]
async fn a_client_that_does_not_mask_is_refused() {
    let mut hall = hall().await;
    let (client, mut stream) = pair(&mut hall).await;
    let mut socket = client.0.into_inner();
    socket.write_all(b"\x82\x02\xc0\x00").await.unwrap();
    in_time(stream.read_u8()).await.unwrap_err();
    assert_eq!(read(&mut socket, 4).await[2..], u16::from(CloseCode::Protocol).to_be_bytes());
}

#[tokio::test]
async fn pings_are_answered_while_the_broker_waits_for_packets() {
    let mut hall = hall().await;
    let (mut client, mut stream) = pair(&mut hall).await;
    let reading = tokio::spawn(async move { (read(&mut stream, 4).await, stream) });
    client.send(Message::Ping("are you there".into())).await;
    assert_eq!(client.next().await, Message::Pong("are you there".into()));
    client.say(b"good").await;
    assert_eq!(reading.await.unwrap().0, b"good");
}

#[tokio::test]
async fn pings_whose_answers_are_not_read_neither_pile_up_nor_end_the_connection() {
    let (ours, theirs) = tokio::io::duplex(256);
    let stream = super::super::websocket::WebSocket::new(theirs, Vec::new(), 1000).await;
    let (mut reader, mut writer) = tokio::io::split(stream);
    let (mut hears, mut says) = tokio::io::split(ours);
    let reading = tokio::spawn(async move { read(&mut reader, 4).await });
    // A ping of 100 bytes, masked with zeros: far more of them than are kept.
    let ping = [&b"\x89\xe4\0\0\0\0"[..], &[7; 100]].concat();
    for _ in 0..5_000 {
        in_time(says.write_all(&ping)).await.unwrap();
    }
    in_time(says.write_all(b"\x82\x84\0\0\0\0good")).await.unwrap();
    assert_eq!(reading.await.unwrap(), b"good");

    let writing = tokio::spawn(async move {
        writer.write_all(&[9; 64 << 10]).await.unwrap();
        writer.flush().await.unwrap();
    });
    let mut pongs = 0;
    while read(&mut hears, 1).await == b"\x8a" {
        let size = read(&mut hears, 1).await[0].into();
        assert_eq!(read(&mut hears, size).await, [7; 100]);
        pongs += 1;
    }
    assert!((1..1000).contains(&pongs), "{pongs}");
    assert_eq!(read(&mut hears, 9).await, b"\x7f\0\0\0\0\0\x01\0\0");
    assert_eq!(read(&mut hears, 64 << 10).await, [9; 64 << 10]);
    writing.await.unwrap();
}

#[tokio::test]
async fn goodbyes_are_said_and_returned() {
    let mut hall = hall().await;
    let (mut client, mut stream) = pair(&mut hall).await;
    stream.write_all(b"last").await.unwrap();
    in_time(stream.shutdown()).await.unwrap();
    assert_eq!(client.hear().await, b"last");
    assert_eq!(client.next().await, Message::Close(None));

    let (mut client, mut stream) = pair(&mut hall).await;
    client.say(b"last").await;
    client.send(Message::Close(None)).await;
    assert_eq!(read(&mut stream, 4).await, b"last");
    assert_eq!(in_time(stream.read(&mut [0])).await.unwrap(), 0);
    assert_eq!(client.next().await, Message::Close(None));

    let (client, mut stream) = pair(&mut hall).await;
    drop(client);
    let error = in_time(stream.read_u8()).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn the_first_subprotocol_that_is_mqtt_is_chosen() {
    let mut hall = hall().await;
    for (path, offer, chosen) in [
        ("/mqtt", "mqtt", "mqtt"),
        ("/mqtt?session=1", "mqttv3.1", "mqttv3.1"),
        // What a client asks for that was told a host and a port alone.
        ("/", "chat, mqttv3.1,mqtt", "mqttv3.1"),
    ] {
        let socket = TcpStream::connect(hall.address()).await.unwrap();
        let (_client, response) = ask(socket, path, Some(offer)).await.unwrap();
        assert_eq!(response.headers()["sec-websocket-protocol"], chosen);
        hall.arrival().await;
    }
}

#[tokio::test]
async fn a_request_for_anything_else_is_answered_and_closed() {
    let hall = hall().await;
    for (path, protocols, status) in [
        ("/mqtt/", Some("mqtt"), StatusCode::NOT_FOUND),
        ("/mqtt", Some("chat"), StatusCode::BAD_REQUEST),
        ("/mqtt", None, StatusCode::BAD_REQUEST),
    ] {
        let socket = TcpStream::connect(hall.address()).await.unwrap();
        match ask(socket, path, protocols).await.map(|(_, response)| response) {
            Err(Error::Http(response)) => assert_eq!(response.status(), status, "{path}"),
            other => panic!("{other:?}"),
        }
    }
    for (request, status) in [
        ("GET /favicon.ico HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), "404"),
        ("GET /mqtt HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), "400"),
        ("GET nonsense\r\n\r\n".to_owned(), "400"),
        (format!("GET /mqtt HTTP/1.1\r\nCookie: {}", "x".repeat(8192 - 28)), "431"),
    ] {
        let mut socket = TcpStream::connect(hall.address()).await.unwrap();
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        in_time(socket.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        let (head, text) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", text.len())), "{answer}");
    }
    assert!(hall.close().await);
}

#[tokio::test]
async fn frames_may_come_together_with_the_request() {
    let mut hall = hall().await;
    let mut socket = TcpStream::connect(hall.address()).await.unwrap();
    let request = "GET /mqtt HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n\
        Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let frame = b"\x82\x84\0\0\0\0good";
    socket.write_all(&[request.as_bytes(), frame].concat()).await.unwrap();
    let (mut stream, _) = hall.arrival().await;
    assert_eq!(read(&mut stream, 4).await, b"good");
    // The answer to this very key is in RFC 6455.
    let mut answer = vec![0; 200];
    let size = in_time(socket.read(&mut answer)).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..size]);
    assert!(answer.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{answer}");
}
