//! Who holds which container, what is asked of it, and which moves are under way.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use godwit_proto::container::ContainerSpec;
use godwit_proto::frame::{FromNode, NodeAnswer, NodeRequest, Progress, ToNode};
use godwit_proto::id::{ContainerId, Epoch, MigrationId, NodeId};
use godwit_proto::migration::drive::Desk;
use godwit_proto::migration::{
    Cause, Due, Holding, Intent as AtRest, Message, Order, Phase, Plan, Report, Row,
};
use jiff::Timestamp;
use tokio::sync::{broadcast, mpsc};

use super::moves::{self, Clock};
use super::world::{Key, World, decode};
use super::{Ask, Reply};
use crate::event::Event;
use crate::refusal::Refusal;
use crate::store::{ContainerRow, ContainerState, Intent, Prediction, Store, StoreError};
use crate::view::{ContainerView, MigrationView};

/// The core's whole state; everything in it can be had again from the database and the nodes.
pub(super) struct Core {
    world: World,
    desk: Desk,
    containers: BTreeMap<ContainerId, ContainerRow>,
    /// What each node said last of each container, under the present run.
    reports: BTreeMap<(ContainerId, NodeId), Report>,
    ticks: u32,
    clocks: BTreeMap<Key, Clock>,
    questions: BTreeMap<u64, Reply<NodeAnswer>>,
    last_question: u64,
    last_counter: u32,
    born: Instant,
    events: broadcast::Sender<Event>,
}

impl Core {
    pub(super) fn open(
        store: Store,
        frames: mpsc::Sender<(NodeId, ToNode)>,
        events: broadcast::Sender<Event>,
    ) -> Result<Self, StoreError> {
        let unsettled = store.unsettled_attempts()?;
        let rows: Vec<Row> = unsettled.iter().filter_map(|a| decode(&a.decider)).collect();
        let containers: BTreeMap<_, _> =
            store.containers()?.into_iter().map(|row| (row.spec.id, row)).collect();
        let last_counter = store.last_counter()?;
        let generation = store.generation()?;
        let attempts = unsettled.into_iter().map(|a| ((a.container, a.epoch), a)).collect();
        let mut world = World { store, frames, attempts, changed: Vec::new(), run_changed: false };
        let nonce = u64::from_le_bytes(random());
        let desk = Desk::open(&mut world, generation, nonce, rows, Duration::ZERO)?;
        Ok(Self {
            world,
            desk,
            containers,
            reports: BTreeMap::new(),
            ticks: 0,
            clocks: BTreeMap::new(),
            questions: BTreeMap::new(),
            last_question: 0,
            last_counter,
            born: Instant::now(),
            events,
        })
    }

    /// Does what it is asked. A database that refuses is logged and tried again by the
    /// next tick: what was not persisted was not done.
    pub(super) fn hear(&mut self, ask: Ask) {
        let done = match ask {
            Ask::Create { spec, node, start, reply } => {
                answer(reply, self.create(*spec, node, start))
            }
            Ask::Start { id, reply } => answer(reply, self.start(id)),
            Ask::Stop { id, reply } => answer(reply, self.stop(id)),
            Ask::Remove { id, force, reply } => answer(reply, self.remove(id, force)),
            Ask::Migrate { id, to, plan, predicted, reply } => {
                answer(reply, self.migrate(id, to, plan, predicted))
            }
            Ask::Cancel { id, reply } => answer(reply, self.cancel(&id)),
            Ask::Node { node, request, reply } => self.question(&node, request, reply),
            Ask::Run(reply) => {
                let _ = reply.send(self.desk.claims().run());
                Ok(())
            }
            Ask::Heard { node, frame } => self.heard(&node, *frame),
            Ask::Tick => self.tick(),
        };
        if let Err(error) = done.and_then(|()| self.follow()) {
            tracing::error!(error = %crate::refusal::Chain(&error), "the database refuses; tried again soon");
        }
    }

