//! What outlives the broker: sessions, their queues, retained messages and wills, in SQLite.
//!
//! A thread of its own writes [`Op`]s in batches; all that wait are one transaction. The journal is
//! a write-ahead log: a commit survives the broker's death at any moment, and with
//! [`Durability::Power`] the machine's.

mod load;
mod runs;
mod write;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use bytestring::ByteString;
use rmqtt_codec::types::QoS;
use rmqtt_codec::v5::{PublishProperties, RetainHandling, SubscriptionOptions};
use rusqlite::Connection;
use rusqlite_migration::{M, Migrations};
use serde::{Deserialize, Serialize};
use std::num::{NonZeroU16, NonZeroU32};
use tokio::sync::mpsc as channel;

use crate::config::Durability;
use crate::core::{Due, NEVER, Session, Subscription};
use crate::message::Message;
use crate::metrics::Metrics;

pub(crate) use self::load::{Image, StoredSession};

/// How long a failed commit waits until it is tried again.
const AGAIN: Duration = Duration::from_millis(500);
/// The write-ahead log is folded into the database at so many pages of 4 KiB.
const CHECKPOINT_PAGES: u32 = 4096;

const SCHEMA: &str = "
CREATE TABLE session (
    serial INTEGER PRIMARY KEY,
    account TEXT,
    client TEXT NOT NULL,
    expiry_seconds INTEGER NOT NULL,
    ends_ms INTEGER,
    will BLOB,
    will_at_ms INTEGER,
    UNIQUE (account, client)
) STRICT;
CREATE TABLE subscription (
    serial INTEGER NOT NULL REFERENCES session ON DELETE CASCADE,
    filter TEXT NOT NULL,
    options INTEGER NOT NULL,
    id INTEGER,
    is_checked INTEGER NOT NULL,
    PRIMARY KEY (serial, filter)
) STRICT, WITHOUT ROWID;
CREATE TABLE message (
    number INTEGER PRIMARY KEY,
    head BLOB NOT NULL,
    payload BLOB NOT NULL
) STRICT;
CREATE TABLE queue (
    serial INTEGER NOT NULL REFERENCES session ON DELETE CASCADE,
    place INTEGER NOT NULL,
    message INTEGER NOT NULL,
    due BLOB NOT NULL,
    packet_id INTEGER,
    has_arrived INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (serial, place)
) STRICT, WITHOUT ROWID;
CREATE TABLE received (
    serial INTEGER NOT NULL REFERENCES session ON DELETE CASCADE,
    id INTEGER NOT NULL,
    PRIMARY KEY (serial, id)
) STRICT, WITHOUT ROWID;
CREATE TABLE retained (
    topic TEXT PRIMARY KEY,
    number INTEGER NOT NULL,
    head BLOB NOT NULL,
    payload BLOB NOT NULL
) STRICT, WITHOUT ROWID;
";

/// Who has a message kept: it counts as that account's.
const ACCOUNTS_OF_RETAINED: &str = "ALTER TABLE retained ADD COLUMN account TEXT";

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite cannot open or read it.
    #[error("cannot use the store {path}: is the disk full, or the file another program's?")]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// It was written by a newer broker.
    #[error("the store {path} cannot be brought to this version: use the broker that wrote it")]
    Version {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rusqlite_migration::Error,
    },
    /// What it says of a message cannot be read.
    #[error("the store {path} is damaged: move it away to begin with an empty one")]
    Damaged {
        /// The file.
        path: PathBuf,
    },
}

/// One change of what is kept.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Session(Box<StoredSession>),
    EndSession { serial: u64 },
    Subscribe { serial: u64, filter: ByteString, subscription: Subscription },
    Unsubscribe { serial: u64, filter: ByteString },
    Message(Arc<Message>),
    Forget { number: u64 },
    Queue { serial: u64, due: Due },
    Send { serial: u64, place: u64, id: NonZeroU16 },
    Arrive { serial: u64, place: u64 },
    Settle { serial: u64, place: u64 },
    Receive { serial: u64, id: NonZeroU16 },
    Release { serial: u64, id: NonZeroU16 },
    Retain { message: Arc<Message>, account: Option<ByteString> },
    Unretain { topic: ByteString },
}

impl Op {
    /// What is kept of a session itself.
    pub(crate) fn session(session: &Session) -> Self {
        Self::Session(Box::new(StoredSession {
            serial: session.serial,
            client: session.client.clone(),
            expiry_seconds: session.expiry_seconds,
            ends_ms: session.ends_ms,
            will: session.will.clone(),
            will_at_ms: session.will_at_ms,
        }))
    }
}

