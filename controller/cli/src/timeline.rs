//! The time line of a move as bars under each other.
//!
//! ```text
//! freeze    edge-a          █                                       .4 ms
//! dump      edge-a          ███████████████                       62.1 ms
//! transfer  edge-a, edge-b     ███████████████                    66.0 ms
//! ```

use crate::api::{Migration, Seen};

/// How many characters the whole line of time takes.
const WIDTH: usize = 48;

/// What a move spends its time on: a name, where it is done, from which moment to which.
const PARTS: [(&str, Place, &str, &str); 8] = [
    ("freeze", Place::Source, "freezing", "cut"),
    ("dump", Place::Source, "dumping", "dumped"),
    ("transfer", Place::Both, "first-byte", "last-byte"),
    ("restore", Place::Target, "restoring", "staged"),
    ("verdict", Place::Controller, "staged", "verdict"),
    ("thaw", Place::Source, "verdict", "thawed"),
    ("open", Place::Target, "opening", "running"),
    ("podman", Place::Target, "running", "known"),
];

enum Place {
    Source,
    Target,
    Both,
    Controller,
}

/// Draws the parts that both ends of are known; `None` when that is none.
pub(crate) fn draw(migration: &Migration) -> Option<String> {
    let at = |moment: &str| migration.timeline.iter().find(|seen| seen.moment == moment);
    let parts: Vec<_> = PARTS
        .iter()
        .filter_map(|(name, place, from, to)| Some((name, place, at(from)?.us, at(to)?.us)))
        .filter(|(_, _, from, to)| from <= to)
        .collect();
    let start = parts.iter().map(|(_, _, from, _)| *from).min()?;
    let end = parts.iter().map(|(_, _, _, to)| *to).max()?;
    let column = |us: i64| {
        let share = (us - start) as f64 / (end - start).max(1) as f64;
        (share * WIDTH as f64).round() as usize
    };
    let mut lines: Vec<String> = parts
        .iter()
        .map(|(name, place, from, to)| {
            let place = match place {
                Place::Source => migration.from().to_owned(),
                Place::Target => migration.to().to_owned(),
                Place::Both => format!("{}, {}", migration.from(), migration.to()),
                Place::Controller => "controller".to_owned(),
            };
            let first = column(*from).min(WIDTH - 1);
            let bar = " ".repeat(first) + &"█".repeat((column(*to) - first).max(1));
            format!("{name:<9} {place:<20} {bar:<WIDTH$} {:>9.1} ms", ms(to - from))
        })
        .collect();
    lines.push(moments(&migration.timeline));
    Some(lines.join("\n"))
}

/// Every moment with its time, from the freeze on, in milliseconds.
fn moments(timeline: &[Seen]) -> String {
    let each: Vec<_> =
        timeline.iter().map(|seen| format!("{} {:.1}", seen.moment, ms(seen.us))).collect();
    format!("moments, in ms: {}", each.join(" · "))
}

fn ms(us: i64) -> f64 {
    us as f64 / 1000.0
}
