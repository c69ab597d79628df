//! One history: a storm of chances, then calm, then what must be true.

use std::time::Duration;

use godwit_proto::container::Execution;
use godwit_proto::migration::{Input, Intent, Phase, timing};

use crate::sabotage::Bug;
use crate::world::{Counts, Law, NODES, Violation, Weather, World, say};

/// How many rounds of calm everything may take to end; the deadline passes in the middle.
const ROUNDS: usize = 240;

/// What came of a history.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) counts: Counts,
    pub(crate) broken: Option<Violation>,
    pub(crate) story: Vec<String>,
}

/// Lives through the history of that seed.
pub(crate) fn live(seed: u64, bug: Option<Bug>, is_told: bool) -> Outcome {
    let mut world = World::new(seed, bug, is_told);
    (0..NODES).for_each(|node| world.agent_starts(node));
    world.controller_starts();
    world.tenants_create();
    let steps = 400 + world.rng.below(1600);
    for _ in 0..steps {
        world.happens();
        if world.broken.is_some() {
            break;
        }
    }
    world.calms_down();
    Outcome { counts: world.counts, broken: world.broken, story: world.story.unwrap_or_default() }
}

impl World {
    /// Something happens.
    fn happens(&mut self) {
        self.now += Duration::from_millis(self.rng.below(40) as u64);
        let node = self.rng.below(NODES);
        let container = self.rng.below(self.specs.len());
        match self.rng.below(1000) {
            0..=399 => self.deliver_any(false),
            400..=429 => self.deliver_any(true),
            430..=629 => self.any_job_goes_on(),
            630..=709 => self.look_is_taken(node),
            710..=789 => self.look_is_told(node),
            790..=849 => self.agent_ticks(node),
            850..=889 => self.controller_ticks(),
            890..=929 => self.tenant_acts(),
            930..=930 => self.operator_cancels(),
            931..=957 => self.somebody_comes_back(node),
            958..=963 => self.orphans_go_on(node),
            _ => self.misfortune(node, container),
        }
    }

    fn any_job_goes_on(&mut self) {
        let jobs: Vec<_> = (0..NODES)
            .flat_map(|node| self.nodes[node].jobs.keys().map(move |container| (node, *container)))
            .collect();
        if !jobs.is_empty() {
            let (node, container) = jobs[self.rng.below(jobs.len())];
            self.job_goes_on(node, container);
        }
    }

    pub(crate) fn agent_ticks(&mut self, node: usize) {
        if self.bug.is_some() {
            self.sabotage_tick(node);
        }
        self.feed(node, Input::Tick);
    }

    fn somebody_comes_back(&mut self, node: usize) {
        if self.controller.desk.is_none() {
            self.controller_starts();
        } else if self.nodes[node].is_off {
            self.power_comes(node);
        } else {
            self.agent_starts(node);
        }
    }

    /// The link to the controller is cut, or mended.
    fn link_changes(&mut self, node: usize) {
        if !self.network.deaf.remove(&node) {
            say!(self, "{} and the controller are cut off", self.names[node]);
            self.network.deaf.insert(node);
        }
    }

    /// Where a fault is most telling.
    fn node_in_a_move(&mut self) -> Option<usize> {
        let is_moving = |node: &usize| {
            let rows = self.nodes[*node].ledger.records.values();
            rows.into_iter().any(|row| row.phase.awaits_verdict())
        };
        let nodes: Vec<_> = (0..NODES).filter(is_moving).collect();
        (!nodes.is_empty()).then(|| nodes[self.rng.below(nodes.len())])
    }

    fn misfortune(&mut self, node: usize, container: usize) {
        let Weather { loses_power, loses_ledgers, containers_end, crashes, .. } = self.weather;
        let node = if self.rng.chance(50) { self.node_in_a_move().unwrap_or(node) } else { node };
        let is_up = self.nodes[node].agent.is_some();
        let may_crash = self.rng.below(6) < crashes;
        match self.rng.below(40) {
            0..=7 if may_crash && is_up => {
                self.nodes[node].fuse = Some(self.rng.below(6));
            }
            8..=11 if may_crash && is_up => self.agent_dies(node),
            12..=13 if may_crash && self.weather.loses_database => self.database_is_restored(),
            14 if may_crash => self.controller.fuse = Some(self.rng.below(6)),
            15 if may_crash && self.controller.desk.is_some() => self.controller_dies(),
            16..=17 if self.weather.messages_fail > 0 => self.link_changes(node),
            18..=19 if self.weather.messages_fail > 0 => {
                let other = (node + 1) % NODES;
                let pair = (node.min(other), node.max(other));
                if !self.network.cuts.remove(&pair) {
                    self.network.cuts.insert(pair);
                }
            }
            20..=21 if loses_power && !self.nodes[node].is_off => self.power_goes(node),
            22 if loses_ledgers && !is_up => self.ledger_goes(node),
            23..=24 if self.weather.loses_database => self.database_is_saved(),
            25..=28 if self.nodes[node].is_off => self.operator_fences(node),
            29 if containers_end && self.slot(node, container).is_seen_running() => {
                say!(self, "{}: {:?} ends", self.names[node], self.specs[container].id);
                self.counts.add("containers ended");
                self.slot(node, container).end();
            }
            31..=35 if self.weather.is_fickle => self.operator_cancels(),
            30 if self.rng.chance(10) => {
                self.now += timing::DEADLINE;
            }
            _ => {}
        }
    }

