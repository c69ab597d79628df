//! The door as clients find it that say who they are.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::mpsc;
use std::task::Poll;
use std::time::Duration;

use futures_util::{FutureExt, poll};
use tokio::task::unconstrained;

use super::*;
use crate::listener::{PeerAddress, Transport};

/// Everybody's password is their name, and is looked at while the gate is open.
#[derive(Debug)]
struct Gated {
    opens: Mutex<mpsc::Receiver<()>>,
    /// In the order in which they had their turn.
    users: Arc<Mutex<Vec<String>>>,
}

impl Accounts for Gated {
    fn verify(&self, user: &str, password: &[u8]) -> bool {
        let _opened = lock(&self.opens).recv();
        lock(&self.users).push(user.to_owned());
        user.as_bytes() == password
    }

    fn of_certificate(&self, _certificate: &[u8]) -> Option<String> {
        None
    }

    fn rights(&self, _user: Option<&str>, _client: &str) -> Option<Rights> {
        Some(Rights::everything())
    }
}

/// A door behind a gate, which opens when the other one is dropped.
fn gated() -> (mpsc::Sender<()>, Arc<Admission>) {
    let (closed, admission, _) = noted();
    (closed, admission)
}

/// The same, and who had a turn.
fn noted() -> (mpsc::Sender<()>, Arc<Admission>, Arc<Mutex<Vec<String>>>) {
    let (closed, opens) = mpsc::channel();
    let users = Arc::new(Mutex::new(Vec::new()));
    let accounts = Arc::new(Gated { opens: Mutex::new(opens), users: users.clone() });
    (closed, Arc::new(Admission::new(accounts, Anonymous::Never)), users)
}

fn open() -> Arc<Admission> {
    gated().1
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

#[tokio::test]
async fn a_device_that_tries_an_old_password_for_ever_guesses_once_and_holds_up_nobody() {
    let (closed, admission, users) = noted();
    drop(closed);
    let home = at("192.0.2.1");
    for _ in 0..50 {
        let outcome = come(&admission, &home, "sensor", "old").await;
        assert_eq!(outcome, Err(Refusal::WrongPassword));
    }
    assert_eq!(*lock(&users), ["sensor"], "it costs nothing");
    assert_eq!(come(&admission, &home, "sensor", "sensor").await, Ok(()));
    for guess in 0..5 {
        let _ = come(&admission, &home, "sensor", &guess.to_string()).await;
    }
    assert!(
        is_told_to_wait(come(&admission, &home, "sensor", "sensor").await),
        "those are guesses"
    );
}

#[tokio::test]
async fn a_wrong_password_may_become_right() {
    let (closed, admission, users) = noted();
    drop(closed);
    let home = at("192.0.2.1");
    let outcome = come(&admission, &home, "sensor", "old").await;
    assert_eq!(outcome, Err(Refusal::WrongPassword));
    admission.forget();
    let _ = come(&admission, &home, "sensor", "old").await;
    assert_eq!(lock(&users).len(), 2, "it is looked at again");
}

#[tokio::test]
async fn a_site_that_tries_name_after_name_must_wait_but_not_who_is_remembered() {
    let (admission, home) = (open(), at("2001:db8::1"));
    assert_eq!(come(&admission, &home, "alice", "alice").await, Ok(()));
    for stranger in 0..300 {
        let outcome = come(&admission, &home, &format!("stranger {stranger}"), "guess").await;
        assert_eq!(outcome, Err(Refusal::WrongPassword), "{stranger}");
    }
    let neighbour = at("2001:db8::2");
    assert!(is_told_to_wait(come(&admission, &neighbour, "bob", "bob").await));
    assert_eq!(come(&admission, &home, "alice", "alice").await, Ok(()));
    assert_eq!(come(&admission, &at("2001:db8:1::1"), "bob", "bob").await, Ok(()));
}

#[tokio::test]
async fn few_of_a_site_wait_for_their_turn_and_the_others_are_refused_at_once() {
    let (closed, admission) = gated();
    let (home, elsewhere) = (at("192.0.2.1"), at("192.0.2.2"));
    let mut first = pin!(come(&admission, &home, "alice", "alice"));
    assert!(poll!(&mut first).is_pending());
    let mut waiting = Vec::new();
    for _ in 1..256 {
        let mut next = Box::pin(come(&admission, &home, "alice", "alice"));
        assert!(poll!(&mut next).is_pending());
        waiting.push(next);
    }
    let one_more = come(&admission, &home, "bob", "bob").now_or_never();
    assert_eq!(one_more.and_then(Result::err).map(|refusal| refusal.cause()), Some(Refused::Rate));
    let other = come(&admission, &elsewhere, "bob", "bob").now_or_never();
    assert_eq!(other, None, "another site's waits");
    waiting.pop();
    let mut one_more = pin!(come(&admission, &home, "bob", "bob"));
    assert!(poll!(&mut one_more).is_pending(), "one that went has left its place");
    drop(closed);
    assert_eq!(first.await, Ok(()));
    // In the order in which they came.
    for next in waiting {
        assert_eq!(next.await, Ok(()));
    }
    assert_eq!(one_more.await, Ok(()));
}

#[tokio::test]
async fn another_site_s_turn_comes_soon_however_many_wait_here() {
    let turns = Turns::new();
    let wait = |address: &str| {
        let address = address.parse().unwrap();
        // All of them are one task here: its budget would keep some from even coming to the queue.
        unconstrained(turns.take(address)).boxed()
    };
    let mut here: Vec<_> = (0..200).map(|_| wait("192.0.2.1")).collect();
    let mut taken = Vec::new();
    for waiting in &mut here {
        if let Poll::Ready(turn) = poll!(waiting) {
            taken.push(turn);
        }
    }
    let mut other = wait("192.0.2.2");
    let mut turn = 0;
    while poll!(&mut other).is_pending() {
        assert!(turn < 20, "they go first");
        turn += 1;
        taken.remove(0).unwrap();
        for waiting in &mut here[taken.len() + turn..] {
            if let Poll::Ready(turn) = poll!(waiting) {
                taken.push(turn);
            }
        }
    }
    assert!(turn > 0, "it had to wait");
}

#[tokio::test]
async fn a_failure_counts_though_the_client_did_not_wait_for_it() {
    let (closed, admission) = gated();
    let (home, ip) = (at("192.0.2.1"), "192.0.2.1".parse().unwrap());
    for stranger in 0..299 {
        lock(&admission.limiter).failed(ip, &stranger.to_string(), Instant::now());
    }
    assert_eq!(come(&admission, &home, "alice", "wrong").now_or_never(), None);
    drop(closed);
    let counted = async {
        while lock(&admission.limiter).check_site(ip, Instant::now()).is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), counted).await.expect("it counts");
}
