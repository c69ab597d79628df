//! Where to listen, and who gets in.

use std::io::IoSlice;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::PermissionsExt;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UnixStream};

use super::super::{Address, ListenError, PeerAddress};
use super::certificates::{self, Papers};
use super::websockets::open_websocket;
use super::*;

const ALL: [Transport; 4] =
    [Transport::Mqtt, Transport::Tls, Transport::WebSocket, Transport::SecureWebSocket];

fn listen(addresses: &[&str]) -> Config {
    let endpoint = |address: &&str| Endpoint {
        address: address.parse().unwrap(),
        accept: [Transport::Mqtt].into(),
    };
    Config { listen: addresses.iter().map(endpoint).collect(), ..Config::default() }
}

#[tokio::test]
async fn a_plain_client_arrives_with_every_byte_that_it_sent() {
    let mut hall = Hall::open(config(&[Transport::Mqtt])).await;
    let mut client = TcpStream::connect(hall.address()).await.unwrap();
    client.write_all(HELLO).await.unwrap();
    let (mut stream, peer) = hall.arrival().await;
    assert_eq!(peer.address, PeerAddress::Tcp(client.local_addr().unwrap()));
    assert_eq!((peer.transport, peer.identity()), (Transport::Mqtt, None));
    assert_eq!(read(&mut stream, HELLO.len()).await, HELLO);
    converse(&mut client, &mut stream).await;
    drop(stream);
    closed(&mut client).await;
    assert!(hall.close().await);
}

#[tokio::test]
async fn four_transports_share_a_port() {
    let papers = Papers::new();
    let mut hall = Hall::open(Config { tls: Some(papers.broker(None)), ..config(&ALL) }).await;
    let address = hall.address();

    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(HELLO).await.unwrap();
    let (mut stream, peer) = hall.arrival().await;
    assert_eq!(peer.transport, Transport::Mqtt);
    assert_eq!(read(&mut stream, HELLO.len()).await, HELLO);

    let mut tls = certificates::connect(address, papers.client(None)).await.unwrap();
    tls.write_all(HELLO).await.unwrap();
    tls.flush().await.unwrap();
    let (mut stream, peer) = hall.arrival().await;
    assert_eq!(peer.transport, Transport::Tls);
    assert!(stream.is_write_vectored());
    assert_eq!(read(&mut stream, HELLO.len()).await, HELLO);
    converse(&mut tls, &mut stream).await;

    let socket = TcpStream::connect(address).await.unwrap();
    let mut websocket = open_websocket(socket).await;
    websocket.say(HELLO).await;
    let (mut stream, peer) = hall.arrival().await;
    assert_eq!(peer.transport, Transport::WebSocket);
    assert_eq!(read(&mut stream, HELLO.len()).await, HELLO);

    let tls = certificates::connect(address, papers.client(None)).await.unwrap();
    let mut websocket = open_websocket(tls).await;
    websocket.say(HELLO).await;
    let (mut stream, peer) = hall.arrival().await;
    assert_eq!(peer.transport, Transport::SecureWebSocket);
    assert_eq!(read(&mut stream, HELLO.len()).await, HELLO);
    stream.write_all(b"\x20\x00").await.unwrap();
    stream.flush().await.unwrap();
    assert_eq!(websocket.hear().await, b"\x20\x00");
}

#[tokio::test]
async fn whoever_begins_otherwise_is_closed() {
    let hall = Hall::open(config(&[Transport::Mqtt])).await;
    for beginning in [&b"GET /mqtt HTTP/1.1\r\n"[..], b"\x16\x03\x01", b"\x20\x02", b"\x00"] {
        let mut client = TcpStream::connect(hall.address()).await.unwrap();
        client.write_all(beginning).await.unwrap();
        closed(&mut client).await;
    }
    // Nor does one who leaves at once hold anybody up.
    drop(TcpStream::connect(hall.address()).await.unwrap());
    assert!(hall.close().await);
}

