//! A TCP client that must not notice a move: it sends blocks over one connection to
//! a counter's echo (`--echo PORT`), and checks every byte that comes back.
//!
//!     dial ADDRESS:PORT    prints `answered` after the first reply. When it is to end
//!                          (SIGTERM, SIGINT) it asks once more, so that a connection
//!                          that died unseen is seen, prints its report as JSON, and
//!                          fails if the connection was lost or a byte wrong

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use tick::{end_on_signals, is_ending, monotonic_ns};

#[allow(dead_code, reason = "each program speaks one half of it")]
mod tick;

const BLOCK_BYTES: usize = 256;
/// Between a reply and the next block.
const PAUSE: Duration = Duration::from_millis(2);
/// A connection that is silent for so long is lost.
const LOST_NS: u64 = 60_000_000_000;

#[derive(Default)]
struct Report {
    replies: u64,
    wrong: u64,
    longest_gap_ns: u64,
    lost: Option<String>,
}

impl Report {
    fn json(&self) -> String {
        let lost = self.lost.as_ref().map_or("null".to_owned(), |why| format!("{why:?}"));
        format!(
            "{{\"replies\":{},\"wrong\":{},\"longest_gap_ms\":{:.2},\"lost\":{lost}}}",
            self.replies,
            self.wrong,
            self.longest_gap_ns as f64 / 1e6
        )
    }
}

/// What the block with that number holds.
fn block(number: u64) -> [u8; BLOCK_BYTES] {
    let mut block = [0; BLOCK_BYTES];
    for (place, word) in block.chunks_exact_mut(8).zip(0_u64..) {
        let word = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(word as u32) ^ word;
        place.copy_from_slice(&word.to_be_bytes());
    }
    block
}

/// Reads a whole block.
fn read_block(peer: &mut TcpStream, into: &mut [u8]) -> std::io::Result<()> {
    let (mut have, since) = (0, monotonic_ns());
    while have < into.len() {
        match peer.read(&mut into[have..]) {
            Ok(0) => return Err(std::io::Error::other("the other end closed it")),
            Ok(read) => have += read,
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                if monotonic_ns() - since > LOST_NS {
                    return Err(ErrorKind::TimedOut.into());
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn talk(address: &str, report: &mut Report) -> std::io::Result<()> {
    let mut peer = TcpStream::connect(address)?;
    peer.set_nodelay(true)?;
    // How soon silence is noticed.
    peer.set_read_timeout(Some(Duration::from_millis(100)))?;
    let mut last_ns = monotonic_ns();
    let mut is_last = false;
    while !is_last {
        is_last = is_ending();
        let sent = block(report.replies);
        peer.write_all(&sent)?;
        let mut reply = [0; BLOCK_BYTES];
        let read = read_block(&mut peer, &mut reply);
        let now_ns = monotonic_ns();
        // A block that nobody answers is a gap too, as long as it was waited for.
        report.longest_gap_ns = report.longest_gap_ns.max(now_ns - last_ns);
        last_ns = now_ns;
        read?;
        report.replies += 1;
        if report.replies == 1 {
            println!("answered");
        }
        report.wrong += u64::from(reply != sent);
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

fn main() -> std::process::ExitCode {
    end_on_signals();
    let Some(address) = std::env::args().nth(1) else {
        eprintln!("dial: give it ADDRESS:PORT");
        return std::process::ExitCode::FAILURE;
    };
    let mut report = Report::default();
    if let Err(error) = talk(&address, &mut report) {
        report.lost = Some(error.to_string());
    }
    println!("{}", report.json());
    match report.lost.is_none() && report.wrong == 0 {
        true => std::process::ExitCode::SUCCESS,
        false => std::process::ExitCode::FAILURE,
    }
}
