//! When the row changes: the commit point, what may amend it, and when it is over.
//!
//! Each rule looks at the row and at what both ends said under this run, and makes at
//! most one change, which is stored and read back before the next rule is asked.

use std::time::Duration;

use super::view::View;
use super::{Decider, Decision, Heard};
use crate::migration::record::Phase;
use crate::migration::row::{Cause, End, Ruling};
use crate::migration::timing;

impl Decider {
    /// The whole of the rules: at most one change of the row, then wait for it to be stored.
    pub(super) fn consider(&mut self, now: Duration) -> Vec<Decision> {
        if self.is_storing {
            return Vec::new();
        }
        if self.row.is_settled {
            return self.new_orders();
        }
        let changed = self
            .arrive()
            .or_else(|| self.overrule())
            .or_else(|| self.decide(now))
            .or_else(|| self.amend())
            .or_else(|| self.settle());
        changed.unwrap_or_else(|| self.new_orders())
    }

    fn arrive(&mut self) -> Option<Vec<Decision>> {
        let target = self.view(End::Target);
        let seen = matches!(target, View::At(Phase::Active | Phase::Stopped))
            || self.has_ended(End::Target);
        (seen && self.row.side() == Some(End::Target) && !self.row.has_arrived).then(|| {
            self.row.has_arrived = true;
            self.store()
        })
    }

    /// What an agent has begun overrules any row, unless a loss was recorded the other way.
    fn overrule(&mut self) -> Option<Vec<Decision>> {
        let (source, target) = (self.runs(End::Source), self.runs(End::Target));
        let side = match (source, target) {
            (true, false) => End::Source,
            (false, true) => End::Target,
            (false, false)
                if self.view(End::Target) == View::At(Phase::Ran)
                    && self.view(End::Source) != View::At(Phase::Ran)
                    && !self.row.possible_loss =>
            {
                End::Target
            }
            _ => return None,
        };
        if self.row.side() == Some(side) || (self.row.possible_loss && self.row.ruling.is_some()) {
            return None;
        }
        let cause = match (self.row.ruling, side) {
            (None, End::Source) => Cause::Abort,
            _ => Cause::Overruled,
        };
        Some(self.rule(side, cause, false))
    }

    /// The commit point.
    fn decide(&mut self, now: Duration) -> Option<Vec<Decision>> {
        use Phase::{Arming, Dead, DeadUnknown, Frozen, Kept, Preparing, Staged};
        use Phase::{UnknownAbsent, UnknownFrozen};
        if self.row.ruling.is_some() {
            return None;
        }
        let (source, target) = (self.view(End::Source), self.view(End::Target));
        let is_opener = self.row.opener == Some(self.run);
        let is_cancelled = self.row.cancelled.is_some();
        let source_frozen = matches!(source, View::At(Frozen | UnknownFrozen));
        let source_alive = source_frozen || matches!(source, View::Owner | View::At(Arming | Kept));

        let source_part = source_frozen || source == View::At(Dead);
        let source_lost = self.is_lost(End::Source);
        if target == View::At(Staged)
            && (source_part || source_lost)
            && self.vote_is_fresh(now)
            && !(is_opener && is_cancelled && source_alive)
        {
            return Some(self.rule(End::Target, Cause::Commit, !source_part));
        }

        let is_due = is_cancelled
            || !is_opener
            || self.is_fenced(End::Target)
            || matches!(source, View::At(Kept))
            || matches!(target, View::At(Dead | DeadUnknown));
        // A source that runs and knows nothing of the attempt has made no image of it.
        let target_cannot_run = is_opener
            || source == View::Owner
            || self.is_fenced(End::Target)
            || target == View::Idle
            || matches!(target, View::At(Preparing | Staged | Dead | DeadUnknown | UnknownAbsent));
        if is_due && source_alive && target_cannot_run {
            let is_unsure = !is_opener
                && source != View::Owner
                && (self.is_fenced(End::Target)
                    || matches!(target, View::At(DeadUnknown | UnknownAbsent)));
            return Some(self.rule(End::Source, Cause::Abort, is_unsure));
        }
        None
    }

