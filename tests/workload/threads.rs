//! A server with threads: a line with a number goes to each of them; each keeps a state of its
//! own that follows from all numbers so far. The answer is a line with all states.
//!
//!     threads PORT

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::mpsc;
use std::thread;

const THREADS: u64 = 4;
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// A number for a thread, and where its answer goes.
type Question = (u64, mpsc::Sender<u64>);

fn keep(mut state: u64) -> mpsc::Sender<Question> {
    let (ask, questions) = mpsc::channel::<Question>();
    thread::spawn(move || {
        for (number, answer) in questions {
            state = state.wrapping_mul(FACTOR).wrapping_add(number);
            let _gone = answer.send(state);
        }
    });
    ask
}

fn answer(number: u64, keepers: &[mpsc::Sender<Question>]) -> std::io::Result<String> {
    let ask = |keeper: &mpsc::Sender<Question>| {
        let (answer, state) = mpsc::channel();
        keeper.send((number, answer)).ok().map(|()| state)
    };
    // All are asked before the first is waited for.
    let asked: Option<Vec<_>> = keepers.iter().map(ask).collect();
    let states = asked.and_then(|all| all.iter().map(|state| state.recv().ok()).collect());
    let states: Vec<u64> = states.ok_or_else(|| std::io::Error::other("a thread has ended"))?;
    Ok(states.iter().map(u64::to_string).collect::<Vec<_>>().join(" "))
}

fn main() -> std::io::Result<()> {
    let port = std::env::args().nth(1).and_then(|port| port.parse().ok()).unwrap_or(7000);
    let keepers: Vec<_> = (0..THREADS).map(keep).collect();
    for peer in TcpListener::bind(("0.0.0.0", port))?.incoming() {
        let mut peer = peer?;
        for line in BufReader::new(peer.try_clone()?).lines() {
            let number = line?.parse().map_err(std::io::Error::other)?;
            peer.write_all(format!("{}\n", answer(number, &keepers)?).as_bytes())?;
        }
    }
    Ok(())
}
