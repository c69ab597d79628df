//! Who is connected: one connection for each client id, the newest.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

/// The client ids in use.
#[derive(Debug, Default)]
pub(crate) struct Clients(Mutex<HashMap<String, Seat>>);

/// A connection that holds a client id.
#[derive(Debug, Clone, Default)]
struct Seat {
    /// Cancelled when another connection wants the id.
    wanted: CancellationToken,
    /// Cancelled when the holder has left the router.
    free: CancellationToken,
}

/// The right to be this client; dropped when the connection has left the router.
#[derive(Debug)]
pub(crate) struct Claim {
    clients: Arc<Clients>,
    client: String,
    seat: Seat,
}

impl Clients {
    /// Takes over `client`, after its former connection has published its will and
    /// left. Cancel-safe, but the former connection is ended nevertheless.
    pub(crate) async fn claim(self: &Arc<Self>, client: &str) -> Claim {
        loop {
            let former = {
                let mut seats = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                match seats.get(client) {
                    Some(former) => former.clone(),
                    None => {
                        let seat = Seat::default();
                        seats.insert(client.to_owned(), seat.clone());
                        return Claim { clients: self.clone(), client: client.to_owned(), seat };
                    }
                }
            };
            former.wanted.cancel();
            former.free.cancelled().await;
        }
    }
}

impl Claim {
    /// Returns when another connection wants to be this client. Cancel-safe.
    pub(crate) async fn revoked(&self) {
        self.seat.wanted.cancelled().await;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.clients.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.client);
        self.seat.free.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_client_id_is_handed_over_only_when_its_holder_has_left() {
        let clients = Arc::new(Clients::default());
        let first = clients.claim("a").await;
        let other = clients.claim("b").await;
        let mut second = Box::pin(clients.claim("a"));
        tokio::select! {
            biased;
            _ = &mut second => panic!("two holders"),
            () = first.revoked() => {}
        }
        drop(first);
        let second = second.await;
        assert!(!second.seat.wanted.is_cancelled());
        assert!(!other.seat.wanted.is_cancelled());
    }
}
