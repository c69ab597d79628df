//! The agent's command line.

#![expect(unsafe_code, reason = "the allocator is told once, before any thread exists")]

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::config;

/// Godwit's node agent: runs a node's containers and moves them to other nodes.
#[derive(Debug, Parser)]
#[command(name = "godwit-agent", version)]
struct Cli {
    /// How the log looks; RUST_LOG sets how much it says
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent until it is told to stop; containers run on without it
    Run(config::Run),
    /// Make this machine a node of a fabric, by a token of `godwit node token`
    Join(config::Join),
    /// Try by doing whether containers can be moved to and from this node, and say what is missing
    Doctor(config::Run),
}

/// Parses the command line and does what it says. Must be called before any thread exists.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    log(cli.log_format);
    share_one_heap();
    let built = tokio::runtime::Builder::new_multi_thread()
        // Enough for frames and files; hashing and compression have threads of their own.
        .worker_threads(2)
        .enable_all()
        .build();
    let done = built.map_err(anyhow::Error::from).and_then(|runtime| {
        runtime.block_on(async {
            match cli.command {
                Command::Run(run) => serve(run).await,
                Command::Join(join) => become_node(join).await,
                Command::Doctor(run) => crate::doctor::command(run).await,
            }
        })
    });
    done.unwrap_or_else(|error| {
        tracing::error!("{error:#}");
        ExitCode::FAILURE
    })
}

/// Keeps the agent small: glibc gives each thread a heap of its own otherwise, and what
/// fifty moves leave scattered over them is never given back (44 against 22 MB resident
/// after sixty moves of 64 MB).
fn share_one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt only sets a number of the allocator's; no other thread exists yet.
    unsafe {
        nix::libc::mallopt(nix::libc::M_ARENA_MAX, 1);
    }
}

async fn serve(run: config::Run) -> anyhow::Result<ExitCode> {
    let shutdown = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
    });
    crate::agent::run(run.resolve()?, shutdown).await?;
    Ok(ExitCode::SUCCESS)
}

async fn become_node(join: config::Join) -> anyhow::Result<ExitCode> {
    let (token, broker) = (join.token()?, join.run.broker.clone());
    let config = join.run.resolve()?;
    let identity = crate::join::join(&token, config.node, broker, &config.data_dir).await?;
    tracing::info!(
        node = %identity.node,
        fabric = %identity.fabric,
        "joined: `godwit-agent run` is a node of this fabric from now on"
    );
    Ok(ExitCode::SUCCESS)
}

fn log(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}
