//! What the stand-in and the agent say to each other: one word with its arguments to a
//! packet, as text, so that a human can follow it in a log.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::str::FromStr;

/// What runc asked criu for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// A checkpoint.
    Dump,
    /// A restore: the only one with a gate.
    Restore,
}

/// From the stand-in, then from its proxy, to the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Report {
    /// The first word: what is asked, by whom, on which image directory. An [`Answer`] is awaited.
    Hello {
        /// Dump or restore.
        kind: Kind,
        /// The stand-in, soon the real criu.
        pid: i32,
        /// The image directory, by which the container is known.
        images: PathBuf,
    },
    /// The proxy lives and, where it was told to, holds the request; it wants to be taken out
    /// of the container's control group.
    Attending {
        /// The proxy.
        pid: i32,
    },
    /// criu came to a named point.
    Notify {
        /// The point.
        script: String,
    },
    /// Every process exists and is stopped; an [`Order`] is awaited.
    Staged,
    /// criu's last word.
    Done {
        /// Whether it succeeded.
        success: bool,
    },
    /// criu ended before its last word; what it had built was killed.
    CriuDied,
    /// runc ended before criu did.
    RuncGone,
}

/// The agent's answer to a hello. Anything else, silence included, is a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Not ours: the real criu talks with runc alone.
    Pass,
    /// Ours: the proxy attends, and a restore is gated.
    Attend,
    /// As [`Answer::Attend`], but criu is not given the request before the order to go.
    Hold,
    /// Tell runc that the dump succeeded, and dump nothing.
    Pretend,
    /// Do nothing at all.
    Refuse,
}

/// What the agent tells the proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Order {
    /// Give criu the request that is held, or let the caught run.
    Go,
    /// Let a restore that is staged run.
    Commit {
        /// A file. While it exists, the copy must not run without this agent.
        mark: PathBuf,
    },
    /// Kill what was built.
    Abort,
}

/// A packet that is no word.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a word between the agent and its stand-in for criu: are they of one version?"
)]
pub(crate) struct WordError(String);

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hello { kind, pid, images } => {
                let kind = if *kind == Kind::Dump { "dump" } else { "restore" };
                write!(f, "hello {kind} {pid} {}", images.display())
            }
            Self::Attending { pid } => write!(f, "attending {pid}"),
            Self::Notify { script } => write!(f, "notify {script}"),
            Self::Staged => f.write_str("staged"),
            Self::Done { success } => write!(f, "done {success}"),
            Self::CriuDied => f.write_str("criu-died"),
            Self::RuncGone => f.write_str("runc-gone"),
        }
    }
}

impl FromStr for Report {
    type Err = WordError;
    fn from_str(text: &str) -> Result<Self, WordError> {
        let unknown = || WordError(text.chars().take(80).collect());
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        match word {
            "hello" => {
                let mut parts = rest.splitn(3, ' ');
                let kind = match parts.next() {
                    Some("dump") => Kind::Dump,
                    Some("restore") => Kind::Restore,
                    _ => return Err(unknown()),
                };
                let pid = parts.next().and_then(|pid| pid.parse().ok()).ok_or_else(unknown)?;
                let images = parts.next().ok_or_else(unknown)?.into();
                Ok(Self::Hello { kind, pid, images })
            }
            "attending" => Ok(Self::Attending { pid: rest.parse().map_err(|_| unknown())? }),
            "notify" => Ok(Self::Notify { script: rest.to_owned() }),
            "staged" => Ok(Self::Staged),
            "done" => Ok(Self::Done { success: rest.parse().map_err(|_| unknown())? }),
            "criu-died" => Ok(Self::CriuDied),
            "runc-gone" => Ok(Self::RuncGone),
            _ => Err(unknown()),
        }
    }
}

impl Answer {
    /// The word as it is sent.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Attend => "attend",
            Self::Hold => "hold",
            Self::Pretend => "pretend",
            Self::Refuse => "refuse",
        }
    }
    /// Reads a packet.
    pub(crate) fn read(packet: &[u8]) -> Self {
        match packet {
            b"pass" => Self::Pass,
            b"attend" => Self::Attend,
            b"hold" => Self::Hold,
            b"pretend" => Self::Pretend,
            _ => Self::Refuse,
        }
    }
}

impl Order {
    /// Reads a packet: only the exact word goes on or commits.
    pub(crate) fn read(packet: &[u8]) -> Self {
        match packet {
            b"go" => Self::Go,
            [b'c', b'o', b'm', b'm', b'i', b't', b' ', mark @ ..] if mark.starts_with(b"/") => {
                Self::Commit { mark: OsStr::from_bytes(mark).into() }
            }
            _ => Self::Abort,
        }
    }
    /// The word as it is sent.
    pub(crate) fn packet(&self) -> Vec<u8> {
        match self {
            Self::Go => b"go".to_vec(),
            Self::Commit { mark } => [b"commit ", mark.as_os_str().as_bytes()].concat(),
            Self::Abort => b"abort".to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_as_it_was_written() {
        let all = [
            Report::Hello { kind: Kind::Dump, pid: 7, images: "/a b/c".into() },
            Report::Hello { kind: Kind::Restore, pid: 7, images: "/x".into() },
            Report::Attending { pid: 8 },
            Report::Notify { script: "post-restore".into() },
            Report::Staged,
            Report::Done { success: true },
            Report::Done { success: false },
            Report::CriuDied,
            Report::RuncGone,
        ];
        for report in all {
            assert_eq!(report.to_string().parse(), Ok(report));
        }
        for bad in ["", "hello", "hello eat 1 /x", "done maybe", "commit"] {
            assert!(bad.parse::<Report>().is_err(), "{bad}");
        }
    }

    #[test]
    fn whatever_is_not_the_exact_word_refuses() {
        for packet in [
            &b""[..],
            b"abort",
            b"commit",
            b"commit ",
            b"commit x",
            b"COMMIT /x",
            b"attend",
            b"go\0",
        ] {
            assert_eq!(Order::read(packet), Order::Abort);
        }
        for packet in [&b""[..], b"commit", b"attend\0"] {
            assert_eq!(Answer::read(packet), Answer::Refuse);
        }
        for order in [Order::Go, Order::Commit { mark: "/a b/c".into() }, Order::Abort] {
            assert_eq!(Order::read(&order.packet()), order);
        }
        for answer in [Answer::Pass, Answer::Attend, Answer::Hold, Answer::Pretend, Answer::Refuse]
        {
            assert_eq!(Answer::read(answer.as_str().as_bytes()), answer);
        }
    }
}
