//! The source of a move: arm, freeze and dump, then wait for the verdict.
//!
//! ```text
//! Active ──Arm──▶ (armed) ──Freeze──▶ Arming ──dumped──▶ Frozen ──Discard──▶ Gone
//!    ▲                                  │                   │
//!    │            Kept ◀── Thaw, failed ┘                 Thaw
//!    └── thawed ───┴──────────── Thawing ◀──────────────────┘
//! ```
//!
//! From `Frozen` it never thaws by itself: the target may already run.

use std::cmp::Ordering;

use super::copy::{Copy, Hand};
use super::event::{Arming, Call, Outcome, Plan};
use super::record::Phase;
use crate::container::Execution;
use crate::id::{Epoch, NodeId};

/// The reason of a source that was told to keep its container: no cause of anything.
pub(super) const CALLED_OFF: &str = "called off before the freeze";

impl Copy {
    /// Told to do what can be done before the freeze.
    pub(super) fn on_arm(&mut self, hand: &mut Hand, epoch: Epoch, to: NodeId, plan: Plan) {
        let is_new = self.arming.as_ref().is_none_or(|armed| armed.epoch < epoch);
        if epoch > self.record.epoch && self.record.phase == Phase::Active && is_new {
            let arming = Arming { epoch, to, plan };
            self.arming = Some(arming.clone());
            self.ready = None;
            self.ask(hand, Call::Arm(arming));
        }
        self.refuse_idle(hand, epoch);
    }

    /// What does not run cannot be frozen. It stays what it is and says so under the new
    /// epoch: said under an older one, it may be late news.
    fn refuse_idle(&mut self, hand: &mut Hand, epoch: Epoch) {
        let is_idle = self.record.phase == Phase::Stopped || self.record.phase.is_over();
        if epoch > self.record.epoch && is_idle && self.record.phase != Phase::UnknownAbsent {
            self.record.epoch = epoch;
            self.record.peer = None;
            self.persist(hand);
        }
    }

    /// Arming ended. A source that cannot arm refuses for good: nothing was frozen.
    pub(super) fn armed(&mut self, hand: &mut Hand, outcome: Outcome) {
        let Some(epoch) = self.arming.as_ref().map(|arming| arming.epoch) else { return };
        match outcome {
            Outcome::Failed(why) => {
                self.adopt_epoch(epoch);
                self.keep(hand, &why);
            }
            _ => {
                self.ready = Some(epoch);
                hand.must_report = true;
            }
        }
    }

    /// Told to freeze and dump.
    pub(super) fn on_freeze(&mut self, hand: &mut Hand, epoch: Epoch, to: NodeId, plan: Plan) {
        self.refuse_idle(hand, epoch);
        if epoch > self.record.epoch && self.record.phase == Phase::Active {
            let ready = self.ready;
            self.adopt_epoch(epoch);
            self.ready = ready;
            self.record.peer = Some(to);
            self.record.mode = plan.mode;
            self.record.bwlimit = plan.bwlimit;
            self.enter(hand, Phase::Arming);
            self.ask(hand, Call::Freeze);
        }
    }

    /// The dump ended; on success every process is frozen and the image complete.
    pub(super) fn dumped(&mut self, hand: &mut Hand, outcome: Outcome) {
        match outcome {
            Outcome::Image(digest) => {
                self.record.image = Some(digest);
                self.execution = Execution::Frozen;
                self.enter(hand, Phase::Frozen);
            }
            Outcome::Failed(why) => self.keep(hand, &why),
            Outcome::Done => self.keep(hand, "the dump ended without an image"),
        }
    }

    /// Persists that it will not freeze under this epoch, then undoes what was begun.
    pub(super) fn keep(&mut self, hand: &mut Hand, why: &str) {
        self.enter_because(hand, Phase::Kept, why);
        self.ask(hand, Call::Thaw);
    }

    /// Told that the move is off.
    pub(super) fn on_thaw(&mut self, hand: &mut Hand, epoch: Epoch) {
        let phase = self.record.phase;
        match (phase, epoch.cmp(&self.record.epoch)) {
            (Phase::Active | Phase::Kept, Ordering::Greater) => {
                self.adopt_epoch(epoch);
                self.keep(hand, CALLED_OFF);
            }
            (Phase::Arming, Ordering::Equal) => self.keep(hand, "called off during the dump"),
            (Phase::Frozen, Ordering::Equal) | (Phase::UnknownFrozen, Ordering::Greater)
                if self.execution != Execution::Absent =>
            {
                // The verdict says that the target never began. What this node begins
                // from here on overrules any row.
                self.record.epoch = epoch;
                self.enter(hand, Phase::Thawing);
                self.ask(hand, Call::Thaw);
            }
            _ => self.refuse_idle(hand, epoch),
        }
    }
}
