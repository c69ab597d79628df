//! The target of a move: prepare, receive, restore to the gate, vote, wait.
//!
//! ```text
//! Absent ──Prepare──▶ Preparing ──staged──▶ Staged ──Open──▶ Opening ──▶ Active
//!                        │ failed, Refuse      │ gate lost       │ ended before it was seen
//!                        ▼                     ▼                 ▼
//!                       Dead ◀─────────────────┘                Ran
//! ```
//!
//! From `Staged` it never opens by itself: the source may have been thawed. It
//! keeps its copy until the other side runs (`Discard`).

use super::copy::{Copy, Hand};
use super::event::{Call, Outcome, Plan};
use super::record::{Phase, Role};
use crate::container::Execution;
use crate::id::{Digest, Epoch, NodeId};

impl Copy {
    /// Told to expect the container.
    pub(super) fn on_prepare(&mut self, hand: &mut Hand, epoch: Epoch, from: NodeId, plan: Plan) {
        // What an older attempt left is cleared away first; the order comes again.
        let is_clean = self.call.is_none() && !self.has_trace;
        if epoch > self.record.epoch && self.record.phase.is_over() && is_clean {
            self.adopt_epoch(epoch);
            self.begin_target(hand, from, plan);
        }
    }

    /// Persists that the node expects the image, then prepares for it.
    pub(super) fn begin_target(&mut self, hand: &mut Hand, from: NodeId, plan: Plan) {
        self.record.role = Role::Target;
        self.record.peer = Some(from);
        self.record.mode = plan.mode;
        self.record.bwlimit = plan.bwlimit;
        self.enter(hand, Phase::Preparing);
        self.ask(hand, Call::Prepare);
    }

    pub(super) fn prepared(&mut self, hand: &mut Hand, outcome: Outcome) {
        match outcome {
            Outcome::Failed(why) => self.give_up(hand, why),
            _ => {
                self.ready = Some(self.record.epoch);
                hand.must_report = true;
                self.ask(hand, Call::Fetch);
            }
        }
    }

    pub(super) fn fetched(&mut self, hand: &mut Hand, outcome: Outcome) {
        match outcome {
            Outcome::Image(digest) => {
                // Not persisted before it is staged: after a restart it is fetched again,
                // from what the stream kept on disk.
                self.record.image = Some(digest);
                self.ask(hand, Call::Stage);
            }
            Outcome::Failed(why) => self.give_up(hand, why),
            Outcome::Done => self.give_up(hand, "the transfer ended without an image".into()),
        }
    }

    /// The restore ended at the gate, or failed before it.
    pub(super) fn staged(&mut self, hand: &mut Hand, outcome: Outcome) {
        match (self.record.phase, outcome) {
            (Phase::Preparing, Outcome::Failed(why)) => self.give_up(hand, why),
            (Phase::Preparing, _) => {
                self.execution = Execution::Gated;
                self.enter(hand, Phase::Staged);
            }
            // The gate was built again after the verdict; the next look decides.
            (Phase::Opening, Outcome::Failed(why)) => {
                self.has_botched = true;
                self.record.reason = Some(why);
            }
            (Phase::Opening, _) => {
                self.has_botched = false;
                self.execution = Execution::Gated;
                self.ask(hand, Call::Open);
            }
            _ => {}
        }
    }

    /// Persists that it never began and never will, then clears up.
    pub(super) fn give_up(&mut self, hand: &mut Hand, why: String) {
        self.enter_because(hand, Phase::Dead, why);
        self.ask(hand, Call::Destroy);
    }

    /// The verdict is commit.
    pub(super) fn on_open(&mut self, hand: &mut Hand, epoch: Epoch, image: Digest) {
        let is_ready = epoch == self.record.epoch
            && self.record.phase == Phase::Staged
            && self.execution == Execution::Gated;
        if is_ready && self.holds_image(image) {
            self.enter(hand, Phase::Opening);
            self.ask(hand, Call::Open);
        }
    }

    /// Told never to begin under this epoch.
    pub(super) fn on_refuse(&mut self, hand: &mut Hand, epoch: Epoch) {
        let why = "refused for the controller: the source is gone";
        match self.record.phase {
            Phase::UnknownAbsent if epoch > self.record.epoch => {
                self.record.epoch = epoch;
                self.enter_because(hand, Phase::DeadUnknown, why);
            }
            // The image is whole and may be the last there is: the restore decides.
            Phase::Preparing if epoch == self.record.epoch && self.record.image.is_some() => {}
            Phase::Preparing if epoch == self.record.epoch => self.give_up(hand, why.into()),
            phase if epoch > self.record.epoch && phase.is_over() => {
                self.adopt_epoch(epoch);
                self.record.role = Role::Target;
                self.give_up(hand, why.into());
            }
            _ => {}
        }
    }

    /// The other side runs, or nobody shall.
    pub(super) fn on_discard(&mut self, hand: &mut Hand, epoch: Epoch) {
        use Phase::{Dead, DeadUnknown, Frozen, Gone, Preparing, Ran, Staged};
        use Phase::{UnknownAbsent, UnknownFrozen};
        let phase = self.record.phase;
        let is_ours = match epoch.cmp(&self.record.epoch) {
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Equal => matches!(
                phase,
                Preparing
                    | Staged
                    | Frozen
                    | Dead
                    | DeadUnknown
                    | Ran
                    | UnknownAbsent
                    | UnknownFrozen
            ),
            std::cmp::Ordering::Greater => {
                (phase.is_over() && phase != Gone) || phase == UnknownFrozen
            }
        };
        if is_ours {
            if epoch > self.record.epoch {
                self.adopt_epoch(epoch);
            }
            // The other side has them, or nobody is to have them as they are here.
            self.record.drops_volumes = true;
            self.enter(hand, Gone);
            self.ask(hand, Call::Destroy);
        }
    }
}
