//! TCP clients that must not notice a move: each sends blocks over one connection to
//! a counter's echo (`--echo PORT`), and checks every byte that comes back.
//!
//!     dial ADDRESS:PORT [--connections 1] [--pause-ms 2] [--reconnect MS]
//!                          says `answered` at the first reply. Asked to end (SIGTERM,
//!                          SIGINT) it asks once more, so that a connection that died
//!                          unseen is seen, prints its report as JSON, and fails if a
//!                          connection was lost or a byte wrong
//!     dial ADDRESS:PORT --bulk
//!                          sends without waiting, 64 KiB a block
//!     dial ADDRESS:PORT --pour
//!                          the same to a counter that sends nothing back (`--drain`)
//!
//! With `--reconnect` a client gives a connection up that is silent for so long, makes
//! another and goes on; its gap lasts until that one is answered.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use tick::{end_on_signals, is_ending, monotonic_ns};

#[allow(dead_code, reason = "each program speaks one half of it")]
mod tick;

const BLOCK_BYTES: usize = 256;
const BULK_BYTES: usize = 64 << 10;
/// A connection that is silent for so long is lost.
const LOST_NS: u64 = 60_000_000_000;
/// How long a client that is asked to end goes on to look for another connection.
const FAREWELL_NS: u64 = 2_000_000_000;
/// How soon silence is noticed.
const NOTICE: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, PartialEq)]
enum Load {
    Ask,
    Bulk,
    Pour,
}

#[derive(Clone, Copy)]
struct Options {
    to: SocketAddr,
    connections: usize,
    /// Between a reply and the next block.
    pause: Duration,
    reconnect: Option<Duration>,
    load: Load,
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> std::result::Result<Self, String> {
        let to = arguments.next().ok_or("give it ADDRESS:PORT")?;
        let to = to.to_socket_addrs().ok().and_then(|mut all| all.next());
        let to = to.ok_or("ADDRESS:PORT is no address")?;
        let pause = Duration::from_millis(2);
        let mut options = Self { to, connections: 1, pause, reconnect: None, load: Load::Ask };
        while let Some(name) = arguments.next() {
            let mut number = || {
                let value = arguments.next().and_then(|value| value.parse().ok());
                value.ok_or_else(|| format!("{name} wants a number"))
            };
            match name.as_str() {
                "--connections" => options.connections = number()? as usize,
                "--pause-ms" => options.pause = Duration::from_millis(number()?),
                "--reconnect" => options.reconnect = Some(Duration::from_millis(number()?.max(1))),
                "--bulk" => options.load = Load::Bulk,
                "--pour" => options.load = Load::Pour,
                _ => return Err(format!("unknown option {name}")),
            }
        }
        Ok(options)
    }
}

#[derive(Default)]
struct Report {
    connections: u64,
    connections_lost: u64,
    replies: u64,
    wrong: u64,
    wrong_bytes: u64,
    /// Of replies; where there are none, of what was sent.
    bytes: u64,
    longest_gap_ns: u64,
    last_reply_ns: u64,
    /// Of each reply, since its block was sent.
    round_trips_ns: Vec<u64>,
    lost: Option<String>,
}

impl Report {
    fn arrived(&mut self, sent: &[u8], reply: &[u8]) {
        if self.replies == 0 {
            eprintln!("answered");
        }
        let wrong = sent.iter().zip(reply).filter(|(sent, reply)| sent != reply).count();
        self.replies += 1;
        self.bytes += reply.len() as u64;
        self.wrong += u64::from(wrong > 0);
        self.wrong_bytes += wrong as u64;
    }

    fn note_gap(&mut self) {
        let now_ns = monotonic_ns();
        self.longest_gap_ns = self.longest_gap_ns.max(now_ns - self.last_reply_ns);
        self.last_reply_ns = now_ns;
    }

    fn lose(&mut self, error: &Error) {
        self.connections_lost = 1;
        self.lost.get_or_insert(error.to_string());
    }

    fn add(&mut self, mut other: Self) {
        self.connections += other.connections;
        self.connections_lost += other.connections_lost;
        self.replies += other.replies;
        self.wrong += other.wrong;
        self.wrong_bytes += other.wrong_bytes;
        self.bytes += other.bytes;
        self.longest_gap_ns = self.longest_gap_ns.max(other.longest_gap_ns);
        self.round_trips_ns.append(&mut other.round_trips_ns);
        self.lost = self.lost.take().or(other.lost);
    }

    fn json(&mut self, took_ns: u64) -> String {
        let ms = |ns: u64| ns as f64 / 1e6;
        self.round_trips_ns.sort_unstable();
        let percentile = |percent: usize| {
            let all = &self.round_trips_ns;
            ms(all.get(all.len() * percent / 100).copied().unwrap_or_default())
        };
        let (p50, p99) = (percentile(50), percentile(99));
        let lost = self.lost.as_ref().map_or("null".to_owned(), |why| format!("{why:?}"));
        format!(
            "{{\"replies\":{},\"wrong\":{},\"wrong_bytes\":{},\"longest_gap_ms\":{:.2},\"p50_ms\":{p50:.3},\
             \"p99_ms\":{p99:.3},\"bytes\":{},\"mb_per_s\":{:.1},\"connections\":{},\
             \"connections_lost\":{},\"lost\":{lost}}}",
            self.replies,
            self.wrong,
            self.wrong_bytes,
            ms(self.longest_gap_ns),
            self.bytes,
            self.bytes as f64 * 1e3 / took_ns.max(1) as f64,
            self.connections,
            self.connections_lost,
        )
    }
}

