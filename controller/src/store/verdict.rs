//! The commit point, and what became of verdicts that a node could not follow.

use godwit_proto::id::{ContainerId, Epoch, NodeId, Run, Tenant};
use jiff::Timestamp;
use rusqlite::{Result, Row, params};

use super::words::words;
use super::{Store, StoreError, convert};

words! {
    /// How an attempt is decided.
    Verdict {
        /// The target runs it.
        Commit = "commit",
        /// The source runs it.
        Abort = "abort",
    }
}

words! {
    /// What became of a verdict afterwards.
    Amendment {
        /// Committed; the target refused for good, so the source has it back.
        Returned = "returned",
        /// Aborted; the source's copy was gone, so the target runs it.
        Salvaged = "salvaged",
        /// The target ran it and lost it; the source went on from the freeze.
        RolledBack = "rolled-back",
        /// A node had begun already; what it began stands.
        Overruled = "overruled",
        /// No node has its memory any more.
        Lost = "lost",
    }
}

/// What was decided of an epoch, and by whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerdictRow {
    /// The container.
    pub container: ContainerId,
    /// The epoch.
    pub epoch: Epoch,
    /// The verdict that stands.
    pub outcome: Verdict,
    /// The run that wrote it, the only one that it binds.
    pub run: Run,
    /// When.
    pub decided: Timestamp,
}

/// One line of what became of a verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AmendmentRow {
    /// What became of it.
    pub kind: Amendment,
    /// The node that it is about.
    pub node: Option<NodeId>,
    /// The run that recorded it.
    pub run: Run,
    /// Why, for people.
    pub why: String,
    /// When.
    pub recorded: Timestamp,
}

impl Store {
    /// Decides an epoch, unless it is decided, and answers the verdict that stands.
    ///
    /// The row is on disk when this returns. The caller obeys what it reads, whatever
    /// it wished for.
    ///
    /// # Errors
    /// [`StoreError::Query`]; whether the row was written is then unknown: ask again.
    pub fn decide(
        &self,
        tenant: &Tenant,
        container: ContainerId,
        epoch: Epoch,
        outcome: Verdict,
        run: Run,
    ) -> Result<VerdictRow, StoreError> {
        self.write(
            "deciding",
            "INSERT INTO verdict (container, epoch_generation, epoch_counter, tenant, outcome,
                 run_generation, run_nonce, decided)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
             ON CONFLICT (container, epoch_generation, epoch_counter) DO NOTHING",
            params![
                container.to_string(),
                epoch.generation,
                epoch.counter,
                tenant.as_str(),
                outcome.as_str(),
                run.generation,
                run.nonce.cast_signed(),
                convert::at(Timestamp::now()),
            ],
        )?;
        self.verdict(container, epoch)?.ok_or(StoreError::Missing { what: "deciding" })
    }

    /// What was decided of an epoch.
    ///
    /// # Errors
    /// [`StoreError::Query`].
    pub fn verdict(
        &self,
        container: ContainerId,
        epoch: Epoch,
    ) -> Result<Option<VerdictRow>, StoreError> {
        self.row(
            "reading a verdict",
            "SELECT * FROM verdict
             WHERE container = ?1 AND epoch_generation = ?2 AND epoch_counter = ?3",
            params![container.to_string(), epoch.generation, epoch.counter],
            read,
        )
    }

    /// Adds a line to what became of an epoch's verdict.
    ///
    /// # Errors
    /// [`StoreError::Query`].
    pub fn amend(
        &self,
        tenant: &Tenant,
        container: ContainerId,
        epoch: Epoch,
        amendment: &AmendmentRow,
    ) -> Result<(), StoreError> {
        self.write(
            "recording an amendment",
            "INSERT INTO amendment (container, epoch_generation, epoch_counter, tenant, kind,
                 node, run_generation, run_nonce, why, recorded)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            params![
                container.to_string(),
                epoch.generation,
                epoch.counter,
                tenant.as_str(),
                amendment.kind.as_str(),
                amendment.node.as_ref().map(NodeId::as_str),
                amendment.run.generation,
                amendment.run.nonce.cast_signed(),
                amendment.why,
                convert::at(amendment.recorded),
            ],
        )
        .map(drop)
    }

    /// What became of an epoch's verdict, in the order in which it was recorded.
    ///
    /// # Errors
    /// [`StoreError::Query`].
    pub fn amendments(
        &self,
        container: ContainerId,
        epoch: Epoch,
    ) -> Result<Vec<AmendmentRow>, StoreError> {
        self.rows(
            "reading amendments",
            "SELECT * FROM amendment
             WHERE container = ?1 AND epoch_generation = ?2 AND epoch_counter = ?3
             ORDER BY number",
            params![container.to_string(), epoch.generation, epoch.counter],
            |row| {
                Ok(AmendmentRow {
                    kind: convert::text(row, "kind")?,
                    node: convert::text_or_none(row, "node")?,
                    run: convert::run(row, "run")?,
                    why: row.get("why")?,
                    recorded: convert::text(row, "recorded")?,
                })
            },
        )
    }
}

fn read(row: &Row<'_>) -> Result<VerdictRow> {
    Ok(VerdictRow {
        container: convert::text(row, "container")?,
        epoch: convert::epoch(row)?,
        outcome: convert::text(row, "outcome")?,
        run: convert::run(row, "run")?,
        decided: convert::text(row, "decided")?,
    })
}
