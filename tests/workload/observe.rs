//! Watches counters from outside: receives their ticks by UDP and keeps the books
//! that decide whether a move lost or doubled anything, and how long it took.
//!
//!     observe [--listen 0.0.0.0:7007]    prints its report as JSON when it ends
//!                                        (SIGTERM, SIGINT); also answers with it
//!                                        to a datagram `report`
//!     observe --ask ADDRESS:PORT         asks a running one and prints the report

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::time::Duration;

use tick::{Tick, end_on_signals, instance_name, is_ending, monotonic_ns, realtime_ns};

#[allow(dead_code, reason = "each program speaks one half of it")]
mod tick;

const GAP_NS: u64 = 30_000_000;
const RECEIVE_BUFFER_BYTES: i32 = 16 << 20;
/// A tick above this is no tick: the books would not fit (60 days of 5 ms ticks).
const LAST_NUMBER: u64 = 1 << 30;
/// The report is one datagram: it lists this many gaps and numbers, and counts all.
const LISTED: usize = 200;

/// No tick arrived for a while.
#[derive(Debug, PartialEq)]
struct Gap {
    after_tick: u64,
    start_unix_ns: u64,
    length_ns: u64,
}

/// The books of one instance.
#[derive(Default)]
struct Book {
    first: u64,
    last: u64,
    /// Datagrams received.
    count: u64,
    /// One bit a number: seen.
    seen: Vec<u64>,
    distinct: u64,
    doubled: Vec<u64>,
    gaps: Vec<Gap>,
    /// Arrival of the latest datagram: number, `CLOCK_MONOTONIC` here, unix time.
    latest: Option<(u64, u64, u64)>,
    monotonic_ns: u64,
    monotonic_jumps_back: u64,
    corrupt_pages: u64,
}

impl Book {
    fn enter(&mut self, tick: &Tick, arrived_ns: u64, arrived_unix_ns: u64) {
        let (word, bit) = ((tick.number / 64) as usize, 1 << (tick.number % 64));
        if self.seen.len() <= word {
            self.seen.resize(word + 1, 0);
        }
        if self.seen[word] & bit != 0 {
            self.doubled.push(tick.number);
        } else {
            self.distinct += 1;
        }
        self.seen[word] |= bit;
        self.first = if self.count == 0 { tick.number } else { self.first.min(tick.number) };
        self.count += 1;
        self.corrupt_pages = self.corrupt_pages.max(tick.corrupt_pages);
        if let Some((after_tick, ns, start_unix_ns)) = self.latest
            && arrived_ns - ns > GAP_NS
        {
            self.gaps.push(Gap { after_tick, start_unix_ns, length_ns: arrived_ns - ns });
        }
        self.latest = Some((tick.number, arrived_ns, arrived_unix_ns));
        // Only the newest tick can tell of a clock: datagrams may overtake each other.
        if tick.number > self.last {
            if tick.monotonic_ns < self.monotonic_ns {
                self.monotonic_jumps_back += 1;
            }
            self.monotonic_ns = tick.monotonic_ns;
            self.last = tick.number;
        }
    }

    /// How many numbers between the first and the last were never seen.
    fn missing(&self) -> u64 {
        if self.count == 0 { 0 } else { self.last - self.first + 1 - self.distinct }
    }

    fn missing_numbers(&self) -> impl Iterator<Item = u64> {
        let is_seen = |number: u64| self.seen[(number / 64) as usize] >> (number % 64) & 1 == 1;
        (self.first..=self.last).filter(move |number| !is_seen(*number))
    }

    fn json(&self, instance: &[u8; 16]) -> String {
        let ms = |ns: u64| format!("{:.3}", ns as f64 / 1e6);
        let list = |numbers: &mut dyn Iterator<Item = u64>| {
            numbers.take(LISTED).map(|n| n.to_string()).collect::<Vec<_>>().join(",")
        };
        let gap = |gap: &Gap| {
            let end_unix_ns = gap.start_unix_ns + gap.length_ns;
            format!(
                "{{\"after_tick\":{},\"start_unix_ms\":{},\"end_unix_ms\":{},\"length_ms\":{}}}",
                gap.after_tick,
                ms(gap.start_unix_ns),
                ms(end_unix_ns),
                ms(gap.length_ns)
            )
        };
        format!(
            "{{\"instance\":\"{}\",\"first\":{},\"last\":{},\"count\":{},\"missing\":{},\"doubled\":{},\
             \"corrupt_pages\":{},\"monotonic_jumps_back\":{},\"gap_count\":{},\"longest_gap_ms\":{},\
             \"missing_ticks\":[{}],\"doubled_ticks\":[{}],\"gaps\":[{}]}}",
            instance_name(instance),
            self.first,
            self.last,
            self.count,
            self.missing(),
            self.doubled.len(),
            self.corrupt_pages,
            self.monotonic_jumps_back,
            self.gaps.len(),
            ms(self.gaps.iter().map(|gap| gap.length_ns).max().unwrap_or(0)),
            list(&mut self.missing_numbers()),
            list(&mut self.doubled.iter().copied()),
            self.gaps.iter().take(LISTED).map(gap).collect::<Vec<_>>().join(",")
        )
    }
}

