//! What a client is refused or loses, in the log: a few lines a minute for each.

use std::borrow::Cow;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use bytestring::ByteString;
use tracing::warn;

use crate::core::ClientKey;
use crate::engine::now_ms;

/// So many lines for one client.
const LINES: u32 = 5;
/// In so long a time.
const SPAN_MS: u64 = 60_000;

/// Something that a client was refused, or lost.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Notice {
    pub(crate) what: &'static str,
    pub(crate) cause: &'static str,
    pub(crate) client: ClientKey,
    pub(crate) topic: ByteString,
    /// What nothing was said of since the last one.
    pub(crate) more: u64,
}

impl Notice {
    pub(crate) fn log(&self) {
        let Self { what, cause, client: (user, client), topic, more } = self;
        let (user, and) = (user.as_deref(), And(*more));
        warn!(client.id = &**client, user, topic = &*shown(topic), cause, "{what}{and}");
    }
}

/// Lets a few through, and counts the others.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    since_ms: u64,
    said: u32,
    unsaid: u64,
}

impl Pace {
    /// It happened: `Some` if it is to be said, with how often it was not since the last time.
    pub(crate) fn step(&mut self, now_ms: u64) -> Option<u64> {
        // A clock that is set back begins anew.
        if now_ms.abs_diff(self.since_ms) >= SPAN_MS {
            (self.since_ms, self.said) = (now_ms, 0);
        }
        if self.said == LINES {
            self.unsaid += 1;
            return None;
        }
        self.said += 1;
        Some(std::mem::take(&mut self.unsaid))
    }
}

/// The notices of one connection.
#[derive(Debug)]
pub(crate) struct Notices {
    client: ClientKey,
    pace: Mutex<Pace>,
}

impl Notices {
    pub(crate) fn new(client: ClientKey) -> Self {
        Self { client, pace: Mutex::default() }
    }

    /// Says it, if there was not too much of it.
    pub(crate) fn say(&self, what: &'static str, cause: &'static str, topic: &ByteString) {
        let more = self.pace.lock().unwrap_or_else(PoisonError::into_inner).step(now_ms());
        if let Some(more) = more {
            let (client, topic) = (self.client.clone(), topic.clone());
            Notice { what, cause, client, topic, more }.log();
        }
    }
}

/// How many more there were, if any.
pub(crate) struct And(pub(crate) u64);

impl fmt::Display for And {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            more => write!(f, ", and {more} more"),
        }
    }
}

/// As much of a client's text as a line bears.
pub(crate) fn shown(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(120) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_lines_a_minute_are_said_and_the_next_one_counts_the_others() {
        let mut pace = Pace::default();
        let first: Vec<_> = (0..100).filter_map(|n| pace.step(100_000 + n)).collect();
        assert_eq!(first, [0; LINES as usize]);
        assert_eq!(pace.step(100_000 + SPAN_MS), Some(100 - u64::from(LINES)));
        assert_eq!(pace.step(100_001 + SPAN_MS), Some(0));
        assert_eq!(And(95).to_string(), ", and 95 more");
    }
}
