//! The controller's process: the real desk and driver over a simulated database, and the
//! thin part around them that keeps containers at rest as their tenants asked.

use std::collections::BTreeMap;
use std::time::Duration;

use godwit_proto::container::ContainerSpec;
use godwit_proto::id::{ContainerId, Epoch, Life, NodeId, Run};
use godwit_proto::migration::drive::{Desk, DeskWorld};
use godwit_proto::migration::{Cause, End, Holding, Input, Intent, Order, Report, Row};

use crate::network::Letter;
use crate::node::Crash;
use crate::world::{Law, World, say};

/// What the database holds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Database {
    pub(crate) generation: u32,
    pub(crate) counter: u32,
    pub(crate) rows: BTreeMap<(ContainerId, Epoch), Row>,
    pub(crate) verdicts: BTreeMap<(ContainerId, Epoch), (End, Cause)>,
    pub(crate) holdings: BTreeMap<ContainerId, Holding>,
}

impl Database {
    pub(crate) fn next_epoch(&mut self) -> Epoch {
        self.counter += 1;
        Epoch { generation: self.generation, counter: self.counter }
    }

    pub(crate) fn unsettled(&self, container: ContainerId) -> Option<&Row> {
        self.rows.values().find(|row| row.spec.id == container && !row.is_settled)
    }
}

/// What dies with the process.
#[derive(Debug, Default)]
pub(crate) struct Process {
    pub(crate) desk: Option<Desk>,
    /// The run under which the reports were heard.
    run: Option<Run>,
    /// The last report of each node on each container.
    pub(crate) heard: BTreeMap<(usize, ContainerId), Report>,
    /// It dies after so many more effects.
    pub(crate) fuse: Option<usize>,
}

/// What the desk can do.
pub(crate) struct Hands<'a> {
    world: &'a mut World,
}

impl Hands<'_> {
    fn is_dying(&mut self) -> bool {
        match &mut self.world.controller.fuse {
            Some(0) => {
                self.world.counts.add("controller crashes between effects");
                true
            }
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        }
    }
}

impl DeskWorld for Hands<'_> {
    type Error = Crash;

    fn persist_run(&mut self, run: Run) -> Result<(), Crash> {
        let is_dying = self.is_dying();
        if !is_dying || self.world.rng.chance(50) {
            say!(self.world, "controller: run {run:?}");
            self.world.db.generation = run.generation;
        }
        if is_dying { Err(Crash) } else { Ok(()) }
    }

    fn persist_row(&mut self, row: &Row) -> Result<Row, Crash> {
        let is_dying = self.is_dying();
        if !is_dying || self.world.rng.chance(50) {
            self.world.write_row(row);
        }
        if is_dying {
            return Err(Crash);
        }
        let stored = self.world.db.rows.get(&(row.spec.id, row.epoch));
        Ok(stored.filter(|_| !self.world.forgets_verdicts()).unwrap_or(row).clone())
    }

    fn row(&mut self, container: ContainerId, epoch: Epoch) -> Result<Option<Row>, Crash> {
        Ok(self.world.db.rows.get(&(container, epoch)).cloned())
    }

    fn spec(&mut self, container: ContainerId) -> Result<Option<ContainerSpec>, Crash> {
        Ok(self.world.db.holdings.get(&container).map(|holding| holding.spec.clone()))
    }

    fn claim(&mut self, node: &NodeId, run: Run, life: Life) -> Result<(), Crash> {
        let is_dying = self.is_dying();
        if !is_dying || self.world.rng.chance(50) {
            let node = self.world.node_index(node);
            self.world.post(Letter::ToNode(node, Input::Claim { run, life }));
        }
        if is_dying { Err(Crash) } else { Ok(()) }
    }

    fn order(
        &mut self,
        node: &NodeId,
        run: Run,
        container: ContainerId,
        epoch: Epoch,
        order: Order,
    ) -> Result<(), Crash> {
        let is_dying = self.is_dying();
        if !is_dying || self.world.rng.chance(50) {
            self.world.check_order(container, epoch, &order);
            let node = self.world.node_index(node);
            self.world.sabotage_order(run, container, epoch, &order);
            self.world.post(Letter::ToNode(node, Input::Order { run, container, epoch, order }));
        }
        if is_dying { Err(Crash) } else { Ok(()) }
    }
}

impl World {
    pub(crate) fn controller_starts(&mut self) {
        if self.bug.is_some() {
            self.restore();
        }
        say!(self, "controller: starts");
        let unsettled = self.db.rows.values().filter(|row| !row.is_settled).cloned().collect();
        let (generation, nonce, now) = (self.db.generation, self.rng.next(), self.now);
        let desk = Desk::open(&mut Hands { world: self }, generation, nonce, unsettled, now);
        self.controller = Process { desk: desk.ok(), ..Process::default() };
        (0..self.nodes.len()).for_each(|node| self.post(Letter::ToNode(node, Input::Hello)));
    }

    /// A copy is made, if one from before a verdict that is still open is not at hand.
    pub(crate) fn database_is_saved(&mut self) {
        if !self.is_backup_telling() {
            self.backup = Some(self.db.clone());
        }
    }

    fn is_backup_telling(&self) -> bool {
        let is_open = |row: &Row| row.ruling.is_none() && !row.is_settled;
        self.backup.as_ref().is_some_and(|old| old.rows.values().any(is_open))
    }

