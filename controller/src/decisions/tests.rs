//! The core over a real database, with nodes that say what the test has them say.

use std::collections::BTreeMap;

use godwit_proto::container::Limits;
use godwit_proto::id::{Digest, Epoch, Life, Tenant};
use godwit_proto::migration::drive::DeskWorld;
use godwit_proto::migration::{Message, Order, Phase, Report, Role};
use uuid::Uuid;

use super::core::Core;
use super::*;
use crate::store::{AttemptRow, ContainerRow, ContainerState};

struct Stand {
    directory: tempfile::TempDir,
    core: Core,
    told: mpsc::Receiver<(NodeId, ToNode)>,
}

fn node(name: &str) -> NodeId {
    name.parse().unwrap()
}

fn spec() -> ContainerSpec {
    ContainerSpec {
        id: ContainerId(Uuid::from_u128(1)),
        tenant: Tenant::default_tenant(),
        name: "web".parse().unwrap(),
        image: "ab".repeat(32).parse().unwrap(),
        image_name: "localhost/counter:latest".into(),
        args: Vec::new(),
        env: BTreeMap::new(),
        labels: BTreeMap::new(),
        limits: Limits::default(),
        interfaces: Vec::new(),
        ports: Vec::new(),
        resolver: None,
        volumes: Vec::new(),
        devices: Vec::new(),
    }
}

impl Stand {
    /// A controller that both nodes obey.
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (core, told) = open(&directory);
        let mut stand = Self { directory, core, told };
        stand.join();
        stand
    }

    /// The controller starts anew on the same database.
    fn restart(self) -> Self {
        let Self { directory, core, told } = self;
        drop((core, told));
        let (core, told) = open(&directory);
        Self { directory, core, told }
    }

    fn join(&mut self) {
        for (name, number) in [("edge-a", 1), ("edge-b", 2)] {
            self.hello(name, number);
            self.promise(name, number);
        }
    }

    fn say(&mut self, from: &str, message: Message) {
        let frame = Box::new(FromNode::Machine(message));
        self.core.hear(Ask::Heard { node: node(from), frame });
    }

    fn hello(&mut self, from: &str, boot: u128) {
        self.say(from, Message::Hello { life: life(boot), promise: None });
    }

    fn promise(&mut self, from: &str, boot: u128) {
        let run = self.core.desk.claims().run();
        self.say(from, Message::Promised { run, life: life(boot) });
    }

    fn report(&mut self, from: &str, epoch: Epoch, phase: Phase) {
        let report = Report {
            container: spec().id,
            epoch,
            phase,
            role: Role::Owner,
            peer: None,
            ready: Some(epoch),
            is_busy: false,
            image: Some(Digest([7; 32])),
            reason: None,
            exit_code: None,
        };
        let run = self.core.desk.claims().run();
        self.say(from, Message::Report { run, report });
    }

    fn ask<T>(&mut self, ask: impl FnOnce(Reply<T>) -> Ask) -> Result<T, Refusal> {
        let (reply, mut answer) = oneshot::channel();
        self.core.hear(ask(reply));
        answer.try_recv().unwrap()
    }

    fn fence(&mut self, name: &str) -> Fenced {
        self.ask(|reply| Ask::Fence { node: node(name), reply }).unwrap()
    }

    fn row(&self) -> ContainerRow {
        self.core.world.store.container(spec().id).unwrap().unwrap()
    }

    fn state(&self) -> ContainerState {
        self.row().state
    }

    /// `web` is made and runs on edge-a.
    fn running() -> Self {
        let mut stand = Self::new();
        let spec = Box::new(spec());
        stand.ask(|reply| Ask::Create { spec, node: node("edge-a"), start: true, reply }).unwrap();
        stand.report("edge-a", stand.row().epoch, Phase::Stopped);
        stand.report("edge-a", stand.row().epoch, Phase::Active);
        assert_eq!(stand.state(), ContainerState::Running);
        stand
    }

    /// `web` is frozen on edge-a, on its way to edge-b.
    fn frozen() -> (Self, Epoch) {
        let mut stand = Self::running();
        let (id, to) = (spec().id, node("edge-b"));
        let plan = Plan::default();
        stand.ask(|reply| Ask::Migrate { id, to, plan, predicted: None, reply }).unwrap();
        let epoch = stand.core.world.attempts.keys().next().unwrap().1;
        stand.report("edge-b", epoch, Phase::Preparing);
        stand.report("edge-a", epoch, Phase::Frozen);
        (stand, epoch)
    }

    fn the_move(&self, epoch: Epoch) -> AttemptRow {
        self.core.world.store.attempt(spec().id, epoch).unwrap().unwrap()
    }

    /// What that node was ordered since this was last asked.
    fn orders(&mut self, name: &str) -> Vec<Order> {
        std::iter::from_fn(|| self.told.try_recv().ok())
            .filter(|(to, _)| *to == node(name))
            .filter_map(|(_, frame)| match frame {
                ToNode::Order { order, .. } => Some(order),
                _ => None,
            })
            .collect()
    }
}

