//! The database: everything that the controller must know after a restart.
//!
//! One [`Store`] is one SQLite connection; each thread that needs one opens its own.
//! Every write is synced to disk before its method returns (`synchronous = FULL`),
//! because the choreography persists before it acts or tells. SQL stands in this
//! folder and nowhere else: `compute` (containers), `migration` (attempts and
//! history), `verdict` (what was decided), `device` (nodes), `image`, `network`, `volume`, `request`
//! (what came over MQTT), `account` and `invitation` (who may come), and `handle` for those who must not block.

mod account;
mod compute;
mod convert;
mod device;
mod handle;
mod image;
mod invitation;
mod migration;
mod network;
mod request;
mod verdict;
mod volume;
mod words;

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OptionalExtension, params};
use rusqlite_migration::{M, Migrations};
use uuid::Uuid;

pub use account::{AccountKind, AccountRow};
pub use compute::{ContainerRow, ContainerState, Intent};
pub use device::DeviceRow;
pub use handle::StoreHandle;
pub use image::ImageRow;
pub use invitation::{CertificateRow, InvitationRow};
pub use migration::{AttemptRow, MigrationFilter, PhaseMark, Prediction, Seen};
pub use network::NetworkRow;
pub use request::{Claim, RequestRow};
pub use verdict::{Amendment, AmendmentRow, Verdict, VerdictRow};
pub use volume::VolumeRow;
pub use words::UnknownWord;

/// How long a connection waits for another one's write.
const BUSY: Duration = Duration::from_secs(10);

/// The schema, step by step; a step that was released is never changed.
const STEPS: &[M<'_>] = &[
    M::up(include_str!("../../migrations/001-founding.sql")),
    M::up(include_str!("../../migrations/002-timeline.sql")),
    M::up(include_str!("../../migrations/003-accounts.sql")),
    M::up(include_str!("../../migrations/004-interfaces.sql")),
    M::up(include_str!("../../migrations/005-networks.sql")),
    M::up(include_str!("../../migrations/006-volumes.sql")),
];

/// Why the database could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be opened or set up.
    #[error("cannot open the database {path}: check that the directory is writable and not full")]
    Open {
        /// The file.
        path: PathBuf,
        /// SQLite's word.
        source: rusqlite::Error,
    },
    /// The schema cannot be brought up to date.
    #[error("cannot migrate the database {path}: was it written by a newer controller?")]
    Migrate {
        /// The file.
        path: PathBuf,
        /// The step's failure.
        source: rusqlite_migration::Error,
    },
    /// A name, address or id that must be unique is taken.
    #[error("{what}: it exists already")]
    Taken {
        /// What was being done.
        what: &'static str,
        /// SQLite's word, which names the columns.
        source: rusqlite::Error,
    },
    /// A statement failed.
    #[error("{what} failed in the database")]
    Query {
        /// What was being done.
        what: &'static str,
        /// SQLite's word.
        source: rusqlite::Error,
    },
    /// The row that was to be changed is not there.
    #[error("{what}: there is no such row")]
    Missing {
        /// What was being done.
        what: &'static str,
    },
    /// The database's thread is gone: the program is shutting down.
    #[error("the database is closed")]
    Closed,
}

/// One connection to the database.
///
/// Methods block, on the disk and for up to ten seconds on other writers: asynchronous
/// code uses a [`StoreHandle`].
#[derive(Debug)]
pub struct Store {
    db: Connection,
}