    /// The controller starts again from an old copy of its database.
    pub(crate) fn database_is_restored(&mut self) {
        let is_decided = |row: &Row| row.ruling.is_some() && !row.is_settled;
        let is_telling = self.is_backup_telling() && self.db.rows.values().any(is_decided);
        if !is_telling && !self.rng.chance(5) {
            return;
        }
        self.controller_dies();
        self.restore();
    }

    fn restore(&mut self) {
        let Some(backup) = self.backup.take() else { return };
        say!(self, "controller: its database is an old copy");
        self.counts.add("backups restored");
        self.db = backup;
        self.has_old_database = true;
    }

    pub(crate) fn controller_dies(&mut self) {
        say!(self, "controller: dies");
        self.counts.add("controller crashes");
        self.controller = Process::default();
    }

    /// Lets the desk act; afterwards the process may be dead.
    pub(crate) fn at_desk<T>(
        &mut self,
        act: impl FnOnce(&mut Desk, &mut Hands<'_>, Duration) -> Result<T, Crash>,
    ) -> Option<T> {
        let mut desk = self.controller.desk.take()?;
        let now = self.now;
        let result = act(&mut desk, &mut Hands { world: self }, now);
        let run = desk.claims().run();
        if self.controller.run != Some(run) {
            if self.controller.run.is_some() {
                self.counts.add("runs claimed again");
            }
            self.controller.run = Some(run);
            self.controller.heard.clear();
        }
        match result {
            Ok(value) if desk.claims().may_act() => {
                self.controller.desk = Some(desk);
                Some(value)
            }
            _ => {
                self.controller_dies();
                None
            }
        }
    }
}

impl World {
    /// Writes a row, checks that it may follow the one before, and draws what follows from
    /// a settled one in the same transaction.
    fn write_row(&mut self, row: &Row) {
        let key = (row.spec.id, row.epoch);
        if self.sabotage_drops_verdict(row) {
            return;
        }
        let old = self.db.rows.get(&key).cloned();
        if let Some(old) = &old {
            self.check_row(old, row);
        }
        say!(
            self,
            "controller: row {:?} {} {}→{} {:?} settled={} loss={} arrived={} fenced={:?} cancelled={}",
            key.0,
            key.1,
            row.source,
            row.target,
            row.ruling.map(|ruling| (ruling.side, ruling.cause)),
            row.is_settled,
            row.possible_loss,
            row.has_arrived,
            row.fenced,
            row.cancelled.is_some()
        );
        if let Some(ruling) = row.ruling {
            self.db.verdicts.entry(key).or_insert((ruling.side, ruling.cause));
        }
        if row.possible_loss && self.is_plain() {
            self.fail(Law::NoNeedlessLoss, format!("{:?} of {:?} {}", row.ruling, key.0, key.1));
        }
        self.db.rows.insert(key, row.clone());
        if row.is_settled && !old.is_some_and(|old| old.is_settled) {
            self.settled(row);
        }
    }

    fn settled(&mut self, row: &Row) {
        let cause = row.ruling.map(|ruling| ruling.cause);
        self.counts.add(match cause {
            Some(cause) => cause.as_str(),
            None => "settled without a ruling",
        });
        if row.cancelled.is_some() && row.side() == Some(End::Source) {
            self.counts.add("cancelled");
        }
        let is_lost = cause == Some(Cause::MemoryLost);
        let next = self.db.next_epoch();
        if let Some(holding) = self.db.holdings.get_mut(&row.spec.id) {
            holding.node = row.holder().clone();
            holding.epoch = if is_lost { next } else { row.epoch };
            holding.intent = if is_lost { Intent::Start } else { Intent::Rest };
        }
    }

    fn check_row(&mut self, old: &Row, new: &Row) {
        let is_named = match (old.ruling, new.ruling) {
            (Some(_), None) => false,
            (Some(old), Some(new)) if old.side != new.side => match new.cause {
                Cause::Returned => new.side == End::Source,
                Cause::Salvaged => new.side == End::Target,
                Cause::Overruled | Cause::RolledBack | Cause::MemoryLost => true,
                Cause::Commit | Cause::Abort => false,
            },
            _ => true,
        };
        let only_grows = old.is_settled <= new.is_settled
            && old.possible_loss <= new.possible_loss
            && old.has_arrived <= new.has_arrived
            && old.cancelled.is_some() <= new.cancelled.is_some();
        let is_same = (&old.spec, old.epoch, &old.source, &old.target, old.opener)
            == (&new.spec, new.epoch, &new.source, &new.target, new.opener);
        if !(is_named && only_grows && is_same) {
            self.fail(Law::Monotonic, format!("{old:?} became {new:?}"));
        }
    }

    /// Only a stored verdict is ever told.
    fn check_order(&mut self, container: ContainerId, epoch: Epoch, order: &Order) {
        let side = self.db.rows.get(&(container, epoch)).and_then(Row::side);
        // A stray is discarded under the epoch of whoever holds the container at rest.
        let row_or_rest = side.is_some() || self.db.unsettled(container).is_none();
        let is_right = match order {
            Order::Open { .. } => side == Some(End::Target),
            Order::Thaw => side == Some(End::Source),
            Order::Discard => row_or_rest,
            _ => true,
        };
        if !is_right {
            self.fail(Law::PersistFirst, format!("{order:?} of {epoch} without its verdict"));
        }
    }
}
