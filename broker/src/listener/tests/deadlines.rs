//! Clients that dawdle.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::super::reception::Reception;
use super::super::socket::Socket;
use super::certificates::{self, Papers};
use super::*;

fn hasty(papers: &Papers) -> Config {
    let accept =
        [Transport::Mqtt, Transport::Tls, Transport::WebSocket, Transport::SecureWebSocket];
    Config { handshake_timeout_ms: 200, tls: Some(papers.broker(None)), ..config(&accept) }
}

#[tokio::test]
async fn a_client_that_stops_anywhere_before_its_first_packet_is_closed() {
    let papers = Papers::new();
    let hall = Hall::open(hasty(&papers)).await;
    for beginning in [&b""[..], b"\x16\x03\x01\x02\x00\x01", b"GET /mqtt HTTP/1.1\r\nHost: x\r\n"] {
        let mut client = TcpStream::connect(hall.address()).await.unwrap();
        client.write_all(beginning).await.unwrap();
        closed(&mut client).await;
    }
    for beginning in [&b""[..], b"GET /mqtt HTTP/1.1\r\n"] {
        let mut client = certificates::connect(hall.address(), papers.client(None)).await.unwrap();
        client.write_all(beginning).await.unwrap();
        client.flush().await.unwrap();
        closed(&mut client).await;
    }
    assert!(hall.close().await);
}

#[tokio::test]
async fn a_byte_now_and_then_buys_no_time() {
    let papers = Papers::new();
    let hall = Hall::open(hasty(&papers)).await;
    let mut client = TcpStream::connect(hall.address()).await.unwrap();
    client.write_all(b"GET /mqtt HTTP/1.1\r\nCookie: ").await.unwrap();
    let (mut reader, mut writer) = client.split();
    tokio::select! {
        () = closed(&mut reader) => {}
        () = async {
            // Slower than the deadline allows, faster than any single wait.
            while writer.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            std::future::pending().await
        } => {}
    }
    assert!(hall.close().await);
}

#[tokio::test]
async fn the_deadline_is_over_once_a_client_has_arrived() {
    let papers = Papers::new();
    let mut hall = Hall::open(hasty(&papers)).await;
    let mut client = TcpStream::connect(hall.address()).await.unwrap();
    client.write_all(HELLO).await.unwrap();
    let (mut stream, _) = hall.arrival().await;
    read(&mut stream, HELLO.len()).await;
    // Somebody who came later runs out of time.
    closed(&mut TcpStream::connect(hall.address()).await.unwrap()).await;
    converse(&mut client, &mut stream).await;
}

#[tokio::test]
async fn dawdlers_hold_nobody_up() {
    let papers = Papers::new();
    let mut hall = Hall::open(Config { handshake_timeout_ms: 3_600_000, ..hasty(&papers) }).await;
    let mut dawdlers = Vec::new();
    for beginning in [&b""[..], b"\x16\x03\x01", b"GET /"].into_iter().cycle().take(100) {
        let mut client = TcpStream::connect(hall.address()).await.unwrap();
        client.write_all(beginning).await.unwrap();
        dawdlers.push(client);
    }
    let mut client = TcpStream::connect(hall.address()).await.unwrap();
    client.write_all(HELLO).await.unwrap();
    hall.arrival().await;
    assert!(hall.close().await);
}

#[tokio::test]
async fn a_silent_client_costs_little_more_than_its_socket() {
    let papers = Papers::new();
    let reception = Reception {
        accept: [Transport::Mqtt, Transport::SecureWebSocket].into(),
        tls: Some(Arc::new(Tls::load(papers.broker(None)).unwrap())),
        websocket: Default::default(),
        patience: Duration::from_secs(5),
    };
    let (socket, _other) = tokio::net::UnixStream::pair().unwrap();
    let waiting = reception.receive(Socket::from(socket));
    let size_bytes = size_of_val(&waiting);
    assert!(size_bytes < 1024, "{size_bytes}");
}
