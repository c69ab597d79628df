//! Attempts to move a container: the live ones, and the history that they become.

use godwit_proto::container::Mode;
use godwit_proto::id::{ContainerId, ContainerName, Epoch, MigrationId, NodeId, Run, Tenant};
use godwit_proto::timeline::Moment;
use jiff::Timestamp;
use rusqlite::{Result, Row, params};
use serde::{Deserialize, Serialize};

use super::{Store, StoreError, convert};

/// One attempt to move a container.
#[derive(Debug, Clone, PartialEq)]
pub struct AttemptRow {
    /// What people call it.
    pub id: MigrationId,
    /// The container.
    pub container: ContainerId,
    /// Who owns it.
    pub tenant: Tenant,
    /// What the container was called; it may be gone by now.
    pub name: ContainerName,
    /// The epoch that the attempt stands for.
    pub epoch: Epoch,
    /// Where it runs.
    pub source: NodeId,
    /// Where it is to run.
    pub target: NodeId,
    /// How it moves.
    pub mode: Mode,
    /// Limit of the transfer in bytes per second.
    pub bwlimit: Option<u64>,
    /// The run that opened the attempt.
    pub opener: Run,
    /// The decider's own state, as the decision core writes it: JSON.
    pub decider: String,
    /// It is over.
    pub settled: bool,
    /// How far it is, for people.
    pub phase: String,
    /// How it ended.
    pub outcome: Option<String>,
    /// Why it ended so, for people.
    pub reason: Option<String>,
    /// What to do next, for people.
    pub remedy: Option<String>,
    /// The phases so far.
    pub phases: Vec<PhaseMark>,
    /// When the parts of the hand-over came about, in the order of time.
    pub timeline: Vec<Seen>,
    /// Payload that got across, in bytes.
    pub bytes: u64,
    /// The same as it was sent.
    pub wire_bytes: u64,
    /// From frozen to active.
    pub gap_ms: Option<u64>,
    /// What admission promised.
    pub predicted: Option<Prediction>,
    /// When it was opened.
    pub started: Timestamp,
    /// When it was over.
    pub ended: Option<Timestamp>,
}

/// When a phase began and how long it lasted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseMark {
    /// The phase.
    pub phase: String,
    /// When it began.
    pub started: Timestamp,
    /// How long it lasted; `None` while it lasts.
    pub ms: Option<u64>,
}

/// When a moment of a hand-over came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// What came.
    pub moment: Moment,
    /// When, in microseconds: since 1970 by the controller's clock where it is stored.
    pub us: i64,
}

/// What a move will probably cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prediction {
    /// Payload in bytes.
    pub bytes: u64,
    /// From admission to the end.
    pub total_ms: u64,
    /// How long the container stands still.
    pub gap_ms: u64,
}

/// Which attempts are asked for; everything by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MigrationFilter {
    /// Of this tenant.
    pub tenant: Option<Tenant>,
    /// Of this container.
    pub container: Option<ContainerId>,
    /// Only those that are not over.
    pub unsettled: bool,
}

