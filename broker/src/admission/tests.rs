//! The door as clients find it that say who they are.

use std::net::SocketAddr;

use super::*;
use crate::listener::{PeerAddress, Transport};

/// Everybody's password is their name.
#[derive(Debug)]
struct Names;

impl Accounts for Names {
    fn verify(&self, user: &str, password: &[u8]) -> bool {
        user.as_bytes() == password
    }

    fn of_certificate(&self, _certificate: &[u8]) -> Option<String> {
        None
    }

    fn rights(&self, _user: Option<&str>, _client: &str) -> Option<Rights> {
        Some(Rights::everything())
    }
}

fn open() -> Arc<Admission> {
    Arc::new(Admission::new(Arc::new(Names), Anonymous::Never))
}

fn at(address: &str) -> Peer {
    let address = PeerAddress::Tcp(SocketAddr::new(address.parse().unwrap(), 1883));
    Peer { address, transport: Transport::Mqtt, certificate: None }
}

async fn come(
    admission: &Arc<Admission>,
    peer: &Peer,
    user: &str,
    password: &str,
) -> Result<(), Refusal> {
    let claim = Claim { client: "c", user: Some(user), password: Some(password.as_bytes()), peer };
    admission.admit(claim).await.map(|_| ())
}

fn is_told_to_wait(outcome: Result<(), Refusal>) -> bool {
    matches!(outcome, Err(Refusal::TooMany(_)))
}

#[tokio::test]
async fn a_guess_that_comes_too_early_is_refused_though_the_password_is_remembered() {
    let (admission, home) = (open(), at("192.0.2.1"));
    assert_eq!(come(&admission, &home, "alice", "alice").await, Ok(()));
    for _ in 0..20 {
        lock(&admission.limiter).failed(home.address.ip(), "alice", Instant::now());
    }
    assert!(is_told_to_wait(come(&admission, &home, "alice", "wrong").await));
    assert!(is_told_to_wait(come(&admission, &home, "alice", "alice").await), "a right guess");
    assert_eq!(come(&admission, &at("192.0.2.2"), "alice", "alice").await, Ok(()));
}
