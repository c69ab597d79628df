//! One container on one node: the ledger's row, and what is in hand besides.
//!
//! [`source`](super::source), [`target`](super::target) and
//! [`owner`](super::owner) say what an order, the end of a call or a look at the
//! kernel means in each role; this file holds what they share.

use super::event::{Arming, Call, Effect, Outcome, Report, Sight};
use super::record::{Phase, Record, Role};
use crate::container::{Execution, Mode};
use crate::id::{Digest, Epoch};

/// How often a target that was told to open restores its image again under an
/// untouched guard before it gives the copy up as gone.
const REOPEN_LIMIT: u8 = 3;

/// A container on this node, as the machines work on it.
#[derive(Debug, Clone)]
pub(super) struct Copy {
    /// The row, as it was last persisted.
    pub(super) record: Record,
    /// The call that is under way.
    pub(super) call: Option<(u64, Call)>,
    /// What the kernel showed last, or what a call that succeeded since has made of it.
    pub(super) execution: Execution,
    /// Something of it may be there: processes, files, a namespace.
    pub(super) has_trace: bool,
    /// Source: what it is armed, or arming, for.
    pub(super) arming: Option<Arming>,
    /// The epoch for which everything before the freeze is done.
    pub(super) ready: Option<Epoch>,
    /// Looks older than this were taken before the last change and prove nothing.
    pub(super) stale_before: u64,
    /// How often the gate was built again after a commit.
    pub(super) reopened: u8,
    /// The last attempt to build it said that it failed: what it left is not to be opened.
    pub(super) has_botched: bool,
    /// The exit code of a container that ended by itself.
    pub(super) exit_code: Option<i32>,
    /// The last start failed: an exit code that is seen is an earlier life's.
    has_failed_start: bool,
}

/// Collects the effects of one step, and numbers calls and looks.
#[derive(Debug, Default)]
pub(super) struct Hand {
    /// What is asked, in order.
    pub(super) effects: Vec<Effect>,
    /// The last number given.
    pub(super) number: u64,
    /// Containers whose report is due.
    pub(super) must_report: bool,
}

impl Hand {
    pub(super) fn next(&mut self) -> u64 {
        self.number += 1;
        self.number
    }
}

impl Copy {
    pub(super) fn new(record: Record) -> Self {
        Self {
            record,
            call: None,
            execution: Execution::Absent,
            has_trace: true,
            arming: None,
            ready: None,
            stale_before: 0,
            reopened: 0,
            has_botched: false,
            exit_code: None,
            has_failed_start: false,
        }
    }

    /// Persists a new phase and tells the controller.
    pub(super) fn enter(&mut self, hand: &mut Hand, phase: Phase) {
        self.record.phase = phase;
        // What could not be made, or died frozen, has its volumes here; what never arrived has not.
        let is_in_vain = phase == Phase::Dead && self.record.role == Role::Target;
        self.record.drops_volumes |= is_in_vain;
        self.persist(hand);
    }

    /// Persists a new phase with the reason that people will read.
    pub(super) fn enter_because(
        &mut self,
        hand: &mut Hand,
        phase: Phase,
        reason: impl Into<String>,
    ) {
        self.record.reason = Some(reason.into());
        self.enter(hand, phase);
    }

    /// Persists the row as it is and tells the controller.
    pub(super) fn persist(&mut self, hand: &mut Hand) {
        hand.effects.push(Effect::Persist(Box::new(self.record.clone())));
        self.stale_before = hand.next();
        hand.must_report = true;
    }

    /// Asks the engine, in place of whatever was under way.
    pub(super) fn ask(&mut self, hand: &mut Hand, call: Call) {
        let number = hand.next();
        self.call = Some((number, call.clone()));
        self.stale_before = number;
        self.has_trace = true;
        hand.effects.push(Effect::Call { record: Box::new(self.record.clone()), number, call });
    }

    /// What the controller is told.
    pub(super) fn report(&self) -> Report {
        Report {
            container: self.record.spec.id,
            epoch: self.record.epoch,
            phase: self.record.phase,
            role: self.record.role,
            peer: self.record.peer.clone(),
            ready: self.ready,
            is_busy: self.is_busy(),
            image: self.record.image,
            reason: self.record.reason.clone(),
            exit_code: self.exit_code,
        }
    }