#[tokio::test]
async fn what_is_welcome_in_the_open_is_not_therefore_welcome_in_tls() {
    let papers = Papers::new();
    for (accept, beginning) in [
        (&[Transport::Mqtt, Transport::SecureWebSocket], HELLO),
        (&[Transport::WebSocket, Transport::Tls], b"GET /mqtt HTTP/1.1\r\n"),
    ] {
        let hall = Hall::open(Config { tls: Some(papers.broker(None)), ..config(accept) }).await;
        let mut client = certificates::connect(hall.address(), papers.client(None)).await.unwrap();
        client.write_all(beginning).await.unwrap();
        closed(&mut client).await;
        assert!(hall.close().await);
    }
}

#[tokio::test]
async fn plain_sockets_take_several_buffers_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broker.sock");
    let mut hall = Hall::open(listen(&["127.0.0.1:0", path.to_str().unwrap()])).await;
    let BoundAddress::Tcp(address) = hall.addresses[0] else { panic!() };

    let mut tcp = TcpStream::connect(address).await.unwrap();
    tcp.write_all(HELLO).await.unwrap();
    let (mut stream, _) = hall.arrival().await;
    assert!(stream.is_write_vectored());
    let buffers = [IoSlice::new(b"one"), IoSlice::new(b"two")];
    assert_eq!(stream.write_vectored(&buffers).await.unwrap(), 6);
    assert_eq!(read(&mut tcp, 6).await, b"onetwo");

    let mut unix = UnixStream::connect(&path).await.unwrap();
    unix.write_all(HELLO).await.unwrap();
    let (mut stream, _) = hall.arrival().await;
    assert!(stream.is_write_vectored());
    assert_eq!(stream.write_vectored(&buffers).await.unwrap(), 6);
    assert_eq!(read(&mut unix, 6).await, b"onetwo");
}

#[tokio::test]
async fn both_families_have_a_port_to_themselves() {
    // Below those that the kernel gives to others meanwhile.
    let is_free = |port: &u16| {
        let bind = |host: IpAddr| std::net::TcpListener::bind((host, *port)).is_ok();
        bind(Ipv4Addr::UNSPECIFIED.into()) && bind(Ipv6Addr::UNSPECIFIED.into())
    };
    let port = (10_000..20_000).find(is_free).expect("a port that is free in both");
    let mut four = Hall::open(listen(&[&format!("0.0.0.0:{port}")])).await;
    let mut six = Hall::open(listen(&[&format!("[::]:{port}")])).await;
    for (hall, host) in [(&mut four, "127.0.0.1"), (&mut six, "::1")] {
        let mut client = TcpStream::connect((host, port)).await.unwrap();
        client.write_all(HELLO).await.unwrap();
        let (_, peer) = hall.arrival().await;
        assert_eq!(peer.address, PeerAddress::Tcp(client.local_addr().unwrap()));
    }
    assert!(six.close().await);
    // And in the other order.
    assert!(four.close().await);
    let _six = Hall::open(listen(&[&format!("[::]:{port}")])).await;
    Hall::open(listen(&[&format!("0.0.0.0:{port}")])).await;
}

#[tokio::test]
async fn a_name_stands_for_its_addresses() {
    let mut hall = Hall::open(listen(&["localhost:0"])).await;
    for address in hall.addresses.clone() {
        let BoundAddress::Tcp(address) = address else { panic!() };
        assert!(address.ip().is_loopback() && address.port() != 0);
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(HELLO).await.unwrap();
        hall.arrival().await;
    }
}

