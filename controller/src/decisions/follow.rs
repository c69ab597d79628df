//! What follows from a stored row: who holds the container, and how the move looks.

use godwit_proto::migration::{Cause, Row};

use super::core::{Core, Heard, decider_is_settled};
use super::moves::was_frozen;
use super::world::Key;
use crate::store::{ContainerState, StoreError};

impl Core {
    /// Brings everything that a stored row implies up to date.
    pub(super) fn follow(&mut self) -> Result<(), StoreError> {
        for row in std::mem::take(&mut self.world.changed) {
            let key = (row.spec.id, row.epoch);
            self.follow_move(key)?;
            let owns = row.has_arrived || row.is_settled;
            if owns && self.containers.get(&key.0).is_some_and(|c| c.epoch <= row.epoch) {
                self.settle_container(&row)?;
            }
            if row.is_settled {
                self.world.attempts.remove(&key);
                self.clocks.remove(&key);
                if let Some(id) = self.containers.get(&key.0).map(|row| row.spec.id) {
                    self.show(id);
                }
            }
        }
        Ok(())
    }

    /// The owner of a container after a move.
    pub(super) fn settle_container(&mut self, row: &Row) -> Result<(), StoreError> {
        let id = row.spec.id;
        let holder = row.holder().clone();
        let is_lost = row.ruling.is_some_and(|ruling| ruling.cause == Cause::MemoryLost);
        self.change(id, |container| {
            container.node = holder;
            container.epoch = row.epoch;
        })?;
        let is_fenced = row.end(row.holder()).is_some_and(|end| row.fenced.contains(&end));
        if row.is_settled && is_fenced {
            self.world.attempts.remove(&(id, row.epoch));
            return self.lose(id, row.holder());
        }
        if row.is_settled {
            let stored = self.world.attempts.get(&(id, row.epoch));
            let by_the_move = is_lost && stored.is_none_or(was_frozen);
            let lost = by_the_move.then(|| "its memory was lost in a migration".to_owned());
            let state = if is_lost { ContainerState::Exited } else { ContainerState::Running };
            self.set_state(id, state, lost)?;
            self.world.attempts.remove(&(id, row.epoch));
            return self.advance(id, Heard::Now);
        }
        Ok(())
    }

    pub(super) fn follow_move(&mut self, key: Key) -> Result<(), StoreError> {
        let Some(stored) = self.world.attempts.get_mut(&key) else { return Ok(()) };
        let Some(decider) = self.desk.attempt(key.0, key.1) else { return Ok(()) };
        let before = stored.clone();
        self.clocks.entry(key).or_default().follow(stored, decider);
        if *stored != before {
            self.world.store.save_attempt(stored)?;
            let in_doubt = stored.phase == "in-doubt";
            self.show_move(key);
            let state = if in_doubt { ContainerState::InDoubt } else { ContainerState::Migrating };
            if !before.settled && !decider_is_settled(&self.desk, key) {
                self.set_state(key.0, state, None)?;
            }
        }
        Ok(())
    }
}