#[derive(Default)]
struct Observer {
    books: BTreeMap<[u8; 16], Book>,
    malformed: u64,
}

impl Observer {
    fn receive(&mut self, datagram: &[u8]) {
        match Tick::decode(datagram).filter(|tick| tick.number <= LAST_NUMBER) {
            Some(tick) => self.books.entry(tick.instance).or_default().enter(
                &tick,
                monotonic_ns(),
                realtime_ns(),
            ),
            None => self.malformed += 1,
        }
    }

    fn json(&self) -> String {
        let books: Vec<_> = self.books.iter().map(|(instance, book)| book.json(instance)).collect();
        format!("{{\"instances\":[{}],\"malformed\":{}}}", books.join(","), self.malformed)
    }
}

unsafe extern "C" {
    fn setsockopt(socket: i32, level: i32, option: i32, value: *const i32, length: u32) -> i32;
}

/// Asks for room for the ticks that arrive while this process waits for a core.
fn widen(socket: &UdpSocket) {
    const SOL_SOCKET: i32 = 1;
    const SO_RCVBUF: i32 = 8;
    const SO_RCVBUFFORCE: i32 = 33;
    for option in [SO_RCVBUF, SO_RCVBUFFORCE] {
        // SAFETY: the value outlives the call, and its length is told truly.
        unsafe { setsockopt(socket.as_raw_fd(), SOL_SOCKET, option, &RECEIVE_BUFFER_BYTES, 4) };
    }
}

fn listen(address: &str) -> std::io::Result<()> {
    end_on_signals();
    let socket = UdpSocket::bind(address)?;
    widen(&socket);
    // How soon a signal is noticed.
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let mut observer = Observer::default();
    let mut datagram = [0; 2048];
    while !is_ending() {
        match socket.recv_from(&mut datagram) {
            Ok((length, asker)) if datagram[..length].trim_ascii_end() == b"report" => {
                let report = observer.json();
                if socket.send_to(report.as_bytes(), asker).is_err() {
                    let _ = socket.send_to(b"{\"error\":\"the report does not fit a datagram: end the observer to get it\"}", asker);
                }
            }
            Ok((length, _)) => observer.receive(&datagram[..length]),
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                ) => {}
            Err(error) => return Err(error),
        }
    }
    println!("{}", observer.json());
    Ok(())
}

fn ask(address: &str) -> std::io::Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    socket.send(b"report")?;
    let mut report = vec![0; 1 << 16];
    let length = socket.recv(&mut report)?;
    println!("{}", String::from_utf8_lossy(&report[..length]));
    Ok(())
}

fn main() -> std::process::ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => listen("0.0.0.0:7007"),
        ["--listen", address] => listen(address),
        ["--ask", address] => ask(address),
        _ => Err(std::io::Error::other(
            "usage: observe [--listen ADDRESS:PORT | --ask ADDRESS:PORT]",
        )),
    };
    match outcome {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("observe: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn book_of(ticks: impl IntoIterator<Item = (u64, u64)>) -> Book {
        let mut book = Book::default();
        for (number, arrived_ms) in ticks {
            let ns = arrived_ms * 1_000_000;
            let tick = Tick {
                instance: [7; 16],
                number,
                realtime_ns: ns,
                monotonic_ns: number,
                corrupt_pages: 0,
            };
            book.enter(&tick, ns, ns);
        }
        book
    }

    #[test]
    fn a_tick_survives_its_datagram() {
        let tick = Tick {
            instance: [9; 16],
            number: 3,
            realtime_ns: 5,
            monotonic_ns: 7,
            corrupt_pages: 11,
        };
        assert_eq!(Tick::decode(&tick.encode()), Some(tick));
        assert_eq!(Tick::decode(b"report"), None);
    }

    #[test]
    fn overtaking_ticks_are_neither_missing_nor_doubled() {
        let book = book_of([(11, 0), (10, 1), (13, 2), (12, 3)]);
        assert_eq!((book.first, book.last, book.missing(), book.doubled.len()), (10, 13, 0, 0));
        assert_eq!(book.monotonic_jumps_back, 0);
    }

    #[test]
    fn a_number_never_seen_is_missing_and_one_seen_twice_is_doubled() {
        let book = book_of([(1, 0), (2, 5), (4, 10), (2, 15)]);
        assert_eq!(book.missing_numbers().collect::<Vec<_>>(), [3]);
        assert_eq!((book.missing(), &book.doubled[..]), (1, &[2][..]));
    }

    #[test]
    fn only_a_silence_above_the_limit_is_a_gap() {
        let book = book_of([(1, 0), (2, 30), (3, 61)]);
        assert_eq!(
            book.gaps,
            [Gap { after_tick: 2, start_unix_ns: 30_000_000, length_ns: 31_000_000 }]
        );
    }
}
