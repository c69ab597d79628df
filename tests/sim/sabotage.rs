//! Planted bugs: each leaves out one rule, from outside the machines, and must be found.

use godwit_proto::container::Execution;
use godwit_proto::id::{ContainerId, Epoch, Run};
use godwit_proto::migration::{Agent, End, Input, Message, Order, Phase, Record, Role, Row, Sight};

use crate::network::Letter;
use crate::world::{Weather, World};

/// A rule that is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    SourceThawsOnTimeout,
    TargetOpensOnTimeout,
    CommitSentBeforeItPersists,
    TargetForgetsItsRefusal,
    SourceDiscardsAtCommit,
    OpeningPersistedTooLate,
    AgentsObeyAnyRun,
    PromiseNotPersisted,
    CopyDeadNotPersisted,
    CallOutlivesAgent,
    NoReconcile,
}

impl Bug {
    /// The weather in which it does harm: some need an old copy of the database, or messages
    /// of a run long gone.
    pub(crate) fn climate(self, weather: Weather) -> Weather {
        match self {
            Self::AgentsObeyAnyRun | Self::PromiseNotPersisted => Weather {
                loses_database: false,
                loses_power: false,
                messages_fail: 20,
                crashes: 6,
                is_fickle: true,
                ..weather
            },
            Self::CopyDeadNotPersisted | Self::CallOutlivesAgent => {
                Weather { crashes: 6, engine_fails: 20, ..weather }
            }
            _ => weather,
        }
    }

    /// Whether late copies of that message are kept: orders of a run long gone do the harm.
    pub(crate) fn keeps_late(self, letter: &Letter) -> bool {
        let is_order = |order: &Order| matches!(order, Order::Open { .. } | Order::Thaw);
        match self {
            Self::AgentsObeyAnyRun | Self::PromiseNotPersisted => {
                matches!(letter, Letter::ToNode(_, Input::Order { order, .. }) if is_order(order))
            }
            _ => true,
        }
    }

    /// It is to be caught by the harm that it does, not at the moment when it acts.
    pub(crate) fn is_crafty(self) -> bool {
        self != Self::CommitSentBeforeItPersists
    }
}

impl World {
    /// What an agent does by itself that it should not.
    pub(crate) fn sabotage_tick(&mut self, node: usize) {
        let rows: Vec<_> = self.nodes[node].ledger.records.values().cloned().collect();
        let Some(run) = self.nodes[node].agent.as_ref().and_then(Agent::obeys) else { return };
        for row in rows {
            let (container, epoch) = (row.spec.id, row.epoch);
            let order = match (self.bug, row.phase) {
                (Some(Bug::SourceThawsOnTimeout), Phase::Frozen) => Order::Thaw,
                (Some(Bug::TargetOpensOnTimeout), Phase::Staged) => match row.image {
                    Some(image) => Order::Open { image },
                    None => continue,
                },
                // A restart shows what was not written down, most of all here; then the
                // network brings what the run that is obeyed again once said.
                (Some(Bug::PromiseNotPersisted), Phase::Frozen) => {
                    if run.generation < self.db.generation {
                        (0..self.network.late.len()).for_each(|_| self.deliver_any(true));
                    } else if self.rng.chance(20) {
                        self.agent_dies(node);
                    }
                    return;
                }
                (Some(Bug::CopyDeadNotPersisted), Phase::Opening) => {
                    self.say_dead(node, run, &row);
                    continue;
                }
                _ => continue,
            };
            self.feed(node, Input::Order { run, container, epoch, order });
        }
    }

    /// The copy is dead for now; it is said, not written down, and built again.
    fn say_dead(&mut self, node: usize, run: Run, row: &Record) {
        let container = self.index(row.spec.id);
        if self.slot(node, container).execution == Execution::Absent {
            let report = godwit_proto::migration::Report {
                container: row.spec.id,
                epoch: row.epoch,
                phase: Phase::Ran,
                role: row.role,
                peer: row.peer.clone(),
                ready: None,
                is_busy: false,
                image: row.image,
                reason: None,
                exit_code: None,
            };
            self.post(Letter::ToController(node, Message::Report { run, report }));
        }
    }

