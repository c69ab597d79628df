//! A node: the real agent machine and driver over a simulated ledger, engine and kernel.

use std::collections::BTreeMap;

use godwit_proto::container::Execution;
use godwit_proto::id::{ContainerId, Life};
use godwit_proto::migration::drive::{NodeWorld, drive};
use godwit_proto::migration::{Agent, Call, Input, Message, Promise, Record};
use uuid::Uuid;

use crate::kernel::{Job, Slot};
use crate::network::Letter;
use crate::world::{Law, World, say};

/// What is on the disk, or should be.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) records: BTreeMap<ContainerId, Record>,
    pub(crate) promise: Option<Promise>,
    /// The boot in which the agent last compared the ledger with the kernel.
    boot: Option<Uuid>,
}

/// A look at the kernel: asked for, taken, not yet told.
#[derive(Debug)]
pub(crate) struct Look {
    number: u64,
    seen: Option<Input>,
}

/// One machine of the fabric.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) agent: Option<Agent>,
    pub(crate) ledger: Ledger,
    pub(crate) life: Life,
    pub(crate) is_off: bool,
    pub(crate) slots: Vec<Slot>,
    pub(crate) jobs: BTreeMap<usize, Job>,
    /// Calls whose agent died and which go on all the same: only with a planted bug.
    pub(crate) orphans: Vec<(usize, Job)>,
    pub(crate) looks: Vec<Look>,
    /// The agent dies after so many more effects.
    pub(crate) fuse: Option<usize>,
}

impl Node {
    pub(crate) fn new(node: usize, containers: usize) -> Self {
        let life =
            Life { boot: Uuid::from_u128(1), incarnation: Uuid::from_u128(1 + node as u128) };
        Self {
            agent: None,
            ledger: Ledger::default(),
            life,
            is_off: false,
            slots: vec![Slot::default(); containers],
            jobs: BTreeMap::new(),
            orphans: Vec::new(),
            looks: Vec::new(),
            fuse: None,
        }
    }
}

/// The agent's process is dead.
#[derive(Debug)]
pub(crate) struct Crash;

/// What the driver of node `node` can do.
struct Hands<'a> {
    world: &'a mut World,
    node: usize,
}

impl Hands<'_> {
    /// True when the agent dies at this effect.
    fn is_dying(&mut self) -> bool {
        match &mut self.world.nodes[self.node].fuse {
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        }
    }

    fn end(&mut self) -> Result<(), Crash> {
        self.world.counts.add("agent crashes between effects");
        Err(Crash)
    }
}

impl NodeWorld for Hands<'_> {
    type Error = Crash;

    fn persist(&mut self, record: &Record) -> Result<(), Crash> {
        let is_dying = self.is_dying();
        if !is_dying || self.world.rng.chance(50) {
            self.world.write(self.node, record);
        }
        if is_dying { self.end() } else { Ok(()) }
    }

    fn promise(&mut self, promise: &Promise) -> Result<(), Crash> {
        let is_dying = self.is_dying();
        if !is_dying || self.world.rng.chance(50) {
            self.world.write_promise(self.node, promise);
        }
        if is_dying { self.end() } else { Ok(()) }
    }

    fn send(&mut self, message: Message) -> Result<(), Crash> {
        let is_dying = self.is_dying();
        if !is_dying || self.world.rng.chance(50) {
            self.world.post(Letter::ToController(self.node, message));
        }
        if is_dying { self.end() } else { Ok(()) }
    }

    fn call(&mut self, record: Box<Record>, number: u64, call: Call) -> Result<(), Crash> {
        let is_dying = self.is_dying();
        let container = self.world.index(record.spec.id);
        // The one under way is ended before the next begins.
        if let Some(old) = self.world.nodes[self.node].jobs.remove(&container) {
            self.world.cut(self.node, container, old);
        }
        if !is_dying || self.world.rng.chance(50) {
            say!(self.world, "{}: call {call:?} #{number}", self.world.names[self.node]);
            let job = Job::new(self.world, record, number, call);
            self.world.nodes[self.node].jobs.insert(container, job);
        }
        if is_dying { self.end() } else { Ok(()) }
    }

    fn look(&mut self, number: u64) -> Result<(), Crash> {
        self.world.nodes[self.node].looks.push(Look { number, seen: None });
        Ok(())
    }
}

impl World {
    /// Feeds the agent; whatever it asks for happens, or it dies on the way.
    pub(crate) fn feed(&mut self, node: usize, input: Input) {
        let Some(mut agent) = self.nodes[node].agent.take() else { return };
        say!(self, "{} ◀── {}", self.names[node], brief(&input));
        let input = self.sabotage_input(&agent, input);
        let result = drive(&mut agent, &mut Hands { world: self, node }, input);
        match result {
            Ok(()) => self.nodes[node].agent = Some(agent),
            Err(Crash) => self.agent_dies(node),
        }
    }

    /// The agent's process ends: what is gated ends with it, and so do its engine calls.
    pub(crate) fn agent_dies(&mut self, node: usize) {
        say!(self, "{}: the agent dies", self.names[node]);
        self.counts.add("agent crashes");
        let place = &mut self.nodes[node];
        place.agent = None;
        place.fuse = None;
        place.looks.clear();
        for (container, job) in std::mem::take(&mut self.nodes[node].jobs) {
            if self.calls_outlive_agents() {
                self.nodes[node].orphans.push((container, job));
            } else {
                self.cut(node, container, job);
            }
        }
        for container in 0..self.specs.len() {
            if self.slot(node, container).execution == Execution::Gated {
                self.dies(node, container);
            }
        }
    }

