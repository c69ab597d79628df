//! Stub by the lead, to be replaced by whoever writes the doctor: agent.rs needs exactly
//! `versions(&EngineConfig) -> Versions`, `examine(&EngineConfig, bridge) -> Report` (cached, may
//! take seconds, never fails: failures are findings) and `Report::probe() -> Probe`.

use godwit_proto::node::Probe;

use crate::engine::EngineConfig;
use crate::telemetry::Versions;

/// What the doctor found.
pub struct Report;

impl Report {
    /// In the shape that is announced.
    pub fn probe(&self) -> Probe {
        Probe { can_migrate: true, problems: Vec::new() }
    }
}

/// The versions of what moves containers.
pub async fn versions(_engine: &EngineConfig) -> Versions {
    Versions::default()
}

/// Tries everything that a migration needs.
pub async fn examine(_engine: &EngineConfig, _bridge: &str) -> Report {
    Report
}

/// The subcommand: prints what was found; a failure when containers cannot be moved.
pub async fn command(run: crate::config::Run) -> anyhow::Result<std::process::ExitCode> {
    let _ = run.resolve()?;
    Ok(std::process::ExitCode::SUCCESS)
}
