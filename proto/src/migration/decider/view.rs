//! What a report says of one end, seen from one attempt.

use std::cmp::Ordering;

use super::{Decider, Phase};
use crate::migration::row::End;

/// How one end stands toward the attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum View {
    /// Nothing heard under this run.
    Unheard,
    /// It knows nothing of the attempt and holds no container.
    Idle,
    /// It holds the container and knows nothing of the attempt.
    Owner,
    /// It knows the attempt and is that far.
    At(Phase),
    /// It has gone on to a later epoch.
    Beyond,
}

impl Decider {
    pub(super) fn view(&self, end: End) -> View {
        let Some(report) = self.report(end) else { return View::Unheard };
        let is_unknown = matches!(
            report.phase,
            Phase::UnknownRunning | Phase::UnknownFrozen | Phase::UnknownAbsent
        );
        match report.epoch.cmp(&self.row.epoch) {
            _ if is_unknown && report.epoch <= self.row.epoch => View::At(report.phase),
            Ordering::Equal => View::At(report.phase),
            Ordering::Greater => View::Beyond,
            Ordering::Less if report.phase.is_owner() => View::Owner,
            Ordering::Less => View::Idle,
        }
    }

    pub(super) fn is_fenced(&self, end: End) -> bool {
        self.row.fenced.contains(&end)
    }

    /// It ran there under this epoch, or never left, and ended by itself: that is its end,
    /// nothing is brought back.
    pub(super) fn has_ended(&self, end: End) -> bool {
        let has_code = self.report(end).is_some_and(|report| report.exit_code.is_some());
        self.view(end) == View::At(Phase::Ran) && has_code
    }

    /// No copy is left there, and nobody can say that it never ran there since the freeze.
    pub(super) fn is_lost(&self, end: End) -> bool {
        use Phase::{DeadUnknown, Ran, UnknownAbsent};
        let is_gone = matches!(self.view(end), View::At(DeadUnknown | UnknownAbsent | Ran));
        self.is_fenced(end) || (is_gone && !self.has_ended(end))
    }

    /// It runs there, has begun to, or has run to its end.
    pub(super) fn runs(&self, end: End) -> bool {
        let runs = match self.view(end) {
            View::At(Phase::Ran) => self.has_ended(end),
            View::At(phase) => phase.runs(),
            View::Beyond => end == End::Target && self.row.has_arrived,
            _ => false,
        };
        runs && !self.is_fenced(end)
    }

    /// No copy is left there, by its own persisted word or the operator's.
    pub(super) fn is_gone(&self, end: End) -> bool {
        self.is_fenced(end) || matches!(self.view(end), View::At(phase) if phase.is_over())
    }
}
