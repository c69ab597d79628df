//! The demo's workload: a counter that only ever goes up, over memory that is
//! alive and knows its content. Whoever moves it can be held to account: a tick
//! lost, a tick told twice, a page that is not what was last written all show.
//!
//!     counter [--memory-mb 64] [--tick-ms 5] [--report ADDRESS:PORT] [--echo PORT] [--drain PORT]
//!
//! Each tick checks one page, writes it anew and, if asked, reports itself by UDP
//! (to observe.rs; a report that cannot be sent is counted and forgotten). stdout
//! gets a line a second, and one for each gap over 30 ms between two ticks. With an
//! echo port it sends back what TCP clients send (dial.rs), at a drain it throws that away.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use tick::{Tick, end_on_signals, instance_name, is_ending, monotonic_ns, realtime_ns};

#[allow(dead_code, reason = "each program speaks one half of it")]
mod tick;

const GAP_NS: u64 = 30_000_000;
const WORDS: usize = 512; // of 8 bytes: one page

struct Config {
    memory_mb: usize,
    tick: Duration,
    report: Option<SocketAddr>,
    echo: Option<u16>,
    drain: Option<u16>,
}

impl Config {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let tick = Duration::from_millis(5);
        let mut config = Self { memory_mb: 64, tick, report: None, echo: None, drain: None };
        while let Some(name) = arguments.next() {
            let value = arguments.next().ok_or_else(|| format!("{name} wants a value"))?;
            let wrong = |_| format!("{name} does not take {value:?}");
            match name.as_str() {
                "--memory-mb" => {
                    config.memory_mb = value.parse::<usize>().map_err(|_| wrong(()))?.max(1)
                }
                "--tick-ms" => {
                    config.tick = Duration::from_millis(value.parse().map_err(|_| wrong(()))?)
                }
                "--report" => config.report = Some(value.parse().map_err(|_| wrong(()))?),
                "--echo" => config.echo = Some(value.parse().map_err(|_| wrong(()))?),
                "--drain" => config.drain = Some(value.parse().map_err(|_| wrong(()))?),
                _ => {
                    return Err(format!(
                        "unknown option {name}; known: --memory-mb, --tick-ms, --report, --echo, --drain"
                    ));
                }
            }
        }
        Ok(config)
    }
}

/// Live memory. What a page must hold follows from its place and from how often it
/// was written, and that follows from the number of ticks: a page brought back from
/// an earlier moment is found out as surely as a torn one.
struct Memory {
    words: Vec<u64>,
    written: u64,
}

impl Memory {
    fn new(megabytes: usize) -> Self {
        let mut memory = Self { words: vec![0; megabytes * (1 << 20) / 8], written: 0 };
        for page in 0..memory.pages() {
            memory.fill(page, 0);
        }
        memory
    }

    fn pages(&self) -> usize {
        self.words.len() / WORDS
    }

    /// The content of a page in its `generation`: for odd pages noise that no
    /// compressor can shrink, for even ones a repeating pattern.
    fn content(page: usize, generation: u64) -> impl Iterator<Item = u64> {
        let seed = (page as u64) << 32 | generation & 0xffff_ffff;
        (0..WORDS as u64).map(move |word| {
            if page % 2 == 1 { mix(seed.wrapping_mul(WORDS as u64) + word) } else { seed }
        })
    }

    fn page(&mut self, page: usize) -> &mut [u64] {
        &mut self.words[page * WORDS..][..WORDS]
    }

    fn fill(&mut self, page: usize, generation: u64) {
        for (place, word) in self.page(page).iter_mut().zip(Self::content(page, generation)) {
            *place = word;
        }
    }

    /// Checks the next page of the walk and writes it anew. Returns its number if
    /// it held something else than what was last written there.
    fn walk(&mut self) -> Option<usize> {
        let pages = self.pages() as u64;
        let (page, generation) = ((self.written % pages) as usize, self.written / pages);
        let is_intact = self.page(page).iter().copied().eq(Self::content(page, generation));
        self.fill(page, generation + 1);
        self.written += 1;
        (!is_intact).then_some(page)
    }
}

