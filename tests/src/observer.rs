//! The books that an outsider keeps of a counter's ticks.

use std::path::{Path, PathBuf};
use std::process::Child;

use serde::Deserialize;

use crate::Lab;

/// Where counters report to, and what [`Observer::start`] listens on.
const ADDRESS: &str = "10.77.0.2:7007";

/// `observe`, running in the host `client`.
#[derive(Debug)]
pub struct Observer<'a> {
    lab: &'a Lab,
    program: PathBuf,
    child: Child,
}

/// What was seen of one counter.
#[derive(Debug, Clone, Deserialize)]
pub struct Ticks {
    /// The first number.
    pub first: u64,
    /// The highest number.
    pub last: u64,
    /// Datagrams.
    pub count: u64,
    /// Numbers between first and last that never came.
    pub missing: u64,
    /// Numbers that came twice: the counter ran twice, or went back in time.
    pub doubled: u64,
    /// Pages of its memory whose content was not what the counter had written.
    pub corrupt_pages: u64,
    /// How often its monotonic clock went backwards.
    pub monotonic_jumps_back: u64,
    /// Silences of more than 30 ms.
    pub gap_count: u64,
    /// The longest of them.
    pub longest_gap_ms: f64,
}

#[derive(Debug, Deserialize)]
struct Report {
    instances: Vec<Ticks>,
}

impl<'a> Observer<'a> {
    /// Starts it; `log` takes what it says.
    ///
    /// # Panics
    /// When the workload was not built (`scripts/lab workload`).
    pub fn start(lab: &'a Lab, log: &Path) -> Self {
        let program = lab.checkout().join("target/workload/observe");
        assert!(program.exists(), "{} is missing: run scripts/lab workload", program.display());
        let child = lab.spawn("client", &[&program.to_string_lossy()], log);
        Self { lab, program, child }
    }

    /// What it has seen so far; `None` before the first tick.
    ///
    /// # Panics
    /// When more than one counter ticked: another copy was started from its beginning.
    pub fn ticks(&self) -> Option<Ticks> {
        let said = self.lab.run("client", &[&self.program.to_string_lossy(), "--ask", ADDRESS]);
        let report: Report = serde_json::from_str(&said.out).ok()?;
        assert!(report.instances.len() <= 1, "several counters ticked: {report:?}");
        report.instances.into_iter().next()
    }
}

impl Drop for Observer<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
