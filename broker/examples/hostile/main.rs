//! `scripts/hostile`: a broker against clients that nobody controls.
//!
//! `siege` sends sequences of malformed, truncated, reordered and oversized packets from many
//! connections at once; `churn` has many clients come and go. Without `--address` both start a broker
//! of their own, whose memory and sessions are looked at as well.

mod churn;
mod siege;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::{Args, Parser};

use crate::siege::attack::{Plan, Tally, attack};
use crate::siege::bystander::{Bystanders, Seen};
use crate::siege::subject::{PREFIX, Subject, account};
use crate::siege::words::Account;

/// A broker against clients that nobody controls.
#[derive(Debug, Parser)]
enum Command {
    /// Sequences of packets that make no sense, beside two clients that mean no harm.
    Siege(Siege),
    /// Clients that come, and go in every manner.
    Churn(Churn),
}

#[derive(Debug, Args)]
struct Siege {
    #[arg(long, default_value_t = 1_000_000)]
    sequences: u64,
    #[arg(long, default_value_t = 50)]
    connections: u64,
    /// It ends then, however many sequences there were.
    #[arg(long)]
    minutes: Option<f64>,
    /// How long a bystander's message may take.
    #[arg(long, default_value_t = 1000)]
    patience_ms: u64,
    /// All sequences follow from it; a new one unless told.
    #[arg(long)]
    seed: Option<u64>,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
struct Churn {
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// How many clients there are.
    #[arg(long, default_value_t = 10_000)]
    connections: u64,
    /// The `godwit-broker` to start.
    #[arg(long)]
    broker: PathBuf,
}

#[derive(Debug, Args)]
struct Target {
    /// The `godwit-broker` to start.
    #[arg(long, required_unless_present = "address")]
    broker: Option<PathBuf>,
    /// A broker that runs already, and is neither started nor looked into.
    #[arg(long, conflicts_with = "broker")]
    address: Option<SocketAddr>,
    /// There: an account that may publish and subscribe below the prefix.
    #[arg(long, requires = "password")]
    user: Option<String>,
    #[arg(long)]
    password: Option<String>,
    /// Topics begin with it.
    #[arg(long, default_value = PREFIX)]
    prefix: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let work = async {
        match Command::parse() {
            Command::Siege(args) => besiege(args).await,
            Command::Churn(args) => churn::churn(&args).await,
        }
    };
    tokio::select! {
        done = work => done,
        // The broker goes with it.
        _ = tokio::signal::ctrl_c() => anyhow::bail!("cut short"),
    }
}

async fn besiege(args: Siege) -> anyhow::Result<()> {
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
    say(&format!("seed {seed}"));
    let patience = Duration::from_millis(args.patience_ms);
    let until =
        || args.minutes.map(|minutes| Instant::now() + Duration::from_secs_f64(60.0 * minutes));
    let Target { broker, address, user, password, prefix } = args.target;
    let plan = |address, account| Plan {
        address,
        seed,
        sequences: args.sequences,
        connections: args.connections,
        prefix: prefix.clone(),
        account,
        until: until(),
    };
    if let Some(address) = address {
        let account = user.zip(password).map(|(user, password)| Account { user, password });
        let bystanders = Bystanders::start(address, &prefix, seed, account.as_ref()).await;
        let (tally, took) = timed(attack(&plan(address, account))).await;
        let seen = bystanders.finish().await;
        report(&tally, &seen, took);
        return judge(&tally, &seen, patience);
    }
    let program = broker.context("--broker or --address")?;
    let mut subject = Subject::start(&program, 10_000).await?;
    let plan = plan(subject.address, Some(account("hostile")));
    // What a broker takes that has seen everything once.
    attack(&Plan { seed: !seed, sequences: args.sequences / 10, ..plan.clone() }).await;
    let bystanders =
        Bystanders::start(subject.address, &prefix, seed, Some(&account("bystander"))).await;
    subject.settle(2, 1).await?;
    let before = subject.usage()?;
    let plan = Plan { until: until(), ..plan };
    let (tally, took) = timed(attack(&plan)).await;
    let peak = subject.usage()?;
    let settled = subject.settle(2, 1).await;
    let after = subject.rests(before).await;
    let seen = bystanders.finish().await;
    report(&tally, &seen, took);
    row("rss before, at the end, after (MB)", &{
        let after = after.as_ref().map_or(f64::NAN, |usage| usage.rss_mb);
        format!("{:.1}  {:.1}  {after:.1}", before.rss_mb, peak.rss_mb)
    });
    let received_mb = subject.received_bytes().await.map_or(0, |bytes| bytes >> 20);
    row("read by the broker (MB)", &received_mb.to_string());
    let alarms = subject.alarms();
    row("left of the hostile", settled.as_ref().map_or("something", |()| "nothing"));
    row("errors in the broker's log", &alarms.len().to_string());
    ensure!(subject.is_alive(), "the broker died: {alarms:?}");
    ensure!(!alarms.iter().any(|line| line.contains("panicked")), "it panicked: {alarms:?}");
    settled?;
    after?;
    judge(&tally, &seen, patience)
}

async fn timed<T>(future: impl Future<Output = T>) -> (T, Duration) {
    let since = Instant::now();
    (future.await, since.elapsed())
}

fn judge(tally: &Tally, seen: &Seen, patience: Duration) -> anyhow::Result<()> {
    let number = tally.last_ignored.load(Relaxed);
    ensure!(tally.ignored.load(Relaxed) == 0, "no answer to sequence {number}");
    ensure!(tally.unreachable.load(Relaxed) == 0, "it could not be connected to");
    ensure!(seen.lost == 0 && seen.doubled == 0 && seen.cut == 0, "the bystanders suffered");
    ensure!(seen.longest_delay <= patience, "the bystanders waited too long");
    Ok(())
}

fn report(tally: &Tally, seen: &Seen, took: Duration) {
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Relaxed).to_string();
    row("sequences", &count(&tally.sequences));
    row("  after an accepted CONNECT", &count(&tally.inside));
    row("  taken to their end", &count(&tally.answered));
    row("  cut by the broker", &count(&tally.cut));
    row("  incomplete, or not read", &count(&tally.unknown));
    row("  answer due that never came", &count(&tally.ignored));
    row("connections", &count(&tally.connections));
    row("  refused by CONNACK", &count(&tally.refused));
    row("seconds", &format!("{:.0}", took.as_secs_f64()));
    row("bystander: messages", &seen.sent.to_string());
    row("  lost", &seen.lost.to_string());
    row("  doubled", &seen.doubled.to_string());
    row("  connections lost", &seen.cut.to_string());
    row("  longest delay (ms)", &format!("{:.1}", seen.longest_delay.as_secs_f64() * 1e3));
}

fn row(name: &str, value: &str) {
    say(&format!("{name:<36}{value:>12}"));
}

#[expect(clippy::print_stdout, reason = "what it is for")]
fn say(line: &str) {
    println!("{line}");
}
