//! A fence: an operator's word that a node lost its power, or that its copies were killed.

use godwit_proto::id::{ContainerId, NodeId};

use super::core::Core;
use super::world::Key;
use crate::refusal::Refusal;
use crate::store::{ContainerState, Intent, StoreError};
use crate::view::Fenced;

impl Core {
    /// Moves with that node end as far as the other end's word goes; containers at rest on it
    /// are lost until it is heard again. Said twice it is the same.
    pub(super) fn fence(&mut self, node: &NodeId) -> Result<Fenced, Refusal> {
        let moves: Vec<Key> = self
            .desk
            .attempts()
            .map(|decider| decider.row())
            .filter(|row| !row.is_settled && row.end(node).is_some())
            .map(|row| (row.spec.id, row.epoch))
            .collect();
        let fenced = Fenced {
            migrations: moves.iter().map(|(_, epoch)| super::moves::name(*epoch)).collect(),
            containers: self.held_at_rest(node).map(|(_, name)| name).collect(),
        };
        self.carry_out_fence(node).map_err(|error| Refusal::internal("fencing a node", &error))?;
        tracing::warn!(
            %node, migrations = fenced.migrations.len(), containers = fenced.containers.len(),
            "fenced by an operator: nothing runs there"
        );
        Ok(fenced)
    }

    fn carry_out_fence(&mut self, node: &NodeId) -> Result<(), StoreError> {
        let now = self.now();
        self.desk.fence(&mut self.world, node, now)?;
        // Said before the fence: from here on only what it says anew counts.
        self.reports.retain(|(_, from), _| from != node);
        let held: Vec<ContainerId> = self.held_at_rest(node).map(|(id, _)| id).collect();
        held.into_iter().try_for_each(|id| self.lose(id, node))
    }

    fn held_at_rest(
        &self,
        node: &NodeId,
    ) -> impl Iterator<Item = (ContainerId, godwit_proto::id::ContainerName)> {
        self.containers
            .values()
            .filter(move |row| row.node == *node && !self.is_moving(row.spec.id))
            .map(|row| (row.spec.id, row.spec.name.clone()))
    }

    /// Its node is fenced: whatever was asked of it, nothing of it runs. What was to be
    /// removed is; nobody is left to be told.
    pub(super) fn lose(&mut self, id: ContainerId, node: &NodeId) -> Result<(), StoreError> {
        let Some(row) = self.containers.get(&id) else { return Ok(()) };
        let name = row.spec.name.clone();
        if row.intent == Intent::Remove {
            return self.removed(id);
        }
        self.change(id, |row| row.intent = Intent::Rest)?;
        let what_now = format!(
            "`{node}` was fenced, nothing of it runs: power `{node}` on, then `godwit start \
             {name}`; or give it up with `godwit rm {name}` and run it anew elsewhere"
        );
        self.set_state(id, ContainerState::Lost, Some(what_now))
    }
}
