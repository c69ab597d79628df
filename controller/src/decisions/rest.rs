//! Containers at rest: what is asked of them is asked of their nodes until it is so.

use godwit_proto::frame::ToNode;
use godwit_proto::id::{ContainerId, NodeId};
use godwit_proto::migration::{Due, Holding, Intent as AtRest, Order, Phase, Report};

use super::core::{ASK_EVERY, Core, Heard};
use crate::event::Event;
use crate::store::{ContainerRow, ContainerState, Intent, StoreError};
use crate::view::ContainerView;

impl Core {
    /// Repeats what is asked of containers at rest, of one node's or of all.
    pub(super) fn urge_all(
        &mut self,
        node: Option<&NodeId>,
        heard: Heard,
    ) -> Result<(), StoreError> {
        let wanted = |row: &&ContainerRow| node.is_none_or(|node| row.node == *node);
        let ids: Vec<_> = self.containers.values().filter(wanted).map(|row| row.spec.id).collect();
        for id in ids {
            self.advance(id, heard)?;
        }
        Ok(())
    }

    pub(super) fn urge(&mut self, id: ContainerId) {
        if let Err(error) = self.advance(id, Heard::Now) {
            tracing::error!(%error, "tried again soon");
        }
    }

    /// What a container at rest is due, given its holder's last word.
    pub(super) fn advance(&mut self, id: ContainerId, heard: Heard) -> Result<(), StoreError> {
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
                let exit_code = report.and_then(|report| report.exit_code).map(i64::from);
                // What ended by itself has an exit code; without one it never came to run.
                let state = match (row.intent, exit_code) {
                    (Intent::Start, Some(_)) => ContainerState::Exited,
                    _ => ContainerState::Failed,
                };
                self.change(id, |row| {
                    row.intent = Intent::Rest;
                    row.exit_code = exit_code;
                })?;
                self.set_state(id, state, Some(why))
            }
        }
    }

    /// What an older attempt left on other nodes is of no use once the holder has it.
    pub(super) fn clear_elsewhere(&self, holding: &Holding, home: Option<&Report>) {
        let Some(home) = home.filter(|_| holding.intent == AtRest::Rest) else { return };
        let of_it = self.reports.iter().filter(|((id, _), _)| *id == holding.spec.id);
        for ((_, node), report) in of_it.filter(|((_, node), _)| *node != holding.node) {
            if let Some(order) = holding.due_elsewhere(home, report) {
                self.order(node, holding, order);
            }
        }
    }

    pub(super) fn order(&self, node: &NodeId, holding: &Holding, order: Order) {
        if self.desk.claims().holds(node) {
            let (run, container, epoch) =
                (self.desk.claims().run(), holding.spec.id, holding.epoch);
            self.world.tell(node, ToNode::Order { run, container, epoch, order });
        }
    }

    pub(super) fn reached(&mut self, id: ContainerId) -> Result<(), StoreError> {
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
            Intent::Remove => self.removed(id),
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

    /// Forgets a container that is gone, and tells so.
    pub(super) fn removed(&mut self, id: ContainerId) -> Result<(), StoreError> {
        self.world.store.delete_container(id)?;
        self.reports.retain(|(of, _), _| *of != id);
        self.notices.remove(&id);
        if let Some(row) = self.containers.remove(&id) {
            let _ = self.events.send(Event::Container(ContainerView::removed(&row)));
        }
        Ok(())
    }

    /// A container at rest is as its holder says.
    pub(super) fn observe(&mut self, id: ContainerId) -> Result<(), StoreError> {
        let Some(report) = self.said(id).cloned() else { return Ok(()) };
        let was = self.containers.get(&id).map(|row| row.state);
        let (state, error) = match report.phase {
            Phase::Active | Phase::Kept => {
                (ContainerState::Running, self.notices.get(&id).cloned())
            }
            Phase::Stopped => (ContainerState::Stopped, None),
            Phase::Ran => (ContainerState::Exited, report.reason.clone()),
            // Back from a fence, with its files and without its processes.
            Phase::Dead if was == Some(ContainerState::Lost) => {
                (ContainerState::Exited, report.reason.clone())
            }
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
}
