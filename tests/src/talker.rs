//! The books of a conversation over MQTT, and the end of it that does not move.

use std::path::PathBuf;
use std::process::Child;

use serde::Deserialize;

use crate::wait::eventually;
use crate::{Lab, program};

/// `examples/talker.rs`, running in the host `client`.
#[derive(Debug)]
pub struct Talker<'a> {
    lab: &'a Lab,
    child: Child,
    log: PathBuf,
}

/// What a talker has said and heard over its one connection. Where there are two of a kind, the
/// first is of QoS 1, the second of QoS 2.
#[derive(Debug, Clone, Deserialize)]
pub struct Talked {
    /// Subscriptions that the broker has confirmed.
    pub subscribed: usize,
    /// How many messages were said.
    pub said: [usize; 2],
    /// How many of them the broker has acknowledged for good.
    pub settled: [usize; 2],
    /// What came from the other.
    pub heard: [Heard; 2],
    /// Since its start, by its own clock.
    pub seconds: f64,
    /// Both have said their last, and it was heard.
    pub is_over: bool,
    /// Why the connection was lost, if it was.
    pub lost: Option<String>,
}

/// What came of numbered messages.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Heard {
    /// The highest number.
    pub last: usize,
    /// Numbers from 1 to it that never came.
    pub missing: usize,
    /// Messages that came again.
    pub doubled: usize,
    /// Messages that came after one with a higher number.
    pub overtaken: usize,
    /// Messages that the broker marked as sent before.
    pub repeated: usize,
    /// The last of all has come.
    pub is_over: bool,
}

impl Talked {
    /// The newest books in what a talker has printed.
    ///
    /// # Errors
    /// When there are none: then what it has printed.
    pub fn newest(said: &str) -> Result<Self, String> {
        let read = |line| serde_json::from_str(line).ok();
        said.lines().rev().find_map(read).ok_or_else(|| said.to_owned())
    }
}

impl<'a> Talker<'a> {
    /// Connects it and returns when it can hear; `variables` are of its environment.
    ///
    /// # Panics
    /// When it does not become so.
    pub fn start(lab: &'a Lab, variables: &[String], args: &[&str], log: PathBuf) -> Self {
        let program = program("examples/talker");
        let mut command = vec!["env"];
        command.extend(variables.iter().map(String::as_str));
        let program = program.to_string_lossy();
        command.push(&program);
        command.extend(args);
        let talker = Self { lab, child: lab.spawn("client", &command, &log), log };
        eventually("the talker outside hears", || {
            let talked = talker.talked()?;
            if talked.subscribed == 2 { Ok(()) } else { Err(format!("{talked:?}")) }
        });
        talker
    }

    /// What it knows by now.
    ///
    /// # Errors
    /// When it has said nothing that can be read: then what it has said.
    pub fn talked(&self) -> Result<Talked, String> {
        Talked::newest(&std::fs::read_to_string(&self.log).unwrap_or_default())
    }

    /// Asks it to say its last and waits until the other has said its last too.
    ///
    /// # Panics
    /// When that never comes.
    pub fn hang_up(self) -> Talked {
        self.lab.run("client", &["pkill", "-TERM", "-x", "talker"]);
        eventually("all is said and heard outside", || {
            let talked = self.talked()?;
            if talked.is_over { Ok(talked) } else { Err(format!("{talked:?}")) }
        })
    }
}

impl Drop for Talker<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
