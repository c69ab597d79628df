//! Who holds which container, what is asked of it, and which moves are under way.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use godwit_proto::frame::{FromNode, NodeAnswer, NodeRequest, Progress, ToNode};
use godwit_proto::id::{ContainerId, Epoch, NodeId};
use godwit_proto::migration::drive::Desk;
use godwit_proto::migration::{Message, Report, Row};
use godwit_proto::timeline::Moments;
use jiff::Timestamp;
use tokio::sync::{broadcast, mpsc};

use super::moves::Clock;
use super::world::{Key, World, decode};
use super::{Ask, Reply};
use crate::event::Event;
use crate::refusal::Refusal;
use crate::store::{AttemptRow, ContainerRow, ContainerState, Store, StoreError};
use crate::timeline;
use crate::view::{ContainerView, MigrationView};

/// The core's whole state; everything in it can be had again from the database and the nodes.
pub(super) struct Core {
    pub(super) world: World,
    pub(super) desk: Desk,
    pub(super) containers: BTreeMap<ContainerId, ContainerRow>,
    /// What each node said last of each container, under the present run.
    pub(super) reports: BTreeMap<(ContainerId, NodeId), Report>,
    /// What is wrong with containers that run.
    pub(super) notices: BTreeMap<ContainerId, String>,
    pub(super) ticks: u32,
    pub(super) clocks: BTreeMap<Key, Clock>,
    pub(super) questions: BTreeMap<u64, Reply<NodeAnswer>>,
    pub(super) last_question: u64,
    pub(super) last_counter: u32,
    pub(super) born: Instant,
    pub(super) events: broadcast::Sender<Event>,
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
            notices: BTreeMap::new(),
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
            Ask::Fence { node, reply } => answer(reply, self.fence(&node)),
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

    pub(super) fn now(&self) -> Duration {
        self.born.elapsed()
    }

    pub(super) fn next_epoch(&mut self) -> Epoch {
        self.last_counter += 1;
        Epoch { generation: self.desk.claims().run().generation, counter: self.last_counter }
    }

    pub(super) fn question(
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

    pub(super) fn heard(&mut self, node: &NodeId, frame: FromNode) -> Result<(), StoreError> {
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
                self.note_progress(&progress, now);
                Ok(())
            }
            FromNode::Moments(moments) => self.note_moments(&moments),
            FromNode::Noticed { container, what } => self.note_notice(node, container, what),
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
    pub(super) fn note(&mut self, node: &NodeId, report: Report) -> Result<(), StoreError> {
        let id = report.container;
        self.last_counter = self.last_counter.max(report.epoch.counter);
        if !self.containers.contains_key(&id) {
            return Ok(());
        }
        let key = (id, node.clone());
        let rank = |report: &Report| (report.epoch, report.phase);
        if self.reports.get(&key).is_some_and(|old| rank(old) > rank(&report)) {
            return Ok(());
        }
        self.reports.insert(key, report);
        self.advance(id, Heard::Now)
    }

    pub(super) fn note_progress(&mut self, progress: &Progress, now: Duration) {
        let key = (progress.container, progress.epoch);
        if let Some(stored) = self.world.attempts.get_mut(&key) {
            if self.clocks.entry(key).or_default().note(stored, progress) {
                self.desk.advanced(key.0, key.1, now);
            }
            if let Some(decider) = self.desk.attempt(key.0, key.1) {
                self.clocks.entry(key).or_default().follow(stored, decider);
            }
            self.show_move(key);
        }
    }

    /// The last ones may come when the move is over.
    fn note_moments(&mut self, moments: &Moments) -> Result<(), StoreError> {
        let key = (moments.container, moments.epoch);
        let now = Timestamp::now().as_microsecond();
        let note = |stored: &mut AttemptRow| {
            timeline::note(&mut stored.timeline, moments, now);
            stored.gap_ms = timeline::gap_ms(&stored.timeline).or(stored.gap_ms);
        };
        if let Some(stored) = self.world.attempts.get_mut(&key) {
            note(stored);
            return self.world.store.save_attempt(stored);
        }
        let Some(mut stored) = self.world.store.attempt(key.0, key.1)? else { return Ok(()) };
        note(&mut stored);
        self.world.store.save_attempt(&stored)
    }

    /// What the holder says counts; that nothing is wrong any more, a former one may say too.
    fn note_notice(
        &mut self,
        node: &NodeId,
        id: ContainerId,
        what: Option<String>,
    ) -> Result<(), StoreError> {
        let Some(row) = self.containers.get(&id) else { return Ok(()) };
        let (state, is_holder) = (row.state, row.node == *node);
        match &what {
            Some(what) if is_holder => self.notices.insert(id, what.clone()),
            Some(_) => return Ok(()),
            None => self.notices.remove(&id),
        };
        if state == ContainerState::Running { self.set_state(id, state, what) } else { Ok(()) }
    }

    pub(super) fn tick(&mut self) -> Result<(), StoreError> {
        let now = self.now();
        self.desk.tick(&mut self.world, now)?;
        let live: Vec<Key> = self.world.attempts.keys().copied().collect();
        for key in live {
            self.follow_move(key)?;
        }
        self.ticks = self.ticks.wrapping_add(1);
        self.urge_all(None, Heard::Before)
    }

    /// What the container's holder said last.
    pub(super) fn said(&self, id: ContainerId) -> Option<&Report> {
        let row = self.containers.get(&id)?;
        self.reports.get(&(id, row.node.clone()))
    }

    pub(super) fn is_moving(&self, id: ContainerId) -> bool {
        self.world.attempts.range((id, MIN)..=(id, MAX)).next().is_some()
    }

    pub(super) fn change(
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

    pub(super) fn set_state(
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
            if row.state != state {
                row.since = Timestamp::now();
            }
            row.state = state;
            row.error = error;
        })?;
        self.show(id);
        Ok(())
    }

    pub(super) fn show(&self, id: ContainerId) {
        if let Some(row) = self.containers.get(&id) {
            let live = self.world.attempts.range((id, MIN)..=(id, MAX)).next();
            let live = live.map(|(_, attempt)| attempt.id.clone());
            let _ = self.events.send(Event::Container(ContainerView::new(row, live)));
        }
    }

    pub(super) fn show_move(&self, key: Key) {
        if let Some(stored) = self.world.attempts.get(&key) {
            let shown = self.clocks.get(&key).map(|clock| clock.shown).unwrap_or_default();
            let _ = self.events.send(Event::Migration(MigrationView::new(stored, shown)));
        }
    }
}

/// Whether something was just heard, or only time passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    Now,
    Before,
}

/// Every how many ticks the holder of a container at rest is asked: every five seconds or so.
pub(super) const ASK_EVERY: u32 = 12;
pub(super) const MIN: Epoch = Epoch { generation: 0, counter: 0 };
pub(super) const MAX: Epoch = Epoch { generation: u32::MAX, counter: u32::MAX };

pub(super) fn decider_is_settled(desk: &Desk, key: Key) -> bool {
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
