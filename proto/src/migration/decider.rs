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

use std::time::Duration;

use super::event::{Order, Report};
use super::record::Phase;
use super::row::{Cause, End, Row, Ruling};
use super::timing;
use crate::id::{Epoch, NodeId, Run};

/// What a decider asks for, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// Write the row (a first ruling also as the verdict, insert-or-ignore), sync it,
    /// read it back, and hand what was read to [`Decider::stored`] before anything else.
    Persist(Box<Row>),
    /// Send an order under the attempt's epoch.
    Order(NodeId, Order),
}

/// How one end stands toward the attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum View {
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
    opened_at: Duration,
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
            opened_at: now,
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
        self.store()
    }

    /// Time passed: the deadline is checked and the orders are repeated.
    pub fn tick(&mut self, now: Duration) -> Vec<Decision> {
        if now.saturating_sub(self.opened_at) > timing::DEADLINE {
            let late = self.cancel("it did not end within its deadline");
            if !late.is_empty() {
                return late;
            }
        }
        self.ordered.clear();
        let mut decisions = self.consider(now);
        let is_told = |end: End, decisions: &[Decision]| {
            decisions.iter().any(|d| matches!(d, Decision::Order(to, _) if to == self.row.node(end)))
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
        if self.row.reason.is_none() && failed {
            let node = self.row.node(end).clone();
            let said = self.report(end).and_then(|report| report.reason.clone());
            self.row.reason = said.map(|said| format!("{node}: {said}"));
        }
    }

    fn view(&self, end: End) -> View {
        let Some(report) = self.report(end) else { return View::Unheard };
        let is_unknown = matches!(
            report.phase,
            Phase::UnknownRunning | Phase::UnknownFrozen | Phase::UnknownAbsent
        );
        match report.epoch.cmp(&self.row.epoch) {
            _ if is_unknown && report.epoch <= self.row.epoch => View::At(report.phase),
            std::cmp::Ordering::Equal => View::At(report.phase),
            std::cmp::Ordering::Greater => View::Beyond,
            std::cmp::Ordering::Less if report.phase.is_owner() => View::Owner,
            std::cmp::Ordering::Less => View::Idle,
        }
    }

    fn is_fenced(&self, end: End) -> bool {
        self.row.fenced.contains(&end)
    }

    /// It ran there under this epoch, or never left, and ended by itself: that is its end,
    /// nothing is brought back.
    fn has_ended(&self, end: End) -> bool {
        let has_code = self.report(end).is_some_and(|report| report.exit_code.is_some());
        self.view(end) == View::At(Phase::Ran) && has_code
    }

    /// No copy is left there, and nobody can say that it never ran there since the freeze.
    fn is_lost(&self, end: End) -> bool {
        use Phase::{DeadUnknown, Ran, UnknownAbsent};
        let is_gone = matches!(self.view(end), View::At(DeadUnknown | UnknownAbsent | Ran));
        self.is_fenced(end) || (is_gone && !self.has_ended(end))
    }

    /// It runs there, has begun to, or has run to its end.
    fn runs(&self, end: End) -> bool {
        let runs = match self.view(end) {
            View::At(Phase::Ran) => self.has_ended(end),
            View::At(phase) => phase.runs(),
            View::Beyond => end == End::Target && self.row.has_arrived,
            _ => false,
        };
        runs && !self.is_fenced(end)
    }

    /// No copy is left there, by its own persisted word or the operator's.
    fn is_gone(&self, end: End) -> bool {
        self.is_fenced(end) || matches!(self.view(end), View::At(phase) if phase.is_over())
    }

    /// The whole of the rules: at most one change of the row, then wait for it to be stored.
    fn consider(&mut self, now: Duration) -> Vec<Decision> {
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
        let source_alive =
            source_frozen || matches!(source, View::Owner | View::At(Arming | Kept));

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
            || matches!(source, View::At(Kept))
            || matches!(target, View::At(Dead | DeadUnknown));
        // A source that runs and knows nothing of the attempt has made no image of it.
        let target_cannot_run = is_opener
            || source == View::Owner
            || self.is_fenced(End::Target)
            || target == View::Idle
            || matches!(
                target,
                View::At(Preparing | Staged | Dead | DeadUnknown | UnknownAbsent)
            );
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
        let has_left = target == View::At(Phase::Ran)
            && self.row.has_arrived
            && ruling.side == End::Target;
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

    /// The orders, unless the very same were given already: reports answer orders, and
    /// must not call forth the same orders without end.
    fn new_orders(&mut self) -> Vec<Decision> {
        let orders = self.orders();
        if orders == self.ordered {
            return Vec::new();
        }
        self.ordered.clone_from(&orders);
        orders
    }

    /// Everything that the ends should be told now, given the row and their reports.
    fn orders(&self) -> Vec<Decision> {
        let (source, target) = (self.view(End::Source), self.view(End::Target));
        let mut orders = Vec::new();
        let mut tell = |end: End, order| {
            orders.push(Decision::Order(self.row.node(end).clone(), order));
        };
        for (end, view) in [(End::Source, source), (End::Target, target)] {
            if view == View::Unheard {
                tell(end, Order::Ask);
            }
        }
        if source == View::Idle {
            // That may be late news. Asked to arm, it says under this epoch what it has.
            tell(End::Source, Order::Arm(self.row.plan));
        }
        match self.row.ruling {
            None => self.opening_orders(source, target, &mut tell),
            Some(ruling) => self.ruled_orders(ruling, source, target, &mut tell),
        }
        orders
    }

    fn opening_orders(&self, source: View, target: View, tell: &mut impl FnMut(End, Order)) {
        let plan = self.row.plan;
        let is_ready = |end| {
            self.report(end).is_some_and(|report| report.ready == Some(self.row.epoch))
        };
        if self.row.opener == Some(self.run) && self.row.cancelled.is_none() {
            match (source, target) {
                (View::Owner, View::At(Phase::Preparing))
                    if is_ready(End::Source) && is_ready(End::Target) =>
                {
                    tell(End::Source, Order::Freeze { to: self.row.target.clone(), plan });
                }
                (View::Owner, _) if !is_ready(End::Source) => tell(End::Source, Order::Arm(plan)),
                _ => {}
            }
            if target == View::Idle {
                let spec = Box::new(self.row.spec.clone());
                let from = self.row.source.clone();
                tell(End::Target, Order::Prepare { from, spec, plan });
            }
        }
        self.refusal_orders(source, target, tell);
    }

    /// The source is gone and the target never staged: it refuses for good, so that this can end.
    fn refusal_orders(&self, source: View, target: View, tell: &mut impl FnMut(End, Order)) {
        use Phase::{Dead, DeadUnknown, Preparing, Ran, UnknownAbsent};
        if self.row.ruling.is_some_and(|ruling| ruling.cause == Cause::MemoryLost) {
            return;
        }
        let source_over = self.is_fenced(End::Source)
            || matches!(source, View::At(Dead | DeadUnknown | Ran | UnknownAbsent));
        let is_waiting = matches!(target, View::Idle | View::At(Preparing));
        let forgot = target == View::At(UnknownAbsent) && source != View::Owner;
        if (source_over && is_waiting) || forgot {
            tell(End::Target, Order::Refuse(Box::new(self.row.spec.clone())));
        }
    }

    /// The copy at that end is of no more use.
    fn discard(&self, end: End, tell: &mut impl FnMut(End, Order)) {
        match self.view(end) {
            View::At(Phase::Gone) | View::Idle | View::Unheard | View::Beyond => {}
            View::At(Phase::UnknownAbsent) => {
                // It may have no row to discard: refusing makes one.
                tell(end, Order::Refuse(Box::new(self.row.spec.clone())));
                tell(end, Order::Discard);
            }
            View::Owner | View::At(_) => tell(end, Order::Discard),
        }
    }

    fn ruled_orders(
        &self,
        ruling: Ruling,
        source: View,
        target: View,
        tell: &mut impl FnMut(End, Order),
    ) {
        use Phase::{Active, Dead, Frozen, Gone, Preparing, Staged, Stopped};
        use Phase::{UnknownFrozen, UnknownRunning};
        let is_own = ruling.by == self.run;
        match ruling.side {
            End::Source => {
                // It runs and knows nothing of the attempt: no image was ever made.
                let cannot_run = source == View::Owner
                    || target == View::Idle
                    || matches!(target, View::At(Preparing | Staged | Dead | Gone));
                let is_held = source == View::Owner
                    || matches!(source, View::At(Phase::Arming | Frozen | UnknownFrozen));
                if is_held && (is_own || cannot_run) {
                    tell(End::Source, Order::Thaw);
                }
                if source == View::At(UnknownRunning) {
                    tell(End::Source, Order::Adopt);
                }
                let runs = matches!(source, View::At(Active | Stopped) | View::Beyond)
                    || self.has_ended(End::Source);
                // A source whose copy is gone may yet need the target's.
                let is_useless = self.is_gone(End::Source)
                    && (self.is_gone(End::Target) || self.row.is_settled);
                if runs || is_useless || ruling.cause == Cause::MemoryLost {
                    self.discard(End::Target, tell);
                }
                self.refusal_orders(source, target, tell);
            }
            End::Target => {
                let source_safe = matches!(source, View::At(Frozen | UnknownFrozen | Dead | Gone));
                if target == View::At(Staged)
                    && (is_own || source_safe)
                    && let Some(image) = self.report(End::Target).and_then(|report| report.image)
                {
                    tell(End::Target, Order::Open { image });
                }
                if target == View::At(UnknownRunning) {
                    tell(End::Target, Order::Adopt);
                }
                if self.row.has_arrived || ruling.cause == Cause::MemoryLost {
                    self.discard(End::Source, tell);
                }
            }
        }
    }
}

/// Within one run, what a node said last is what ranks highest.
fn rank(report: &Report) -> (Epoch, Phase) {
    (report.epoch, report.phase)
}
