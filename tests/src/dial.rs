//! A TCP client of the counter, on a host of its own.

use std::marker::PhantomData;
use std::path::PathBuf;
use std::process::Child;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;

use crate::{Lab, eventually};

/// `dial`, running in a host.
#[derive(Debug)]
pub struct Dial<'a> {
    child: Child,
    log: PathBuf,
    _lab: PhantomData<&'a Lab>,
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
    /// Connects to the counter's echo and awaits its first reply; `log` takes what it says.
    pub fn start(lab: &'a Lab, address: &str, log: PathBuf) -> Self {
        Self::start_at(lab, "client", &[], address, log)
    }

    /// Connects from another host, with a program before it that enters a namespace there.
    pub fn start_at(
        lab: &'a Lab,
        host: &str,
        entering: &[&str],
        address: &str,
        log: PathBuf,
    ) -> Self {
        let program = lab.checkout().join("target/workload/dial");
        assert!(program.exists(), "{} is missing: run scripts/lab workload", program.display());
        let program = program.to_string_lossy();
        let command = [entering, &[&*program, address]].concat();
        let child = lab.spawn(host, &command, &log);
        let dial = Self { child, log, _lab: PhantomData };
        eventually("the client is answered, or says why not", || {
            let said = dial.said();
            if said.ends_with('\n') { Ok(()) } else { Err(said) }
        });
        dial
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Ends it and answers what it saw.
    ///
    /// # Panics
    /// When it said nothing that can be read.
    pub fn hang_up(mut self) -> Dialled {
        // scripts/lab passes it on.
        let lab = Pid::from_raw(self.child.id().cast_signed());
        kill(lab, Signal::SIGTERM).expect("the client runs, or has said why not");
        let _status = self.child.wait();
        let said = self.said();
        match serde_json::from_str(said.lines().last().unwrap_or_default()) {
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
