//! What tenants and operators ask for, and the controller's keeping of containers at rest.

use godwit_proto::id::{ContainerId, Epoch};
use godwit_proto::migration::drive::DeskWorld;
use godwit_proto::migration::{Due, Holding, Intent, Message, Phase, Plan, Report};

use crate::network::Letter;
use crate::world::{NODES, World, say};

impl World {
    /// Every container is to be made somewhere, at the very beginning.
    pub(crate) fn tenants_create(&mut self) {
        for spec in self.specs.clone() {
            let node = self.names[self.rng.below(NODES)].clone();
            let epoch = Epoch { generation: self.db.generation, counter: 0 };
            let holding = Holding { spec: spec.clone(), node, epoch, intent: Intent::Create };
            self.db.holdings.insert(spec.id, holding);
        }
    }

    pub(crate) fn controller_hears(&mut self, node: usize, message: Message) {
        let name = self.names[node].clone();
        if self.controller.desk.is_none() {
            return;
        }
        say!(self, "controller ◀── {name} {}", brief(&message));
        self.at_desk(|desk, world, now| desk.hear(world, &name, &message, now));
        let Some(desk) = &self.controller.desk else { return };
        let Message::Report { run, report } = message else { return };
        if run != desk.claims().run() {
            return;
        }
        let container = report.container;
        let last = self.controller.heard.get(&(node, container));
        if last.is_none_or(|last| rank(last) <= rank(&report)) {
            self.controller.heard.insert((node, container), report);
            self.attend(container, Holding::due);
        }
    }

    pub(crate) fn controller_ticks(&mut self) {
        self.at_desk(|desk, world, now| desk.tick(world, now));
        let Some(desk) = &self.controller.desk else { return };
        let silent: Vec<_> =
            (0..NODES).filter(|node| !desk.claims().holds(&self.names[*node])).collect();
        for node in silent {
            self.post(Letter::ToNode(node, godwit_proto::migration::Input::Hello));
        }
        for id in self.db.holdings.keys().copied().collect::<Vec<_>>() {
            self.attend(id, Holding::due_again);
            (0..NODES).for_each(|node| self.attend_elsewhere(node, id));
        }
    }

    /// Clears what an old attempt left on a node that does not hold the container.
    fn attend_elsewhere(&mut self, node: usize, id: ContainerId) {
        let Some(holding) = self.db.holdings.get(&id) else { return };
        let home = self.node_index(&holding.node);
        let heard = &self.controller.heard;
        if node == home || self.db.unsettled(id).is_some() || holding.intent != Intent::Rest {
            return;
        }
        if let (Some(home), Some(report)) = (heard.get(&(home, id)), heard.get(&(node, id)))
            && let Some(order) = holding.due_elsewhere(home, report)
        {
            let (name, epoch) = (self.names[node].clone(), holding.epoch);
            self.at_desk(|desk, world, _| {
                let run = desk.claims().run();
                world.order(&name, run, id, epoch, order)
            });
        }
    }

    /// Does what is due for a container that is in no move.
    fn attend(&mut self, id: ContainerId, due: fn(&Holding, Option<&Report>) -> Due) {
        if self.controller.desk.is_none() || self.db.unsettled(id).is_some() {
            return;
        }
        let Some(holding) = self.db.holdings.get(&id).cloned() else { return };
        let node = self.node_index(&holding.node);
        match due(&holding, self.controller.heard.get(&(node, id))) {
            Due::Wait => {}
            Due::Order(order) => {
                self.at_desk(|desk, world, _| {
                    let run = desk.claims().run();
                    world.order(&holding.node, run, id, holding.epoch, order)
                });
            }
            Due::Reached if holding.intent == Intent::Remove => {
                say!(self, "controller: {id:?} is removed");
                self.counts.add("removed");
                self.db.holdings.remove(&id);
            }
            Due::Reached => {
                say!(self, "controller: {id:?} {:?} is reached", holding.intent);
                let was_made = holding.intent == Intent::Create;
                self.counts.add(if was_made { "created" } else { "started or stopped" });
                self.ask(id, if was_made { Intent::Start } else { Intent::Rest });
            }
            Due::Failed(why) => {
                say!(self, "controller: {id:?} {:?} failed: {why}", holding.intent);
                self.counts.add("failed at rest");
                let gave_up = holding.intent == Intent::Create;
                self.ask(id, if gave_up { Intent::Remove } else { Intent::Rest });
            }
        }
    }

