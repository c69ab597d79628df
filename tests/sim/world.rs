//! Everything that exists in a simulated fabric, and what must never be seen in it.

use std::collections::BTreeMap;
use std::time::Duration;

use godwit_proto::container::{ContainerSpec, Execution, Limits};
use godwit_proto::id::{ContainerId, Epoch, NodeId, Tenant};
use uuid::Uuid;

use crate::controller::{Database, Process};
use crate::kernel::Slot;
use crate::network::Network;
use crate::node::Node;
use crate::rng::Rng;
use crate::sabotage::Bug;

/// How many nodes there are.
pub(crate) const NODES: usize = 3;

/// A law that was broken, and the history's last words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) law: Law,
    pub(crate) what: String,
}

/// What may be broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Law {
    /// At most one copy of a container runs.
    OneRuns,
    /// What begins to run goes on from the newest execution, or a loss was recorded.
    NoSilentUndo,
    /// No order kills the last good copy.
    NothingLost,
    /// Persist before acting and telling.
    PersistFirst,
    /// Verdicts stand, epochs and promises only rise.
    Monotonic,
    /// Without a lost host or ledger no loss is ever recorded.
    NoNeedlessLoss,
    /// With every party up it ends, with one owner and nothing left over.
    Progress,
}

/// What happened in a history, to show that it was not an idle one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counts(pub(crate) BTreeMap<&'static str, u64>);

impl Counts {
    pub(crate) fn add(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }
    pub(crate) fn of(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or_default()
    }
    pub(crate) fn merge(&mut self, other: &Self) {
        for (what, n) in &other.0 {
            *self.0.entry(what).or_default() += n;
        }
    }
}

/// Which misfortunes a history may meet.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Weather {
    pub(crate) loses_power: bool,
    pub(crate) loses_ledgers: bool,
    pub(crate) loses_database: bool,
    pub(crate) containers_end: bool,
    pub(crate) engine_fails: usize,
    pub(crate) messages_fail: usize,
    pub(crate) crashes: usize,
    pub(crate) is_fickle: bool,
}

/// A whole fabric.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) now: Duration,
    pub(crate) weather: Weather,
    pub(crate) bug: Option<Bug>,
    pub(crate) names: Vec<NodeId>,
    pub(crate) specs: Vec<ContainerSpec>,
    pub(crate) nodes: Vec<Node>,
    /// The newest execution of each container.
    pub(crate) newest: Vec<u64>,
    /// An order has killed a good copy since the container last began to run.
    pub(crate) has_killed: Vec<bool>,
    /// The tenant wants it to run.
    pub(crate) is_wanted: Vec<bool>,
    /// The tenant asked to remove it, whatever the database remembers.
    pub(crate) is_removed: Vec<bool>,
    pub(crate) network: Network,
    pub(crate) db: Database,
    /// A copy of the database, as old as it is.
    pub(crate) backup: Option<Database>,
    pub(crate) has_old_database: bool,
    pub(crate) controller: Process,
    pub(crate) counts: Counts,
    pub(crate) broken: Option<Violation>,
    /// The history in words, when someone wants to read it.
    pub(crate) story: Option<Vec<String>>,
}

/// Adds a line to the story, which costs nothing when nobody reads it.
macro_rules! say {
    ($world:expr, $($word:tt)*) => {
        if $world.story.is_some() {
            let line = format!("{:>9.3}s  {}", $world.now.as_secs_f64(), format!($($word)*));
            if let Some(story) = &mut $world.story { story.push(line) }
        }
    };
}
pub(crate) use say;

impl World {
    pub(crate) fn new(seed: u64, bug: Option<Bug>, is_told: bool) -> Self {
        let mut rng = Rng::new(seed);
        let containers = 1 + rng.below(2);
        let weather = Weather {
            loses_power: rng.chance(30),
            loses_ledgers: rng.chance(12),
            loses_database: rng.chance(10),
            containers_end: rng.chance(20),
            engine_fails: [0, 2, 8, 20][rng.below(4)],
            messages_fail: [0, 5, 20][rng.below(3)],
            crashes: [0, 1, 3, 6][rng.below(4)],
            is_fickle: rng.chance(10),
        };
        let weather = bug.map_or(weather, |bug| bug.climate(weather));
        let names: Vec<NodeId> =
            ["a", "b", "c"].iter().filter_map(|name| name.parse().ok()).collect();
        let specs: Vec<_> = (0..containers).filter_map(spec).collect();
        let nodes = (0..NODES).map(|n| Node::new(n, containers)).collect();
        Self {
            now: Duration::ZERO,
            weather,
            bug,
            names,
            nodes,
            newest: vec![0; containers],
            has_killed: vec![false; containers],
            is_wanted: vec![true; containers],
            is_removed: vec![false; containers],
            specs,
            network: Network::default(),
            db: Database::default(),
            backup: None,
            has_old_database: false,
            controller: Process::default(),
            counts: Counts::default(),
            broken: None,
            story: is_told.then(Vec::new),
            rng,
        }
    }

