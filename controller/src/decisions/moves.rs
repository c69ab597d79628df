//! How a move looks to people: its phase, its clocks, how it ended and what to do then.

use std::time::Instant;

use godwit_proto::frame::{Progress, Step};
use godwit_proto::id::{Epoch, MigrationId, Run};
use godwit_proto::migration::{Cause, Decider, End, Phase, Row};
use godwit_proto::timeline::Moment;
use jiff::Timestamp;

use crate::store::{AttemptRow, PhaseMark};
use crate::{timeline, view};

/// Why a move is called off that an operator called off.
pub(super) const CANCELLED: &str = "cancelled by an operator";
/// How long a move that is decided or called off may be silent before it is shown as in doubt.
const DOUBT_SECONDS: u64 = 5;

/// What is known of a live move beyond its rows.
#[derive(Debug, Default)]
pub(super) struct Clock {
    step: Option<Step>,
    /// What was said last of how far it is.
    at: Option<(Step, u64)>,
    frozen_at: Option<Instant>,
    decided_at: Option<Instant>,
    phase_at: Option<Instant>,
    pub(super) shown: view::Progress,
}

/// What a migration is called: unique, for epochs are.
pub(super) fn name(epoch: Epoch) -> MigrationId {
    let text = format!("m-{}-{}", epoch.generation, epoch.counter);
    match text.parse() {
        Ok(id) => id,
        Err(_) => unreachable!("digits and dashes are a topic level"),
    }
}

/// A new attempt as it is stored.
pub(super) fn attempt_row(row: &Row) -> AttemptRow {
    AttemptRow {
        id: name(row.epoch),
        container: row.spec.id,
        tenant: row.spec.tenant.clone(),
        name: row.spec.name.clone(),
        epoch: row.epoch,
        source: row.source.clone(),
        target: row.target.clone(),
        mode: row.plan.mode,
        bwlimit: row.plan.bwlimit,
        opener: row.opener.unwrap_or(Run { generation: 0, nonce: 0 }),
        decider: super::world::encode(row),
        settled: false,
        phase: "preparing".into(),
        outcome: None,
        reason: None,
        remedy: None,
        phases: Vec::new(),
        timeline: Vec::new(),
        bytes: 0,
        wire_bytes: 0,
        gap_ms: None,
        predicted: None,
        started: Timestamp::now(),
        ended: None,
    }
}

impl Clock {
    /// A node says how far it is. Answers whether more has come ahead of the freeze.
    pub(super) fn note(&mut self, stored: &mut AttemptRow, progress: &Progress) -> bool {
        if progress.step == Step::Freezing {
            self.frozen_at.get_or_insert_with(Instant::now);
        }
        if self.step.is_none_or(|step| step <= progress.step) {
            self.step = Some(progress.step);
        }
        if progress.total_bytes.is_some() {
            stored.bytes = progress.bytes;
            stored.wire_bytes = progress.wire_bytes;
            self.shown.bytes_total = progress.total_bytes;
            self.shown.rate_bytes_per_s = Some(progress.rate);
        }
        let at = Some((progress.step, progress.bytes));
        let is_ahead = self.step < Some(Step::Freezing);
        std::mem::replace(&mut self.at, at) != at && is_ahead
    }

    /// Brings the stored attempt up to date with its decider.
    pub(super) fn follow(&mut self, stored: &mut AttemptRow, decider: &Decider) {
        let row = decider.row();
        let phase_of = |end| decider.report(end).filter(|r| r.epoch == row.epoch).map(|r| r.phase);
        let runs = |end| matches!(phase_of(end), Some(Phase::Active | Phase::Stopped));
        if row.side().is_some_and(runs)
            && let Some(frozen_at) = self.frozen_at.take()
        {
            stored.gap_ms = u64::try_from(frozen_at.elapsed().as_millis()).ok();
        }
        if (row.ruling.is_some() || row.cancelled.is_some()) && self.decided_at.is_none() {
            self.decided_at = Some(Instant::now());
            let now = Timestamp::now().as_microsecond();
            timeline::see(&mut stored.timeline, Moment::Verdict, now);
        }
        let phase = self.phase(row, phase_of(End::Target));
        self.enter(stored, phase);
        if phase != "done" {
            (stored.reason, stored.remedy) = (phase == "in-doubt").then(|| doubt(row)).unzip();
        }
        if row.is_settled && stored.ended.is_none() {
            conclude(stored, row);
        }
    }

