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
        let Some(report) = report else {
            return Due::Order(match self.intent {
                Intent::Create => Order::Create(Box::new(self.spec.clone())),
                _ => Order::Ask,
            });
        };
        // The node lost its ledger. Nobody else runs it, or this would not be a rest.
        if report.phase == Phase::UnknownRunning {
            return Due::Order(Order::Adopt);
        }
        match self.intent {
            Intent::Rest => Due::Wait,
            Intent::Create => self.due_create(report),
            Intent::Start => self.due_start(report),
            Intent::Stop => self.due_stop(report),
            Intent::Remove => self.due_remove(report),
        }
    }

    /// What to do when nothing was heard for a while (soon while something is asked for, now and
    /// then at rest): as [`Holding::due`], but instead of waiting in silence it asks, for the
    /// last report may have been lost.
    pub fn due_again(&self, report: Option<&Report>) -> Due {
        match self.due(report) {
            Due::Wait => Due::Order(Order::Ask),
            due => due,
        }
    }

    /// What to tell a node that does not hold it, while no attempt is open: `home` is the last
    /// report of the one that does. What an older attempt left there, found again after a lost
    /// ledger or a fence, is of no use once the holder is known to have it.
    pub fn due_elsewhere(&self, home: &Report, report: &Report) -> Option<Order> {
        use Phase::{Active, Stopped};
        use Phase::{Dead, DeadUnknown, Ran, UnknownAbsent, UnknownFrozen};
        let is_held = home.epoch >= self.epoch && matches!(home.phase, Active | Stopped);
        let is_left =
            matches!(report.phase, Dead | DeadUnknown | Ran | UnknownAbsent | UnknownFrozen);
        (is_held && is_left && report.epoch < self.epoch).then_some(Order::Discard)
    }

    fn due_create(&self, report: &Report) -> Due {
        match report.phase {
            Phase::Absent | Phase::UnknownAbsent => {
                Due::Order(Order::Create(Box::new(self.spec.clone())))
            }
            Phase::Stopped if !report.is_busy => Due::Reached,
            Phase::Dead => Due::Failed(why(report, "the node gave no reason")),
            _ => Due::Wait,
        }
    }

    fn due_start(&self, report: &Report) -> Due {
        match report.phase {
            // Either nothing of it is there, or (the epoch answered) the ledger and all is lost.
            Phase::Absent | Phase::Gone => nothing_there(),
            Phase::UnknownAbsent if report.epoch >= self.epoch => nothing_there(),
            _ if report.epoch < self.epoch => Due::Order(Order::Start),
            Phase::Active => Due::Reached,
            Phase::Ran => Due::Failed(why(report, "it ended as soon as it had started")),
            _ => Due::Wait,
        }
    }

    fn due_stop(&self, report: &Report) -> Due {
        match report.phase {
            Phase::Ran | Phase::Absent | Phase::UnknownAbsent => Due::Reached,
            // Said before it was started: it has more to say.
            _ if report.epoch < self.epoch => Due::Order(Order::Ask),
            Phase::Stopped if !report.is_busy => Due::Reached,
            Phase::Active | Phase::Kept | Phase::Starting => {
                Due::Order(Order::Stop { grace_ms: None })
            }
            _ => Due::Wait,
        }
    }

    fn due_remove(&self, report: &Report) -> Due {
        match report.phase {
            Phase::Absent => Due::Reached,
            Phase::Gone | Phase::UnknownAbsent if report.epoch >= self.epoch => {
                if report.is_busy {
                    Due::Wait
                } else {
                    Due::Reached
                }
            }
            _ => Due::Order(Order::Remove),
        }
    }
}

fn why(report: &Report, otherwise: &str) -> String {
    report.reason.clone().unwrap_or_else(|| otherwise.into())
}

fn nothing_there() -> Due {
    Due::Failed("the node holds nothing of it: remove the container and create it again".into())
}