    /// Another controller is obeyed: this one must not act any more.
    pub(super) fn is_superseded(&self) -> bool {
        let is_superseded = !self.desk.claims().may_act();
        if is_superseded {
            tracing::error!(
                "another controller is obeyed by the fabric's nodes: this one stops. Start it \
                 again only if the other is gone"
            );
        }
        is_superseded
    }

    fn now(&self) -> Duration {
        self.born.elapsed()
    }

    fn next_epoch(&mut self) -> Epoch {
        self.last_counter += 1;
        Epoch { generation: self.desk.claims().run().generation, counter: self.last_counter }
    }

    fn create(&mut self, spec: ContainerSpec, node: NodeId, start: bool) -> Result<(), Refusal> {
        let now = Timestamp::now();
        let row = ContainerRow {
            epoch: self.next_epoch(),
            node,
            intent: Intent::Create,
            // `starting` under the intent to create: it is to be started once it is made.
            state: if start { ContainerState::Starting } else { ContainerState::Creating },
            error: None,
            exit_code: None,
            since: now,
            created: now,
            spec,
        };
        self.world.store.insert_container(&row).map_err(|error| match error {
            StoreError::Taken { .. } => Refusal::new(
                "name-taken",
                format!("there is a container `{}` already", row.spec.name),
                "choose another name, or remove it with `godwit rm`",
            ),
            error => Refusal::internal("adding a container", &error),
        })?;
        let id = row.spec.id;
        self.containers.insert(id, row);
        self.show(id);
        self.urge(id);
        Ok(())
    }

    fn start(&mut self, id: ContainerId) -> Result<(), Refusal> {
        let row = self.idle(id)?;
        match row.state {
            ContainerState::Running | ContainerState::Starting => return Ok(()),
            ContainerState::Failed
                if self.said(id).is_none_or(|report| report.phase == Phase::Dead) =>
            {
                return Err(Refusal::new(
                    "failed",
                    format!(
                        "`{}` was never made: {}",
                        row.spec.name,
                        row.error.as_deref().unwrap_or("")
                    ),
                    "remove it and run it again",
                ));
            }
            _ => {}
        }
        let epoch = self.next_epoch();
        self.intend(id, Intent::Start, ContainerState::Starting, Some(epoch))
    }

    fn stop(&mut self, id: ContainerId) -> Result<(), Refusal> {
        match self.idle(id)?.state {
            ContainerState::Stopped | ContainerState::Exited | ContainerState::Failed => Ok(()),
            _ => self.intend(id, Intent::Stop, ContainerState::Stopping, None),
        }
    }

    fn remove(&mut self, id: ContainerId, force: bool) -> Result<(), Refusal> {
        let row = self.idle(id)?;
        let is_up = matches!(row.state, ContainerState::Running | ContainerState::Starting);
        if is_up && !force {
            return Err(Refusal::new(
                "not-stopped",
                format!("`{}` is running on `{}`", row.spec.name, row.node),
                format!("stop it first, or `godwit rm --force {}`", row.spec.name),
            ));
        }
        self.intend(id, Intent::Remove, ContainerState::Removing, None)
    }

    fn migrate(
        &mut self,
        id: ContainerId,
        to: NodeId,
        plan: Plan,
        predicted: Option<Prediction>,
    ) -> Result<MigrationId, Refusal> {
        let row = self.idle(id)?.clone();
        if row.node == to {
            return Err(Refusal::new(
                "same-node",
                format!("`{}` is on `{to}` already", row.spec.name),
                "name another node with --to",
            ));
        }
        for node in [&row.node, &to] {
            if !self.desk.claims().holds(node) {
                return Err(Refusal::new(
                    "node-silent",
                    format!("`{node}` has not answered this controller yet"),
                    "wait a moment and try again; see `godwit node ls`",
                ));
            }
        }
        let is_known = self.said(id).is_some_and(|report| {
            let rests = matches!(report.phase, Phase::Active | Phase::Stopped);
            report.epoch == row.epoch && rests && !report.is_busy
        });
        if !is_known {
            return Err(Refusal::new(
                "busy",
                format!("`{}` has not said yet how `{}` is", row.node, row.spec.name),
                "wait a moment and try again; see `godwit ps -a`",
            ));
        }
        let epoch = self.next_epoch();
        let (now, ends) = (self.now(), (row.node.clone(), to));
        self.desk
            .begin(&mut self.world, row.spec.clone(), epoch, ends, plan, now)
            .map_err(|error| Refusal::internal("opening a migration", &error))?;
        if let Some(stored) = self.world.attempts.get_mut(&(id, epoch)) {
            stored.predicted = predicted;
        }
        self.set_state(id, ContainerState::Migrating, None)
            .map_err(|error| Refusal::internal("saving a container", &error))?;
        Ok(moves::name(epoch))
    }

