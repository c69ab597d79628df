//! The frames between controller and nodes, and what they carry besides the choreography.

use serde::{Deserialize, Serialize};

use crate::id::{ContainerId, Epoch, ImageId, Life, Run, Tenant, VolumeName};
use crate::migration::{Message, Order};
use crate::overlay::{Overlays, Protocol};
use crate::timeline::Moments;
use crate::wire::Frame;

/// On `agent/<node>/ctl`: what a controller says to one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToNode {
    /// Promise me.
    Claim {
        /// The run to be promised.
        run: Run,
        /// The life in which the controller believes the node to be.
        life: Life,
    },
    /// An order of the choreography.
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
    /// A question that changes nothing of the choreography.
    Request {
        /// Who asks.
        run: Run,
        /// To be repeated in the answer.
        number: u64,
        /// What is asked.
        request: NodeRequest,
    },
    /// The tenants' networks, as they are to be from now on.
    Overlays(Overlays),
}

/// On `controller/hello`: a controller is here; say hello to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControllerHello {
    /// Its run.
    pub run: Run,
}

/// On `controller/in/<node>`: what a node says to its controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromNode {
    /// The choreography's word.
    Machine(Message),
    /// How far a call is; for people, nothing rests on it.
    Progress(Progress),
    /// The answer to a request.
    Answer {
        /// The request's number.
        number: u64,
        /// What was asked for, or why it cannot be had.
        answer: Result<NodeAnswer, String>,
    },
    /// When the parts of a hand-over came about; for people, nothing rests on it.
    Moments(Moments),
    /// What is wrong with a container that runs, or that nothing is any more; for people.
    Noticed {
        /// The container.
        container: ContainerId,
        /// What the operator is to know.
        what: Option<String>,
    },
}

/// What a controller may ask of a node besides orders.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeRequest {
    /// The last lines that a container wrote.
    Logs {
        /// Which container.
        container: ContainerId,
        /// How many lines; all that fit a frame when `None`.
        tail: Option<u32>,
    },
    /// The images that the engine holds.
    Images,
    /// Remove an image; absent is success.
    RemoveImage {
        /// Which.
        image: ImageId,
    },
    /// Who holds those ports, for every address of the node.
    Ports(Vec<(Protocol, u16)>),
    /// How much disk those volumes take.
    VolumeBytes {
        /// Whose they are.
        tenant: Tenant,
        /// Which.
        volumes: Vec<VolumeName>,
    },
    /// Remove a volume that no container has; absent is success.
    RemoveVolume {
        /// Whose it is.
        tenant: Tenant,
        /// Which.
        volume: VolumeName,
    },
}

/// The answers to [`NodeRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeAnswer {
    /// Lines, oldest first; the oldest were left out when they did not fit.
    Logs(Vec<u8>),
    /// The images.
    Images(Vec<NodeImage>),
    /// Done.
    Done,
    /// Those that are held, each with the program that holds it, as far as that is known.
    Ports(Vec<(Protocol, u16, String)>),
    /// So many.
    Bytes(u64),
}

/// An image that a node's engine holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeImage {
    /// Its id.
    pub id: ImageId,
    /// Its names.
    pub names: Vec<String>,
    /// Its size in bytes.
    pub size_bytes: u64,
}

/// A step of a call that people may want to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Step {
    /// Target: the container's image is on its way.
    FetchingImage,
    /// Target: what is in the container's volumes is on its way, ahead of the freeze.
    FetchingVolumes,
    /// Source: freezing; the gap begins.
    Freezing,
    /// Source: writing the checkpoint.
    Dumping,
    /// Target: the checkpoint is on its way.
    Transferring,
    /// Target: restoring to the gate.
    Staging,
    /// Target: opening the gate.
    Opening,
    /// Source: going back to running.
    Thawing,
}

/// How far a node is with a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The container.
    pub container: ContainerId,
    /// The attempt.
    pub epoch: Epoch,
    /// The step that is under way.
    pub step: Step,
    /// Payload bytes across so far; 0 for steps without a transfer.
    pub bytes: u64,
    /// Payload bytes in all, once known.
    pub total_bytes: Option<u64>,
    /// Bytes on the wire so far, compressed.
    pub wire_bytes: u64,
    /// Payload bytes per second, lately.
    pub rate: u64,
}

impl Frame for ToNode {
    const NAME: &'static str = "controller's frame";
    const LIMIT_BYTES: usize = 512 << 10;
}
impl Frame for ControllerHello {
    const NAME: &'static str = "controller's hello";
    const LIMIT_BYTES: usize = 1 << 10;
}
impl Frame for FromNode {
    const NAME: &'static str = "node's frame";
    const LIMIT_BYTES: usize = 512 << 10;
}
