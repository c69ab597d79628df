//! What the agent knows after a crash: its promise and a row for each container.
//!
//! SQLite with `synchronous=FULL`: when a write returns, it is on disk. A ledger that
//! cannot be read is put aside and a new one begun, under a new incarnation; the
//! controller then takes nothing that this node says for granted.

use std::path::{Path, PathBuf};

use godwit_proto::id::{ContainerId, Life};
use godwit_proto::migration::{Promise, Record};
use rusqlite::{Connection, OptionalExtension, params};
use uuid::Uuid;

/// Why the ledger could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// SQLite or the disk refused.
    #[error("cannot {what} in the ledger {path}: free disk space or repair the disk")]
    Database {
        /// What was tried.
        what: &'static str,
        /// The ledger's file.
        path: PathBuf,
        /// SQLite's word.
        source: rusqlite::Error,
    },
    /// A row does not decode: the file was damaged, or written by a later version.
    #[error("a row of the ledger {path} does not decode: {source}")]
    Row {
        /// The ledger's file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A damaged ledger could not be put aside.
    #[error("cannot put the damaged ledger {path} aside")]
    PutAside {
        /// The ledger's file.
        path: PathBuf,
        /// The kernel's word.
        source: std::io::Error,
    },
}

/// The agent's durable memory.
#[derive(Debug)]
pub struct Ledger {
    connection: Connection,
    path: PathBuf,
}

/// What a ledger held when it was opened.
#[derive(Debug)]
pub struct Memory {
    /// The life that begins, or goes on.
    pub life: Life,
    /// The promise, of this life or an earlier one.
    pub promise: Option<Promise>,
    /// Every row.
    pub records: Vec<Record>,
    /// The machine lost its memory since the ledger was last open.
    pub rebooted: bool,
}

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS life (
        only INTEGER PRIMARY KEY CHECK (only = 1),
        incarnation TEXT NOT NULL, boot TEXT NOT NULL, promise TEXT
    ) STRICT;
    CREATE TABLE IF NOT EXISTS record (container TEXT PRIMARY KEY, row TEXT NOT NULL) STRICT;
";

/// A container has interfaces, with addresses of either family, where it had one address.
const INTERFACES: &str = "
    UPDATE record SET row = json_remove(
        json_set(row, '$.spec.interfaces', json_array(json_object(
            'mac', row -> '$.spec.address.mac',
            'addresses',
            json_array((row ->> '$.spec.address.ip') || '/' || (row ->> '$.spec.address.prefix')),
            'gateways', json(iif(row ->> '$.spec.address.gateway' IS NULL, '[]',
                                 json_array(row ->> '$.spec.address.gateway')))
        ))),
        '$.spec.address')
    WHERE json_type(row, '$.spec.address') IS NOT NULL;
";

impl Ledger {
    /// Opens the ledger at `path` for a machine in boot `boot`, or begins a new one.
    ///
    /// # Errors
    /// [`LedgerError::Database`] when the disk refuses, [`LedgerError::PutAside`] when a
    /// damaged file stands in the way.
    pub fn open(path: &Path, boot: Uuid) -> Result<(Self, Memory), LedgerError> {
        match Self::open_as_is(path, boot) {
            Err(error) if error.is_damage() => {
                let aside = path.with_extension(format!("damaged-{}", Uuid::new_v4().simple()));
                tracing::error!(
                    ledger = %path.display(), aside = %aside.display(), %error,
                    "the ledger is damaged: it is put aside and a new incarnation begins"
                );
                std::fs::rename(path, &aside)
                    .map_err(|source| LedgerError::PutAside { path: path.into(), source })?;
                for suffix in ["-wal", "-shm"] {
                    let mut name = path.as_os_str().to_owned();
                    name.push(suffix);
                    let _ = std::fs::remove_file(PathBuf::from(name));
                }
                Self::open_as_is(path, boot)
            }
            other => other,
        }
    }

    fn open_as_is(path: &Path, boot: Uuid) -> Result<(Self, Memory), LedgerError> {
        let failed =
            |what| move |source| LedgerError::Database { what, path: path.to_path_buf(), source };
        let connection = Connection::open(path).map_err(failed("open a file"))?;
        connection
            .execute_batch("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;")
            .and_then(|()| connection.execute_batch(SCHEMA))
            .and_then(|()| connection.execute_batch(INTERFACES))
            .map_err(failed("make tables"))?;
        let ledger = Self { connection, path: path.to_path_buf() };
        let memory = ledger.recall(boot)?;
        Ok((ledger, memory))
    }

