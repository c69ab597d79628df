//! Carrying effects out: the same few lines on a node, in the controller and in the simulator.
//!
//! A crash is an error from the world: whatever follows is not carried out.

use std::collections::BTreeMap;
use std::time::Duration;

use super::claim::{ClaimEffect, Claims};
use super::decider::{Decider, Decision};
use super::event::{Call, Effect, Input, Message, Order, Plan, Report};
use super::record::{Promise, Record, Role};
use super::row::Row;
use super::{Agent, Phase};
use crate::container::ContainerSpec;
use crate::id::{ContainerId, Epoch, Life, NodeId, Run};

/// What a node's driver can do to the world.
pub trait NodeWorld {
    /// Why an effect could not be carried out; the ones after it are not tried.
    type Error;
    /// Writes a row to the ledger and returns once it is on disk.
    fn persist(&mut self, record: &Record) -> Result<(), Self::Error>;
    /// Writes the promise and returns once it is on disk.
    fn promise(&mut self, promise: &Promise) -> Result<(), Self::Error>;
    /// Hands a message to the outbox; it may be lost.
    fn send(&mut self, message: Message) -> Result<(), Self::Error>;
    /// Begins a call in place of the one that is under way for that container.
    fn call(&mut self, record: Box<Record>, number: u64, call: Call) -> Result<(), Self::Error>;
    /// Begins a look at the kernel.
    fn look(&mut self, number: u64) -> Result<(), Self::Error>;
}

/// Feeds one input to a node's machine and carries out what it asks, in order.
///
/// # Errors
/// The world's first error. The machine is then ahead of its ledger and must not be
/// used again: wake a new one.
pub fn drive<W: NodeWorld>(agent: &mut Agent, world: &mut W, input: Input) -> Result<(), W::Error> {
    for effect in agent.step(input) {
        match effect {
            Effect::Persist(record) => world.persist(&record)?,
            Effect::Promise(promise) => world.promise(&promise)?,
            Effect::Send(message) => world.send(message)?,
            Effect::Call { record, number, call } => world.call(record, number, call)?,
            Effect::Look(number) => world.look(number)?,
        }
    }
    Ok(())
}

/// What the controller's driver can do to the world.
pub trait DeskWorld {
    /// Why something could not be carried out; what follows is not tried.
    type Error;
    /// Writes the generation of a run and returns once it is on disk.
    fn persist_run(&mut self, run: Run) -> Result<(), Self::Error>;
    /// Writes a row, a first ruling as the verdict (insert-or-ignore), returns once it is
    /// on disk, with the row as it was read back.
    fn persist_row(&mut self, row: &Row) -> Result<Row, Self::Error>;
    /// The row of an attempt, settled or not.
    fn row(&mut self, container: ContainerId, epoch: Epoch) -> Result<Option<Row>, Self::Error>;
    /// A container by its identity, for attempts that the database does not know.
    fn spec(&mut self, container: ContainerId) -> Result<Option<ContainerSpec>, Self::Error>;
    /// Hands a claim to the outbox.
    fn claim(&mut self, node: &NodeId, run: Run, life: Life) -> Result<(), Self::Error>;
    /// Hands an order to the outbox.
    fn order(
        &mut self,
        node: &NodeId,
        run: Run,
        container: ContainerId,
        epoch: Epoch,
        order: Order,
    ) -> Result<(), Self::Error>;
}

/// The controller's half of the choreography: its run and every attempt that is not over.
#[derive(Debug)]
pub struct Desk {
    claims: Claims,
    attempts: BTreeMap<(ContainerId, Epoch), Decider>,
}

