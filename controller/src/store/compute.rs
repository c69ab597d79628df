//! Containers: what was asked for, who owns them, and how they are.

use super::words::words;
use super::{Store, StoreError, convert};
use godwit_proto::container::ContainerSpec;
use godwit_proto::id::{ContainerId, ContainerName, Epoch, NodeId, Tenant};
use jiff::Timestamp;
use rusqlite::{Result, Row, params};

/// A container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerRow {
    /// What it is; its id, tenant, name and address among it.
    pub spec: ContainerSpec,
    /// The node that owns it.
    pub node: NodeId,
    /// The highest epoch that it was given.
    pub epoch: Epoch,
    /// What it is to become.
    pub intent: Intent,
    /// How it is, as far as is known.
    pub state: ContainerState,
    /// Why it failed, for people.
    pub error: Option<String>,
    /// The exit code, once it ended by itself.
    pub exit_code: Option<i64>,
    /// When the state began.
    pub since: Timestamp,
    /// When it was asked for.
    pub created: Timestamp,
}

words! {
    /// What a container is to become; `Rest` once it is.
    Intent {
        /// To be made.
        Create = "create",
        /// To run.
        Start = "start",
        /// To stop.
        Stop = "stop",
        /// To be removed.
        Remove = "remove",
        /// Nothing is asked of it.
        Rest = "rest",
    }
}

words! {
    /// How a container is.
    ContainerState {
        /// Being made.
        Creating = "creating",
        /// Made or stopped on request; its files are there.
        Stopped = "stopped",
        /// Being started.
        Starting = "starting",
        /// It runs.
        Running = "running",
        /// Being stopped.
        Stopping = "stopping",
        /// It ended by itself.
        Exited = "exited",
        /// What was asked of it failed; its error says why.
        Failed = "failed",
        /// It moves; it runs or is frozen for a moment.
        Migrating = "migrating",
        /// Being removed.
        Removing = "removing",
        /// Decided, but its node is silent: whether it runs is not known.
        InDoubt = "in-doubt",
        /// Its node was fenced: nothing of it runs, its files are there.
        Lost = "lost",
        /// It was removed. Only ever told, never stored.
        Removed = "removed",
    }
}

impl Store {
    /// Every container.
    ///
    /// # Errors
    /// [`StoreError::Query`].
    pub fn containers(&self) -> Result<Vec<ContainerRow>, StoreError> {
        self.rows("listing containers", "SELECT * FROM compute ORDER BY tenant, name", [], read)
    }

    /// The container `id`.
    ///
    /// # Errors
    /// [`StoreError::Query`].
    pub fn container(&self, id: ContainerId) -> Result<Option<ContainerRow>, StoreError> {
        let sql = "SELECT * FROM compute WHERE id = ?1";
        self.row("reading a container", sql, [id.to_string()], read)
    }

    /// The container that `tenant` calls `name`.
    ///
    /// # Errors
    /// [`StoreError::Query`].
    pub fn container_named(
        &self,
        tenant: &Tenant,
        name: &ContainerName,
    ) -> Result<Option<ContainerRow>, StoreError> {
        let sql = "SELECT * FROM compute WHERE tenant = ?1 AND name = ?2";
        self.row("reading a container", sql, [tenant.as_str(), name.as_str()], read)
    }

    /// Adds a container.
    ///
    /// # Errors
    /// [`StoreError::Taken`] when its id, its tenant's name or its address is in use.
    pub fn insert_container(&self, row: &ContainerRow) -> Result<(), StoreError> {
        self.write(
            "adding a container",
            "INSERT INTO compute (id, tenant, name, spec, node, epoch_generation, epoch_counter,
                 intent, state, error, exit_code, since, created)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
            params![
                row.spec.id.to_string(),
                row.spec.tenant.as_str(),
                row.spec.name.as_str(),
                convert::to_json(&row.spec),
                row.node.as_str(),
                row.epoch.generation,
                row.epoch.counter,
                row.intent.as_str(),
                row.state.as_str(),
                row.error,
                row.exit_code,
                convert::at(row.since),
                convert::at(row.created),
            ],
        )
        .map(drop)
    }

    /// Writes all of a container that can change; its spec cannot.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when there is no such container.
    pub fn save_container(&self, row: &ContainerRow) -> Result<(), StoreError> {
        self.write_one(
            "saving a container",
            "UPDATE compute SET node = ?2, epoch_generation = ?3, epoch_counter = ?4, intent = ?5,
                 state = ?6, error = ?7, exit_code = ?8, since = ?9 WHERE id = ?1",
            params![
                row.spec.id.to_string(),
                row.node.as_str(),
                row.epoch.generation,
                row.epoch.counter,
                row.intent.as_str(),
                row.state.as_str(),
                row.error,
                row.exit_code,
                convert::at(row.since),
            ],
        )
    }

    /// Forgets a container; absent is success.
    ///
    /// # Errors
    /// [`StoreError::Query`].
    pub fn delete_container(&self, id: ContainerId) -> Result<(), StoreError> {
        let sql = "DELETE FROM compute WHERE id = ?1";
        self.write("deleting a container", sql, [id.to_string()]).map(drop)
    }
}

fn read(row: &Row<'_>) -> Result<ContainerRow> {
    Ok(ContainerRow {
        spec: convert::json(row, "spec")?,
        node: convert::text(row, "node")?,
        epoch: convert::epoch(row)?,
        intent: convert::text(row, "intent")?,
        state: convert::text(row, "state")?,
        error: row.get("error")?,
        exit_code: row.get("exit_code")?,
        since: convert::text(row, "since")?,
        created: convert::text(row, "created")?,
    })
}
