//! A whole node as a pure machine: its promise, and every container it knows of.
//!
//! The node answers to one [`Run`]: orders of any other are ignored. Before it
//! promises or reports anything it has compared its ledger with the kernel once
//! (a look is the first thing it asks for).

use std::collections::BTreeMap;

use super::copy::{Copy, Hand};
use super::event::{Call, Effect, Input, Message, Order, Report, Sight};
use super::record::{Phase, Promise, Record, Role};
use crate::container::{ContainerSpec, Execution};
use crate::id::{ContainerId, Epoch, Life, Run};

/// The epoch of a node that knows none.
const NO_EPOCH: Epoch = Epoch { generation: 0, counter: 0 };

/// The machine of one node agent: a container on it is a row of the ledger.
///
///
/// ```text
/// step(Input) ─▶ [Effect, Effect, …]     carried out in order by the driver
/// ```
#[derive(Debug)]
pub struct Agent {
    life: Life,
    promise: Option<Promise>,
    copies: BTreeMap<ContainerId, Copy>,
    hand: Hand,
    /// Claims and orders wait until the kernel was seen once.
    has_looked: bool,
    waiting: Vec<Input>,
    looking: bool,
}

impl Agent {
    /// Wakes with what the ledger holds. `rebooted` says that the machine lost its
    /// memory since: a target that only expected an image refuses it then.
    ///
    /// The first step ought to be a [`Input::Tick`].
    pub fn wake(
        life: Life,
        promise: Option<Promise>,
        records: Vec<Record>,
        rebooted: bool,
    ) -> Self {
        let mut hand = Hand::default();
        let mut copies = BTreeMap::new();
        for record in records {
            let id = record.spec.id;
            let mut copy = Copy::new(record);
            if rebooted && copy.record.phase == Phase::Preparing {
                copy.enter_because(&mut hand, Phase::Dead, "the node restarted while it prepared");
            }
            copies.insert(id, copy);
        }
        hand.must_report = false;
        Self { life, promise, copies, hand, has_looked: false, waiting: Vec::new(), looking: false }
    }

    /// True while a move is in hand: the driver then ticks faster.
    pub fn is_moving(&self) -> bool {
        self.copies.values().any(Copy::is_moving)
    }