#[tokio::test]
async fn the_kernel_vouches_for_a_client_behind_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broker.sock");
    let mut hall = Hall::open(listen(&[path.to_str().unwrap()])).await;
    let mode = path.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o660);
    let mut client = UnixStream::connect(&path).await.unwrap();
    client.write_all(HELLO).await.unwrap();
    let (mut stream, peer) = hall.arrival().await;
    let ours = client.peer_cred().unwrap();
    assert_eq!(peer.address, PeerAddress::Unix { uid: ours.uid(), pid: ours.pid() });
    assert_eq!(read(&mut stream, HELLO.len()).await, HELLO);
    converse(&mut client, &mut stream).await;
    assert!(hall.close().await);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_socket_file_of_a_dead_broker_is_replaced_and_of_a_living_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broker.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let mut hall = Hall::open(listen(&[path.to_str().unwrap()])).await;
    let error = Listeners::bind(listen(&[path.to_str().unwrap()])).await.unwrap_err();
    assert!(matches!(error, ListenError::Listen { .. }), "{error}");
    let mut client = UnixStream::connect(&path).await.unwrap();
    client.write_all(HELLO).await.unwrap();
    hall.arrival().await;
}

#[tokio::test]
async fn ports_are_free_after_shutdown_and_streams_live_on() {
    let mut hall = Hall::open(config(&[Transport::Mqtt])).await;
    let address = hall.address();
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(HELLO).await.unwrap();
    let (mut stream, _) = hall.arrival().await;
    // It has not said anything yet, and never will.
    let mut dawdler = TcpStream::connect(address).await.unwrap();
    assert!(hall.close().await);
    closed(&mut dawdler).await;
    read(&mut stream, HELLO.len()).await;
    converse(&mut client, &mut stream).await;
    Hall::open(listen(&[&address.to_string()])).await;
}

#[tokio::test]
async fn listeners_stop_when_nobody_receives_from_them() {
    let mut hall = Hall::open(config(&[Transport::Mqtt])).await;
    hall.arrivals.close();
    in_time(&mut hall.running).await.unwrap();
}

#[tokio::test]
async fn while_nobody_receives_clients_wait_in_the_kernel() {
    let hasty = || Config { handshake_timeout_ms: 300, ..config(&[Transport::Mqtt]) };
    let listeners = Listeners::bind(hasty()).await.unwrap();
    let BoundAddress::Tcp(address) = listeners.addresses()[0] else { panic!() };
    let (sink, mut arrivals) = mpsc::channel(1);
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(listeners.run(doorstep(), sink, shutdown.clone()));
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(HELLO).await.unwrap();
    in_time(async {
        while arrivals.is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;

    // Whoever is accepted and says nothing is closed. One may be: there was room when the
    // wait for it began.
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let elsewhere = Hall::open(hasty()).await;
    closed(&mut TcpStream::connect(elsewhere.address()).await.unwrap()).await;
    let mut accepted = 0;
    for client in &mut silent {
        let end = tokio::time::timeout(Duration::from_millis(1), client.read(&mut [0])).await;
        accepted += usize::from(end.is_ok());
    }
    assert!(accepted <= 1, "{accepted}");

    in_time(arrivals.recv()).await.unwrap();
    for client in &mut silent {
        closed(client).await;
    }
    shutdown.cancel();
    in_time(running).await.unwrap();
}

#[tokio::test]
async fn what_cannot_work_is_refused_with_its_address() {
    let nowhere = Listeners::bind(listen(&[])).await;
    assert!(matches!(nowhere, Err(ListenError::Nowhere)));
    let deaf = Listeners::bind(config(&[])).await;
    assert!(matches!(deaf, Err(ListenError::Deaf { address: Address::Tcp(_) })));
    for secure in [Transport::Tls, Transport::SecureWebSocket] {
        let bare = Listeners::bind(config(&[Transport::Mqtt, secure])).await;
        assert!(matches!(bare, Err(ListenError::NoCertificate { .. })));
    }
    let hall = Hall::open(config(&[Transport::Mqtt])).await;
    let taken = hall.address().to_string();
    let error = Listeners::bind(listen(&[&taken])).await.unwrap_err();
    assert!(error.to_string().contains(&taken), "{error}");
}
