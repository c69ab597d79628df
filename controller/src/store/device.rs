//! Nodes as they were last heard of, so that a restart does not forget them.

use godwit_proto::id::{NodeId, Tenant};
use jiff::Timestamp;
use rusqlite::{Result, Row, params};

use super::{Store, StoreError, convert};

/// A node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRow {
    /// The node.
    pub node: NodeId,
    /// Whose it is.
    pub tenant: Tenant,
    /// The last state that was heard: `online`, `draining`, `offline`, `lost` or `fenced`.
    pub state: String,
    /// When that state began.
    pub since: Timestamp,
    /// Its last announcement, as it came: JSON.
    pub info: Option<String>,
    /// When it was last heard of.
    pub heard: Timestamp,
}

impl Store {
    /// Every node ever heard of.
    ///
    /// # Errors
    /// [`StoreError::Query`].
    pub fn devices(&self) -> Result<Vec<DeviceRow>, StoreError> {
        self.rows("listing nodes", "SELECT * FROM device ORDER BY node", [], read)
    }

    /// Adds a node, or replaces what is known of it.
    ///
    /// # Errors
    /// [`StoreError::Query`].
    pub fn save_device(&self, row: &DeviceRow) -> Result<(), StoreError> {
        self.write(
            "saving a node",
            "INSERT OR REPLACE INTO device (node, tenant, state, since, info, heard)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                row.node.as_str(),
                row.tenant.as_str(),
                row.state,
                convert::at(row.since),
                row.info,
                convert::at(row.heard),
            ],
        )
        .map(drop)
    }
}

fn read(row: &Row<'_>) -> Result<DeviceRow> {
    Ok(DeviceRow {
        node: convert::text(row, "node")?,
        tenant: convert::text(row, "tenant")?,
        state: row.get("state")?,
        since: convert::text(row, "since")?,
        info: row.get("info")?,
        heard: convert::text(row, "heard")?,
    })
}
