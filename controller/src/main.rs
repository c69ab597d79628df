//! The controller's program: settings, log, signals, exit code.

use std::io::IsTerminal;

use anyhow::Context;
use clap::Parser;
use godwit_controller::app::Controller;
use godwit_controller::config::{Config, Flags, LogFormat};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = Config::load(Flags::parse()).context("the controller cannot start")?;
    log(config.log_format);
    let shutdown = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let asked = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        asked.cancel();
        // Who asks twice does not want to wait.
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        std::process::exit(130);
    });
    Controller::bind(config)
        .await
        .context("the controller cannot start")?
        .run(shutdown.clone())
        .await
        .context("the controller cannot go on")?;
    anyhow::ensure!(
        shutdown.is_cancelled(),
        "a part of the controller ended by itself: see its log"
    );
    Ok(())
}

fn log(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new(format!("info,{}", godwit_broker::QUIET)));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}