    fn recall(&self, boot: Uuid) -> Result<Memory, LedgerError> {
        let known = self
            .connection
            .query_row("SELECT incarnation, boot, promise FROM life", [], |row| {
                Ok((
                    row.get::<_, String>(0)?,
                    row.get::<_, String>(1)?,
                    row.get::<_, Option<String>>(2)?,
                ))
            })
            .optional()
            .map_err(self.failed("read the life"))?;
        let fresh = || (Uuid::new_v4().to_string(), String::new(), None);
        let is_new = known.is_none();
        let (incarnation, last_boot, promise) = known.unwrap_or_else(fresh);
        self.connection
            .execute(
                "INSERT INTO life (only, incarnation, boot) VALUES (1, ?1, ?2)
                 ON CONFLICT (only) DO UPDATE SET boot = ?2",
                params![incarnation, boot.to_string()],
            )
            .map_err(self.failed("write the life"))?;
        let incarnation = incarnation.parse().map_err(|_| self.damaged("incarnation"))?;
        let promise = promise.map(|text| self.decode(&text)).transpose()?;
        let rows: Vec<String> = self
            .connection
            .prepare("SELECT row FROM record ORDER BY container")
            .and_then(|mut all| all.query_map([], |row| row.get(0))?.collect())
            .map_err(self.failed("read the rows"))?;
        let records = rows.iter().map(|row| self.decode(row)).collect::<Result<_, _>>()?;
        Ok(Memory {
            life: Life { boot, incarnation },
            promise,
            records,
            rebooted: !is_new && last_boot != boot.to_string(),
        })
    }

    /// Writes a container's row; on disk when this returns.
    ///
    /// # Errors
    /// [`LedgerError::Database`]; the row is then as it was before.
    pub fn persist(&self, record: &Record) -> Result<(), LedgerError> {
        let row = self.encode(record)?;
        self.connection
            .prepare_cached(
                "INSERT INTO record (container, row) VALUES (?1, ?2)
                 ON CONFLICT (container) DO UPDATE SET row = ?2",
            )
            .and_then(|mut write| write.execute(params![record.spec.id.to_string(), row]))
            .map(drop)
            .map_err(self.failed("write a row"))
    }

    /// Writes the promise; on disk when this returns.
    ///
    /// # Errors
    /// [`LedgerError::Database`]; the promise is then as it was before.
    pub fn promise(&self, promise: &Promise) -> Result<(), LedgerError> {
        let promise = self.encode(promise)?;
        self.connection
            .execute("UPDATE life SET promise = ?1", [promise])
            .map(drop)
            .map_err(self.failed("write the promise"))
    }

    /// How many rows there are, for those who look for leftovers.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub fn rows(&self) -> Result<Vec<ContainerId>, LedgerError> {
        let ids: Vec<String> = self
            .connection
            .prepare("SELECT container FROM record")
            .and_then(|mut all| all.query_map([], |row| row.get(0))?.collect())
            .map_err(self.failed("read the rows"))?;
        Ok(ids.iter().filter_map(|id| id.parse().ok()).collect())
    }

    fn encode<T: serde::Serialize>(&self, value: &T) -> Result<String, LedgerError> {
        serde_json::to_string(value)
            .map_err(|source| LedgerError::Row { path: self.path.clone(), source })
    }

    fn decode<T: serde::de::DeserializeOwned>(&self, text: &str) -> Result<T, LedgerError> {
        serde_json::from_str(text)
            .map_err(|source| LedgerError::Row { path: self.path.clone(), source })
    }

    fn damaged(&self, what: &str) -> LedgerError {
        let source = serde::de::Error::custom(format!("the {what} is not readable"));
        LedgerError::Row { path: self.path.clone(), source }
    }

    fn failed(&self, what: &'static str) -> impl FnOnce(rusqlite::Error) -> LedgerError + '_ {
        move |source| LedgerError::Database { what, path: self.path.clone(), source }
    }
}

impl LedgerError {
    /// The file itself is wrong, not the disk beneath it.
    fn is_damage(&self) -> bool {
        match self {
            Self::Row { .. } => true,
            Self::Database { source, .. } => matches!(
                source.sqlite_error_code(),
                Some(rusqlite::ErrorCode::NotADatabase | rusqlite::ErrorCode::DatabaseCorrupt)
            ),
            Self::PutAside { .. } => false,
        }
    }
}