    /// Faults stop, everything is up, messages flow: everything must come to its end.
    fn calms_down(&mut self) {
        if self.broken.is_some() {
            return;
        }
        say!(self, "──── calm ────");
        self.weather = Weather {
            engine_fails: 0,
            messages_fail: 0,
            containers_end: false,
            crashes: 0,
            ..self.weather
        };
        self.network.deaf.clear();
        self.network.cuts.clear();
        self.controller.fuse = None;
        for round in 0..ROUNDS {
            self.round();
            if self.broken.is_some() {
                return;
            }
            if self.is_quiet() && round > 12 {
                break;
            }
            if round == ROUNDS / 2 {
                self.now += timing::DEADLINE;
                let needed = !self.has_old_database;
                self.counts.add(if needed { "deadline needed in calm" } else { "people needed" });
            }
        }
        self.check_end();
    }

    fn round(&mut self) {
        self.now += timing::TICK_MOVING;
        for node in 0..NODES {
            self.nodes[node].fuse = None;
            if self.nodes[node].is_off {
                self.power_comes(node);
            }
            self.agent_starts(node);
            while !self.nodes[node].orphans.is_empty() && self.broken.is_none() {
                let before = self.nodes[node].orphans.len();
                self.orphans_go_on(node);
                if self.nodes[node].orphans.len() == before && self.rng.chance(20) {
                    break;
                }
            }
            self.agent_ticks(node);
        }
        if self.controller.desk.is_none() {
            self.controller_starts();
        }
        self.controller_ticks();
        self.tenants_insist();
        for _ in 0..self.network.bag.len() {
            self.deliver_any(false);
        }
        for _ in 0..self.network.late.len() {
            self.deliver_any(true);
        }
        for node in 0..NODES {
            for container in 0..self.specs.len() {
                for _ in 0..6 {
                    self.job_goes_on(node, container);
                }
            }
            self.look_is_taken(node);
            self.look_is_told(node);
        }
    }

    /// Nothing is in hand any more.
    fn is_quiet(&self) -> bool {
        self.network.late.is_empty() && self.leftover().is_none()
    }

    fn check_end(&mut self) {
        if self.has_old_database {
            // What the database forgot is for people to find; that nothing was harmed is shown.
            return;
        }
        if let Some(what) = self.leftover() {
            self.fail(Law::Progress, what);
        }
    }

    /// What is not as it should be when all is over.
    fn leftover(&self) -> Option<String> {
        if let Some(row) = self.db.rows.values().find(|row| !row.is_settled) {
            return Some(format!("{:?} {} is not settled", row.spec.id, row.epoch));
        }
        for (container, spec) in self.specs.iter().enumerate() {
            let holding = self.db.holdings.get(&spec.id);
            if let Some(holding) = holding
                && holding.intent != Intent::Rest
            {
                return Some(format!("{:?} is to {:?} still", spec.id, holding.intent));
            }
            let home = holding.map(|holding| self.node_index(&holding.node));
            for node in 0..NODES {
                let place = &self.nodes[node];
                let (slot, name) = (&place.slots[container], &self.names[node]);
                if let Some(job) = place.jobs.get(&container) {
                    return Some(format!("{:?} of {:?} goes on on {name}", job.call, spec.id));
                }
                if slot.has_leftovers() {
                    return Some(format!("{name} holds leftovers of {:?}: {slot:?}", spec.id));
                }
                if home != Some(node) && slot.has_trace() {
                    return Some(format!("{name} still has {:?}: {slot:?}", spec.id));
                }
                let is_right = match slot.execution {
                    Execution::Running => home == Some(node) && self.is_wanted[container],
                    _ => home != Some(node) || !self.is_wanted[container],
                };
                if !is_right {
                    return Some(format!("{:?} is {:?} on {name}", spec.id, slot.execution));
                }
                let phase = place.ledger.records.get(&spec.id).map(|row| row.phase);
                if slot.execution == Execution::Running && phase != Some(Phase::Active) {
                    return Some(format!("{:?} runs on {name} as {phase:?}", spec.id));
                }
            }
        }
        None
    }
}
