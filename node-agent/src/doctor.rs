//! Says whether this node can run and move containers, and what to do where it cannot.
//!
//! Reading versions finds what is missing; only doing it shows that it works (`criu check`
//! is content with a CRIU that cannot dump a single socket here). So the last check is a
//! [`probe`]: a tiny container that listens on a socket is checkpointed and restored through
//! the gate. Its result is kept as long as nothing that it depends on changes.

mod checks;
mod knobs;
mod networks;
pub mod probe;
mod trial;

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use godwit_proto::node::Probe;
use serde::{Deserialize, Serialize};

use self::trial::Trial;
use crate::config;
use crate::engine::{EngineConfig, ImageDirs, Podman};
use crate::expedite::Expedite;
use crate::telemetry;

/// How long another doctor of this node is waited for: as long as its probe may take.
const OTHERS: Duration = Duration::from_secs(180);

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What was checked, in a word or two.
    pub check: String,
    /// Whether this node is fit in that respect.
    pub ok: bool,
    /// Whether it can do nothing without; else it is slower, or lacks an amenity.
    pub required: bool,
    /// What was found, or what is missing, in plain words.
    pub message: String,
    /// How to get what is missing; empty when nothing is.
    #[serde(default)]
    pub remedy: String,
}

/// What a checkpoint depends on: with the same ones a probe's result stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// The kernel's release.
    pub kernel: String,
    /// CRIU's version, empty when there is none.
    pub criu: String,
    /// The engine and its version (`podman 5.4.2`), empty when there is none.
    pub engine: String,
    /// The runtime and its version (`runc 1.1.15`), empty when there is none.
    pub runtime: String,
}

/// Everything that was found; the agent publishes it too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// What is installed.
    pub versions: Versions,
    /// One for each check, in the order in which they should be mended.
    pub findings: Vec<Finding>,
}

impl Report {
    /// True when this node can run and move containers.
    pub fn is_ok(&self) -> bool {
        self.findings.iter().all(|finding| finding.ok || !finding.required)
    }

    /// The report as the node announces it.
    pub fn probe(&self) -> Probe {
        let unfit = self.findings.iter().filter(|finding| !finding.ok);
        let said = unfit.map(|f| format!("{}: {} ({})", f.check, f.message, f.remedy));
        let can_arm = self.findings.iter().any(|f| f.check == probe::ARMED && f.ok);
        Probe { can_migrate: self.is_ok(), can_arm, problems: said.collect() }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            let mark = match (finding.ok, finding.required) {
                (true, _) => "ok  ",
                (false, true) => "FAIL",
                (false, false) => "slow",
            };
            writeln!(f, "{mark}  {:<18} {}", finding.check, finding.message)?;
            if !finding.remedy.is_empty() {
                writeln!(f, "{:24} {}", "", finding.remedy)?;
            }
        }
        let verdict = if self.is_ok() {
            "This node can run and move containers."
        } else {
            "This node cannot run and move containers yet: mend what is marked FAIL, from the top."
        };
        writeln!(f, "{verdict}")
    }
}

/// What a probe found, with what it was found under.
#[derive(Serialize, Deserialize)]
struct Kept {
    versions: Versions,
    findings: Vec<Finding>,
}

/// Asks every program that a checkpoint depends on for its version, for the announcement.
pub async fn versions(config: &EngineConfig) -> telemetry::Versions {
    let Versions { criu, engine, runtime, .. } = ask(config).await;
    telemetry::Versions { engine, runtime, criu }
}

async fn ask(config: &EngineConfig) -> Versions {
    let owned = config.clone();
    let asked = tokio::task::spawn_blocking(move || checks::versions(&owned)).await;
    asked.unwrap_or_default()
}

/// Checks the node, by the probe last, beside the engine that `config` is for.
///
/// A probe that went well is kept in the work directory, and stands while every version does.
pub async fn examine(config: &EngineConfig, bridge: &str) -> Report {
    check(config, bridge, true).await
}

