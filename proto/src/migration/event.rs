//! What the machines hear, and everything that they can ask of the world.

use serde::{Deserialize, Serialize};

use super::record::{Phase, Promise, Record, Role};
use crate::container::{ContainerSpec, Execution, Mode};
use crate::id::{ContainerId, Digest, Epoch, Life, NodeId, Run};

/// How a move is to be carried out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Live or cold.
    pub mode: Mode,
    /// Limit of the transfer in bytes per second.
    pub bwlimit: Option<u64>,
}

/// What a source is armed for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arming {
    /// The attempt: above the row's epoch until it is frozen.
    pub epoch: Epoch,
    /// The target.
    pub to: NodeId,
    /// How.
    pub plan: Plan,
}

/// What a controller asks of a node about one container under one epoch.
///
/// Every order may come twice, late, or not at all; every one is answered by a
/// [`Report`], whether it changed anything or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// Only report.
    Ask,
    /// Make the container, stopped.
    Create(Box<ContainerSpec>),
    /// Start a container that is here and stopped, under a new epoch.
    Start,
    /// Stop it, keep its files.
    Stop {
        /// How long it may take to end by itself; the node's own measure when `None`.
        grace_ms: Option<u64>,
    },
    /// Remove it, running or not.
    Remove,
    /// Source: do all that can be done before the freeze for that target.
    Arm {
        /// The target.
        to: NodeId,
        /// How.
        plan: Plan,
    },
    /// Source: freeze and dump for that target.
    Freeze {
        /// The target.
        to: NodeId,
        /// How.
        plan: Plan,
    },
    /// Source: the move is off; run (again).
    Thaw,
    /// Target: expect the container from that source.
    Prepare {
        /// The source.
        from: NodeId,
        /// The container.
        spec: Box<ContainerSpec>,
        /// How.
        plan: Plan,
    },
    /// Target: promise never to begin under this epoch.
    Refuse(Box<ContainerSpec>),
    /// Target: the verdict is commit; open the gate on that image.
    Open {
        /// The digest that was voted on.
        image: Digest,
    },
    /// The other side runs, or nobody shall: remove your copy.
    Discard,
    /// A node that lost its ledger: the container that runs with you is yours.
    Adopt,
}

/// What a node says of one container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The container.
    pub container: ContainerId,
    /// The highest epoch that the node knows, `0.0` when it knows none.
    pub epoch: Epoch,
    /// How far it is.
    pub phase: Phase,
    /// What the node is to the container.
    pub role: Role,
    /// The other node of the move.
    pub peer: Option<NodeId>,
    /// Source: armed under that epoch. Target: prepared, the image of the container may come.
    pub ready: Option<Epoch>,
    /// A call is under way: what the phase promises may not be so yet.
    pub is_busy: bool,
    /// The digest of the image dumped or staged.
    pub image: Option<Digest>,
    /// Why, for people.
    pub reason: Option<String>,
    /// The exit code of a container that ended by itself.
    pub exit_code: Option<i32>,
}

/// What a machine asks of the engine; at most one call per container is under way.
///
/// A call replaces the one before it: whoever carries calls out ends that one first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// Make it, with its namespace, fetching the image if need be.
    Create,
    /// Start it and attach its address, cleared of whatever an older attempt left; well if it
    /// runs already.
    Start,
    /// Stop it, within the row's grace.
    Stop,
    /// Source: all that can be done before the freeze.
    Arm(Arming),
    /// Source: freeze, cut, dump; the source stays frozen.
    Freeze,
    /// Source: freeze it again; nobody but the fabric may thaw it.
    Hold,
    /// Undo whatever of arm, freeze and dump was begun; run, attached and unguarded. Also asked
    /// of what runs already, after a lost ledger.
    Thaw,
    /// Target: namespace, image of the container, everything before the checkpoint comes.
    Prepare,
    /// Target: receive the checkpoint from the peer.
    Fetch,
    /// Target: restore to the gate, cleared of whatever a failed restore left.
    Stage,
    /// Target: open the gate, attach the address.
    Open,
    /// Kill, remove, clear up.
    Destroy,
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// As it was asked.
    Done,
    /// As it was asked; the digest of the checkpoint's manifest.
    Image(Digest),
    /// Not; why, for people. What was begun may be half done.
    Failed(String),
}

/// What the kernel shows of one container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sight {
    /// Its processes.
    pub execution: Execution,
    /// It was staged and never told to open, in this boot: none of its processes has run.
    pub is_guarded: bool,
    /// The exit code, if it ended by itself and the engine knows.
    pub exit_code: Option<i32>,
}

/// Everything that an agent's machine hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A controller asks who is there.
    Hello,
    /// A controller claims obedience from this life.
    Claim {
        /// The run to be promised.
        run: Run,
        /// The life that the controller believes the node to be in.
        life: Life,
    },
    /// An order of a run.
    Order {
        /// Who orders.
        run: Run,
        /// About which container.
        container: ContainerId,
        /// Under which epoch.
        epoch: Epoch,
        /// What.
        order: Order,
    },
    /// A call ended.
    Done {
        /// The container it was for.
        container: ContainerId,
        /// The number that the call had.
        call: u64,
        /// How it ended.
        outcome: Outcome,
    },
    /// What the kernel showed when look number `look` was taken.
    Seen {
        /// The number of the [`Effect::Look`] that asked.
        look: u64,
        /// Every container of the ledger that has a trace in the kernel or the engine.
        sights: Vec<(ContainerId, Sight)>,
        /// Containers of the fabric that the ledger does not name: it was lost, or is older than they.
        strangers: Vec<(Box<ContainerSpec>, Sight)>,
    },
    /// A look failed; a later one will tell.
    Unseen,
    /// Time passed.
    Tick,
}

/// Everything a participant can ask of the world, carried out strictly in
/// order: a crash may cut the list short, never reorder it.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Write this row to the ledger and sync it before the next effect.
    Persist(Box<Record>),
    /// Write the promise and sync it before the next effect.
    Promise(Promise),
    /// Send to the controller.
    Send(Message),
    /// Ask the engine; the answer comes as [`Input::Done`] with the same number.
    Call {
        /// The container, as the ledger has it now.
        record: Box<Record>,
        /// The number to answer with.
        number: u64,
        /// What is asked.
        call: Call,
    },
    /// Look at the kernel; the answer comes as [`Input::Seen`] with the same number.
    Look(u64),
}

/// What an agent's machine says to the controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// I am here, in this life, and obey that run.
    Hello {
        /// The life.
        life: Life,
        /// The run that is promised in this life or was in an earlier one.
        promise: Option<Run>,
    },
    /// I obey this run from now on.
    Promised {
        /// The run.
        run: Run,
        /// The life.
        life: Life,
    },
    /// What I have of one container.
    Report {
        /// The run that the report is for.
        run: Run,
        /// The report.
        report: Report,
    },
}