impl Store {
    /// Adds an attempt.
    ///
    /// # Errors
    /// [`StoreError::Taken`] when its id, or its container's epoch, is in use.
    pub fn insert_attempt(&self, row: &AttemptRow) -> Result<(), StoreError> {
        self.write(
            "adding a migration",
            "INSERT INTO migration (id, container, tenant, name, epoch_generation, epoch_counter,
                 source, target, mode, bwlimit, opener_generation, opener_nonce, predicted,
                 started, decider, settled, phase, outcome, reason, remedy, phases, bytes,
                 wire_bytes, gap_ms, ended, timeline)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17,
                 ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26)",
            params![
                row.id.as_str(),
                row.container.to_string(),
                row.tenant.as_str(),
                row.name.as_str(),
                row.epoch.generation,
                row.epoch.counter,
                row.source.as_str(),
                row.target.as_str(),
                mode_word(row.mode),
                row.bwlimit.map(u64::cast_signed),
                row.opener.generation,
                row.opener.nonce.cast_signed(),
                row.predicted.as_ref().map(convert::to_json),
                convert::at(row.started),
                row.decider,
                row.settled,
                row.phase,
                row.outcome,
                row.reason,
                row.remedy,
                convert::to_json(&row.phases),
                row.bytes.cast_signed(),
                row.wire_bytes.cast_signed(),
                row.gap_ms.map(u64::cast_signed),
                row.ended.map(convert::at),
                convert::to_json(&row.timeline),
            ],
        )
        .map(drop)
    }

    /// Writes all of an attempt that can change: from the decider's state to its end.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when there is no such attempt.
    pub fn save_attempt(&self, row: &AttemptRow) -> Result<(), StoreError> {
        self.write_one(
            "saving a migration",
            "UPDATE migration SET decider = ?2, settled = ?3, phase = ?4, outcome = ?5,
                 reason = ?6, remedy = ?7, phases = ?8, bytes = ?9, wire_bytes = ?10,
                 gap_ms = ?11, ended = ?12, timeline = ?13 WHERE id = ?1",
            params![
                row.id.as_str(),
                row.decider,
                row.settled,
                row.phase,
                row.outcome,
                row.reason,
                row.remedy,
                convert::to_json(&row.phases),
                row.bytes.cast_signed(),
                row.wire_bytes.cast_signed(),
                row.gap_ms.map(u64::cast_signed),
                row.ended.map(convert::at),
                convert::to_json(&row.timeline),
            ],
        )
    }

    /// Every attempt that is not over, oldest first.
    ///
    /// # Errors
    /// [`StoreError::Query`].
    pub fn unsettled_attempts(&self) -> Result<Vec<AttemptRow>, StoreError> {
        let sql = "SELECT * FROM migration WHERE settled = 0 ORDER BY started, rowid";
        self.rows("listing live migrations", sql, [], read)
    }

    /// The newest `limit` attempts that fit `filter`, newest first.
    ///
    /// # Errors
    /// [`StoreError::Query`].
    pub fn migrations(
        &self,
        filter: &MigrationFilter,
        limit: u32,
    ) -> Result<Vec<AttemptRow>, StoreError> {
        self.rows(
            "listing migrations",
            "SELECT * FROM migration
             WHERE (?1 IS NULL OR tenant = ?1) AND (?2 IS NULL OR container = ?2)
                 AND (settled = 0 OR NOT ?3)
             ORDER BY started DESC, rowid DESC LIMIT ?4",
            params![
                filter.tenant.as_ref().map(Tenant::as_str),
                filter.container.map(|id| id.to_string()),
                filter.unsettled,
                limit,
            ],
            read,
        )
    }

    /// The attempt of that container and epoch, settled or not.
    ///
    /// # Errors
    /// [`StoreError::Query`].
    pub fn attempt(
        &self,
        container: ContainerId,
        epoch: Epoch,
    ) -> Result<Option<AttemptRow>, StoreError> {
        self.row(
            "reading an attempt",
            "SELECT * FROM migration
             WHERE container = ?1 AND epoch_generation = ?2 AND epoch_counter = ?3",
            params![container.to_string(), epoch.generation, epoch.counter],
            read,
        )
    }

    /// The highest epoch counter that any container or attempt has, 0 for an empty database.
    ///
    /// # Errors
    /// [`StoreError::Query`].
    pub fn last_counter(&self) -> Result<u32, StoreError> {
        let highest = self.row(
            "reading the last epoch",
            "SELECT max(counter) FROM (SELECT max(epoch_counter) AS counter FROM compute
             UNION ALL SELECT max(epoch_counter) FROM migration)",
            [],
            |row| row.get::<_, Option<u32>>(0),
        )?;
        Ok(highest.flatten().unwrap_or(0))
    }

    /// The attempt `id`.
    ///
    /// # Errors
    /// [`StoreError::Query`].
    pub fn migration(&self, id: &MigrationId) -> Result<Option<AttemptRow>, StoreError> {
        let sql = "SELECT * FROM migration WHERE id = ?1";
        self.row("reading a migration", sql, [id.as_str()], read)
    }
}

/// A mode as it is stored: as it stands in JSON.
fn mode_word(mode: Mode) -> String {
    convert::to_json(&mode).trim_matches('"').to_owned()
}

fn read(row: &Row<'_>) -> Result<AttemptRow> {
    let unsigned = |column: &str| row.get::<_, i64>(column).map(i64::cast_unsigned);
    let unsigned_or_none =
        |column: &str| row.get::<_, Option<i64>>(column).map(|n| n.map(i64::cast_unsigned));
    let mode: String = row.get("mode")?;
    Ok(AttemptRow {
        id: convert::text(row, "id")?,
        container: convert::text(row, "container")?,
        tenant: convert::text(row, "tenant")?,
        name: convert::text(row, "name")?,
        epoch: convert::epoch(row)?,
        source: convert::text(row, "source")?,
        target: convert::text(row, "target")?,
        mode: serde_json::from_value(mode.into()).map_err(convert::damaged)?,
        bwlimit: unsigned_or_none("bwlimit")?,
        opener: convert::run(row, "opener")?,
        decider: row.get("decider")?,
        settled: row.get("settled")?,
        phase: row.get("phase")?,
        outcome: row.get("outcome")?,
        reason: row.get("reason")?,
        remedy: row.get("remedy")?,
        phases: convert::json(row, "phases")?,
        timeline: convert::json(row, "timeline")?,
        bytes: unsigned("bytes")?,
        wire_bytes: unsigned("wire_bytes")?,
        gap_ms: unsigned_or_none("gap_ms")?,
        predicted: convert::json_or_none(row, "predicted")?,
        started: convert::text(row, "started")?,
        ended: convert::text_or_none(row, "ended")?,
    })
}