/// The machine's boot as the ledger counts it: the kernel's boot id, and the life of
/// the run directory, which a host in namespaces loses without the kernel's boot.
///
/// # Errors
/// When the run directory cannot be written.
pub fn boot_id(rundir: &Path) -> std::io::Result<Uuid> {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let kernel = kernel.trim();
    let file = rundir.join("boot");
    if let Ok(known) = std::fs::read_to_string(&file)
        && let Some((boot, own)) = known.split_once(' ')
        && boot == kernel
        && let Ok(own) = own.trim().parse()
    {
        return Ok(own);
    }
    let own = Uuid::new_v4();
    std::fs::write(&file, format!("{kernel} {own}\n"))?;
    Ok(own)
}

#[cfg(test)]
mod tests {
    use super::*;
    use godwit_proto::container::Interface;
    use godwit_proto::id::Run;
    use godwit_proto::migration::{Phase, Role};

    fn boot(n: u128) -> Uuid {
        Uuid::from_u128(n)
    }

    #[test]
    fn a_promise_outlives_the_process_and_a_boot_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.db");
        let (ledger, memory) = Ledger::open(&path, boot(1)).unwrap();
        assert!(!memory.rebooted, "a new ledger has no earlier boot");
        let run = Run { generation: 4, nonce: 9 };
        let promise = Promise { run, life: memory.life, since: 4 };
        ledger.promise(&promise).unwrap();
        drop(ledger);

        let (ledger, again) = Ledger::open(&path, boot(1)).unwrap();
        assert_eq!((again.life, again.promise), (memory.life, Some(promise)));
        drop(ledger);
        let (_, later) = Ledger::open(&path, boot(2)).unwrap();
        assert!(later.rebooted);
        assert_eq!(later.life.incarnation, memory.life.incarnation);
    }

    #[test]
    fn what_an_earlier_agent_wrote_of_an_address_is_an_interface() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.db");
        let (ledger, before) = Ledger::open(&path, boot(1)).unwrap();
        for (gateway, gateways) in [("null", &[][..]), ("\"10.77.0.1\"", &["10.77.0.1"])] {
            let mut record = Record {
                spec: crate::engine::testing::spec(),
                epoch: godwit_proto::id::Epoch { generation: 1, counter: 1 },
                phase: Phase::Active,
                role: Role::Owner,
                peer: None,
                mode: Default::default(),
                image: None,
                bwlimit: None,
                grace_ms: None,
                drops_volumes: false,
                reason: None,
            };
            record.spec.interfaces.clear();
            let now = serde_json::to_string(&record).unwrap();
            let old = format!(
                r#""address":{{"ip":"10.77.1.5","prefix":16,"mac":[2,103,10,77,1,5],"gateway":{gateway}}}"#
            );
            let row = now.replace(r#""interfaces":[]"#, &old);
            assert_ne!(row, now);
            let id = record.spec.id.to_string();
            let insert = "INSERT OR REPLACE INTO record (container, row) VALUES (?1, ?2)";
            ledger.connection.execute(insert, params![id, row]).unwrap();

            let (_, memory) = Ledger::open(&path, boot(1)).unwrap();
            assert_eq!(memory.life, before.life, "it was put aside");
            record.spec.interfaces = vec![Interface {
                mac: [2, 103, 10, 77, 1, 5],
                addresses: vec!["10.77.1.5/16".parse().unwrap()],
                gateways: gateways.iter().map(|text| text.parse().unwrap()).collect(),
                overlay: None,
            }];
            assert_eq!(memory.records, [record.clone()]);
        }
    }

    #[test]
    fn a_damaged_ledger_is_put_aside_and_a_new_incarnation_begins() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.db");
        let (ledger, before) = Ledger::open(&path, boot(1)).unwrap();
        drop(ledger);
        std::fs::write(&path, b"this is not a database, not at all, and long enough to be read")
            .unwrap();
        let (_, after) = Ledger::open(&path, boot(1)).unwrap();
        assert_ne!(after.life.incarnation, before.life.incarnation);
        let kept = std::fs::read_dir(dir.path()).unwrap();
        let aside =
            kept.filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().contains("damaged"));
        assert_eq!(aside.count(), 1, "the damaged file is kept for whoever looks into it");
    }
}