/// Fills a block with what the block with that number holds.
fn fill(block: &mut [u8], number: u64) {
    for (place, word) in block.chunks_exact_mut(8).zip(0_u64..) {
        let word = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(word as u32) ^ word;
        place.copy_from_slice(&word.to_be_bytes());
    }
}

/// Was this process asked to end so long ago that it does not come again?
fn is_over() -> bool {
    static SINCE_NS: AtomicU64 = AtomicU64::new(0);
    if !is_ending() {
        return false;
    }
    let now_ns = monotonic_ns();
    let since_ns = SINCE_NS.compare_exchange(0, now_ns, Relaxed, Relaxed).unwrap_or_else(|it| it);
    since_ns != 0 && now_ns - since_ns > FAREWELL_NS
}

/// Reads a whole block.
fn read_block(peer: &mut TcpStream, into: &mut [u8], lost_ns: u64) -> Result<()> {
    let (mut have, since) = (0, monotonic_ns());
    while have < into.len() {
        match peer.read(&mut into[have..]) {
            Ok(0) => return Err(Error::other("the other end closed it")),
            Ok(read) => have += read,
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                if monotonic_ns() - since > lost_ns {
                    return Err(ErrorKind::TimedOut.into());
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn connect(options: &Options) -> Result<TcpStream> {
    let peer = match options.reconnect {
        None => TcpStream::connect(options.to)?,
        Some(patience) => TcpStream::connect_timeout(&options.to, patience)?,
    };
    peer.set_nodelay(true)?;
    peer.set_read_timeout(Some(options.reconnect.unwrap_or(NOTICE).min(NOTICE)))?;
    Ok(peer)
}

/// Asks over one connection until this process ends.
fn ask(peer: &mut TcpStream, options: &Options, report: &mut Report) -> Result<()> {
    let lost_ns = options.reconnect.map_or(LOST_NS, |patience| patience.as_nanos() as u64);
    let (mut sent, mut reply) = ([0; BLOCK_BYTES], [0; BLOCK_BYTES]);
    loop {
        let is_last = is_ending();
        fill(&mut sent, report.replies);
        let sent_ns = monotonic_ns();
        peer.write_all(&sent)?;
        let read = read_block(peer, &mut reply, lost_ns);
        // A block that nobody answers is a gap too, as long as it was waited for: with
        // another connection to come it ends with that.
        if read.is_ok() || options.reconnect.is_none() {
            report.note_gap();
        }
        read?;
        report.round_trips_ns.push(monotonic_ns() - sent_ns);
        report.arrived(&sent, &reply);
        if is_last {
            return Ok(());
        }
        thread::sleep(options.pause);
    }
}

/// Sends all the time, and reads all that comes back.
fn bulk(peer: &mut TcpStream, report: &mut Report) -> Result<()> {
    let mut out = peer.try_clone()?;
    out.set_write_timeout(Some(Duration::from_nanos(LOST_NS)))?;
    let sending = thread::spawn(move || {
        let mut block = vec![0; BULK_BYTES];
        for number in 0.. {
            if is_ending() {
                out.shutdown(Shutdown::Write)?;
                return Ok(number);
            }
            fill(&mut block, number);
            out.write_all(&block)?;
        }
        unreachable!("nobody counts so far")
    });
    let (mut due, mut reply) = (vec![0; BULK_BYTES], vec![0; BULK_BYTES]);
    // The echo has an end where what was sent has one.
    let end = loop {
        let read = read_block(peer, &mut reply, LOST_NS);
        report.note_gap();
        if let Err(error) = read {
            break error;
        }
        fill(&mut due, report.replies);
        report.arrived(&due, &reply);
    };
    // Or the other thread waits for room that nobody makes.
    let _ = peer.shutdown(Shutdown::Both);
    match sending.join() {
        Ok(Ok(sent)) if sent == report.replies => Ok(()),
        Ok(Err(error)) => Err(error),
        _ => Err(end),
    }
}

/// Sends all the time, to somebody who does not answer.
fn pour(peer: &mut TcpStream, report: &mut Report) -> Result<()> {
    let mut block = vec![0; BULK_BYTES];
    fill(&mut block, 1);
    while !is_ending() {
        peer.write_all(&block)?;
        report.bytes += block.len() as u64;
    }
    Ok(())
}

/// One client, from its first connection to its end.
fn talk(options: &Options) -> Report {
    let mut report = Report { connections: 1, last_reply_ns: monotonic_ns(), ..Report::default() };
    loop {
        let outcome = connect(options).and_then(|mut peer| match options.load {
            Load::Ask => ask(&mut peer, options, &mut report),
            Load::Bulk => bulk(&mut peer, &mut report),
            Load::Pour => pour(&mut peer, &mut report),
        });
        let Err(error) = outcome else { return report };
        report.lose(&error);
        if options.reconnect.is_none() {
            return report;
        }
        if is_over() {
            report.note_gap();
            return report;
        }
        // A refusal comes at once; there is no use in asking again as fast.
        thread::sleep(Duration::from_millis(5));
    }
}

fn main() -> std::process::ExitCode {
    end_on_signals();
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("dial: {error}");
            return std::process::ExitCode::FAILURE;
        }
    };
    let begun_ns = monotonic_ns();
    let mut report = Report::default();
    let clients: Vec<_> =
        (0..options.connections).map(|_| thread::spawn(move || talk(&options))).collect();
    for client in clients {
        match client.join() {
            Ok(one) => report.add(one),
            Err(_) => report.lost = Some("a client panicked".to_owned()),
        }
    }
    println!("{}", report.json(monotonic_ns() - begun_ns));
    match report.lost.is_none() && report.wrong == 0 {
        true => std::process::ExitCode::SUCCESS,
        false => std::process::ExitCode::FAILURE,
    }
}