    fn vote_is_fresh(&self, now: Duration) -> bool {
        let age = |heard: &Heard| now.saturating_sub(heard.at);
        self.heard[End::Target as usize].as_ref().is_some_and(|h| age(h) <= timing::VOTE_FRESH)
    }

    /// What may supersede the verdict.
    fn amend(&mut self) -> Option<Vec<Decision>> {
        use Phase::{Dead, Frozen, Staged, UnknownFrozen};
        let ruling = self.row.ruling?;
        let (source, target) = (self.view(End::Source), self.view(End::Target));
        let source_frozen = matches!(source, View::At(Frozen | UnknownFrozen));
        let source_lost = self.is_lost(End::Source);
        let is_stale = ruling.by != self.run;
        let may_go = |side| ruling.side == side || is_stale;

        if ruling.side == End::Target && source_frozen && target == View::At(Dead) {
            return Some(self.rule(End::Source, Cause::Returned, false));
        }
        if ruling.side == End::Source && source == View::At(Dead) && target == View::At(Staged) {
            return Some(self.rule(End::Target, Cause::Salvaged, false));
        }
        let has_left =
            target == View::At(Phase::Ran) && self.row.has_arrived && ruling.side == End::Target;
        let target_lost = self.is_lost(End::Target) && !has_left;
        let would_repeat = |side, cause| ruling.side == side && ruling.cause == cause && !is_stale;
        if may_go(End::Target)
            && source_frozen
            && target_lost
            && !would_repeat(End::Source, Cause::RolledBack)
        {
            return Some(self.rule(End::Source, Cause::RolledBack, true));
        }
        if may_go(End::Source)
            && target == View::At(Staged)
            && source_lost
            && !would_repeat(End::Target, Cause::RolledBack)
        {
            return Some(self.rule(End::Target, Cause::RolledBack, true));
        }
        None
    }

    /// Nothing is left to do: one side runs (or ended) and the other holds nothing.
    fn settle(&mut self) -> Option<Vec<Decision>> {
        use Phase::{Active, Gone, Ran, Stopped};
        let (source, target) = (self.view(End::Source), self.view(End::Target));
        let rests = |view| matches!(view, View::At(Active | Stopped | Ran) | View::Beyond);
        let is_empty = |end, view| {
            self.is_fenced(end) || matches!(view, View::At(Gone) | View::Idle | View::Beyond)
        };
        let is_done = match self.row.side() {
            Some(End::Source) => rests(source) && is_empty(End::Target, target),
            Some(End::Target) => {
                (rests(target) && self.row.has_arrived) && is_empty(End::Source, source)
            }
            None => false,
        };
        if is_done {
            self.row.is_settled = true;
            return Some(self.store());
        }
        let is_at_rest = match self.row.side() {
            Some(End::Source) => rests(source),
            Some(End::Target) => rests(target) && self.row.has_arrived,
            None => false,
        };
        if is_at_rest {
            return None;
        }
        let both_gone = self.is_gone(End::Source) && self.is_gone(End::Target);
        let both_fenced = self.is_fenced(End::Source) && self.is_fenced(End::Target);
        match self.row.ruling {
            _ if !both_gone || both_fenced => None,
            Some(Ruling { side, cause: Cause::MemoryLost, .. }) => {
                let is_alone = match side {
                    End::Source => is_empty(End::Target, target),
                    End::Target => is_empty(End::Source, source),
                };
                self.row.is_settled = is_alone;
                is_alone.then(|| self.store())
            }
            _ => {
                // The files are where it ran last; a later start makes a new life of them.
                let ran_here = target == View::At(Ran) && source != View::At(Ran);
                // Once it had arrived, the source may have been told to remove its files.
                let has_moved = self.row.has_arrived && self.row.side() == Some(End::Target);
                let is_here = ran_here || has_moved || source == View::At(Gone);
                let side = if is_here { End::Target } else { End::Source };
                Some(self.rule(side, Cause::MemoryLost, true))
            }
        }
    }
}