/// A batch of changes, told when it is kept.
struct Batch {
    number: u64,
    ops: Vec<Op>,
}

/// The store of one broker, open.
#[derive(Debug)]
pub(crate) struct Store {
    batches: mpsc::Sender<Batch>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Store {
    /// Opens or makes the store, and reads all of it. Each batch's number comes out of the
    /// receiver once everything up to it is kept.
    ///
    /// # Errors
    /// When the file cannot be opened or is not understood.
    pub(crate) fn open(
        path: &Path,
        durability: Durability,
        metrics: Arc<Metrics>,
    ) -> Result<(Self, Image, channel::UnboundedReceiver<u64>), StoreError> {
        let mut connection = connect(path, durability)?;
        let image = load::read(&mut connection, path)?;
        let (batches, queue) = mpsc::channel();
        let (kept, receiver) = channel::unbounded_channel();
        let thread = thread::Builder::new()
            .name("broker-store".into())
            .spawn(move || keep(&mut connection, &queue, &kept, &metrics))
            .map_err(|error| StoreError::Sqlite {
                path: path.into(),
                source: rusqlite::Error::ToSqlConversionFailure(Box::new(error)),
            })?;
        Ok((Self { batches, thread: Some(thread) }, image, receiver))
    }

    /// Has a batch written after those before it.
    pub(crate) fn write(&self, number: u64, ops: Vec<Op>) {
        // The thread ends with this value and no sooner.
        let _ = self.batches.send(Batch { number, ops });
    }
}

impl Drop for Store {
    /// Returns once everything is written.
    fn drop(&mut self) {
        self.batches = mpsc::channel().0;
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

fn connect(path: &Path, durability: Durability) -> Result<Connection, StoreError> {
    let sqlite = |source| StoreError::Sqlite { path: path.into(), source };
    let mut connection = Connection::open(path).map_err(sqlite)?;
    let synchronous = match durability {
        Durability::Process => "NORMAL",
        Durability::Power => "FULL",
    };
    for (name, value) in
        [("journal_mode", "WAL"), ("synchronous", synchronous), ("foreign_keys", "ON")]
    {
        connection.pragma_update(None, name, value).map_err(sqlite)?;
    }
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES).map_err(sqlite)?;
    Migrations::new(vec![M::up(SCHEMA), M::up(ACCOUNTS_OF_RETAINED)])
        .to_latest(&mut connection)
        .map_err(|source| StoreError::Version { path: path.into(), source })?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

/// Writes batches until nobody sends any more.
fn keep(
    connection: &mut Connection,
    queue: &mpsc::Receiver<Batch>,
    kept: &channel::UnboundedSender<u64>,
    metrics: &Metrics,
) {
    while let Ok(first) = queue.recv() {
        let mut batches = vec![first];
        batches.extend(queue.try_iter());
        let (mut is_said, begun) = (false, Instant::now());
        // Nobody is told of what is not kept: they wait until there is room again.
        while let Err(error) = write::write(connection, &batches) {
            if !is_said {
                tracing::error!(%error, "nothing is acknowledged until the store can be written to");
                is_said = true;
            }
            metrics.commit_failed();
            thread::sleep(AGAIN);
        }
        metrics.committed(begun.elapsed());
        if let Some(last) = batches.last() {
            // Nobody waits for it when the broker stops.
            let _ = kept.send(last.number);
        }
    }
}

/// Of a message everything but its payload.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    topic: ByteString,
    qos: u8,
    retain: bool,
    properties: Option<Box<PublishProperties>>,
    from: u64,
    expires_ms: Option<u64>,
}

/// Of a queue's entry what is no column.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    qos: u8,
    retain: bool,
    subscriptions: Vec<NonZeroU32>,
    share: Option<(ByteString, ByteString)>,
}

fn qos(value: u8) -> QoS {
    QoS::try_from(value).unwrap_or(QoS::AtLeastOnce)
}

/// Subscription options as the standard packs them.
fn pack(options: SubscriptionOptions) -> u8 {
    options.qos.value()
        | u8::from(options.no_local) << 2
        | u8::from(options.retain_as_published) << 3
        | u8::from(options.retain_handling) << 4
}

fn unpack(bits: u8) -> SubscriptionOptions {
    SubscriptionOptions {
        qos: qos(bits & 3),
        no_local: bits & 4 != 0,
        retain_as_published: bits & 8 != 0,
        retain_handling: RetainHandling::try_from(bits >> 4 & 3)
            .unwrap_or(RetainHandling::AtSubscribe),
    }
}

/// A session that never ends by itself has no time of its end.
const _: () = assert!(NEVER == u32::MAX);
