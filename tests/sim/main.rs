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
use world::{Counts, Law};

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
    if number("GODWIT_SIM_HISTORIES").is_none() {
        for what in HAPPENS {
            assert!(counts.of(what) > 0, "no history had any `{what}`: the storm is too mild");
        }
    }
}

/// What thousands of histories must have gone through, or they show nothing.
const HAPPENS: [&str; 16] = [
    "commit",
    "abort",
    "returned",
    "salvaged",
    "overruled",
    "rolled-back",
    "memory-lost",
    "cancelled",
    "agent crashes between effects",
    "controller crashes between effects",
    "dump crashed and thawed",
    "gates built again",
    "runs claimed again",
    "power losses",
    "ledgers lost",
    "backups restored",
];

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

/// A planted bug must be found, by one of the laws that it breaks.
fn is_found(bug: Bug, laws: &[Law]) {
    let found = (0..60_000).find_map(|seed| history::live(seed, Some(bug), false).broken);
    let Some(found) = found else { panic!("{bug:?} did no harm that was noticed") };
    assert!(laws.contains(&found.law), "{bug:?} broke {found:?}");
}

/// Any law by which a container comes to harm.
const HARM: [Law; 5] =
    [Law::OneRuns, Law::NoSilentUndo, Law::NothingLost, Law::NoNeedlessLoss, Law::Progress];

#[test]
fn a_source_that_thaws_on_a_timeout_is_found() {
    is_found(Bug::SourceThawsOnTimeout, &[Law::OneRuns, Law::NoSilentUndo]);
}

#[test]
fn a_target_that_opens_on_a_timeout_is_found() {
    is_found(Bug::TargetOpensOnTimeout, &[Law::OneRuns, Law::NoSilentUndo]);
}

#[test]
fn a_commit_told_before_it_is_stored_is_found() {
    is_found(Bug::CommitSentBeforeItPersists, &[Law::PersistFirst]);
}

#[test]
fn a_target_that_forgets_its_refusal_is_found() {
    is_found(Bug::TargetForgetsItsRefusal, &HARM);
}

#[test]
fn a_source_discarded_at_the_commit_is_found() {
    is_found(Bug::SourceDiscardsAtCommit, &[Law::NothingLost, Law::NoNeedlessLoss]);
}

#[test]
fn an_opening_persisted_too_late_is_found() {
    is_found(Bug::OpeningPersistedTooLate, &HARM);
}

#[test]
fn agents_that_obey_any_run_are_found() {
    is_found(Bug::AgentsObeyAnyRun, &HARM);
}

#[test]
fn a_promise_that_is_not_persisted_is_found() {
    is_found(Bug::PromiseNotPersisted, &HARM);
}

#[test]
fn a_copy_said_dead_and_built_again_is_found() {
    is_found(Bug::CopyDeadNotPersisted, &HARM);
}

#[test]
fn a_call_that_outlives_its_agent_is_found() {
    is_found(Bug::CallOutlivesAgent, &HARM);
}

#[test]
fn an_agent_that_believes_its_ledger_is_found() {
    is_found(Bug::NoReconcile, &HARM);
}