impl Desk {
    /// Opens the desk: claims a run and takes up the attempts that the database holds unsettled.
    ///
    /// # Errors
    /// The world's first error.
    pub fn open<W: DeskWorld>(
        world: &mut W,
        stored_generation: u32,
        nonce: u64,
        unsettled: Vec<Row>,
        now: Duration,
    ) -> Result<Self, W::Error> {
        let (claims, effects) = Claims::start(stored_generation, nonce);
        let attempts = unsettled
            .into_iter()
            .map(|row| ((row.spec.id, row.epoch), Decider::new(row, claims.run(), now)))
            .collect();
        let mut desk = Self { claims, attempts };
        desk.carry_out_claims(world, effects, now)?;
        Ok(desk)
    }

    /// The run, and whether it may act.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// The attempts that are not over, oldest epoch of each container first.
    pub fn attempts(&self) -> impl Iterator<Item = &Decider> {
        self.attempts.values()
    }

    /// The attempt of that container and epoch, if it is not over.
    pub fn attempt(&self, container: ContainerId, epoch: Epoch) -> Option<&Decider> {
        self.attempts.get(&(container, epoch))
    }

    /// More has come of what goes ahead of that attempt's freeze: its deadline begins anew.
    pub fn advanced(&mut self, container: ContainerId, epoch: Epoch, now: Duration) {
        if let Some(decider) = self.attempts.get_mut(&(container, epoch)) {
            decider.advanced(now);
        }
    }

    /// Opens an attempt: persisted before anything is ordered.
    ///
    /// # Errors
    /// The world's first error.
    pub fn begin<W: DeskWorld>(
        &mut self,
        world: &mut W,
        spec: ContainerSpec,
        epoch: Epoch,
        ends: (NodeId, NodeId),
        plan: Plan,
        now: Duration,
    ) -> Result<(), W::Error> {
        let row = Row::open(spec, epoch, ends, plan, self.claims.run());
        let row = world.persist_row(&row)?;
        let key = (row.spec.id, row.epoch);
        self.attempts.insert(key, Decider::new(row, self.claims.run(), now));
        self.with(world, key, now, |decider| decider.tick(now))
    }

    /// Hears a node.
    ///
    /// # Errors
    /// The world's first error.
    pub fn hear<W: DeskWorld>(
        &mut self,
        world: &mut W,
        node: &NodeId,
        message: &Message,
        now: Duration,
    ) -> Result<(), W::Error> {
        let effects = self.claims.hear(node, message);
        self.carry_out_claims(world, effects, now)?;
        match message {
            Message::Report { run, report }
                if *run == self.claims.run() && self.claims.may_act() =>
            {
                self.heard(world, node, report, now)
            }
            _ => Ok(()),
        }
    }

    /// Asks to call an attempt off. Answers whether it is undecided still.
    ///
    /// # Errors
    /// The world's first error.
    pub fn cancel<W: DeskWorld>(
        &mut self,
        world: &mut W,
        key: (ContainerId, Epoch),
        why: &str,
        now: Duration,
    ) -> Result<bool, W::Error> {
        let may = self.attempts.get(&key).is_some_and(|decider| decider.row().ruling.is_none());
        self.with(world, key, now, |decider| decider.cancel(why))?;
        Ok(may)
    }

    /// The operator's word that a node lost its power or that its copies were killed.
    ///
    /// # Errors
    /// The world's first error.
    pub fn fence<W: DeskWorld>(
        &mut self,
        world: &mut W,
        node: &NodeId,
        now: Duration,
    ) -> Result<(), W::Error> {
        for key in self.keys(|_| true) {
            self.with(world, key, now, |decider| match decider.row().end(node) {
                Some(end) => decider.fence(end),
                None => Vec::new(),
            })?;
        }
        Ok(())
    }

    /// Time passed: claims and orders are repeated, deadlines checked.
    ///
    /// # Errors
    /// The world's first error.
    pub fn tick<W: DeskWorld>(&mut self, world: &mut W, now: Duration) -> Result<(), W::Error> {
        let effects = self.claims.tick();
        self.carry_out_claims(world, effects, now)?;
        for key in self.keys(|_| true) {
            self.with(world, key, now, |decider| decider.tick(now))?;
        }
        self.attempts.retain(|_, decider| !decider.is_over());
        Ok(())
    }

