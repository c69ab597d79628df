//! Images in the controller's own store: what their archives hold.

use godwit_proto::id::{ImageId, Tenant};
use jiff::Timestamp;
use rusqlite::{Result, Row, params};

use super::{Store, StoreError, convert};

/// An image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRow {
    /// Whose it is.
    pub tenant: Tenant,
    /// Its id.
    pub id: ImageId,
    /// Its names, whole (`localhost/counter:latest`).
    pub names: Vec<String>,
    /// The architecture that it is for, in the image's own terms (`amd64`).
    pub arch: String,
    /// The operating system that it is for.
    pub os: String,
    /// The size of its layers.
    pub size_bytes: u64,
    /// The size of its archive.
    pub archive_bytes: u64,
    /// When it came here.
    pub created: Timestamp,
}

impl Store {
    /// Every image of a tenant.
    ///
    /// # Errors
    /// [`StoreError::Query`].
    pub fn images(&self, tenant: &Tenant) -> Result<Vec<ImageRow>, StoreError> {
        let sql = "SELECT * FROM image WHERE tenant = ?1 ORDER BY created DESC, id";
        self.rows("listing images", sql, [tenant.as_str()], read)
    }

    /// Adds an image, or replaces it; a name that it takes leaves the image that had it.
    ///
    /// # Errors
    /// [`StoreError::Query`]; nothing is changed then.
    pub fn save_image(&self, row: &ImageRow) -> Result<(), StoreError> {
        let all = self.db.unchecked_transaction().map_err(super::query("saving an image"))?;
        for mut other in self.images(&row.tenant)? {
            let before = other.names.len();
            other.names.retain(|name| !row.names.contains(name));
            if other.id != row.id && other.names.len() < before {
                self.put_image(&other)?;
            }
        }
        self.put_image(row)?;
        all.commit().map_err(super::query("saving an image"))
    }

    fn put_image(&self, row: &ImageRow) -> Result<(), StoreError> {
        self.write(
            "saving an image",
            "INSERT OR REPLACE INTO image
                 (tenant, id, names, arch, os, size_bytes, archive_bytes, created)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            params![
                row.tenant.as_str(),
                row.id.as_str(),
                convert::to_json(&row.names),
                row.arch,
                row.os,
                row.size_bytes.cast_signed(),
                row.archive_bytes.cast_signed(),
                convert::at(row.created),
            ],
        )
        .map(drop)
    }

    /// Forgets an image; answers whether another tenant still has it.
    ///
    /// # Errors
    /// [`StoreError::Query`].
    pub fn delete_image(&self, tenant: &Tenant, id: &ImageId) -> Result<bool, StoreError> {
        let sql = "DELETE FROM image WHERE tenant = ?1 AND id = ?2";
        self.write("deleting an image", sql, [tenant.as_str(), id.as_str()])?;
        let sql = "SELECT count(*) FROM image WHERE id = ?1";
        let left: Option<i64> =
            self.row("counting an image", sql, [id.as_str()], |row| row.get(0))?;
        Ok(left.is_some_and(|count| count > 0))
    }
}

fn read(row: &Row<'_>) -> Result<ImageRow> {
    Ok(ImageRow {
        tenant: convert::text(row, "tenant")?,
        id: convert::text(row, "id")?,
        names: convert::json(row, "names")?,
        arch: row.get("arch")?,
        os: row.get("os")?,
        size_bytes: row.get::<_, i64>("size_bytes")?.cast_unsigned(),
        archive_bytes: row.get::<_, i64>("archive_bytes")?.cast_unsigned(),
        created: convert::text(row, "created")?,
    })
}