    fn phase(&self, row: &Row, target: Option<Phase>) -> &'static str {
        let is_silent = self.decided_at.is_some_and(|at| at.elapsed().as_secs() >= DOUBT_SECONDS);
        match row.side() {
            _ if row.is_settled => "done",
            Some(End::Target) if row.has_arrived => "closing",
            _ if is_silent => "in-doubt",
            Some(End::Target) => "opening",
            Some(End::Source) => "aborting",
            None if target == Some(Phase::Staged) => "deciding",
            None => match self.step {
                None | Some(Step::FetchingImage | Step::FetchingVolumes) => "preparing",
                Some(Step::Freezing | Step::Dumping) => "freezing",
                Some(Step::Transferring) => "transferring",
                Some(_) => "staging",
            },
        }
    }

    fn enter(&mut self, stored: &mut AttemptRow, phase: &str) {
        let is_same = stored.phases.last().is_some_and(|mark| mark.phase == phase);
        if is_same {
            return;
        }
        let lasted = self.phase_at.replace(Instant::now()).map(|at| at.elapsed().as_millis());
        if let Some(mark) = stored.phases.last_mut() {
            mark.ms = lasted.and_then(|ms| u64::try_from(ms).ok());
        }
        stored.phase = phase.into();
        if phase != "done" {
            let started = Timestamp::now();
            stored.phases.push(PhaseMark { phase: phase.into(), started, ms: None });
        }
    }
}

/// How a move that is over ended, in words for people.
pub(super) fn conclude(stored: &mut AttemptRow, row: &Row) {
    stored.ended = Some(Timestamp::now());
    let cause = row.ruling.map(|ruling| ruling.cause);
    let outcome = match (row.side(), cause) {
        // It ended by itself: nothing of the move had touched it.
        (_, Some(Cause::MemoryLost)) if !was_frozen(stored) && row.fenced.is_empty() => "aborted",
        (_, Some(Cause::MemoryLost)) => "lost",
        (_, Some(Cause::RolledBack)) => "rolled-back",
        (Some(End::Target), Some(Cause::Salvaged)) => "salvaged",
        (Some(End::Target), _) => "moved",
        (_, Some(Cause::Returned)) => "returned",
        _ if row.cancelled.as_deref() == Some(CANCELLED) => "cancelled",
        _ => "aborted",
    };
    stored.outcome = Some(outcome.into());
    (stored.reason, stored.remedy) = (None, None);
    if outcome == "moved" {
        return;
    }
    let said = match outcome {
        "cancelled" => row.cancelled.clone(),
        _ => row.reason.clone().or_else(|| row.cancelled.clone()),
    };
    stored.reason = Some(said.unwrap_or_else(|| "the controller restarted in the middle".into()));
    let (holder, name) = (row.holder(), &row.spec.name);
    if outcome == "aborted" && cause == Some(Cause::MemoryLost) {
        stored.reason = Some(format!("it ended on `{holder}` before it was frozen"));
        stored.remedy = Some(format!("`godwit logs {name}` may say why; `godwit start {name}`"));
        return;
    }
    stored.remedy = Some(match outcome {
        "lost" if row.end(holder).is_some_and(|end| row.fenced.contains(&end)) => format!(
            "its files are on `{holder}`, which was fenced: power it on and `godwit start \
             {name}`, or `godwit rm {name}` and run it anew elsewhere"
        ),
        "lost" => {
            format!("both copies are gone; its files are on `{holder}`: `godwit start {name}`")
        }
        "rolled-back" => {
            format!("it goes on on `{holder}` from where it was frozen: what it did since is lost")
        }
        "cancelled" => format!("it runs on `{holder}` as before"),
        _ => {
            format!("it runs on `{holder}`; mend the cause, then `godwit migrate {name}` again")
        }
    });
}

/// Whether the move ever stopped the container.
pub(super) fn was_frozen(stored: &AttemptRow) -> bool {
    stored.phases.iter().any(|mark| mark.phase == "freezing")
}

/// Why a move is in doubt, and what to do about it.
fn doubt(row: &Row) -> (String, String) {
    let is_fenced = |end: &End| row.fenced.contains(end);
    let (source, target) = (&row.source, &row.target);
    // Whoever may run has to say so; if it is fenced, the other has to say what it has.
    let missing = match row.side() {
        Some(End::Source) if !is_fenced(&End::Source) => Some(source),
        Some(End::Target) if !is_fenced(&End::Target) => Some(target),
        Some(End::Source) => Some(target),
        Some(End::Target) => Some(source),
        None => None,
    };
    let (nodes, which) = match missing {
        Some(node) => (format!("`{node}`"), node.as_str()),
        None => (format!("`{source}` or `{target}`"), "NODE"),
    };
    (
        format!("the word of {nodes} is missing"),
        format!(
            "bring its agent back (`godwit node ls` shows who is lost); only if its power is gone \
             or its copies were killed: `godwit node fence {which}`"
        ),
    )
}
