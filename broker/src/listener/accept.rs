//! The accept loop: clients go through the reception side by side, and a shortage of
//! descriptors is waited out.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::bind::Listener;
use super::complaint::Complaint;
use super::doorstep::Doorstep;
use super::peer::{Peer, PeerAddress};
use super::reception::Reception;
use super::socket::Socket;
use super::stream::Stream;

/// How long to wait after the kernel gave us no client: some will leave.
const BACK_OFF: Duration = Duration::from_millis(100);

/// Accepts until `shutdown`, or until nobody receives from `sink`.
pub(super) async fn accept(
    listener: Listener,
    reception: Arc<Reception>,
    doorstep: Arc<Doorstep>,
    sink: mpsc::Sender<(Stream, Peer)>,
    shutdown: CancellationToken,
) {
    let mut arriving = JoinSet::new();
    let mut complaint = Complaint::default();
    loop {
        let next = tokio::select! {
            () = shutdown.cancelled() => break,
            () = sink.closed() => break,
            Some(_) = arriving.join_next() => continue,
            next = next(&listener, &sink) => next,
        };
        match next {
            Ok((_, address)) if !doorstep.welcomes(&address) => {}
            Ok((socket, address)) => {
                let (reception, doorstep) = (reception.clone(), doorstep.clone());
                arriving.spawn(receive(reception, doorstep, socket, address, sink.clone()));
            }
            Err(error) => {
                if let Some(times) = complaint.raise(Instant::now()) {
                    warn!(%error, times, "cannot accept a client: are there too many open files?");
                }
                // Returns early when there is nothing left to wait for.
                let _ = tokio::time::timeout(BACK_OFF, shutdown.cancelled()).await;
            }
        }
    }
    drop(listener);
    arriving.shutdown().await;
}

/// The next client, once there is room for it in `sink`. Cancel-safe.
async fn next(
    listener: &Listener,
    sink: &mpsc::Sender<(Stream, Peer)>,
) -> io::Result<(Socket, PeerAddress)> {
    // Not kept: clients that dawdle must not hold the places of those that do not.
    drop(sink.reserve().await);
    listener.accept().await
}

async fn receive(
    reception: Arc<Reception>,
    doorstep: Arc<Doorstep>,
    socket: Socket,
    address: PeerAddress,
    sink: mpsc::Sender<(Stream, Peer)>,
) {
    match reception.receive(socket).await {
        Ok((stream, transport)) => {
            let certificate = stream.certificate();
            let peer = Peer { address, transport, certificate };
            // Nobody there to receive it: the broker is stopping.
            let _ = sink.send((stream, peer)).await;
        }
        Err(reason) => doorstep.turned_away(&address, &reason),
    }
}
