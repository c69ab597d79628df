//! The owner at rest: make, start, stop, remove.

use super::copy::{Copy, Hand};
use super::event::Call;
use super::record::{Phase, Role};
use crate::container::Execution;
use crate::id::Epoch;

impl Copy {
    /// Told to make what a lost ledger forgot before it was ever started.
    pub(super) fn on_create(&mut self, hand: &mut Hand, epoch: Epoch) {
        if epoch > self.record.epoch && self.record.phase == Phase::UnknownAbsent {
            self.adopt_epoch(epoch);
            self.enter(hand, Phase::Creating);
            self.ask(hand, Call::Create);
        }
    }

    /// Told to start what is here and does not run. A start is a new epoch: whatever
    /// an older one left anywhere can never be mistaken for it.
    pub(super) fn on_start(&mut self, hand: &mut Hand, epoch: Epoch) {
        let is_here = match self.record.phase {
            Phase::Active | Phase::Stopped | Phase::Ran | Phase::UnknownAbsent => true,
            Phase::Dead => self.record.role == Role::Owner,
            _ => false,
        };
        if epoch > self.record.epoch && is_here {
            self.adopt_epoch(epoch);
            self.enter(hand, Phase::Starting);
            self.ask(hand, Call::Start);
        }
    }

    /// Told to stop. Persisted first, so that a restart in between stops it again.
    pub(super) fn on_stop(&mut self, hand: &mut Hand, epoch: Epoch, grace_ms: Option<u64>) {
        let may = matches!(self.record.phase, Phase::Active | Phase::Kept | Phase::Starting);
        if epoch == self.record.epoch && may {
            self.record.grace_ms = grace_ms;
            self.enter(hand, Phase::Stopped);
            self.ask(hand, Call::Stop);
        }
    }

    /// Told to remove, whether it runs or not; never in the middle of a move.
    pub(super) fn on_remove(&mut self, hand: &mut Hand, epoch: Epoch) {
        use Phase::{Active, Creating, Gone, Kept, Starting, Stopped};
        let phase = self.record.phase;
        let is_held = matches!(phase, Creating | Starting | Active | Kept | Stopped);
        let is_new = phase != Gone || epoch > self.record.epoch;
        if epoch >= self.record.epoch && (is_held || phase.is_over()) && is_new {
            self.record.epoch = epoch;
            self.enter(hand, Phase::Gone);
            self.ask(hand, Call::Destroy);
        }
    }

    /// After a lost ledger: told that what runs here is rightly here. It may have been lost
    /// in the middle of a move, so what the move left is undone as after a thaw.
    pub(super) fn on_adopt(&mut self, hand: &mut Hand, epoch: Epoch) {
        if self.record.phase == Phase::UnknownRunning && self.execution == Execution::Running {
            self.record.epoch = epoch;
            self.enter(hand, Phase::Thawing);
            self.ask(hand, Call::Thaw);
        }
    }
}