    /// The driver ought to look and repeat itself more often.
    pub(super) fn is_moving(&self) -> bool {
        let is_on_its_way = matches!(self.record.phase, Phase::Creating | Phase::Starting);
        self.record.phase.awaits_verdict() || is_on_its_way || self.arming.is_some()
    }

    /// A call is under way, or the last one left something that contradicts the phase.
    fn is_busy(&self) -> bool {
        let is_left = match self.record.phase {
            Phase::Stopped => self.execution != Execution::Absent,
            Phase::Gone => self.has_trace,
            _ => false,
        };
        self.call.is_some() || is_left
    }

    /// Takes a new epoch: what was known of the last attempt is no longer of use.
    pub(super) fn adopt_epoch(&mut self, epoch: Epoch) {
        self.record.epoch = epoch;
        self.record.peer = None;
        self.record.image = None;
        self.record.reason = None;
        self.record.bwlimit = None;
        self.record.grace_ms = None;
        self.record.drops_volumes = false;
        self.record.mode = Default::default();
        self.record.role = Role::Owner;
        self.arming = None;
        self.ready = None;
        self.reopened = 0;
        self.exit_code = None;
        self.has_failed_start = false;
    }

    /// A call ended. Calls that were replaced answer in vain.
    pub(super) fn done(&mut self, hand: &mut Hand, number: u64, outcome: Outcome) {
        let Some((under_way, call)) = self.call.take() else { return };
        if under_way != number {
            self.call = Some((under_way, call));
            return;
        }
        self.stale_before = hand.next();
        match (call, self.record.phase, outcome) {
            (Call::Create, Phase::Creating, Outcome::Done) => self.enter(hand, Phase::Stopped),
            (Call::Create, Phase::Creating, Outcome::Failed(why)) => self.give_up(hand, why),
            (Call::Start, Phase::Starting, Outcome::Done) => {
                self.has_failed_start = false;
                self.enter(hand, Phase::Active);
            }
            (Call::Arm(_), _, outcome) => self.armed(hand, outcome),
            (Call::Freeze, Phase::Arming, outcome) => self.dumped(hand, outcome),
            (Call::Thaw, Phase::Kept | Phase::Thawing, Outcome::Done) => {
                self.arming = None;
                self.ready = None;
                self.enter(hand, Phase::Active);
            }
            (Call::Stop, Phase::Stopped, Outcome::Done) => {
                self.arming = None;
                self.execution = Execution::Absent;
                hand.must_report = true;
            }
            (Call::Destroy, _, Outcome::Done) => {
                self.execution = Execution::Absent;
                self.has_trace = false;
                hand.must_report = true;
            }
            (Call::Prepare, Phase::Preparing, outcome) => self.prepared(hand, outcome),
            (Call::Fetch, Phase::Preparing, outcome) => self.fetched(hand, outcome),
            (Call::Stage, _, outcome) => self.staged(hand, outcome),
            (Call::Open, Phase::Opening, Outcome::Done) => self.enter(hand, Phase::Active),
            (Call::Start, Phase::Starting, Outcome::Failed(why)) => {
                self.has_failed_start = true;
                self.record.reason = Some(why);
                hand.must_report = true;
            }
            // What a failed start, thaw, opening, stop or removal left, the next look shows:
            // a call may say that it failed although it did not.
            (_, _, Outcome::Failed(why)) => {
                self.record.reason = Some(why);
                hand.must_report = true;
            }
            _ => hand.must_report = true,
        }
    }

