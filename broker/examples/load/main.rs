//! The load of `scripts/bench broker`: clients that cost little, and two subjects to compare with.
//!
//! Packets are written by hand, many at a time, and of what arrives only the head is looked at, so
//! that the broker is what is measured. Publishers have a thread, subscribers another. What is on
//! its way is bounded: a publisher waits for PUBACK or PUBCOMP once its window is full, and for
//! deliveries once too many are due, so that no broker has a reason to drop any. What is lost all
//! the same is printed as `lost`.
//!
//! Every command prints lines of a metric, a tab and a value.

mod beside;
mod client;
mod flow;
mod idle;
mod offline;
mod subjects;
mod wire;

use std::net::SocketAddr;

use clap::Parser;

/// Loads a broker and says how it did.
#[derive(Debug, Parser)]
enum Command {
    /// Publishers to subscribers, as fast as it goes.
    Flow {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        shape: Shape,
    },
    /// The delay of small messages of QoS 1 while such a flow is under way.
    Beside {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        shape: Shape,
    },
    /// What a persistent session that is away takes, and takes back.
    Offline {
        #[command(flatten)]
        target: Target,
        /// How many messages.
        #[arg(long, default_value_t = 50_000)]
        messages: u64,
    },
    /// The broker's memory for connections that do nothing.
    Idle {
        #[command(flatten)]
        target: Target,
        /// How many connections.
        #[arg(long)]
        connections: u32,
        /// The broker's process.
        #[arg(long)]
        pid: u32,
    },
    /// A subject: of each two connections, copies what the second sends to the first.
    Relay {
        /// Where to listen.
        #[arg(long)]
        listen: SocketAddr,
    },
    /// A subject: rumqttd's own server.
    Rumqttd {
        /// Where to listen.
        #[arg(long)]
        listen: SocketAddr,
    },
}

/// Who is loaded, and as whom.
#[derive(Debug, Clone, clap::Args)]
struct Target {
    /// The broker.
    #[arg(long)]
    to: SocketAddr,
    /// An account that may do everything below `bench/`.
    #[arg(long)]
    user: Option<String>,
    /// Its password.
    #[arg(long)]
    password: Option<String>,
    /// It is the relay: no MQTT is spoken, nobody acknowledges.
    #[arg(long)]
    raw: bool,
}

/// What flows.
#[derive(Debug, Clone, clap::Args)]
struct Shape {
    /// QoS of messages and subscriptions.
    #[arg(long, default_value_t = 1)]
    qos: u8,
    #[arg(long, default_value_t = 1)]
    publishers: u32,
    /// Each of them has every message.
    #[arg(long, default_value_t = 1)]
    subscribers: u32,
    /// Of a payload.
    #[arg(long, default_value_t = 64)]
    bytes: usize,
    /// Messages that one publisher has under way.
    #[arg(long, default_value_t = 100)]
    window: u16,
    /// Messages that all publishers together have under way.
    #[arg(long, default_value_t = 1000)]
    most: u64,
    /// Subscribers have persistent sessions.
    #[arg(long)]
    persistent: bool,
    /// How long to measure, after half a second to warm up.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
}

fn main() -> anyhow::Result<()> {
    match Command::parse() {
        Command::Flow { target, shape } => flow::measure(&target, &shape),
        Command::Beside { target, shape } => beside::measure(&target, &shape),
        Command::Offline { target, messages } => offline::measure(&target, messages),
        Command::Idle { target, connections, pid } => idle::measure(&target, connections, pid),
        Command::Relay { listen } => subjects::relay(listen),
        Command::Rumqttd { listen } => subjects::rumqttd(listen),
    }
}

#[expect(clippy::print_stdout, reason = "what it is for")]
fn report(metric: &str, value: f64) {
    println!("{metric}\t{value}");
}