fn open(directory: &tempfile::TempDir) -> (Core, mpsc::Receiver<(NodeId, ToNode)>) {
    let store = Store::open(&directory.path().join("godwit.db")).unwrap();
    let (frames, told) = mpsc::channel(1000);
    (Core::open(store, frames, broadcast::channel(64).0).unwrap(), told)
}

fn life(boot: u128) -> Life {
    Life { boot: Uuid::from_u128(boot), incarnation: Uuid::from_u128(1) }
}

#[test]
fn what_ran_on_a_fenced_node_is_lost_until_the_node_is_back() {
    let mut stand = Stand::running();
    let fenced = stand.fence("edge-a");
    assert_eq!(fenced.containers, [spec().name]);
    assert_eq!(stand.state(), ContainerState::Lost);
    let what_now = stand.row().error.unwrap();
    assert!(what_now.contains("godwit start web") && what_now.contains("godwit rm web"));
    (0..50).for_each(|_| stand.core.hear(Ask::Tick));
    assert_eq!(stand.state(), ContainerState::Lost, "what it said before counts no more");

    // It boots again: another life, another run.
    stand.hello("edge-a", 9);
    stand.promise("edge-a", 9);
    stand.report("edge-a", stand.row().epoch, Phase::Ran);
    assert_eq!(stand.state(), ContainerState::Exited);
    stand.ask(|reply| Ask::Start { id: spec().id, reply }).unwrap();
    assert_eq!(stand.state(), ContainerState::Starting);
}

#[test]
fn a_fence_that_was_wrong_shows_as_soon_as_the_node_speaks() {
    let mut stand = Stand::running();
    stand.fence("edge-a");
    stand.report("edge-a", stand.row().epoch, Phase::Active);
    assert_eq!((stand.state(), stand.row().error), (ContainerState::Running, None));
}

#[test]
fn what_is_lost_can_be_given_up_without_its_node() {
    let mut stand = Stand::running();
    stand.fence("edge-a");
    stand.ask(|reply| Ask::Remove { id: spec().id, force: false, reply }).unwrap();
    assert_eq!(stand.core.world.store.container(spec().id).unwrap(), None);
    // Its name and address are free.
    let other = ContainerSpec { id: ContainerId(Uuid::from_u128(2)), ..spec() };
    let (spec, node) = (Box::new(other), node("edge-b"));
    stand.ask(|reply| Ask::Create { spec, node, start: true, reply }).unwrap();
}

#[test]
fn a_removal_that_waits_for_a_fenced_node_is_done() {
    let mut stand = Stand::running();
    stand.ask(|reply| Ask::Remove { id: spec().id, force: true, reply }).unwrap();
    assert_eq!(stand.state(), ContainerState::Removing);
    stand.fence("edge-a");
    assert_eq!(stand.core.world.store.container(spec().id).unwrap(), None);
}

