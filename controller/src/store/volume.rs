//! Tenants' volumes. Which container has one, and where it is, follows from the containers' own
//! rows: see `006-volumes.sql`.

use godwit_proto::id::{ContainerId, NodeId, Tenant, VolumeName};
use jiff::Timestamp;
use rusqlite::{Result, Row, params};

use super::{Store, StoreError, convert};

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeRow {
    /// Whose it is.
    pub tenant: Tenant,
    /// What its tenant calls it.
    pub name: VolumeName,
    /// Where it is.
    pub node: NodeId,
    /// The container that has it.
    pub container: Option<ContainerId>,
    /// When it was first asked for.
    pub created: Timestamp,
}

impl Store {
    /// Every volume.
    ///
    /// # Errors
    /// [`StoreError::Query`].
    pub fn volumes(&self) -> Result<Vec<VolumeRow>, StoreError> {
        self.rows("listing volumes", "SELECT * FROM volume ORDER BY tenant, name", [], read)
    }

    /// Forgets a volume; absent is success, and so is one that a container has: it stays.
    ///
    /// # Errors
    /// [`StoreError::Query`].
    pub fn delete_volume(&self, tenant: &Tenant, name: &VolumeName) -> Result<(), StoreError> {
        let sql = "DELETE FROM volume WHERE tenant = ?1 AND name = ?2 AND container IS NULL";
        self.write("deleting a volume", sql, params![tenant.as_str(), name.as_str()]).map(drop)
    }
}

fn read(row: &Row<'_>) -> Result<VolumeRow> {
    let container: Option<String> = row.get("container")?;
    Ok(VolumeRow {
        tenant: convert::text(row, "tenant")?,
        name: convert::text(row, "name")?,
        node: convert::text(row, "node")?,
        container: container.and_then(|id| id.parse().ok()),
        created: convert::text(row, "created")?,
    })
}
