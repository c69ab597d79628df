//! The choreography in a simulated fabric: the real machines and the real driver code over
//! fake engines, in thousands of seeded histories of crashes, losses and delays.
//!
//! Read [`history`] first, then [`world`] and [`kernel`]. A seed is a history, bit by bit:
//!
//! ```text
//! GODWIT_SIM_SEED=7 cargo test -p godwit-tests --test sim histories -- --nocapture
//! GODWIT_SIM_HISTORIES=1000000 cargo test -p godwit-tests --test sim histories
//! ```

mod controller;
mod history;
mod kernel;
mod network;
mod node;
mod rng;
mod sabotage;
mod tenant;
mod world;

use sabotage::Bug;
use world::Counts;

/// How many histories an ordinary run lives through.
const HISTORIES: u64 = 20_000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// What went wrong in a history, with the command that shows it again.
fn verdict(seed: u64, outcome: &history::Outcome) -> Option<String> {
    let broken = outcome.broken.as_ref()?;
    Some(format!(
        "seed {seed} broke {:?}: {}\nread it step by step:\n  \
         GODWIT_SIM_SEED={seed} cargo test -p godwit-tests --test sim histories -- --nocapture",
        broken.law, broken.what
    ))
}

#[test]
fn histories_end_with_one_owner_and_nothing_lost() {
    if let Some(seed) = number("GODWIT_SIM_SEED") {
        return replay(seed);
    }
    let mut counts = Counts::default();
    for seed in 0..number("GODWIT_SIM_HISTORIES").unwrap_or(HISTORIES) {
        let outcome = history::live(seed, None, false);
        if let Some(text) = verdict(seed, &outcome) {
            panic!("{text}");
        }
        counts.merge(&outcome.counts);
    }
    tell(&counts);
}

#[expect(clippy::print_stderr, reason = "the figures of a run, shown with --nocapture")]
fn tell(counts: &Counts) {
    for (what, n) in &counts.0 {
        eprintln!("{n:>9} {what}");
    }
}

#[expect(clippy::print_stderr, reason = "a replay is there to be read")]
fn replay(seed: u64) {
    let outcome = history::live(seed, None, true);
    for line in &outcome.story {
        eprintln!("{line}");
    }
    if let Some(text) = verdict(seed, &outcome) {
        panic!("{text}");
    }
}

#[test]
#[ignore]
#[expect(clippy::print_stderr, reason = "x")]
fn survey() {
    let n = number("N").unwrap_or(2000);
    let mut laws: std::collections::BTreeMap<String, (u64, Vec<(u64, String)>)> = Default::default();
    let mut counts = Counts::default();
    let t = std::time::Instant::now();
    for seed in 0..n {
        let outcome = match std::panic::catch_unwind(|| history::live(seed, None, false)) { Ok(o) => o, Err(_) => { eprintln!("panic at {seed}"); continue } };
        counts.merge(&outcome.counts);
        if let Some(v) = outcome.broken {
            let e = laws.entry(format!("{:?}", v.law)).or_default();
            e.0 += 1;
            if e.1.len() < 6 { e.1.push((seed, v.what.chars().take(300).collect())); }
        }
    }
    tell(&counts);
    for (law, (n, ex)) in laws { eprintln!("== {law}: {n}"); for e in ex { eprintln!("   {e:?}"); } }
    eprintln!("{:?}", t.elapsed());
}

#[test]
#[ignore]
#[expect(clippy::print_stderr, reason = "x")]
fn bugs() {
    use Bug::*;
    for bug in [SourceThawsOnTimeout, TargetOpensOnTimeout, CommitSentBeforeItPersists, TargetForgetsItsRefusal, SourceDiscardsAtCommit, OpeningPersistedTooLate, AgentsObeyAnyRun, PromiseNotPersisted, CopyDeadNotPersisted, CallOutlivesAgent, NoReconcile] {
        let mut laws: std::collections::BTreeMap<String, (u64, Vec<(u64, String)>)> = Default::default();
        let n = number("N").unwrap_or(3000);
        for seed in 0..n {
            if let Some(v) = history::live(seed, Some(bug), false).broken {
                let e = laws.entry(format!("{:?}", v.law)).or_default();
                e.0 += 1;
                if e.1.len() < 2 { e.1.push((seed, v.what.chars().take(150).collect())); }
            }
        }
        eprintln!("## {bug:?}");
        for (law, (n, ex)) in laws { eprintln!("  {law}: {n} {ex:?}"); }
    }
}
