//! Why a command failed, what its user can do about it, and the exit code that
//! tells scripts.

use std::fmt;
use std::io::{self, Write};

use serde::Deserialize;

/// How the process ends; `--help` lists the same numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// What was asked for is done.
    Done = 0,
    /// It was tried and failed.
    Failed = 1,
    /// The command line, or a value in it, makes no sense.
    Usage = 2,
    /// Refused before anything was touched: by admission, or because something is in the way.
    Refused = 3,
    /// There is no such container, node, image or migration.
    NotFound = 4,
    /// No controller answered.
    Unreachable = 5,
    /// Ctrl-C.
    Interrupted = 130,
}

/// Whom a command asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    Controller,
    /// One that stands alone.
    Broker,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Controller => "controller",
            Self::Broker => "broker",
        })
    }
}

/// Why a command did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// A value of the command line makes no sense.
    #[error("{message}")]
    Usage { message: String, remedy: Option<String> },
    /// The controller said no.
    #[error("{}", .problem.message)]
    Refused { status: u16, problem: Problem },
    /// Nobody answers at the address.
    #[error("cannot reach the {peer} at {host}: {cause}")]
    Unreachable { peer: Peer, host: String, cause: String },
    /// Somebody answers, in another language.
    #[error("what answers at {host} is not a Godwit {peer}: {what}")]
    Foreign { peer: Peer, host: String, what: String },
    /// It was ordered, and failed.
    #[error("{message}")]
    Failed { message: String, remedy: Option<String> },
    /// A file, or a stream of this process, could not be used.
    #[error("cannot {what}: {source}")]
    Io { what: String, source: io::Error },
    /// Ctrl-C.
    #[error("{message}")]
    Interrupted { message: String, remedy: String },
    /// Everything there is to say has been said.
    #[error("see above")]
    Said(Exit),
    /// Whoever read the output has left, as `head` does: no failure.
    #[error("nobody reads the output any more")]
    OutputClosed,
}

/// The controller's refusal, as its API words it.
#[derive(Debug, Deserialize)]
pub(crate) struct Problem {
    /// Stable, for programs.
    pub(crate) code: String,
    /// What is wrong with what.
    pub(crate) message: String,
    /// What to do next.
    #[serde(default)]
    pub(crate) remedy: Option<String>,
    /// Every single reason, where there are several.
    #[serde(default)]
    pub(crate) reasons: Vec<Reason>,
}

/// One of several reasons.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Reason {
    /// What is wrong with what.
    pub(crate) message: String,
    /// What to do next.
    #[serde(default)]
    pub(crate) remedy: Option<String>,
}

impl Failure {
    /// The exit code that goes with it.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Usage { .. } => Exit::Usage,
            Self::Refused { status, problem } => match (*status, problem.code.as_str()) {
                (400, "bad-request") => Exit::Usage,
                (404, _) => Exit::NotFound,
                (409, _) => Exit::Refused,
                (503, _) => Exit::Unreachable,
                _ => Exit::Failed,
            },
            Self::Unreachable { .. } | Self::Foreign { .. } => Exit::Unreachable,
            Self::Failed { .. } | Self::Io { .. } => Exit::Failed,
            Self::Interrupted { .. } => Exit::Interrupted,
            Self::Said(exit) => *exit,
            Self::OutputClosed => Exit::Done,
        }
    }

    /// What to do next.
    fn remedy(&self) -> Option<String> {
        match self {
            Self::Usage { remedy, .. } | Self::Failed { remedy, .. } => remedy.clone(),
            Self::Refused { problem, .. } => problem.remedy.clone(),
            Self::Unreachable { peer: Peer::Broker, .. } => Some(
                "start it with `godwit-broker --admin 127.0.0.1:9883`, and name that address with \
                 --url; it is one of the broker's own machine unless it was told otherwise"
                    .to_owned(),
            ),
            Self::Foreign { peer: Peer::Broker, .. } => {
                Some("name the broker's address for operators: --url http://HOST:9883".to_owned())
            }
            Self::Unreachable { .. } => Some(
                "start it with `godwit-controller`, or name another with --host http://HOST:7180 \
                 or the environment variable GODWIT_HOST"
                    .to_owned(),
            ),
            Self::Foreign { .. } => Some(
                "name the controller with --host http://HOST:7180 or the environment variable \
                 GODWIT_HOST"
                    .to_owned(),
            ),
            Self::Interrupted { remedy, .. } => Some(remedy.clone()),
            Self::Io { .. } | Self::Said(_) | Self::OutputClosed => None,
        }
    }

    /// Says on standard error what failed and what to do next.
    pub(crate) fn report(&self) {
        if matches!(self, Self::Said(_) | Self::OutputClosed) {
            return;
        }
        say(&format!("godwit: {self}"));
        if let Self::Refused { problem, .. } = self {
            say_reasons(&problem.reasons);
        }
        if let Some(remedy) = self.remedy().filter(|remedy| !remedy.is_empty()) {
            say(&format!("  try: {remedy}"));
        }
    }
}

/// Lists reasons and their remedies on standard error.
pub(crate) fn say_reasons(reasons: &[Reason]) {
    for reason in reasons {
        say(&format!("  - {}", reason.message));
        if let Some(remedy) = reason.remedy.as_deref().filter(|remedy| !remedy.is_empty()) {
            say(&format!("    try: {remedy}"));
        }
    }
}

/// Writes a line to standard error; that nobody reads it is no failure.
pub(crate) fn say(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}