#[test]
fn a_move_to_a_fenced_node_ends_on_its_source() {
    let (mut stand, epoch) = Stand::frozen();
    stand.orders("edge-a");
    let fenced = stand.fence("edge-b");
    assert_eq!(fenced.migrations, [stand.the_move(epoch).id]);
    assert!(stand.orders("edge-a").contains(&Order::Thaw));
    stand.report("edge-a", epoch, Phase::Active);
    let end = stand.the_move(epoch);
    assert_eq!((end.settled, end.outcome.as_deref()), (true, Some("aborted")));
    assert_eq!(end.reason.as_deref(), Some("edge-b: it was fenced"));
    assert_eq!((stand.state(), stand.row().node), (ContainerState::Running, node("edge-a")));
}

#[test]
fn a_commit_to_a_node_that_is_fenced_then_is_rolled_back_and_said_so() {
    let (mut stand, epoch) = Stand::frozen();
    stand.report("edge-b", epoch, Phase::Staged);
    stand.report("edge-b", epoch, Phase::Opening);
    stand.fence("edge-b");
    stand.report("edge-a", epoch, Phase::Active);
    let end = stand.the_move(epoch);
    assert_eq!(end.outcome.as_deref(), Some("rolled-back"), "{end:?}");
    assert!(end.decider.contains("\"possible_loss\":true"), "{}", end.decider);
    let amendments = stand.core.world.store.amendments(spec().id, epoch).unwrap();
    assert_eq!(amendments.len(), 1);
    assert_eq!((stand.state(), stand.row().node), (ContainerState::Running, node("edge-a")));
}

#[test]
fn a_move_from_a_fenced_node_ends_with_the_container_lost_there() {
    let (mut stand, epoch) = Stand::frozen();
    stand.fence("edge-a");
    assert!(stand.orders("edge-b").iter().any(|order| matches!(order, Order::Refuse(_))));
    stand.report("edge-b", epoch, Phase::Dead);
    stand.report("edge-b", epoch, Phase::Gone);
    let end = stand.the_move(epoch);
    assert_eq!(end.outcome.as_deref(), Some("lost"));
    assert!(end.remedy.unwrap().contains("fenced"));
    assert_eq!((stand.state(), stand.row().node), (ContainerState::Lost, node("edge-a")));
}

#[test]
fn a_move_is_never_over_without_its_outcome() {
    let (mut stand, epoch) = Stand::frozen();
    stand.report("edge-b", epoch, Phase::Staged);
    stand.report("edge-b", epoch, Phase::Opening);
    stand.report("edge-b", epoch, Phase::Active);
    // The controller is killed as soon as the database has the move's end.
    let mut row = stand.core.desk.attempt(spec().id, epoch).unwrap().row().clone();
    row.is_settled = true;
    stand.core.world.persist_row(&row).unwrap();
    let mut stand = stand.restart();
    let end = stand.the_move(epoch);
    assert_eq!((end.settled, end.outcome.as_deref()), (true, Some("moved")));
    assert!(end.ended.is_some());
    stand.join();
    stand.report("edge-b", epoch, Phase::Active);
    assert_eq!((stand.state(), stand.row().node), (ContainerState::Running, node("edge-b")));
}

#[test]
fn a_fence_outlives_the_controller() {
    let (mut stand, epoch) = Stand::frozen();
    stand.report("edge-b", epoch, Phase::Staged);
    stand.fence("edge-b");
    let mut stand = stand.restart();
    stand.hello("edge-a", 1);
    stand.promise("edge-a", 1);
    stand.report("edge-a", epoch, Phase::Frozen);
    stand.report("edge-a", epoch, Phase::Active);
    assert!(stand.the_move(epoch).settled);
    assert_eq!(stand.state(), ContainerState::Running);
}