    pub(crate) fn agent_starts(&mut self, node: usize) {
        if self.nodes[node].is_off || self.nodes[node].agent.is_some() {
            return;
        }
        say!(self, "{}: the agent starts", self.names[node]);
        let place = &self.nodes[node];
        let is_rebooted = place.ledger.boot.is_some_and(|boot| boot != place.life.boot);
        let records = place.ledger.records.values().map(|row| self.sabotage_wake(row)).collect();
        let agent = Agent::wake(place.life, place.ledger.promise, records, is_rebooted);
        self.nodes[node].agent = Some(agent);
        self.feed(node, Input::Tick);
        let place = &mut self.nodes[node];
        if place.agent.is_some() {
            place.ledger.boot = Some(place.life.boot);
        }
    }

    pub(crate) fn power_goes(&mut self, node: usize) {
        say!(self, "{}: the power goes", self.names[node]);
        self.counts.add("power losses");
        let place = &mut self.nodes[node];
        (place.is_off, place.agent, place.fuse) = (true, None, None);
        place.jobs.clear();
        place.orphans.clear();
        place.looks.clear();
        for container in 0..self.specs.len() {
            self.dies(node, container);
            self.slot(node, container).lose_power();
        }
    }

    pub(crate) fn power_comes(&mut self, node: usize) {
        say!(self, "{}: the power comes back", self.names[node]);
        let boot = Uuid::from_u128(u128::from(self.rng.next()));
        let place = &mut self.nodes[node];
        (place.is_off, place.life.boot) = (false, boot);
    }

    pub(crate) fn ledger_goes(&mut self, node: usize) {
        say!(self, "{}: the ledger is lost", self.names[node]);
        self.counts.add("ledgers lost");
        let incarnation = Uuid::from_u128(u128::from(self.rng.next()));
        let place = &mut self.nodes[node];
        place.ledger = Ledger::default();
        place.life.incarnation = incarnation;
    }

    /// The first look that was not taken is taken; the answer waits.
    pub(crate) fn look_is_taken(&mut self, node: usize) {
        let Some(at) = self.nodes[node].looks.iter().position(|look| look.seen.is_none()) else {
            return;
        };
        let (mut sights, mut strangers) = (Vec::new(), Vec::new());
        for (container, spec) in self.specs.iter().enumerate() {
            let slot = &self.nodes[node].slots[container];
            if !slot.has_trace() {
                continue;
            }
            match self.nodes[node].ledger.records.get(&spec.id) {
                Some(row) => sights.push((spec.id, self.sabotage_sight(row, slot.sight()))),
                None => strangers.push((Box::new(spec.clone()), slot.sight())),
            }
        }
        let look = self.nodes[node].looks[at].number;
        self.nodes[node].looks[at].seen = Some(Input::Seen { look, sights, strangers });
    }

    /// The answer of the oldest look arrives.
    pub(crate) fn look_is_told(&mut self, node: usize) {
        if let Some(at) = self.nodes[node].looks.iter().position(|look| look.seen.is_some())
            && let Some(seen) = self.nodes[node].looks.remove(at).seen
        {
            self.feed(node, seen);
        }
    }

    /// A call takes one more step, or its answer arrives.
    pub(crate) fn job_goes_on(&mut self, node: usize, container: usize) {
        if self.broken.is_some() {
            return;
        }
        let Some(mut job) = self.nodes[node].jobs.remove(&container) else { return };
        if let Some(outcome) = job.outcome.take() {
            let (container, call) = (self.specs[container].id, job.number);
            return self.feed(node, Input::Done { container, call, outcome });
        }
        self.work(node, container, &mut job, false);
        self.nodes[node].jobs.insert(container, job);
    }

    fn write(&mut self, node: usize, record: &Record) {
        if self.sabotage_drops(record) {
            return;
        }
        let (name, id) = (self.names[node].clone(), record.spec.id);
        say!(self, "{name}: {id:?} {} {:?} {:?}", record.epoch, record.phase, record.role);
        let old = self.nodes[node].ledger.records.get(&id);
        if let Some(old) = old
            && (old.epoch, old.phase) > (record.epoch, record.phase)
        {
            let what = format!(
                "{name}: {:?} after {:?}",
                (record.epoch, record.phase),
                (old.epoch, old.phase)
            );
            self.fail(Law::Monotonic, what);
        }
        self.nodes[node].ledger.records.insert(id, record.clone());
    }

    fn write_promise(&mut self, node: usize, promise: &Promise) {
        if self.sabotage_drops_promise(node) {
            return;
        }
        say!(self, "{}: promises {:?}", self.names[node], promise.run);
        let ledger = &self.nodes[node].ledger;
        if ledger.promise.is_some_and(|old| old.run.generation >= promise.run.generation) {
            let what = format!("{} promises {:?} again", self.names[node], promise.run);
            self.fail(Law::Monotonic, what);
        }
        self.nodes[node].ledger.promise = Some(*promise);
    }
}

/// An input in a few words.
fn brief(input: &Input) -> String {
    match input {
        Input::Order { run, container, epoch, order } => {
            let order = format!("{order:?}");
            let order: String = order.chars().take_while(|c| !matches!(c, '(' | '{')).collect();
            format!("{container:?} {epoch} {} by {run:?}", order.trim())
        }
        Input::Seen { look, sights, strangers } => {
            format!("look #{look}: {sights:?}, {} strangers", strangers.len())
        }
        other => format!("{other:?}"),
    }
}