    pub(crate) fn sabotage_input(&self, agent: &Agent, input: Input) -> Input {
        match (self.bug, input) {
            (Some(Bug::AgentsObeyAnyRun), Input::Order { run, container, epoch, order }) => {
                Input::Order { run: agent.obeys().unwrap_or(run), container, epoch, order }
            }
            (_, input) => input,
        }
    }

    pub(crate) fn sabotage_order(
        &mut self,
        run: Run,
        container: ContainerId,
        epoch: Epoch,
        order: &Order,
    ) {
        let Some(row) = self.db.rows.get(&(container, epoch)).cloned() else { return };
        match (self.bug, order) {
            (Some(Bug::SourceDiscardsAtCommit), Order::Open { .. }) => {
                let source = self.node_index(&row.source);
                let order = Order::Discard;
                self.post(Letter::ToNode(source, Input::Order { run, container, epoch, order }));
            }
            (Some(Bug::AgentsObeyAnyRun | Bug::PromiseNotPersisted), Order::Thaw)
                if self.weather.is_fickle =>
            {
                let target = self.node_index(&row.target);
                let index = self.index(container);
                if self.slot(target, index).execution == Execution::Gated {
                    self.forget_verdict(run, row, order.clone());
                }
            }
            _ => {}
        }
    }

    /// The worst moment for an old copy of the database: a verdict was told and is forgotten,
    /// the message comes late, and the next run decides otherwise.
    fn forget_verdict(&mut self, run: Run, row: Row, order: Order) {
        let (container, epoch) = (row.spec.id, row.epoch);
        let source = self.node_index(&row.source);
        let late = Letter::ToNode(source, Input::Order { run, container, epoch, order });
        self.network.late.extend([late.clone(), late.clone(), late]);
        let mut old = self.db.clone();
        old.rows.insert((container, epoch), Row { ruling: None, cancelled: None, ..row });
        self.backup = Some(old);
        self.controller.fuse = Some(0);
    }

    pub(crate) fn sabotage_wake(&self, row: &Record) -> Record {
        let mut row = row.clone();
        if self.bug == Some(Bug::TargetForgetsItsRefusal)
            && row.role == Role::Target
            && matches!(row.phase, Phase::Staged | Phase::Dead)
        {
            row.phase = Phase::Preparing;
        }
        row
    }

    pub(crate) fn sabotage_drops(&self, record: &Record) -> bool {
        self.bug == Some(Bug::OpeningPersistedTooLate) && record.phase == Phase::Opening
    }

    /// Only some promises are written down.
    pub(crate) fn sabotage_drops_promise(&mut self, node: usize) -> bool {
        let is_first = self.nodes[node].ledger.promise.is_none();
        self.bug == Some(Bug::PromiseNotPersisted) && !is_first && self.rng.chance(60)
    }

    pub(crate) fn sabotage_drops_verdict(&self, row: &Row) -> bool {
        self.forgets_verdicts() && row.side() == Some(End::Target) && !row.has_arrived
    }

    pub(crate) fn forgets_verdicts(&self) -> bool {
        self.bug == Some(Bug::CommitSentBeforeItPersists)
    }

    /// Without reconciling an agent believes its ledger.
    pub(crate) fn sabotage_sight(&self, row: &Record, sight: Sight) -> Sight {
        let execution = match row.phase {
            _ if self.bug != Some(Bug::NoReconcile) => return sight,
            Phase::Active | Phase::Kept | Phase::Thawing => Execution::Running,
            Phase::Frozen => Execution::Frozen,
            Phase::Staged | Phase::Opening => Execution::Gated,
            _ => return sight,
        };
        Sight { execution, ..sight }
    }

    /// Orphaned calls go on.
    pub(crate) fn orphans_go_on(&mut self, node: usize) {
        if self.nodes[node].orphans.is_empty() {
            return;
        }
        let pick = self.rng.below(self.nodes[node].orphans.len());
        let (container, mut job) = self.nodes[node].orphans.swap_remove(pick);
        self.work(node, container, &mut job, false);
        if job.outcome.is_none() {
            self.nodes[node].orphans.push((container, job));
        }
    }
}
