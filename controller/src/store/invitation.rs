//! Tokens by which nodes join, and the certificates that they were given.

use godwit_trust::{Invitation, SecretHash, Serial};
use jiff::Timestamp;
use rusqlite::{Result, Row, params};

use super::{AccountRow, Store, StoreError, convert};

/// A token, used or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvitationRow {
    /// Whom it lets in, and until when.
    pub invitation: Invitation,
    /// Who came with it.
    pub used_by: Option<String>,
    /// What was asked with it.
    pub request: Option<String>,
    /// What was answered.
    pub certificate: Option<String>,
}

/// A certificate that a node was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateRow {
    /// Its number.
    pub serial: Serial,
    /// Whose it is.
    pub node: String,
    /// When it ends.
    pub expires: Timestamp,
    /// When it was revoked.
    pub revoked: Option<Timestamp>,
}

impl Store {
    /// Every token that is remembered.
    ///
    /// # Errors
    /// [`StoreError::Query`].
    pub fn invitations(&self) -> Result<Vec<InvitationRow>, StoreError> {
        self.rows("listing tokens", "SELECT * FROM invitation ORDER BY expires", [], read)
    }

    /// The token whose secret has that hash.
    ///
    /// # Errors
    /// [`StoreError::Query`].
    pub fn invitation(&self, hash: &SecretHash) -> Result<Option<InvitationRow>, StoreError> {
        let sql = "SELECT * FROM invitation WHERE hash = ?1";
        self.row("looking up a token", sql, [hash.to_string()], read)
    }

    /// Keeps a token as it is now.
    ///
    /// # Errors
    /// [`StoreError::Query`].
    pub fn save_invitation(&self, row: &InvitationRow) -> Result<(), StoreError> {
        self.write(
            "saving a token",
            "INSERT OR REPLACE INTO invitation
                 (hash, node, expires, used, used_by, request, certificate)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                row.invitation.hash.to_string(),
                row.invitation.node,
                convert::at(row.invitation.expires_at),
                row.invitation.used_at.map(convert::at),
                row.used_by,
                row.request,
                row.certificate,
            ],
        )
        .map(drop)
    }

    /// Forgets tokens that ended before `time`.
    ///
    /// # Errors
    /// [`StoreError::Query`].
    pub fn forget_invitations(&self, time: Timestamp) -> Result<(), StoreError> {
        for row in self.invitations()? {
            if row.invitation.expires_at < time {
                let hash = row.invitation.hash.to_string();
                self.write("forgetting a token", "DELETE FROM invitation WHERE hash = ?1", [hash])?;
            }
        }
        Ok(())
    }

    /// Records a certificate that was issued.
    ///
    /// # Errors
    /// [`StoreError::Query`].
    pub fn add_certificate(&self, row: &CertificateRow) -> Result<(), StoreError> {
        self.write(
            "recording a certificate",
            "INSERT INTO certificate (serial, node, expires, revoked) VALUES (?1, ?2, ?3, ?4)",
            params![
                row.serial.to_string(),
                row.node,
                convert::at(row.expires),
                row.revoked.map(convert::at),
            ],
        )
        .map(drop)
    }

    /// Lets a node in, in one step: its token is used, it has an account and a certificate, and what it
    /// had before is revoked.
    ///
    /// # Errors
    /// [`StoreError::Query`]; nothing is changed then.
    pub fn admit(
        &self,
        invitation: &InvitationRow,
        account: &AccountRow,
        certificate: &CertificateRow,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let what = "letting a node in";
        let all = self.db.unchecked_transaction().map_err(super::query(what))?;
        self.save_invitation(invitation)?;
        self.revoke_certificates(&certificate.node, now)?;
        self.delete_account(&account.name)?;
        self.add_account(account)?;
        self.add_certificate(certificate)?;
        all.commit().map_err(super::query(what))
    }

    /// Revokes every certificate of a node.
    ///
    /// # Errors
    /// [`StoreError::Query`].
    pub fn revoke_certificates(&self, node: &str, now: Timestamp) -> Result<(), StoreError> {
        let sql = "UPDATE certificate SET revoked = ?2 WHERE node = ?1 AND revoked IS NULL";
        self.write("revoking certificates", sql, params![node, convert::at(now)]).map(drop)
    }

    /// The certificates that were revoked.
    ///
    /// # Errors
    /// [`StoreError::Query`].
    pub fn revoked(&self) -> Result<Vec<CertificateRow>, StoreError> {
        let sql = "SELECT * FROM certificate WHERE revoked IS NOT NULL";
        self.rows("listing revoked certificates", sql, [], |row| {
            Ok(CertificateRow {
                serial: convert::text(row, "serial")?,
                node: row.get("node")?,
                expires: convert::text(row, "expires")?,
                revoked: convert::text_or_none(row, "revoked")?,
            })
        })
    }
}

fn read(row: &Row<'_>) -> Result<InvitationRow> {
    Ok(InvitationRow {
        invitation: Invitation {
            node: row.get("node")?,
            hash: convert::text(row, "hash")?,
            expires_at: convert::text(row, "expires")?,
            used_at: convert::text_or_none(row, "used")?,
        },
        used_by: row.get("used_by")?,
        request: row.get("request")?,
        certificate: row.get("certificate")?,
    })
}