impl Store {
    /// Opens the database at `path`, making and migrating it as needed.
    ///
    /// # Errors
    /// [`StoreError::Open`] and [`StoreError::Migrate`].
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let at = |source| StoreError::Open { path: path.to_owned(), source };
        let mut db = Connection::open(path).map_err(at)?;
        db.busy_timeout(BUSY).map_err(at)?;
        db.pragma_update(None, "journal_mode", "WAL").map_err(at)?;
        db.pragma_update(None, "synchronous", "FULL").map_err(at)?;
        db.pragma_update(None, "foreign_keys", "ON").map_err(at)?;
        Migrations::from_slice(STEPS)
            .to_latest(&mut db)
            .map_err(|source| StoreError::Migrate { path: path.to_owned(), source })?;
        Ok(Self { db })
    }

    /// The highest generation that this database knows; 0 when none was claimed.
    ///
    /// # Errors
    /// [`StoreError::Query`].
    pub fn generation(&self) -> Result<u32, StoreError> {
        Ok(self.meta("generation")?.and_then(|text| text.parse().ok()).unwrap_or(0))
    }

    /// Records a generation, unless a higher one is known.
    ///
    /// # Errors
    /// [`StoreError::Query`].
    pub fn set_generation(&self, generation: u32) -> Result<(), StoreError> {
        self.write(
            "recording the generation",
            "INSERT INTO meta (key, value) VALUES ('generation', ?1)
             ON CONFLICT (key) DO UPDATE SET value = excluded.value
             WHERE CAST(value AS INTEGER) < CAST(excluded.value AS INTEGER)",
            params![generation.to_string()],
        )
        .map(drop)
    }

    /// The fabric's id: made up with the database, kept for its life.
    ///
    /// # Errors
    /// [`StoreError::Query`].
    pub fn fabric(&self) -> Result<Uuid, StoreError> {
        self.write(
            "naming the fabric",
            "INSERT INTO meta (key, value) VALUES ('fabric', ?1) ON CONFLICT (key) DO NOTHING",
            params![Uuid::new_v4().to_string()],
        )?;
        let text = self.meta("fabric")?.ok_or(StoreError::Missing { what: "the fabric's id" })?;
        text.parse().map_err(|e| StoreError::Query {
            what: "reading the fabric's id",
            source: convert::damaged(e),
        })
    }

    fn meta(&self, key: &str) -> Result<Option<String>, StoreError> {
        self.db
            .query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0))
            .optional()
            .map_err(query("reading meta data"))
    }

    /// Runs one statement and answers how many rows it changed.
    fn write(
        &self,
        what: &'static str,
        sql: &str,
        values: impl rusqlite::Params,
    ) -> Result<usize, StoreError> {
        self.db
            .prepare_cached(sql)
            .and_then(|mut statement| statement.execute(values))
            .map_err(query(what))
    }

    /// Runs one statement that must change exactly one row.
    fn write_one(
        &self,
        what: &'static str,
        sql: &str,
        values: impl rusqlite::Params,
    ) -> Result<(), StoreError> {
        match self.write(what, sql, values)? {
            0 => Err(StoreError::Missing { what }),
            _ => Ok(()),
        }
    }

    /// Every row that a query answers.
    fn rows<T>(
        &self,
        what: &'static str,
        sql: &str,
        values: impl rusqlite::Params,
        read: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, StoreError> {
        self.db
            .prepare_cached(sql)
            .and_then(|mut statement| statement.query_map(values, read)?.collect())
            .map_err(query(what))
    }

    /// The first row that a query answers.
    fn row<T>(
        &self,
        what: &'static str,
        sql: &str,
        values: impl rusqlite::Params,
        read: impl FnOnce(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, StoreError> {
        self.db
            .prepare_cached(sql)
            .and_then(|mut statement| statement.query_row(values, read).optional())
            .map_err(query(what))
    }
}

fn query(what: &'static str) -> impl Fn(rusqlite::Error) -> StoreError {
    move |source| match source.sqlite_error_code() {
        Some(ErrorCode::ConstraintViolation) if is_unique(&source) => {
            StoreError::Taken { what, source }
        }
        _ => StoreError::Query { what, source },
    }
}

fn is_unique(error: &rusqlite::Error) -> bool {
    use rusqlite::ffi::{SQLITE_CONSTRAINT_PRIMARYKEY, SQLITE_CONSTRAINT_UNIQUE};
    matches!(error, rusqlite::Error::SqliteFailure(e, _)
        if [SQLITE_CONSTRAINT_PRIMARYKEY, SQLITE_CONSTRAINT_UNIQUE].contains(&e.extended_code))
}

#[cfg(test)]
mod tests;
