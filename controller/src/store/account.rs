//! Accounts of the broker.

use jiff::Timestamp;
use rusqlite::{Result, Row, params};

use super::words::words;
use super::{Store, StoreError, convert};

words! {
    /// What an account is for.
    AccountKind {
        /// A person who runs the fabric.
        Operator = "operator",
        /// A tenant.
        Tenant = "tenant",
        /// The agent of a node; it signs in with a certificate.
        Node = "node",
        /// A tenant's container or sensor.
        Derived = "derived",
        /// A program that watches the fabric.
        Monitor = "monitor",
    }
}

/// An account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountRow {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub kind: AccountKind,
    /// Of a derived account: whose.
    pub tenant: Option<String>,
    /// Of a derived account: where it may publish.
    pub publish: Vec<String>,
    /// Of a derived account: what it may subscribe to.
    pub subscribe: Vec<String>,
    /// The password's hash; nothing where a certificate signs in.
    pub password: Option<String>,
    /// When it was made.
    pub created: Timestamp,
}

impl Store {
    /// Every account, by name.
    ///
    /// # Errors
    /// [`StoreError::Query`].
    pub fn accounts(&self) -> Result<Vec<AccountRow>, StoreError> {
        self.rows("listing accounts", "SELECT * FROM account ORDER BY name", [], read)
    }

    /// Adds an account.
    ///
    /// # Errors
    /// [`StoreError::Taken`] where the name is, and [`StoreError::Query`].
    pub fn add_account(&self, row: &AccountRow) -> Result<(), StoreError> {
        self.write(
            "adding an account",
            "INSERT INTO account (name, kind, tenant, publish, subscribe, password, created)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                row.name,
                row.kind.as_str(),
                row.tenant,
                convert::to_json(&row.publish),
                convert::to_json(&row.subscribe),
                row.password,
                convert::at(row.created),
            ],
        )
        .map(drop)
    }

    /// Replaces an account's password; false where there is no account that has one.
    ///
    /// # Errors
    /// [`StoreError::Query`].
    pub fn set_password(&self, name: &str, hash: &str) -> Result<bool, StoreError> {
        let sql = "UPDATE account SET password = ?2 WHERE name = ?1 AND password IS NOT NULL";
        self.write("changing a password", sql, params![name, hash]).map(|changed| changed > 0)
    }

    /// Removes an account, a node's certificates with it; false where there is none.
    ///
    /// # Errors
    /// [`StoreError::Query`]; nothing is changed then.
    pub fn remove_account(&self, name: &str, now: Timestamp) -> Result<bool, StoreError> {
        let what = "removing an account";
        let all = self.db.unchecked_transaction().map_err(super::query(what))?;
        if let Some(node) = name.strip_prefix(godwit_proto::join::NODE_ACCOUNT) {
            self.revoke_certificates(node, now)?;
        }
        let removed = self.delete_account(name)?;
        all.commit().map_err(super::query(what))?;
        Ok(removed)
    }

    pub(super) fn delete_account(&self, name: &str) -> Result<bool, StoreError> {
        let sql = "DELETE FROM account WHERE name = ?1";
        self.write("removing an account", sql, [name]).map(|removed| removed > 0)
    }
}

fn read(row: &Row<'_>) -> Result<AccountRow> {
    Ok(AccountRow {
        name: row.get("name")?,
        kind: convert::text(row, "kind")?,
        tenant: row.get("tenant")?,
        publish: convert::json(row, "publish")?,
        subscribe: convert::json(row, "subscribe")?,
        password: row.get("password")?,
        created: convert::text(row, "created")?,
    })
}
