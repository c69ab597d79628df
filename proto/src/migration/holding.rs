//! A container at rest: what its node should be told so that it is as its tenant asked.

use serde::{Deserialize, Serialize};

use super::event::{Order, Report};
use super::record::Phase;
use crate::container::ContainerSpec;
use crate::id::{Epoch, NodeId};

/// What was asked for and is not reached yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Intent {
    /// Nothing: it is to stay as it is.
    Rest,
    /// To be made, stopped.
    Create,
    /// To be started, under an epoch of its own.
    Start,
    /// To be stopped.
    Stop,
    /// To be removed.
    Remove,
}

/// Which node holds a container, under which epoch, and what is asked of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// The container.
    pub spec: ContainerSpec,
    /// The node that holds it.
    pub node: NodeId,
    /// The epoch under which it holds it.
    pub epoch: Epoch,
    /// What is asked.
    pub intent: Intent,
}

/// What follows from a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Due {
    /// Nothing but to wait.
    Wait,
    /// Tell the node.
    Order(Order),
    /// What was asked is so.
    Reached,
    /// The node tried and cannot.
    Failed(String),
}

impl Holding {
    /// What to do now that the node said so much; [`Order::Ask`] when it said nothing.
    pub fn due(&self, report: Option<&Report>) -> Due {
        use Phase::{Absent, Active, Creating, Dead, Gone, Kept, Ran, Starting, Stopped};
        let Some(report) = report else {
            return Due::Order(match self.intent {
                Intent::Create => Order::Create(Box::new(self.spec.clone())),
                _ => Order::Ask,
            });
        };
        let why = || report.reason.clone().unwrap_or_else(|| "the node gave no reason".into());
        match (self.intent, report.phase) {
            (Intent::Rest, _) => Due::Wait,
            (Intent::Create, Absent) => Due::Order(Order::Create(Box::new(self.spec.clone()))),
            (Intent::Create, Stopped) if !report.is_busy => Due::Reached,
            (Intent::Create, Dead) => Due::Failed(why()),
            (Intent::Start, _) if report.epoch < self.epoch => Due::Order(Order::Start),
            (Intent::Start, Active) => Due::Reached,
            (Intent::Start, Ran) => Due::Failed(match &report.reason {
                Some(reason) => reason.clone(),
                None => "it ended as soon as it had started".into(),
            }),
            (Intent::Stop, Active | Kept | Starting) => Due::Order(Order::Stop),
            (Intent::Stop, Stopped | Ran) if !report.is_busy => Due::Reached,
            (Intent::Remove, Gone | Absent) if !report.is_busy => Due::Reached,
            (Intent::Remove, Creating | Starting | Active | Kept | Stopped | Ran | Dead) => {
                Due::Order(Order::Remove)
            }
            _ => Due::Wait,
        }
    }
}