    fn keys(&self, wanted: impl Fn(&Decider) -> bool) -> Vec<(ContainerId, Epoch)> {
        self.attempts.iter().filter(|(_, d)| wanted(d)).map(|(key, _)| *key).collect()
    }

    fn heard<W: DeskWorld>(
        &mut self,
        world: &mut W,
        node: &NodeId,
        report: &Report,
        now: Duration,
    ) -> Result<(), W::Error> {
        self.revive(world, node, report, now)?;
        for key in self.keys(|decider| decider.row().spec.id == report.container) {
            let report = report.clone();
            self.with(world, key, now, |decider| decider.hear(node, report, now))?;
        }
        Ok(())
    }

    /// A node waits for the end of an attempt that is not at hand: settled long ago, or
    /// from before a restored backup. It is taken up again.
    fn revive<W: DeskWorld>(
        &mut self,
        world: &mut W,
        node: &NodeId,
        report: &Report,
        now: Duration,
    ) -> Result<(), W::Error> {
        let key = (report.container, report.epoch);
        let is_left = matches!(report.phase, Phase::Dead | Phase::DeadUnknown | Phase::Ran);
        let is_waiting = report.phase.awaits_verdict();
        if !(is_waiting || is_left) || self.attempts.contains_key(&key) {
            return Ok(());
        }
        let row = match world.row(key.0, key.1)? {
            // What the holder of a settled attempt still has is for whoever starts it.
            Some(row) => (is_waiting || row.holder() != node).then_some(row),
            None => match (world.spec(key.0)?, report.peer.clone()) {
                (Some(spec), Some(peer)) if is_waiting => {
                    let ends = match report.role {
                        Role::Target => (peer, node.clone()),
                        Role::Owner => (node.clone(), peer),
                    };
                    let unknown = Row::open(spec, key.1, ends, Plan::default(), self.claims.run());
                    Some(world.persist_row(&Row { opener: None, ..unknown })?)
                }
                _ => None,
            },
        };
        if let Some(row) = row {
            self.attempts.insert(key, Decider::new(row, self.claims.run(), now));
        }
        Ok(())
    }

    /// Lets one decider act, and carries out what it decides until it waits again.
    fn with<W: DeskWorld>(
        &mut self,
        world: &mut W,
        key: (ContainerId, Epoch),
        now: Duration,
        act: impl FnOnce(&mut Decider) -> Vec<Decision>,
    ) -> Result<(), W::Error> {
        let run = self.claims.run();
        if !self.claims.may_act() {
            return Ok(());
        }
        let Some(decider) = self.attempts.get_mut(&key) else { return Ok(()) };
        let mut stored = decider.row().clone();
        let mut pending: std::collections::VecDeque<_> = act(decider).into();
        while let Some(decision) = pending.pop_front() {
            match decision {
                Decision::Persist(row) => {
                    stored = match world.persist_row(&row) {
                        Ok(row) => row,
                        Err(error) => {
                            decider.refused(stored);
                            return Err(error);
                        }
                    };
                    pending.extend(decider.stored(stored.clone(), now));
                }
                Decision::Order(node, order) => world.order(&node, run, key.0, key.1, order)?,
            }
        }
        Ok(())
    }

    fn carry_out_claims<W: DeskWorld>(
        &mut self,
        world: &mut W,
        effects: Vec<ClaimEffect>,
        now: Duration,
    ) -> Result<(), W::Error> {
        for effect in effects {
            match effect {
                ClaimEffect::Persist(run) => {
                    world.persist_run(run)?;
                    self.claims.persisted();
                    for decider in self.attempts.values_mut() {
                        *decider = Decider::new(decider.row().clone(), run, now);
                    }
                }
                ClaimEffect::Claim { node, run, life } => world.claim(&node, run, life)?,
                ClaimEffect::Superseded { .. } => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
