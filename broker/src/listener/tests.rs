//! Listeners with real sockets on loopback, seen from the client's side.

mod certificates;
mod deadlines;
mod descriptors;
mod endpoints;
mod secure;
mod websockets;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{BoundAddress, Config, Doorstep, Endpoint, Listeners, Peer, Stream, Tls, Transport};
use crate::rates::Rates;

/// Begins like a CONNECT packet; nobody here looks any further.
const HELLO: &[u8] = b"\x10\x0c\x00\x04MQTT\x05\x02\x00\x3c";

fn doorstep() -> Arc<Doorstep> {
    let rates = Arc::new(Rates::new(crate::Rates::default()));
    Arc::new(Doorstep::new(rates, Arc::default()))
}

/// Running listeners; stopped when dropped.
struct Hall {
    addresses: Vec<BoundAddress>,
    tls: Option<Arc<Tls>>,
    arrivals: mpsc::Receiver<(Stream, Peer)>,
    shutdown: CancellationToken,
    running: JoinHandle<()>,
}

impl Hall {
    async fn open(config: Config) -> Self {
        let listeners = Listeners::bind(config).await.unwrap();
        let addresses = listeners.addresses().to_vec();
        let tls = listeners.tls();
        let (sink, arrivals) = mpsc::channel(16);
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(listeners.run(doorstep(), sink, shutdown.clone()));
        Self { addresses, tls, arrivals, shutdown, running }
    }

    /// The address of the only endpoint.
    fn address(&self) -> SocketAddr {
        match self.addresses[..] {
            [BoundAddress::Tcp(address)] => address,
            ref other => panic!("{other:?}"),
        }
    }

    async fn arrival(&mut self) -> (Stream, Peer) {
        in_time(self.arrivals.recv()).await.unwrap()
    }

    /// Stops it; true if nobody arrived that was not asked for.
    async fn close(mut self) -> bool {
        self.shutdown.cancel();
        in_time(&mut self.running).await.unwrap();
        self.arrivals.recv().await.is_none()
    }
}

impl Drop for Hall {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// One endpoint on loopback.
fn config(accept: &[Transport]) -> Config {
    let accept = accept.iter().copied().collect();
    let endpoint = Endpoint { address: "127.0.0.1:0".parse().unwrap(), accept };
    Config { listen: vec![endpoint], ..Config::default() }
}

/// What takes longer than this will not happen any more.
async fn in_time<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("in time")
}

/// Both ends can say something to the other.
async fn converse(client: &mut (impl AsyncRead + AsyncWrite + Unpin), broker: &mut Stream) {
    exchange(client, broker).await;
    exchange(broker, client).await;
}

async fn exchange(from: &mut (impl AsyncWrite + Unpin), to: &mut (impl AsyncRead + Unpin)) {
    from.write_all(b"\xc0\x00").await.unwrap();
    from.flush().await.unwrap();
    assert_eq!(read(to, 2).await, b"\xc0\x00");
}

async fn read(from: &mut (impl AsyncRead + Unpin), size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    in_time(from.read_exact(&mut bytes)).await.unwrap();
    bytes
}

/// Waits until the other end closes. Whatever it says before does not matter, nor how
/// roughly it closes.
async fn closed(client: &mut (impl AsyncRead + Unpin)) {
    let mut bytes = [0; 256];
    loop {
        match in_time(client.read(&mut bytes)).await {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) => {
                assert!(
                    [io::ErrorKind::ConnectionReset, io::ErrorKind::UnexpectedEof]
                        .contains(&error.kind()),
                    "{error}"
                );
                return;
            }
        }
    }
}