    fn cancel(&mut self, id: &MigrationId) -> Result<(), Refusal> {
        let internal = |error: StoreError| Refusal::internal("cancelling a migration", &error);
        let live = self.world.attempts.iter().find(|(_, row)| row.id == *id).map(|(key, _)| *key);
        let Some(key) = live else {
            return Err(match self.world.store.migration(id).map_err(internal)? {
                Some(row) => Refusal::new(
                    "already-settled",
                    format!("{id} is over: {}", row.outcome.as_deref().unwrap_or("done")),
                    format!("see `godwit migration inspect {id}`"),
                ),
                None => Refusal::new(
                    "unknown-migration",
                    format!("there is no migration `{id}`"),
                    "list them with `godwit migration ls`",
                ),
            });
        };
        let now = self.now();
        match self.desk.cancel(&mut self.world, key, moves::CANCELLED, now) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Refusal::new(
                "decided",
                format!("{id} is decided already: it cannot be called off any more"),
                "wait for its end; then move the container back if you must",
            )),
            Err(error) => Err(internal(error)),
        }
    }

    fn question(
        &mut self,
        node: &NodeId,
        request: NodeRequest,
        reply: Reply<NodeAnswer>,
    ) -> Result<(), StoreError> {
        self.questions.retain(|_, waiting| !waiting.is_closed());
        self.last_question += 1;
        let (number, run) = (self.last_question, self.desk.claims().run());
        self.questions.insert(number, reply);
        self.world.tell(node, ToNode::Request { run, number, request });
        Ok(())
    }

    fn heard(&mut self, node: &NodeId, frame: FromNode) -> Result<(), StoreError> {
        let now = self.now();
        match frame {
            FromNode::Machine(message) => {
                self.desk.hear(&mut self.world, node, &message, now)?;
                if std::mem::take(&mut self.world.run_changed) {
                    self.reports.clear();
                }
                match message {
                    Message::Report { run, report } if run == self.desk.claims().run() => {
                        self.note(node, report)
                    }
                    Message::Promised { .. } => self.urge_all(Some(node), Heard::Now),
                    _ => Ok(()),
                }
            }
            FromNode::Progress(progress) => {
                self.note_progress(&progress);
                Ok(())
            }
            FromNode::Answer { number, answer } => {
                if let Some(reply) = self.questions.remove(&number) {
                    let refusal = |words| {
                        Refusal::new(
                            "node-refused",
                            format!("`{node}`: {words}"),
                            format!("look into the agent's log on `{node}`"),
                        )
                    };
                    let _ = reply.send(answer.map_err(refusal));
                }
                Ok(())
            }
        }
    }

    /// Keeps what a node says of a container and acts on it.
    fn note(&mut self, node: &NodeId, report: Report) -> Result<(), StoreError> {
        let id = report.container;
        self.last_counter = self.last_counter.max(report.epoch.counter);
        let key = (id, node.clone());
        let rank = |report: &Report| (report.epoch, report.phase);
        if self.reports.get(&key).is_some_and(|old| rank(old) > rank(&report)) {
            return Ok(());
        }
        self.reports.insert(key, report);
        self.advance(id, Heard::Now)
    }

    fn note_progress(&mut self, progress: &Progress) {
        let key = (progress.container, progress.epoch);
        if let Some(stored) = self.world.attempts.get_mut(&key) {
            self.clocks.entry(key).or_default().note(stored, progress);
            if let Some(decider) = self.desk.attempt(key.0, key.1) {
                self.clocks.entry(key).or_default().follow(stored, decider);
            }
            self.show_move(key);
        }
    }

    fn tick(&mut self) -> Result<(), StoreError> {
        let now = self.now();
        self.desk.tick(&mut self.world, now)?;
        let live: Vec<Key> = self.world.attempts.keys().copied().collect();
        for key in live {
            self.follow_move(key)?;
        }
        self.ticks = self.ticks.wrapping_add(1);
        self.urge_all(None, Heard::Before)
    }

    /// Repeats what is asked of containers at rest, of one node's or of all.
    fn urge_all(&mut self, node: Option<&NodeId>, heard: Heard) -> Result<(), StoreError> {
        let wanted = |row: &&ContainerRow| node.is_none_or(|node| row.node == *node);
        let ids: Vec<_> = self.containers.values().filter(wanted).map(|row| row.spec.id).collect();
        for id in ids {
            self.advance(id, heard)?;
        }
        Ok(())
    }

    fn urge(&mut self, id: ContainerId) {
        if let Err(error) = self.advance(id, Heard::Now) {
            tracing::error!(%error, "tried again soon");
        }
    }

    /// What a container at rest is due, given its holder's last word.
    fn advance(&mut self, id: ContainerId, heard: Heard) -> Result<(), StoreError> {
        if self.is_moving(id) || !self.desk.claims().may_act() {
            return Ok(());
        }
        let Some(row) = self.containers.get(&id) else { return Ok(()) };
        let report = self.reports.get(&(id, row.node.clone()));
        let holding = Holding {
            spec: row.spec.clone(),
            node: row.node.clone(),
            epoch: row.epoch,
            intent: match row.intent {
                Intent::Create => AtRest::Create,
                Intent::Start => AtRest::Start,
                Intent::Stop => AtRest::Stop,
                Intent::Remove => AtRest::Remove,
                Intent::Rest => AtRest::Rest,
            },
        };
        self.clear_elsewhere(&holding, report);
        // At rest nothing is urgent: a last report that was lost is asked for now and then.
        let is_time = row.intent != Intent::Rest || self.ticks.is_multiple_of(ASK_EVERY);
        let due = match heard {
            Heard::Before if is_time => holding.due_again(report),
            _ => holding.due(report),
        };
        match due {
            Due::Wait if row.intent == Intent::Rest => self.observe(id),
            Due::Wait => Ok(()),
            Due::Order(order) => {
                self.order(&holding.node, &holding, order);
                Ok(())
            }
            Due::Reached => self.reached(id),
            Due::Failed(why) => {
                let state = match row.intent {
                    Intent::Start => ContainerState::Exited,
                    _ => ContainerState::Failed,
                };
                let exit_code = report.and_then(|report| report.exit_code).map(i64::from);
                self.change(id, |row| {
                    row.intent = Intent::Rest;
                    row.exit_code = exit_code;
                })?;
                self.set_state(id, state, Some(why))
            }
        }
    }

    /// What an older attempt left on other nodes is of no use once the holder has it.
    fn clear_elsewhere(&self, holding: &Holding, home: Option<&Report>) {
        let Some(home) = home.filter(|_| holding.intent == AtRest::Rest) else { return };
        let of_it = self.reports.iter().filter(|((id, _), _)| *id == holding.spec.id);
        for ((_, node), report) in of_it.filter(|((_, node), _)| *node != holding.node) {
            if let Some(order) = holding.due_elsewhere(home, report) {
                self.order(node, holding, order);
            }
        }
    }

    fn order(&self, node: &NodeId, holding: &Holding, order: Order) {
        if self.desk.claims().holds(node) {
            let (run, container, epoch) =
                (self.desk.claims().run(), holding.spec.id, holding.epoch);
            self.world.tell(node, ToNode::Order { run, container, epoch, order });
        }
    }

    fn reached(&mut self, id: ContainerId) -> Result<(), StoreError> {
        let Some(row) = self.containers.get(&id).cloned() else { return Ok(()) };
        match row.intent {
            Intent::Create if row.state == ContainerState::Starting => {
                let epoch = self.next_epoch();
                self.change(id, |row| {
                    row.intent = Intent::Start;
                    row.epoch = epoch;
                })?;
                self.advance(id, Heard::Now)
            }
            Intent::Remove => {
                self.world.store.delete_container(id)?;
                self.containers.remove(&id);
                self.reports.retain(|(of, _), _| *of != id);
                let _ = self.events.send(Event::Container(ContainerView::removed(&row)));
                Ok(())
            }
            intent => {
                let state = match intent {
                    Intent::Start => ContainerState::Running,
                    _ => ContainerState::Stopped,
                };
                self.change(id, |row| {
                    row.intent = Intent::Rest;
                    row.exit_code = None;
                })?;
                self.set_state(id, state, None)
            }
        }
    }

    /// A container at rest is as its holder says.
    fn observe(&mut self, id: ContainerId) -> Result<(), StoreError> {
        let Some(report) = self.said(id).cloned() else { return Ok(()) };
        let was = self.containers.get(&id).map(|row| row.state);
        let (state, error) = match report.phase {
            Phase::Active | Phase::Kept => (ContainerState::Running, None),
            Phase::Stopped => (ContainerState::Stopped, None),
            Phase::Ran => (ContainerState::Exited, report.reason.clone()),
            Phase::Gone | Phase::Absent | Phase::UnknownAbsent => {
                (ContainerState::Failed, Some("its node holds it no more".to_owned()))
            }
            _ => return Ok(()),
        };
        if was == Some(ContainerState::Failed) && state != ContainerState::Running {
            return Ok(());
        }
        if report.phase == Phase::Ran {
            self.change(id, |row| row.exit_code = report.exit_code.map(i64::from))?;
        }
        self.set_state(id, state, error)
    }

    /// Brings everything that a stored row implies up to date.
    fn follow(&mut self) -> Result<(), StoreError> {
        for row in std::mem::take(&mut self.world.changed) {
            let key = (row.spec.id, row.epoch);
            self.follow_move(key)?;
            let owns = row.has_arrived || row.is_settled;
            if owns && self.containers.get(&key.0).is_some_and(|c| c.epoch <= row.epoch) {
                self.settle_container(&row)?;
            }
            if row.is_settled {
                self.world.attempts.remove(&key);
                self.clocks.remove(&key);
                if let Some(id) = self.containers.get(&key.0).map(|row| row.spec.id) {
                    self.show(id);
                }
            }
        }
        Ok(())
    }

    /// The owner of a container after a move.
    fn settle_container(&mut self, row: &Row) -> Result<(), StoreError> {
        let id = row.spec.id;
        let holder = row.holder().clone();
        let is_lost = row.ruling.is_some_and(|ruling| ruling.cause == Cause::MemoryLost);
        self.change(id, |container| {
            container.node = holder;
            container.epoch = row.epoch;
        })?;
        if row.is_settled {
            let lost = is_lost.then(|| "its memory was lost in a migration".to_owned());
            let state = if is_lost { ContainerState::Exited } else { ContainerState::Running };
            self.set_state(id, state, lost)?;
            self.world.attempts.remove(&(id, row.epoch));
            return self.advance(id, Heard::Now);
        }
        Ok(())
    }

    fn follow_move(&mut self, key: Key) -> Result<(), StoreError> {
        let Some(stored) = self.world.attempts.get_mut(&key) else { return Ok(()) };
        let Some(decider) = self.desk.attempt(key.0, key.1) else { return Ok(()) };
        let before = stored.clone();
        self.clocks.entry(key).or_default().follow(stored, decider);
        if *stored != before {
            self.world.store.save_attempt(stored)?;
            let in_doubt = stored.phase == "in-doubt";
            self.show_move(key);
            let state = if in_doubt { ContainerState::InDoubt } else { ContainerState::Migrating };
            if !before.settled && !decider_is_settled(&self.desk, key) {
                self.set_state(key.0, state, None)?;
            }
        }
        Ok(())
    }

    /// What the container's holder said last.
    fn said(&self, id: ContainerId) -> Option<&Report> {
        let row = self.containers.get(&id)?;
        self.reports.get(&(id, row.node.clone()))
    }

    fn is_moving(&self, id: ContainerId) -> bool {
        self.world.attempts.range((id, MIN)..=(id, MAX)).next().is_some()
    }

    /// The container, if nothing is under way with it.
    fn idle(&self, id: ContainerId) -> Result<&ContainerRow, Refusal> {
        let row = self.containers.get(&id).ok_or_else(|| {
            Refusal::new(
                "unknown-container",
                format!("there is no container {id}"),
                "list them with `godwit ps`",
            )
        })?;
        let name = &row.spec.name;
        if let Some(((_, epoch), _)) = self.world.attempts.range((id, MIN)..=(id, MAX)).next() {
            let move_id = moves::name(*epoch);
            return Err(Refusal::new(
                "busy",
                format!("`{name}` is being moved by {move_id}"),
                format!("wait for it, or `godwit migration cancel {move_id}`"),
            ));
        }
        if row.intent != Intent::Rest && row.state != ContainerState::Starting {
            return Err(Refusal::new(
                "busy",
                format!("`{name}` is {}", row.state),
                format!("wait until `godwit ps` shows the end of it; is `{}` online?", row.node),
            ));
        }
        Ok(row)
    }

    fn intend(
        &mut self,
        id: ContainerId,
        intent: Intent,
        state: ContainerState,
        epoch: Option<Epoch>,
    ) -> Result<(), Refusal> {
        let saved = self.change(id, |row| {
            row.intent = intent;
            row.epoch = epoch.unwrap_or(row.epoch);
        });
        saved
            .and_then(|()| self.set_state(id, state, None))
            .map_err(|error| Refusal::internal("saving a container", &error))?;
        self.urge(id);
        Ok(())
    }

    fn change(
        &mut self,
        id: ContainerId,
        edit: impl FnOnce(&mut ContainerRow),
    ) -> Result<(), StoreError> {
        let Some(row) = self.containers.get_mut(&id) else { return Ok(()) };
        let before = row.clone();
        edit(row);
        if *row == before {
            return Ok(());
        }
        self.world.store.save_container(row).inspect_err(|_| *row = before)
    }

    fn set_state(
        &mut self,
        id: ContainerId,
        state: ContainerState,
        error: Option<String>,
    ) -> Result<(), StoreError> {
        let is_same =
            self.containers.get(&id).is_none_or(|row| row.state == state && row.error == error);
        if is_same {
            return Ok(());
        }
        self.change(id, |row| {
            row.state = state;
            row.error = error;
            row.since = Timestamp::now();
        })?;
        self.show(id);
        Ok(())
    }

    fn show(&self, id: ContainerId) {
        if let Some(row) = self.containers.get(&id) {
            let live = self.world.attempts.range((id, MIN)..=(id, MAX)).next();
            let live = live.map(|(_, attempt)| attempt.id.clone());
            let _ = self.events.send(Event::Container(ContainerView::new(row, live)));
        }
    }

    fn show_move(&self, key: Key) {
        if let Some(stored) = self.world.attempts.get(&key) {
            let shown = self.clocks.get(&key).map(|clock| clock.shown).unwrap_or_default();
            let _ = self.events.send(Event::Migration(MigrationView::new(stored, shown)));
        }
    }
}

/// Whether something was just heard, or only time passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    Now,
    Before,
}

/// Every how many ticks the holder of a container at rest is asked: every five seconds or so.
const ASK_EVERY: u32 = 12;
const MIN: Epoch = Epoch { generation: 0, counter: 0 };
const MAX: Epoch = Epoch { generation: u32::MAX, counter: u32::MAX };

fn decider_is_settled(desk: &Desk, key: Key) -> bool {
    desk.attempt(key.0, key.1).is_none_or(|decider| decider.row().is_settled)
}

fn answer<T>(reply: Reply<T>, result: Result<T, Refusal>) -> Result<(), StoreError> {
    let _ = reply.send(result);
    Ok(())
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    if let Err(error) = getrandom::fill(&mut bytes) {
        // A kernel without randomness cannot run anything else of this program either.
        unreachable!("the kernel gives no random bytes: {error}");
    }
    bytes
}
