//! The only decider: one attempt, its row, and what both ends reported.
//!
//! ```text
//! reports ──▶ conditions ──▶ Persist(row) ──▶ (read back) ──▶ orders
//! ```
//!
//! A row binds the run that wrote it. A later run (restart, takeover, restored
//! backup) acts on it only after it checked the row's conditions on its own
//! reports. What an agent has begun overrules any row. The rules are those that
//! the exhaustive model was checked with; each has its counterexample when left out.

mod orders;
mod rules;
#[cfg(test)]
mod tests;
mod view;

use std::time::Duration;

use super::event::{Order, Report};
use super::record::Phase;
use super::row::{Cause, End, Row, Ruling};
use super::timing;
use crate::id::{Epoch, NodeId, Run};
use view::View;

/// What a decider asks for, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// Write the row (a first ruling also as the verdict, insert-or-ignore), sync it,
    /// read it back, and hand what was read to [`Decider::stored`] before anything else;
    /// [`Decider::refused`] where it cannot be written.
    Persist(Box<Row>),
    /// Send an order under the attempt's epoch.
    Order(NodeId, Order),
}

/// The last report of one end.
#[derive(Debug, Clone)]
struct Heard {
    report: Report,
    at: Duration,
}

/// The machine of one attempt.
#[derive(Debug, Clone)]
pub struct Decider {
    row: Row,
    run: Run,
    /// Since when it may be called off for taking too long.
    since: Duration,
    heard: [Option<Heard>; 2],
    is_storing: bool,
    /// Ends that were heard under this run and then fenced. They come back as another life,
    /// which is another run: whatever is still heard of them under this one was said before.
    silenced: Vec<End>,
    /// What was ordered last; only a tick repeats it.
    ordered: Vec<Decision>,
}

impl Decider {
    /// Takes up an attempt: a new one, or a row of the database after a start.
    /// `now` counts from any fixed point.
    pub fn new(row: Row, run: Run, now: Duration) -> Self {
        Self {
            row,
            run,
            since: now,
            heard: [None, None],
            is_storing: false,
            silenced: Vec::new(),
            ordered: Vec::new(),
        }
    }

    /// The row as it was last stored.
    pub fn row(&self) -> &Row {
        &self.row
    }

    /// The last report of an end under this run.
    pub fn report(&self, end: End) -> Option<&Report> {
        self.heard[end as usize].as_ref().map(|heard| &heard.report)
    }

    /// Nothing is left to do or to tell.
    pub fn is_over(&self) -> bool {
        let is_quiet = |end| match self.view(end) {
            View::At(phase) if self.row.side() == Some(end) => !phase.awaits_verdict(),
            View::At(phase) => phase == Phase::Gone || self.is_fenced(end),
            _ => true,
        };
        self.row.is_settled && is_quiet(End::Source) && is_quiet(End::Target)
    }

    /// Hears a report. Late ones change nothing: within a run only the furthest counts.
    pub fn hear(&mut self, from: &NodeId, report: Report, now: Duration) -> Vec<Decision> {
        let Some(end) = self.row.end(from).filter(|end| !self.silenced.contains(end)) else {
            return Vec::new();
        };
        let slot = &mut self.heard[end as usize];
        match slot {
            Some(old) if rank(&old.report) > rank(&report) => return Vec::new(),
            Some(old) if rank(&old.report) == rank(&report) => {
                old.at = now;
                let ready = old.report.ready.max(report.ready);
                old.report = Report { ready, ..report };
            }
            _ => *slot = Some(Heard { report, at: now }),
        }
        self.note_reason(end);
        if let Some(at) = self.row.fenced.iter().position(|fenced| *fenced == end)
            && !self.is_storing
        {
            // It is back: from here on its own word counts.
            self.row.fenced.remove(at);
            return self.store();
        }
        self.consider(now)
    }

    /// Someone asks to call the move off; in vain once it is decided.
    pub fn cancel(&mut self, why: &str) -> Vec<Decision> {
        if self.row.ruling.is_some() || self.row.cancelled.is_some() || self.is_storing {
            return Vec::new();
        }
        self.row.cancelled = Some(why.to_owned());
        self.store()
    }

    /// The operator says that an end lost its power, or that its copies were killed.
    /// Never say it of a node that is merely unreachable, nor of one whose agent is up:
    /// that one says itself what is left.
    pub fn fence(&mut self, end: End) -> Vec<Decision> {
        if self.is_storing || self.silenced.contains(&end) {
            return Vec::new();
        }
        if self.heard[end as usize].take().is_some() {
            self.silenced.push(end);
        }
        if self.row.fenced.contains(&end) {
            return Vec::new();
        }
        self.row.fenced.push(end);
        let why = format!("{}: it was fenced", self.row.node(end));
        self.row.reason.get_or_insert(why);
        self.store()
    }

    /// More has come of what goes ahead of the freeze: the deadline begins anew.
    pub fn advanced(&mut self, now: Duration) {
        self.since = now;
    }

    /// Time passed: the deadline is checked and the orders are repeated.
    pub fn tick(&mut self, now: Duration) -> Vec<Decision> {
        if now.saturating_sub(self.since) > timing::DEADLINE {
            let late = self.cancel("it did not end within its deadline");
            if !late.is_empty() {
                return late;
            }
        }
        self.ordered.clear();
        let mut decisions = self.consider(now);
        let is_told = |end: End, decisions: &[Decision]| {
            decisions
                .iter()
                .any(|d| matches!(d, Decision::Order(to, _) if to == self.row.node(end)))
        };
        if !self.is_over() && !self.is_storing {
            // Its last word may have been lost, and what has come to rest does not repeat itself.
            for end in [End::Source, End::Target] {
                if !is_told(end, &decisions) {
                    decisions.push(Decision::Order(self.row.node(end).clone(), Order::Ask));
                }
            }
        }
        decisions
    }

    /// The row as it was read back: whoever wrote first is obeyed.
    pub fn stored(&mut self, row: Row, now: Duration) -> Vec<Decision> {
        self.row = row;
        self.is_storing = false;
        self.consider(now)
    }

    /// The row could not be written and is what it was before. What was decided on is decided
    /// again, on the next report or tick.
    pub fn refused(&mut self, before: Row) {
        self.silenced.retain(|end| before.fenced.contains(end));
        self.row = before;
        self.is_storing = false;
    }

    fn store(&mut self) -> Vec<Decision> {
        self.is_storing = true;
        vec![Decision::Persist(Box::new(self.row.clone()))]
    }

    fn rule(&mut self, side: End, cause: Cause, possible_loss: bool) -> Vec<Decision> {
        self.row.ruling = Some(Ruling { side, cause, by: self.run });
        self.row.possible_loss |= possible_loss;
        self.store()
    }

    fn note_reason(&mut self, end: End) {
        let failed = matches!(self.view(end), View::At(Phase::Dead | Phase::Kept | Phase::Ran));
        let said = self.report(end).and_then(|report| report.reason.clone());
        let Some(said) = said else { return };
        // A source that failed withdraws what it sent: the target's word may come first, and only
        // tells of that.
        let is_cause = end == End::Source
            && matches!(self.view(end), View::At(Phase::Kept | Phase::Active))
            && self.row.side() != Some(End::Target)
            && said != super::source::CALLED_OFF;
        if is_cause || (self.row.reason.is_none() && failed) {
            self.row.reason = Some(format!("{}: {said}", self.row.node(end)));
        }
    }
}

/// Within one run, what a node said last is what ranks highest.
fn rank(report: &Report) -> (Epoch, Phase) {
    (report.epoch, report.phase)
}
