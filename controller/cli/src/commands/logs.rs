//! `godwit logs`.
//!
//! The API hands out the log as it is now, so following means asking again and
//! printing what is new.

use std::time::Duration;

use tokio::time::sleep;

use super::Context;
use crate::api::Container;
use crate::args::Logs;
use crate::error::{Failure, say};
use crate::render::read;

const PAUSE: Duration = Duration::from_millis(500);

/// States in which a container may yet write.
const WRITING: [&str; 5] = ["creating", "starting", "running", "stopping", "migrating"];

/// Prints what a container has written.
pub(super) async fn logs(context: &Context, logs: &Logs) -> Result<(), Failure> {
    let path = ["containers", logs.name.as_str(), "logs"];
    if !logs.follow {
        let tail = logs.tail.map(|lines| lines.to_string());
        let query: Vec<_> = tail.iter().map(|lines| ("tail", lines.as_str())).collect();
        return context.screen.bytes(&context.client.bytes(&path, &query).await?);
    }
    let mut log = context.client.bytes(&path, &[]).await?;
    context.screen.bytes(last_lines(&log, logs.tail))?;
    loop {
        // Asked before the log is read: what it wrote last is then in it.
        let container = context.client.get(&["containers", &logs.name], &[]).await;
        let writes = match container {
            Ok(object) => {
                let container: Container = read(&object)?;
                WRITING.contains(&container.state.as_str())
            }
            Err(Failure::Refused { status: 404, .. }) => return Ok(()),
            Err(failure) => return Err(failure),
        };
        match context.client.bytes(&path, &[]).await {
            Ok(now) => {
                context.screen.bytes(news(&log, &now))?;
                log = now;
            }
            // A node that is busy moving the container may be late.
            Err(Failure::Refused { status: 504, problem }) => say(&problem.message),
            Err(failure) => return Err(failure),
        }
        if !writes {
            return Ok(());
        }
        sleep(PAUSE).await;
    }
}

/// The last `lines` lines, or all of it.
fn last_lines(log: &[u8], lines: Option<usize>) -> &[u8] {
    let Some(lines) = lines else { return log };
    let body = log.strip_suffix(b"\n").unwrap_or(log);
    let ends = body.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n');
    match (lines, ends.map(|(at, _)| at).nth(lines.saturating_sub(1))) {
        (0, _) => &[],
        (_, Some(at)) => &log[at + 1..],
        (_, None) => log,
    }
}

/// What `now` has beyond `before`, of which the beginning may have been dropped since.
fn news<'a>(before: &[u8], now: &'a [u8]) -> &'a [u8] {
    let line_starts = before.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    let known = std::iter::once(0)
        .chain(line_starts.map(|(at, _)| at + 1))
        .map(|start| &before[start..])
        .find(|known| now.starts_with(known))
        .unwrap_or_default();
    &now[known.len()..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_is_what_follows_what_was_seen() {
        assert_eq!(news(b"a\nb\n", b"a\nb\nc\n"), b"c\n");
        assert_eq!(news(b"a\nb", b"a\nbb\n"), b"b\n");
        assert_eq!(news(b"", b"a\n"), b"a\n");
        assert_eq!(news(b"a\nb\n", b"a\nb\n"), b"");
    }

    #[test]
    fn news_survives_that_the_beginning_was_dropped() {
        assert_eq!(news(b"a\nb\nc\n", b"b\nc\nd\n"), b"d\n");
        assert_eq!(news(b"a\nb\n", b"x\ny\n"), b"x\ny\n");
    }

    #[test]
    fn the_last_lines_are_whole_lines() {
        assert_eq!(last_lines(b"a\nb\nc\n", Some(2)), b"b\nc\n");
        assert_eq!(last_lines(b"a\nb\nc", Some(1)), b"c");
        assert_eq!(last_lines(b"a\nb\n", Some(0)), b"");
        assert_eq!(last_lines(b"a\nb\n", Some(9)), b"a\nb\n");
        assert_eq!(last_lines(b"a\n", None), b"a\n");
    }
}