    /// Compares the ledger with the kernel, when nothing is under way that would explain a difference.
    ///
    /// This is the whole of recovery: a start and a tick take the same path.
    pub(super) fn reconcile(&mut self, hand: &mut Hand, look: u64, sight: Option<Sight>) {
        if self.call.is_some() || look <= self.stale_before {
            return;
        }
        let was_busy = self.is_busy();
        let has_trace = sight.is_some();
        let sight = sight.unwrap_or(Sight {
            execution: Execution::Absent,
            is_guarded: false,
            exit_code: None,
        });
        let exit_code = sight.exit_code.filter(|_| !self.has_failed_start);
        // What moves cold has no processes: stopped it is as good as frozen, and made as at the gate.
        let execution = match (self.record.mode, self.record.phase, sight.execution) {
            (Mode::Cold, Phase::Frozen, Execution::Absent) if has_trace => Execution::Frozen,
            (Mode::Cold, Phase::Staged, Execution::Absent) if has_trace => Execution::Gated,
            (_, _, execution) => execution,
        };
        self.execution = execution;
        self.has_trace = has_trace;
        hand.must_report |= was_busy != self.is_busy();
        match (self.record.phase, execution) {
            (Phase::Creating, _) => self.ask(hand, Call::Create),
            (Phase::Starting, Execution::Running) => self.ask(hand, Call::Start),
            // Never started, as far as anybody knows: the agent ended before it could.
            (Phase::Starting, Execution::Absent)
                if sight.exit_code.is_none() && self.record.reason.is_none() =>
            {
                self.ask(hand, Call::Start);
            }
            (Phase::Arming, _) => self.keep(hand, "the agent restarted while it dumped"),
            (Phase::Kept | Phase::Thawing | Phase::Active, Execution::Frozen) => {
                self.ask(hand, Call::Thaw);
            }
            // The thaw may have been cut short after the processes ran: it is asked again
            // because it also attaches the address.
            (Phase::Kept | Phase::Thawing, Execution::Running) => self.ask(hand, Call::Thaw),
            (Phase::Starting | Phase::Kept | Phase::Thawing | Phase::Active, _)
                if sight.execution == Execution::Absent =>
            {
                self.exit_code = exit_code;
                self.enter(hand, Phase::Ran);
            }
            (Phase::Ran, Execution::Absent) => self.exit_code = exit_code,
            (Phase::Frozen, Execution::Absent) => {
                self.enter_because(hand, Phase::Dead, "its frozen processes are gone");
            }
            (Phase::Preparing, _) if self.ready.is_none() => self.ask(hand, Call::Prepare),
            (Phase::Preparing, _) => self.ask(hand, Call::Fetch),
            (Phase::Staged, execution) if execution != Execution::Gated => {
                self.enter_because(hand, Phase::Dead, "the copy at the gate is gone");
                self.ask(hand, Call::Destroy);
            }
            (Phase::Opening, Execution::Absent) => self.reopen(hand, sight),
            (Phase::Opening, Execution::Gated) if self.has_botched => self.reopen(hand, sight),
            (Phase::Opening, _) => self.ask(hand, Call::Open),
            (Phase::Stopped, Execution::Running | Execution::Frozen) => self.ask(hand, Call::Stop),
            (Phase::Frozen, Execution::Running) => self.ask(hand, Call::Hold),
            (Phase::Gone, _) if has_trace => self.ask(hand, Call::Destroy),
            // A source keeps the files of a copy that died frozen: the container can be
            // started from them when its target died too.
            (Phase::Dead | Phase::DeadUnknown, _)
                if has_trace && self.record.role == Role::Target =>
            {
                self.ask(hand, Call::Destroy);
            }
            (Phase::UnknownRunning | Phase::UnknownFrozen, Execution::Absent) => {
                self.enter(hand, Phase::UnknownAbsent);
            }
            _ => {}
        }
    }

    /// Told to open, and the copy is gone. As long as nobody can have seen it run,
    /// the same image is the same container: it is built once more.
    fn reopen(&mut self, hand: &mut Hand, sight: Sight) {
        if sight.is_guarded && self.reopened < REOPEN_LIMIT {
            self.reopened += 1;
            self.ask(hand, Call::Stage);
        } else {
            self.exit_code = sight.exit_code;
            self.enter_because(hand, Phase::Ran, "the copy ended while its gate opened");
        }
    }

    /// True when the image that the target staged, or the source dumped, is that one.
    pub(super) fn holds_image(&self, image: Digest) -> bool {
        self.record.image == Some(image)
    }
}
