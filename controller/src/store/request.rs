//! Requests that came over MQTT: each id is done once, and answered from here ever after.

use godwit_proto::id::{RequestId, Tenant};
use jiff::Timestamp;
use rusqlite::{Result, Row, params};

use super::{Store, StoreError, convert};

/// A request and the last thing that was answered to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestRow {
    /// Who asked.
    pub tenant: Tenant,
    /// The caller's correlation id.
    pub id: RequestId,
    /// What was asked.
    pub verb: String,
    /// The migration that it began, if that is what it did, so that its end can be told
    /// after a restart; a container's name otherwise.
    pub subject: Option<String>,
    /// `accepted`, `done` or `failed`.
    pub status: String,
    /// The last reply, as it was sent.
    pub reply: String,
}

/// Whether a request is new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// It is: do it.
    New,
    /// It was seen before; this is what became of it.
    Seen(RequestRow),
}

impl Store {
    /// Records a request before it is done, unless its id was seen before.
    ///
    /// # Errors
    /// [`StoreError::Query`].
    pub fn claim_request(&self, row: &RequestRow) -> Result<Claim, StoreError> {
        let added = self.write(
            "recording a request",
            "INSERT INTO request (tenant, id, verb, subject, status, reply, created)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (tenant, id) DO NOTHING",
            params![
                row.tenant.as_str(),
                row.id.as_str(),
                row.verb,
                row.subject,
                row.status,
                row.reply,
                convert::at(Timestamp::now()),
            ],
        )?;
        if added > 0 {
            return Ok(Claim::New);
        }
        let sql = "SELECT * FROM request WHERE tenant = ?1 AND id = ?2";
        self.row("reading a request", sql, [row.tenant.as_str(), row.id.as_str()], read)?
            .map(Claim::Seen)
            .ok_or(StoreError::Missing { what: "reading a request" })
    }

    /// Records what a request began and what was answered.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when it was never claimed.
    pub fn answer_request(&self, row: &RequestRow) -> Result<(), StoreError> {
        self.write_one(
            "answering a request",
            "UPDATE request SET subject = ?3, status = ?4, reply = ?5
             WHERE tenant = ?1 AND id = ?2",
            [
                Some(row.tenant.as_str()),
                Some(row.id.as_str()),
                row.subject.as_deref(),
                Some(&row.status),
                Some(&row.reply),
            ],
        )
    }

    /// Requests whose end was not told, oldest first.
    ///
    /// # Errors
    /// [`StoreError::Query`].
    pub fn open_requests(&self) -> Result<Vec<RequestRow>, StoreError> {
        let sql = "SELECT * FROM request WHERE status = 'accepted' ORDER BY created";
        self.rows("listing open requests", sql, [], read)
    }

    /// Forgets ended requests from before `before`.
    ///
    /// # Errors
    /// [`StoreError::Query`].
    pub fn prune_requests(&self, before: Timestamp) -> Result<usize, StoreError> {
        let sql = "DELETE FROM request WHERE status <> 'accepted' AND created < ?1";
        self.write("forgetting old requests", sql, [convert::at(before)])
    }
}

fn read(row: &Row<'_>) -> Result<RequestRow> {
    Ok(RequestRow {
        tenant: convert::text(row, "tenant")?,
        id: convert::text(row, "id")?,
        verb: row.get("verb")?,
        subject: row.get("subject")?,
        status: row.get("status")?,
        reply: row.get("reply")?,
    })
}