/// The `doctor` subcommand: checks everything anew, prints the report, and fails when the
/// node is not fit.
///
/// # Errors
/// When the configuration cannot be read, or standard output is closed.
pub async fn command(run: config::Run) -> anyhow::Result<ExitCode> {
    let config = run.resolve()?;
    let mut engine = EngineConfig::standard(std::env::current_exe()?);
    engine.rundir = config.run_dir;
    engine.workdir = config.data_dir.join("work");
    engine.criu = config.criu.unwrap_or(engine.criu);
    let report = tokio::select! {
        report = check(&engine, &config.bridge, false) => report,
        // What is set for the length of a trial is put back; the rest the next doctor clears up.
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            anyhow::bail!("interrupted; what it left is cleared up by the next `godwit-agent doctor`");
        }
    };
    write!(io::stdout(), "{report}")?;
    Ok(if report.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn check(config: &EngineConfig, bridge: &str, may_be_kept: bool) -> Report {
    // Whoever asks for everything anew has a minute for it.
    let weigh = !may_be_kept;
    let versions = ask(config).await;
    let (owned, known, bridge) = (config.clone(), versions.clone(), bridge.to_owned());
    let checked = tokio::task::spawn_blocking(move || checks::all(&owned, &known, &bridge)).await;
    let mut report = Report { findings: checked.unwrap_or_default(), versions };
    if !report.is_ok() {
        return report;
    }
    let cache = config.workdir.join("probe.json");
    // What was cut short is cleared by the next probe.
    let may_be_kept = may_be_kept && !trial::is_noted(&config.workdir);
    let findings = match kept(&cache, &report.versions).filter(|_| may_be_kept) {
        Some(findings) => findings,
        None => {
            let findings = probe_beside(config, weigh).await;
            keep(&cache, &report.versions, &findings);
            findings
        }
    };
    report.findings.extend(findings);
    report
}

/// The probe on an engine of its own: an agent that runs is not disturbed, nor waited for.
///
/// Every doctor has the same one, so what one that was killed left working dies first.
async fn probe_beside(config: &EngineConfig, weigh: bool) -> Vec<Finding> {
    let trial = match Trial::begin(&config.workdir, OTHERS).await {
        Ok(trial) => trial,
        Err(error) => return vec![probe::failed(&error.to_string())],
    };
    let mut beside = config.clone();
    beside.rundir = config.rundir.join("doctor");
    beside.workdir = config.workdir.join("doctor");
    beside.cgroup = format!("{}-doctor", config.cgroup);
    let findings = match Podman::start(beside.clone()).await {
        Ok(engine) => {
            // The agent's own: what a killed doctor leaves set the agent puts back.
            let expedite = weigh.then(|| Expedite::open(&config.rundir, true));
            probe::run(&engine, &beside, &trial, expedite.as_ref()).await
        }
        Err(error) => vec![probe::failed(&error.to_string())],
    };
    if let Err(error) = ImageDirs::discard(&beside.rundir, &beside.workdir) {
        tracing::warn!(%error, "the doctor leaves images behind");
    }
    for dir in [&beside.rundir, &beside.workdir] {
        if let Err(error) = fs::remove_dir_all(dir) {
            tracing::warn!(%error, dir = %dir.display(), "the doctor leaves a directory behind");
        }
    }
    findings
}

fn kept(cache: &Path, versions: &Versions) -> Option<Vec<Finding>> {
    let kept: Kept = serde_json::from_slice(&fs::read(cache).ok()?).ok()?;
    // A failure is tried again: what caused it may be mended without any version changing.
    let is_good = kept.findings.iter().all(|finding| finding.ok);
    (kept.versions == *versions && is_good).then_some(kept.findings)
}

fn keep(cache: &Path, versions: &Versions, findings: &[Finding]) {
    let kept = Kept { versions: versions.clone(), findings: findings.to_vec() };
    let written = serde_json::to_vec(&kept).map_err(io::Error::from);
    if let Err(error) = written.and_then(|text| fs::write(cache, text)) {
        tracing::warn!(%error, file = %cache.display(), "cannot keep the probe's result");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(ok: bool) -> Finding {
        let remedy = String::new();
        Finding { check: "probe".into(), ok, required: true, message: "m".into(), remedy }
    }
    fn versions(criu: &str) -> Versions {
        Versions { criu: criu.into(), ..Versions::default() }
    }

    #[test]
    fn a_probe_stands_until_a_version_changes() {
        let dir = tempfile::tempdir().expect("tempdir");
        let cache = dir.path().join("probe.json");
        assert_eq!(kept(&cache, &versions("4.2")), None);
        keep(&cache, &versions("4.2"), &[finding(true)]);
        assert_eq!(kept(&cache, &versions("4.2")), Some(vec![finding(true)]));
        assert_eq!(kept(&cache, &versions("4.3")), None);
    }

    #[test]
    fn a_failed_probe_is_tried_again() {
        let dir = tempfile::tempdir().expect("tempdir");
        let cache = dir.path().join("probe.json");
        keep(&cache, &versions("4.2"), &[finding(false)]);
        assert_eq!(kept(&cache, &versions("4.2")), None);
    }

    #[test]
    fn one_failure_makes_the_node_unfit_and_names_its_remedy() {
        let mut report = Report { versions: versions("4.2"), findings: vec![finding(true)] };
        assert!(report.is_ok());
        report.findings.push(Finding { remedy: "apt install criu".into(), ..finding(false) });
        assert!(!report.is_ok());
        assert!(report.to_string().contains("apt install criu"));
        assert!(!report.probe().can_migrate);
        assert_eq!(report.probe().problems, ["probe: m (apt install criu)"]);
    }

    #[test]
    fn a_node_that_cannot_be_armed_is_fit_and_says_so() {
        let armed = |ok| Finding { check: probe::ARMED.into(), required: false, ..finding(ok) };
        let report =
            |ok| Report { versions: versions("4.2"), findings: vec![finding(true), armed(ok)] };
        let probe = report(false).probe();
        assert!(probe.can_migrate && !probe.can_arm && probe.problems.len() == 1, "{probe:?}");
        assert!(report(true).probe().can_arm);
    }
}
