//! The accept loop: clients go through the reception side by side, and a shortage of
//! descriptors is waited out.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::bind::Listener;
use super::peer::{Peer, PeerAddress};
use super::reception::{Reception, TurnedAway};
use super::socket::Socket;
use super::stream::Stream;
use crate::engine::now_ms;
use crate::notice::{And, Pace};

/// How long to wait after the kernel gave us no client: some will leave.
const BACK_OFF: Duration = Duration::from_millis(100);
/// How often to speak of it.
const WARN_EVERY: Duration = Duration::from_secs(1);

/// Accepts until `shutdown`, or until nobody receives from `sink`.
pub(super) async fn accept(
    listener: Listener,
    reception: Arc<Reception>,
    sink: mpsc::Sender<(Stream, Peer)>,
    shutdown: CancellationToken,
) {
    let mut arriving = JoinSet::new();
    let mut complaint = Complaint::default();
    let pace = Arc::new(Mutex::new(Pace::default()));
    loop {
        let next = tokio::select! {
            () = shutdown.cancelled() => break,
            () = sink.closed() => break,
            Some(_) = arriving.join_next() => continue,
            next = next(&listener, &sink) => next,
        };
        match next {
            Ok((socket, address)) => {
                let (reception, pace) = (Arc::clone(&reception), Arc::clone(&pace));
                arriving.spawn(receive(reception, socket, address, sink.clone(), pace));
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
    socket: Socket,
    address: PeerAddress,
    sink: mpsc::Sender<(Stream, Peer)>,
    pace: Arc<Mutex<Pace>>,
) {
    match reception.receive(socket).await {
        Ok((stream, transport)) => {
            let certificate = stream.certificate();
            let peer = Peer { address, transport, certificate };
            // Nobody there to receive it: the broker is stopping.
            let _ = sink.send((stream, peer)).await;
        }
        // Who only looks whether somebody listens has no trouble.
        Err(TurnedAway::Gone) => debug!(from = %address, "nobody came"),
        Err(error) => {
            let more = pace.lock().unwrap_or_else(PoisonError::into_inner).step(now_ms());
            if let Some(and) = more.map(And) {
                info!(from = %address, reason = error.with_cause(), "client turned away{and}");
            }
        }
    }
}

/// Something to warn of, but not all the time.
#[derive(Debug, Default)]
struct Complaint {
    last: Option<Instant>,
    times: u32,
}

impl Complaint {
    /// It happened again; `Some` how often since it was last said, if it is to be said.
    fn raise(&mut self, now: Instant) -> Option<u32> {
        self.times += 1;
        if self.last.is_some_and(|last| now.duration_since(last) < WARN_EVERY) {
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.times))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_is_heard_at_once_and_then_once_a_second() {
        let start = Instant::now();
        let mut complaint = Complaint::default();
        let heard: Vec<_> =
            (0..25).map(|tenth| complaint.raise(start + tenth * BACK_OFF)).collect();
        let said: Vec<_> = heard.iter().flatten().copied().collect();
        assert_eq!(said, [1, 10, 10]);
        assert_eq!((heard[0], heard[10], heard[20]), (Some(1), Some(10), Some(10)));
    }
}