/// The finisher of splitmix64: as good as noise to a compressor.
fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}

fn random_instance() -> std::io::Result<[u8; 16]> {
    let mut instance = [0; 16];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut instance)?;
    Ok(instance)
}

/// When the tick after the one due at `due_ns` is due. Ticks keep their rate, but
/// neither catch up after a standstill nor wait out a clock that was set back.
fn next_due(due_ns: u64, now_ns: u64, tick_ns: u64) -> u64 {
    let next = due_ns + tick_ns;
    if next.abs_diff(now_ns) > 2 * tick_ns { now_ns + tick_ns } else { next }
}

/// A line that nobody can read any more is no reason to stop counting.
fn say(line: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Takes TCP clients, each on a thread of its own.
fn listen(port: u16, serve: fn(TcpStream) -> std::io::Result<()>) -> std::io::Result<()> {
    // Of both families, where the kernel has both.
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
        .or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))?;
    std::thread::spawn(move || {
        for peer in listener.incoming().flatten() {
            std::thread::spawn(move || serve(peer));
        }
    });
    Ok(())
}

fn send_back(mut peer: TcpStream) -> std::io::Result<()> {
    peer.set_nodelay(true)?;
    let mut bytes = [0; 64 << 10];
    loop {
        let read = peer.read(&mut bytes)?;
        if read == 0 {
            return Ok(());
        }
        peer.write_all(&bytes[..read])?;
    }
}

fn throw_away(mut peer: TcpStream) -> std::io::Result<()> {
    let mut bytes = [0; 64 << 10];
    while peer.read(&mut bytes)? > 0 {}
    Ok(())
}

fn run(config: &Config) -> std::io::Result<()> {
    end_on_signals();
    config.echo.map_or(Ok(()), |port| listen(port, send_back))?;
    config.drain.map_or(Ok(()), |port| listen(port, throw_away))?;
    let mut memory = Memory::new(config.memory_mb);
    let instance = random_instance()?;
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_nonblocking(true)?;
    say(format_args!("start instance={} memory_mb={}", instance_name(&instance), config.memory_mb));

    let (mut number, mut corrupt_pages, mut unsent) = (0, 0, 0_u64);
    let (mut last_realtime, mut last_monotonic, mut last_line) = (realtime_ns(), monotonic_ns(), 0);
    let mut due_ns = monotonic_ns();
    while !is_ending() {
        due_ns = next_due(due_ns, monotonic_ns(), config.tick.as_nanos() as u64);
        std::thread::sleep(Duration::from_nanos(due_ns.saturating_sub(monotonic_ns())));
        number += 1;
        if let Some(page) = memory.walk() {
            corrupt_pages += 1;
            say(format_args!("corrupt page={page} tick={number}"));
        }
        let now = Tick {
            instance,
            number,
            realtime_ns: realtime_ns(),
            monotonic_ns: monotonic_ns(),
            corrupt_pages,
        };
        if let Some(observer) = config.report
            && socket.send_to(&now.encode(), observer).is_err()
        {
            unsent += 1;
        }
        let gap_ns = now.realtime_ns.saturating_sub(last_realtime);
        if gap_ns > GAP_NS {
            say(format_args!("gap ms={:.1} tick={number}", gap_ns as f64 / 1e6));
        }
        if now.monotonic_ns < last_monotonic {
            let back_ms = (last_monotonic - now.monotonic_ns) as f64 / 1e6;
            say(format_args!("monotonic clock went back ms={back_ms:.1} tick={number}"));
        }
        (last_realtime, last_monotonic) = (now.realtime_ns, now.monotonic_ns);
        if now.realtime_ns.abs_diff(last_line) >= 1_000_000_000 {
            last_line = now.realtime_ns;
            say(format_args!("tick={number} corrupt={corrupt_pages} unsent={unsent}"));
        }
    }
    say(format_args!("end tick={number} corrupt={corrupt_pages} unsent={unsent}"));
    Ok(())
}

fn main() -> std::process::ExitCode {
    let outcome = Config::parse(std::env::args().skip(1))
        .and_then(|config| run(&config).map_err(|error| error.to_string()));
    match outcome {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("counter: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}
