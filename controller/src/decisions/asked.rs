//! What clients ask for: checked, persisted, under way when it is answered.

use godwit_proto::container::ContainerSpec;
use godwit_proto::id::{ContainerId, Epoch, MigrationId, NodeId};
use godwit_proto::migration::{Phase, Plan};
use jiff::Timestamp;

use super::core::{Core, MAX, MIN};
use super::moves;
use crate::refusal::Refusal;
use crate::store::{ContainerRow, ContainerState, Intent, Prediction, StoreError};

impl Core {
    pub(super) fn create(
        &mut self,
        spec: ContainerSpec,
        node: NodeId,
        start: bool,
    ) -> Result<(), Refusal> {
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

    pub(super) fn start(&mut self, id: ContainerId) -> Result<(), Refusal> {
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

    pub(super) fn stop(&mut self, id: ContainerId) -> Result<(), Refusal> {
        match self.idle(id)?.state {
            ContainerState::Stopped
            | ContainerState::Exited
            | ContainerState::Failed
            | ContainerState::Lost => Ok(()),
            _ => self.intend(id, Intent::Stop, ContainerState::Stopping, None),
        }
    }

    pub(super) fn remove(&mut self, id: ContainerId, force: bool) -> Result<(), Refusal> {
        let row = self.idle(id)?;
        let is_up = matches!(row.state, ContainerState::Running | ContainerState::Starting);
        if is_up && !force {
            return Err(Refusal::new(
                "not-stopped",
                format!("`{}` is running on `{}`", row.spec.name, row.node),
                format!("stop it first, or `godwit rm --force {}`", row.spec.name),
            ));
        }
        if row.state == ContainerState::Lost {
            return self
                .removed(id)
                .map_err(|error| Refusal::internal("removing a container", &error));
        }
        self.intend(id, Intent::Remove, ContainerState::Removing, None)
    }

    pub(super) fn migrate(
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

    pub(super) fn cancel(&mut self, id: &MigrationId) -> Result<(), Refusal> {
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

    /// The container, if nothing is under way with it.
    pub(super) fn idle(&self, id: ContainerId) -> Result<&ContainerRow, Refusal> {
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

    pub(super) fn intend(
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
}