    /// Nothing that costs memory or a ledger can happen here.
    pub(crate) fn is_plain(&self) -> bool {
        !(self.weather.loses_power || self.weather.loses_ledgers || self.weather.loses_database)
    }

    /// The first broken law ends the history.
    pub(crate) fn fail(&mut self, law: Law, what: String) {
        // A saboteur is to be caught by the harm done, not by how it was done.
        let is_manner = matches!(law, Law::PersistFirst | Law::Monotonic);
        if self.broken.is_none() && !(is_manner && self.bug.is_some_and(Bug::is_crafty)) {
            say!(self, "!!! {law:?}: {what}");
            self.broken = Some(Violation { law, what });
        }
    }

    pub(crate) fn index(&self, container: ContainerId) -> usize {
        (container.0.as_u128() >> 96) as usize - 1
    }

    pub(crate) fn node_index(&self, node: &NodeId) -> usize {
        self.names.iter().position(|name| name == node).unwrap_or(NODES)
    }

    pub(crate) fn slot(&mut self, node: usize, container: usize) -> &mut Slot {
        &mut self.nodes[node].slots[container]
    }

    /// A copy there continues the newest execution.
    pub(crate) fn is_good(&self, node: usize, container: usize) -> bool {
        let slot = &self.nodes[node].slots[container];
        slot.execution != Execution::Absent && slot.version == self.newest[container]
    }

    /// A good copy exists on another node than that one.
    pub(crate) fn is_good_elsewhere(&self, node: usize, container: usize) -> bool {
        (0..NODES).any(|other| other != node && self.is_good(other, container))
    }

    /// People were told that the attempt may have lost work.
    pub(crate) fn is_loss_recorded(&self, container: usize, epoch: Epoch) -> bool {
        let key = (self.specs[container].id, epoch);
        self.db.rows.get(&key).is_some_and(|row| row.possible_loss)
    }

    /// The copy on `node` begins to execute.
    pub(crate) fn begins(&mut self, node: usize, container: usize, epoch: Epoch) {
        let other = (0..NODES).find(|other| {
            *other != node && self.nodes[*other].slots[container].execution == Execution::Running
        });
        let (name, what) = (self.names[node].clone(), self.specs[container].id);
        if let Some(other) = other {
            let other = self.names[other].clone();
            self.fail(Law::OneRuns, format!("{what:?} runs on {other} and begins on {name}"));
        }
        if self.slot(node, container).version != self.newest[container]
            && !self.is_loss_recorded(container, epoch)
        {
            let law = Law::NoSilentUndo;
            self.fail(law, format!("{what:?} begins on {name} from an old state"));
        }
        say!(self, "{name}: {what:?} begins to run");
        self.slot(node, container).execution = Execution::Running;
    }

    /// What runs on `node` was, or could be, seen from outside: it is the newest execution.
    pub(crate) fn advances(&mut self, node: usize, container: usize) {
        self.newest[container] += 1;
        self.has_killed[container] = false;
        self.slot(node, container).version = self.newest[container];
    }
}

fn spec(index: usize) -> Option<ContainerSpec> {
    let name = ["counter", "ledger"][index];
    Some(ContainerSpec {
        id: ContainerId(Uuid::from_u128((index as u128 + 1) << 96)),
        tenant: Tenant::default_tenant(),
        name: name.parse().ok()?,
        image: "ab".repeat(32).parse().ok()?,
        image_name: format!("localhost/{name}:latest"),
        args: Vec::new(),
        env: BTreeMap::new(),
        labels: BTreeMap::new(),
        limits: Limits::default(),
        interfaces: Vec::new(),
        ports: Vec::new(),
        resolver: None,
        volumes: Vec::new(),
        devices: Vec::new(),
    })
}
