//! What the ends are told, given the row as it is stored.

use super::view::View;
use super::{Decider, Decision};
use crate::migration::event::Order;
use crate::migration::record::Phase;
use crate::migration::row::{Cause, End, Ruling};

impl Decider {
    /// The orders, unless the very same were given already: reports answer orders, and
    /// must not call forth the same orders without end.
    pub(super) fn new_orders(&mut self) -> Vec<Decision> {
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
            tell(End::Source, self.arm());
        }
        match self.row.ruling {
            None => self.opening_orders(source, target, &mut tell),
            Some(ruling) => self.ruled_orders(ruling, source, target, &mut tell),
        }
        orders
    }

    fn arm(&self) -> Order {
        Order::Arm { to: self.row.target.clone(), plan: self.row.plan }
    }

    fn opening_orders(&self, source: View, target: View, tell: &mut impl FnMut(End, Order)) {
        let plan = self.row.plan;
        let is_ready =
            |end| self.report(end).is_some_and(|report| report.ready == Some(self.row.epoch));
        if self.row.opener == Some(self.run) && self.row.cancelled.is_none() {
            match (source, target) {
                (View::Owner, View::At(Phase::Preparing))
                    if is_ready(End::Source) && is_ready(End::Target) =>
                {
                    tell(End::Source, Order::Freeze { to: self.row.target.clone(), plan });
                }
                (View::Owner, _) if !is_ready(End::Source) => tell(End::Source, self.arm()),
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
                let is_useless =
                    self.is_gone(End::Source) && (self.is_gone(End::Target) || self.row.is_settled);
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
