//! A TCP client of the counter, on a host of its own.

use std::path::PathBuf;
use std::process::Child;

use serde::Deserialize;

use crate::Lab;

/// `dial`, running in the host `client`.
#[derive(Debug)]
pub struct Dial<'a> {
    lab: &'a Lab,
    child: Child,
    log: PathBuf,
}

/// What a client has seen of its one connection.
#[derive(Debug, Clone, Deserialize)]
pub struct Dialled {
    /// Blocks that came back.
    pub replies: u64,
    /// Blocks that came back as something else.
    pub wrong: u64,
    /// The longest time between two replies.
    pub longest_gap_ms: f64,
    /// Why the connection was lost, if it was.
    pub lost: Option<String>,
}

impl<'a> Dial<'a> {
    /// Connects to the counter's echo; `log` takes what it says.
    pub fn start(lab: &'a Lab, address: &str, log: PathBuf) -> Self {
        let program = lab.checkout().join("target/workload/dial");
        assert!(program.exists(), "{} is missing: run scripts/lab workload", program.display());
        let child = lab.spawn("client", &[&program.to_string_lossy(), address], &log);
        Self { lab, child, log }
    }

    /// Ends it and answers what it saw.
    ///
    /// # Panics
    /// When it said nothing that can be read.
    pub fn hang_up(mut self) -> Dialled {
        self.lab.run("client", &["pkill", "-TERM", "-x", "dial"]);
        let _status = self.child.wait();
        let said = std::fs::read_to_string(&self.log).unwrap_or_default();
        match serde_json::from_str(said.trim()) {
            Ok(dialled) => dialled,
            Err(error) => panic!("{error}: {said}"),
        }
    }
}

impl Drop for Dial<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
