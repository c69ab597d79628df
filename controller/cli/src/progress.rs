//! How far something is: a live line on a terminal, plain lines elsewhere.
//!
//! All of it goes to standard error, so that results can be piped.

use std::io::{self, IsTerminal};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle};

use crate::api::Migration;
use crate::error::say;
use crate::human;

/// The bar counts in these parts of a hundred.
const PARTS: f64 = 10.0;

/// Shows a migration as it goes.
pub(crate) struct MoveProgress {
    bar: Option<ProgressBar>,
    /// The phase and tenth that was last said, where lines are plain.
    said: Option<(String, u64)>,
}

impl MoveProgress {
    /// A live line if standard error is a terminal.
    pub(crate) fn new(colours: bool) -> Self {
        Self { bar: bar(1000, colours, "{bar:10} {wide_msg}"), said: None }
    }

    /// Shows how the migration is now.
    pub(crate) fn show(&mut self, migration: &Migration) {
        let percent = migration.percent.unwrap_or(0.0).clamp(0.0, 100.0);
        match &self.bar {
            Some(bar) => {
                bar.set_position((percent * PARTS) as u64);
                bar.set_message(line(migration));
            }
            None => {
                let now = (migration.phase.clone(), (percent / 10.0) as u64);
                if self.said.as_ref() != Some(&now) {
                    say(&line(migration));
                    self.said = Some(now);
                }
            }
        }
    }

    /// Says something in between.
    pub(crate) fn note(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => say(text),
        }
    }

    /// Takes the live line away.
    pub(crate) fn end(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

/// `transferring  41.5 %  28.31 MB of 68.16 MB  118.00 MB/s  340 ms left`
fn line(migration: &Migration) -> String {
    let mut parts = vec![format!("{:<12}", migration.phase)];
    if let Some(percent) = migration.percent {
        parts.push(format!("{percent:.1} %"));
    }
    match (migration.bytes, migration.bytes_total) {
        (Some(bytes), Some(total)) => {
            parts.push(format!("{} of {}", human::size(bytes), human::size(total)));
        }
        (Some(bytes), None) if bytes > 0 => parts.push(human::size(bytes)),
        _ => {}
    }
    if !migration.settled {
        parts.extend(migration.rate_bytes_per_s.map(human::rate));
        parts.extend(migration.eta_ms.map(|ms| format!("{} left", human::duration(ms))));
    }
    parts.join("  ").trim_end().to_owned()
}

/// Shows how much of a file has been sent.
#[derive(Clone)]
pub(crate) struct SendProgress {
    bar: Option<ProgressBar>,
}

impl SendProgress {
    /// A live line if standard error is a terminal, else one line that says what is done.
    pub(crate) fn new(what: &str, total: Option<u64>, colours: bool) -> Self {
        let template = match total {
            Some(_) => {
                "{bar:10} {decimal_bytes} of {decimal_total_bytes}  {decimal_bytes_per_sec}  {eta} left"
            }
            None => "{decimal_bytes}  {decimal_bytes_per_sec}",
        };
        let bar = bar(total.unwrap_or(0), colours, template);
        if bar.is_none() {
            let size = total.map(|total| format!(" ({})", human::size(total))).unwrap_or_default();
            say(&format!("sending {what}{size}"));
        }
        Self { bar }
    }

    /// So many bytes more are on their way.
    pub(crate) fn sent(&self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(bytes);
        }
    }

    /// Takes the live line away.
    pub(crate) fn end(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A bar on standard error, if that is a terminal.
fn bar(length: u64, colours: bool, template: &str) -> Option<ProgressBar> {
    if !io::stderr().is_terminal() {
        return None;
    }
    let template = match colours {
        true => template.replace("{bar:10}", "{bar:10.green}"),
        false => template.to_owned(),
    };
    let style = ProgressStyle::with_template(&template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ");
    Some(
        ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr())
            .with_style(style)
            // Whatever ends the command says so on a line of its own.
            .with_finish(ProgressFinish::AndClear),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_line_tells_phase_percent_bytes_rate_and_time_left() -> Result<(), serde_json::Error> {
        let migration = serde_json::from_value(json!({
            "id": "m-1", "container": "counter", "phase": "transferring", "settled": false,
            "percent": 41.54, "bytes": 28_311_552, "bytes_total": 68_157_440,
            "rate_bytes_per_s": 118_000_000, "eta_ms": 340,
        }))?;
        let wanted = "transferring  41.5 %  28.31 MB of 68.16 MB  118.00 MB/s  340 ms left";
        assert_eq!(line(&migration), wanted);
        Ok(())
    }

    #[test]
    fn what_is_not_known_is_left_out() -> Result<(), serde_json::Error> {
        let migration = serde_json::from_value(json!({
            "id": "m-1", "container": "counter", "phase": "arming", "settled": false,
        }))?;
        assert_eq!(line(&migration), "arming");
        Ok(())
    }
}