    /// The rows as they stand, for people and tests.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.copies.values().map(|copy| &copy.record)
    }

    /// The run that it obeys, if it promised one in this life.
    pub fn obeys(&self) -> Option<Run> {
        self.promise.filter(|p| p.life == self.life).map(|p| p.run)
    }

    /// Hears one thing and answers what is to be done, in order.
    pub fn step(&mut self, input: Input) -> Vec<Effect> {
        match input {
            Input::Seen { look, sights, strangers } => self.seen(look, sights, strangers),
            Input::Unseen => self.looking = false,
            Input::Tick => self.tick(),
            Input::Done { container, call, outcome } => {
                if let Some(copy) = self.copies.get_mut(&container) {
                    copy.done(&mut self.hand, call, outcome);
                    self.report_if_due(container);
                }
            }
            early if !self.has_looked => {
                // Bounded: claims and orders are repeated, only the last few matter.
                if self.waiting.len() < 64 {
                    self.waiting.push(early);
                }
            }
            Input::Hello => self.hello(),
            Input::Claim { run, life } => self.claim(run, life),
            Input::Order { run, container, epoch, order } => {
                if self.obeys() == Some(run) {
                    self.order(container, epoch, order);
                } else {
                    self.hello();
                }
            }
        }
        std::mem::take(&mut self.hand.effects)
    }

    fn tick(&mut self) {
        if !self.looking || !self.has_looked {
            self.looking = true;
            let look = self.hand.next();
            self.hand.effects.push(Effect::Look(look));
        }
        let due: Vec<_> = self
            .copies
            .iter()
            .filter(|(_, copy)| copy.record.phase.awaits_verdict())
            .map(|(id, _)| *id)
            .collect();
        if self.has_looked && self.obeys().is_none() {
            // A hello can be lost, and nobody asks a node that was never heard of.
            self.hello();
        } else if self.has_looked {
            due.into_iter().for_each(|id| self.report(id));
        }
    }

    fn seen(
        &mut self,
        look: u64,
        sights: Vec<(ContainerId, Sight)>,
        strangers: Vec<(Box<ContainerSpec>, Sight)>,
    ) {
        self.looking = false;
        let mut sights: BTreeMap<_, _> = sights.into_iter().collect();
        for (spec, sight) in strangers {
            // Met before, it has a row of its own by now, whatever the looker knew.
            sights.insert(spec.id, sight);
            if !self.copies.contains_key(&spec.id) {
                self.meet(*spec, sight);
            }
        }
        let ids: Vec<_> = self.copies.keys().copied().collect();
        for id in ids {
            let sight = sights.get(&id).copied();
            if let Some(copy) = self.copies.get_mut(&id) {
                copy.reconcile(&mut self.hand, look, sight);
                self.report_if_due(id);
            }
        }
        if !self.has_looked {
            self.has_looked = true;
            self.hello();
            let mut effects = std::mem::take(&mut self.hand.effects);
            for input in std::mem::take(&mut self.waiting) {
                effects.extend(self.step(input));
            }
            self.hand.effects = effects;
        }
    }

    /// A container of the fabric that the ledger does not name: it is left as it is.
    fn meet(&mut self, spec: ContainerSpec, sight: Sight) {
        let id = spec.id;
        let phase = match sight.execution {
            Execution::Running => Phase::UnknownRunning,
            Execution::Frozen => Phase::UnknownFrozen,
            Execution::Gated | Execution::Absent => Phase::UnknownAbsent,
        };
        let mut copy = Copy::new(blank(&spec, NO_EPOCH, phase));
        copy.execution = sight.execution;
        copy.persist(&mut self.hand);
        self.copies.insert(id, copy);
        self.report_if_due(id);
    }

    fn hello(&mut self) {
        let promise = self.promise.map(|p| p.run);
        self.send(Message::Hello { life: self.life, promise });
    }

    /// A claim binds only the life that it quotes, and only a later run than the last.
    fn claim(&mut self, run: Run, life: Life) {
        let is_later = self.promise.is_none_or(|p| run.generation > p.run.generation);
        if life == self.life && is_later {
            let since = match self.promise {
                Some(old) if old.life.incarnation == life.incarnation => old.since,
                _ => run.generation,
            };
            let promise = Promise { run, life, since };
            self.promise = Some(promise);
            self.hand.effects.push(Effect::Promise(promise));
        } else if self.obeys() != Some(run) {
            return self.hello();
        }
        self.send(Message::Promised { run, life: self.life });
        let ids: Vec<_> = self.copies.keys().copied().collect();
        ids.into_iter().for_each(|id| self.report(id));
    }

    /// What a node without a row says: that it never took part, or, of an epoch older
    /// than its ledger, that it cannot know.
    fn absent(&self, container: ContainerId, epoch: Epoch) -> Report {
        let knows = self.promise.is_some_and(|p| epoch.generation >= p.since);
        Report {
            container,
            epoch: if knows { NO_EPOCH } else { epoch },
            phase: if knows { Phase::Absent } else { Phase::UnknownAbsent },
            role: Role::Target,
            peer: None,
            ready: None,
            is_busy: false,
            image: None,
            reason: None,
            exit_code: None,
        }
    }

    fn order(&mut self, container: ContainerId, epoch: Epoch, order: Order) {
        if !self.copies.contains_key(&container) {
            self.first_order(container, epoch, &order);
        } else if let Some(copy) = self.copies.get_mut(&container) {
            let hand = &mut self.hand;
            match order {
                Order::Ask => {}
                Order::Create(_) => copy.on_create(hand, epoch),
                Order::Start => copy.on_start(hand, epoch),
                Order::Stop { grace_ms } => copy.on_stop(hand, epoch, grace_ms),
                Order::Remove => copy.on_remove(hand, epoch),
                Order::Arm { to, plan } => copy.on_arm(hand, epoch, to, plan),
                Order::Freeze { to, plan } => copy.on_freeze(hand, epoch, to, plan),
                Order::Thaw => copy.on_thaw(hand, epoch),
                Order::Prepare { from, plan, .. } => copy.on_prepare(hand, epoch, from, plan),
                Order::Refuse(_) => copy.on_refuse(hand, epoch),
                Order::Open { image } => copy.on_open(hand, epoch, image),
                Order::Discard => copy.on_discard(hand, epoch),
                Order::Adopt => copy.on_adopt(hand, epoch),
            }
        }
        self.hand.must_report = false;
        match self.copies.get(&container).map(Copy::report) {
            Some(report) => self.tell(report),
            None => self.tell(self.absent(container, epoch)),
        }
    }

    /// An order about a container that is not in the ledger.
    fn first_order(&mut self, container: ContainerId, epoch: Epoch, order: &Order) {
        let hand = &mut self.hand;
        let copy = match order {
            Order::Create(spec) if spec.id == container => {
                let mut copy = Copy::new(blank(spec, epoch, Phase::Creating));
                copy.persist(hand);
                copy.ask(hand, Call::Create);
                copy
            }
            Order::Prepare { from, spec, plan } if spec.id == container => {
                let mut copy = Copy::new(blank(spec, epoch, Phase::Preparing));
                copy.begin_target(hand, from.clone(), *plan);
                copy
            }
            Order::Refuse(spec) if spec.id == container => {
                let knows = self.promise.is_some_and(|p| epoch.generation >= p.since);
                let phase = if knows { Phase::Dead } else { Phase::DeadUnknown };
                let mut copy = Copy::new(blank(spec, epoch, phase));
                copy.record.role = Role::Target;
                copy.persist(hand);
                copy
            }
            _ => return,
        };
        self.copies.insert(container, copy);
    }

    fn report_if_due(&mut self, container: ContainerId) {
        if std::mem::take(&mut self.hand.must_report) {
            self.report(container);
        }
    }

    fn report(&mut self, container: ContainerId) {
        if let Some(report) = self.copies.get(&container).map(Copy::report) {
            self.tell(report);
        }
    }

    fn tell(&mut self, report: Report) {
        if let Some(run) = self.obeys() {
            self.send(Message::Report { run, report });
        }
    }

    fn send(&mut self, message: Message) {
        self.hand.effects.push(Effect::Send(message));
    }
}

/// A row of which nothing is known but the container, the epoch and the phase.
fn blank(spec: &ContainerSpec, epoch: Epoch, phase: Phase) -> Record {
    Record {
        spec: spec.clone(),
        epoch,
        phase,
        role: Role::Owner,
        peer: None,
        mode: Default::default(),
        image: None,
        bwlimit: None,
        grace_ms: None,
        drops_volumes: false,
        reason: None,
    }
}
