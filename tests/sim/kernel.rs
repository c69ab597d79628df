//! What is really there on a node, whatever its ledger says, and what engine calls do to it.
//!
//! A call is a handful of small steps; it can fail at any of them, say that it
//! failed although all was done, or be cut short when its agent dies.

use godwit_proto::container::Execution;
use godwit_proto::id::{Digest, Epoch};
use godwit_proto::migration::{Call, Outcome, Phase, Record, Sight};

use crate::sabotage::Bug;
use crate::world::{Law, NODES, World, say};

/// One container on one node.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    pub(crate) execution: Execution,
    /// Which execution the copy continues.
    pub(crate) version: u64,
    has_files: bool,
    is_armed: bool,
    is_prepared: bool,
    is_guarded: bool,
    dump: Option<Image>,
    received: Option<Image>,
    exit_code: Option<i32>,
}

impl Default for Slot {
    fn default() -> Self {
        Self {
            execution: Execution::Absent,
            version: 0,
            has_files: false,
            is_armed: false,
            is_prepared: false,
            is_guarded: false,
            dump: None,
            received: None,
            exit_code: None,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Image {
    epoch: Epoch,
    digest: Digest,
    version: u64,
}

impl Slot {
    /// Something of it is there.
    pub(crate) fn has_trace(&self) -> bool {
        self.has_files || self.is_prepared || self.has_leftovers()
    }

    /// Something is there that only a move in hand explains.
    pub(crate) fn has_leftovers(&self) -> bool {
        self.is_armed
            || self.is_guarded
            || self.dump.is_some()
            || self.received.is_some()
            || matches!(self.execution, Execution::Frozen | Execution::Gated)
    }

    pub(crate) fn sight(&self) -> Sight {
        let Self { execution, is_guarded, exit_code, .. } = *self;
        Sight { execution, is_guarded, exit_code }
    }

    /// The machine lost its memory: only the disk is left.
    pub(crate) fn lose_power(&mut self) {
        *self = Self { has_files: self.has_files, ..Self::default() };
    }

    /// It ended by itself.
    pub(crate) fn end(&mut self) {
        self.execution = Execution::Absent;
        self.exit_code = Some(0);
    }

    /// It runs, and not only behind a guard.
    pub(crate) fn is_seen_running(&self) -> bool {
        self.execution == Execution::Running && !self.is_guarded
    }
}

/// A call under way.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) record: Box<Record>,
    pub(crate) number: u64,
    pub(crate) call: Call,
    step: u8,
    fate: Fate,
    pub(crate) outcome: Option<Outcome>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Good,
    FailsAt(u8),
    /// All is done, and then it says that it failed.
    Lies,
}

enum Step {
    More,
    Wait,
    End(Outcome),
}

fn failed(why: &str) -> Step {
    Step::End(Outcome::Failed(why.into()))
}

impl Job {
    pub(crate) fn new(world: &mut World, record: Box<Record>, number: u64, call: Call) -> Self {
        let fails = world.weather.engine_fails;
        // A node that cannot build a committed copy at all ends in a recorded loss; that is
        // left to the histories which allow for one.
        let is_reopening = call == Call::Stage && record.phase == Phase::Opening;
        if is_reopening {
            world.counts.add("gates built again");
        }
        let fate = if !world.rng.chance(fails) || is_reopening && world.is_plain() {
            Fate::Good
        } else if world.rng.chance(30) {
            Fate::Lies
        } else {
            Fate::FailsAt(world.rng.below(4) as u8)
        };
        Self { record, number, call, step: 0, fate, outcome: None }
    }
}

impl World {
    /// One more step of a call.
    pub(crate) fn work(&mut self, node: usize, container: usize, job: &mut Job, is_cut: bool) {
        if job.outcome.is_some() {
            return;
        }
        if !is_cut {
            self.check_right(node, container, job);
        }
        let name = self.names[node].clone();
        let step = if job.fate == Fate::FailsAt(job.step) {
            if job.call == Call::Freeze && job.step > 0 {
                self.thaw_by_crash(node, container, job);
            }
            failed("the engine failed")
        } else {
            self.effect(node, container, job)
        };
        match step {
            Step::More => job.step += 1,
            Step::Wait => return,
            Step::End(_) if job.fate == Fate::Lies => {
                if job.call == Call::Stage {
                    // What says that it failed is nothing to go on from.
                    self.slot(node, container).version = 0;
                }
                job.outcome = Some(Outcome::Failed("the engine said so".into()));
            }
            Step::End(outcome) => job.outcome = Some(outcome),
        }
        let what = self.specs[container].id;
        let slot = self.slot(node, container).execution;
        say!(
            self,
            "{name}: {what:?} {:?} step {} ─▶ {slot:?} {:?}",
            job.call,
            job.step,
            job.outcome
        );
    }

    /// The call's process is killed: it may get a little further, and a dump may leave its
    /// processes running.
    pub(crate) fn cut(&mut self, node: usize, container: usize, mut job: Job) {
        for _ in 0..self.rng.below(3) {
            self.work(node, container, &mut job, true);
        }
        if job.call == Call::Freeze && job.outcome.is_none() && (1..=2).contains(&job.step) {
            self.thaw_by_crash(node, container, &job);
        }
    }

    fn thaw_by_crash(&mut self, node: usize, container: usize, job: &Job) {
        let is_frozen = self.slot(node, container).execution == Execution::Frozen;
        if is_frozen && self.rng.chance(50) {
            self.counts.add("dump crashed and thawed");
            self.begins(node, container, job.record.epoch);
            self.advances(node, container);
        }
    }

    fn effect(&mut self, node: usize, container: usize, job: &Job) -> Step {
        use Execution::{Absent, Frozen, Gated, Running};
        let epoch = job.record.epoch;
        let execution = self.slot(node, container).execution;
        match (&job.call, job.step, execution) {
            (Call::Create, ..) => self.slot(node, container).has_files = true,
            (Call::Start, _, Running) => self.slot(node, container).is_armed = false,
            (Call::Start, ..) => {
                if !self.slot(node, container).has_files {
                    return failed("there is no such container");
                }
                self.start(node, container);
            }
            (Call::Stop, ..) => {
                let slot = self.slot(node, container);
                *slot = Slot { has_files: true, version: slot.version, ..Slot::default() };
            }
            (Call::Arm(_), _, Running) => self.slot(node, container).is_armed = true,
            (Call::Freeze, 0, Running) => {
                self.slot(node, container).execution = Frozen;
                return Step::More;
            }
            (Call::Freeze, 1, Frozen) => return Step::More,
            (Call::Freeze, 2, Frozen) => {
                let mut bytes = [0; 32];
                bytes[..8].copy_from_slice(&self.rng.next().to_le_bytes());
                let slot = self.slot(node, container);
                slot.dump = Some(Image { epoch, digest: Digest(bytes), version: slot.version });
                return Step::More;
            }
            (Call::Freeze, 3, Frozen) => {
                if let Some(image) = self.slot(node, container).dump {
                    return Step::End(Outcome::Image(image.digest));
                }
            }
            (Call::Hold, _, Running | Frozen) => self.slot(node, container).execution = Frozen,
            (Call::Thaw, 0, Frozen | Running) => {
                let slot = self.slot(node, container);
                (slot.is_armed, slot.dump, slot.received) = (false, None, None);
                let was_guarded = std::mem::take(&mut slot.is_guarded);
                if execution == Frozen {
                    self.begins(node, container, epoch);
                }
                if execution == Frozen || was_guarded {
                    self.advances(node, container);
                }
                return Step::More;
            }
            (Call::Thaw, _, Running) => {}
            (Call::Prepare, _, Absent) => {
                let slot = self.slot(node, container);
                (slot.is_prepared, slot.is_guarded) = (true, true);
            }
            (Call::Fetch, _, Absent) => return self.fetch(node, container, job),
            (Call::Stage, _, Absent | Gated) => {
                let slot = self.slot(node, container);
                let Some(image) = slot.received.filter(|image| image.epoch == epoch) else {
                    return failed("there is no image");
                };
                if !slot.is_guarded {
                    return failed("there is no guarded namespace");
                }
                (slot.execution, slot.version, slot.has_files) = (Gated, image.version, true);
            }
            (Call::Open, 0, Gated) => {
                self.begins(node, container, epoch);
                return Step::More;
            }
            (Call::Open, 0, Running) => return Step::More,
            (Call::Open, _, Running) => {
                if std::mem::take(&mut self.slot(node, container).is_guarded) {
                    self.advances(node, container);
                }
                self.slot(node, container).received = None;
            }
            (Call::Destroy, 0, _) => {
                self.kill(node, container);
                return Step::More;
            }
            (Call::Destroy, ..) => *self.slot(node, container) = Slot::default(),
            _ => return failed("the container is not in the state for it"),
        }
        Step::End(Outcome::Done)
    }

    fn fetch(&mut self, node: usize, container: usize, job: &Job) -> Step {
        let epoch = job.record.epoch;
        let here = self.slot(node, container).received.filter(|image| image.epoch == epoch);
        let image = here.or_else(|| {
            let peer = self.node_index(job.record.peer.as_ref()?);
            let is_up = peer < NODES && self.nodes[peer].agent.is_some();
            let image = self.nodes.get(peer)?.slots[container].dump?;
            let is_near = !self.network.is_cut(node, peer);
            (is_up && is_near && image.epoch == epoch).then_some(image)
        });
        match image {
            Some(image) => {
                self.slot(node, container).received = Some(image);
                Step::End(Outcome::Image(image.digest))
            }
            None => Step::Wait,
        }
    }

    /// Begins a new life from the files.
    fn start(&mut self, node: usize, container: usize) {
        if self.is_good_elsewhere(node, container) {
            let what =
                format!("{:?} is started although a good copy lives", self.specs[container].id);
            self.fail(Law::NothingLost, what);
        }
        let newest = self.newest[container];
        let slot = self.slot(node, container);
        (slot.version, slot.exit_code, slot.dump) = (newest, None, None);
        slot.is_armed = false;
        self.begins(node, container, Epoch { generation: 0, counter: 0 });
        self.advances(node, container);
    }

    fn kill(&mut self, node: usize, container: usize) {
        let was_good = self.is_good(node, container);
        let holding = self.db.holdings.get(&self.specs[container].id);
        let is_removed = self.is_removed[container]
            || holding.is_none_or(|h| h.intent == godwit_proto::migration::Intent::Remove);
        self.slot(node, container).execution = Execution::Absent;
        if was_good && !is_removed {
            let row = self.nodes[node].ledger.records.get(&self.specs[container].id);
            self.has_killed[container] |= row.is_some_and(|row| row.phase == Phase::Gone);
            if !self.is_good_elsewhere(node, container) {
                let name = self.names[node].clone();
                let what = format!(
                    "the last good copy of {:?} is killed on {name}",
                    self.specs[container].id
                );
                self.fail(Law::NothingLost, what);
            }
        }
    }

    /// A copy that does not run dies with its node or its agent.
    pub(crate) fn dies(&mut self, node: usize, container: usize) {
        let was_waiting =
            matches!(self.slot(node, container).execution, Execution::Frozen | Execution::Gated);
        let was_last = self.is_good(node, container) && !self.is_good_elsewhere(node, container);
        if was_waiting && was_last && self.has_killed[container] {
            let what = format!(
                "an order had killed the other good copy of {:?}",
                self.specs[container].id
            );
            self.fail(Law::NothingLost, what);
        }
        self.slot(node, container).execution = Execution::Absent;
    }

    /// Nothing is begun on a node before its ledger says so.
    fn check_right(&mut self, node: usize, container: usize, job: &Job) {
        use Phase::{
            Active, Dead, DeadUnknown, Gone, Kept, Opening, Preparing, Starting, Stopped, Thawing,
        };
        let row = self.nodes[node].ledger.records.get(&self.specs[container].id);
        let phase = row.filter(|row| row.epoch == job.record.epoch).map(|row| row.phase);
        let has_right = match job.call {
            Call::Start => phase == Some(Starting),
            Call::Stop => phase == Some(Stopped),
            Call::Freeze => phase == Some(Phase::Arming),
            Call::Hold => phase == Some(Phase::Frozen),
            Call::Thaw => matches!(phase, Some(Kept | Thawing | Active)),
            Call::Stage => matches!(phase, Some(Preparing | Opening)),
            Call::Open => phase == Some(Opening),
            Call::Destroy => matches!(phase, Some(Gone | Dead | DeadUnknown)),
            Call::Create | Call::Arm(_) | Call::Prepare | Call::Fetch => true,
        };
        if !has_right {
            let what = format!("{:?} under {phase:?} on {}", job.call, self.names[node]);
            self.fail(Law::PersistFirst, what);
        }
    }

    /// True when calls go on after their agent died.
    pub(crate) fn calls_outlive_agents(&self) -> bool {
        self.bug == Some(Bug::CallOutlivesAgent)
    }
}