    /// Records what is asked of a container; a start is a new epoch.
    fn ask(&mut self, id: ContainerId, intent: Intent) {
        let epoch = self.db.next_epoch();
        if let Some(holding) = self.db.holdings.get_mut(&id) {
            holding.intent = intent;
            if intent == Intent::Start {
                holding.epoch = epoch;
            }
        }
    }

    /// The container rests where the database says; what its node last said of it.
    fn at_rest(&self, container: usize) -> Option<(Holding, Report)> {
        let id = self.specs[container].id;
        let holding = self.db.holdings.get(&id)?;
        let node = self.node_index(&holding.node);
        let report = self.controller.heard.get(&(node, id))?;
        let is_resting = holding.intent == Intent::Rest
            && self.controller.desk.is_some()
            && self.db.unsettled(id).is_none()
            && (report.epoch == holding.epoch
                || matches!(report.phase, Phase::Ran | Phase::UnknownAbsent))
            && !report.is_busy;
        is_resting.then(|| (holding.clone(), report.clone()))
    }

    /// A tenant asks for something that can be asked for now.
    pub(crate) fn tenant_acts(&mut self) {
        if self.has_old_database {
            return;
        }
        let container = self.rng.below(self.specs.len());
        let id = self.specs[container].id;
        let Some((_, report)) = self.at_rest(container) else { return };
        let is_running = report.phase == Phase::Active;
        match self.rng.below(100) {
            0..=89 if is_running => self.tenant_moves(container),
            90..=95 if is_running => {
                self.is_wanted[container] = false;
                self.ask(id, Intent::Stop);
            }
            96 => {
                self.is_wanted[container] = false;
                self.is_removed[container] = true;
                self.ask(id, Intent::Remove);
            }
            _ if matches!(report.phase, Phase::Stopped | Phase::Ran | Phase::Dead) => {
                self.is_wanted[container] = true;
                self.ask(id, Intent::Start);
            }
            _ => {}
        }
    }

    fn tenant_moves(&mut self, container: usize) {
        let Some((holding, _)) = self.at_rest(container) else { return };
        let target = self.names[self.rng.below(NODES)].clone();
        let Some(desk) = &self.controller.desk else { return };
        let are_here = desk.claims().holds(&target) && desk.claims().holds(&holding.node);
        if target == holding.node || !are_here {
            return;
        }
        self.counts.add("moves asked for");
        let epoch = self.db.next_epoch();
        let ends = (holding.node, target);
        self.at_desk(|desk, world, now| {
            desk.begin(world, holding.spec, epoch, ends, Plan::default(), now)
        });
    }

    /// What the tenants want is asked for again where it failed: containers that ended are started.
    pub(crate) fn tenants_insist(&mut self) {
        use Phase::{Dead, Ran, Stopped, UnknownAbsent};
        if self.has_old_database {
            return;
        }
        for container in 0..self.specs.len() {
            if let Some((_, report)) = self.at_rest(container)
                && self.is_wanted[container]
                && matches!(report.phase, Ran | Dead | Stopped | UnknownAbsent)
            {
                self.ask(self.specs[container].id, Intent::Start);
            }
        }
    }

    pub(crate) fn operator_cancels(&mut self) {
        let container = self.rng.below(self.specs.len());
        let Some(row) = self.db.unsettled(self.specs[container].id) else { return };
        let key = (row.spec.id, row.epoch);
        self.counts.add("cancels asked for");
        self.at_desk(|desk, world, now| desk.cancel(world, key, "an operator's wish", now));
    }

    /// The operator has seen with his own eyes that the node is off.
    pub(crate) fn operator_fences(&mut self, node: usize) {
        let name = self.names[node].clone();
        say!(self, "operator: {name} is off, fence it");
        self.counts.add("fences");
        self.at_desk(|desk, world, now| desk.fence(world, &name, now));
    }
}

fn rank(report: &Report) -> (Epoch, Phase) {
    (report.epoch, report.phase)
}

/// A message in a few words.
fn brief(message: &Message) -> String {
    match message {
        Message::Report { run, report } => format!(
            "{:?} {} {:?} ready={:?} busy={} for {run:?}",
            report.container, report.epoch, report.phase, report.ready, report.is_busy
        ),
        other => format!("{other:?}"),
    }
}
