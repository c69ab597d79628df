//! The whole store, read at the broker's start.

use std::collections::HashMap;
use std::num::{NonZeroU16, NonZeroU32};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use rusqlite::{Connection, Row};
use serde::{Deserialize, Serialize};

use super::{Entry, Head, StoreError, qos, unpack};
use crate::core::{ClientKey, Due, InFlight, Subscription, Will};
use crate::message::Message;

/// Everything that was kept.
#[derive(Debug, Default)]
pub(crate) struct Image {
    pub(crate) sessions: Vec<StoredSession>,
    pub(crate) subscriptions: Vec<(u64, ByteString, Subscription)>,
    /// In the order of their places.
    pub(crate) queued: Vec<(u64, Due)>,
    pub(crate) in_flight: Vec<(u64, InFlight)>,
    pub(crate) received: Vec<(u64, NonZeroU16)>,
    /// With the accounts that they count as.
    pub(crate) retained: Vec<(Arc<Message>, Option<ByteString>)>,
    /// No message had so high a number.
    pub(crate) next_message: u64,
}

/// What is kept of a session itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredSession {
    pub(crate) serial: u64,
    pub(crate) client: ClientKey,
    pub(crate) expiry_seconds: u32,
    pub(crate) ends_ms: Option<u64>,
    pub(crate) will: Option<Will>,
    pub(crate) will_at_ms: Option<u64>,
}

/// A will as it is written.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct FrozenWill {
    head: Head,
    payload: Vec<u8>,
    delay_seconds: u32,
}

impl Will {
    pub(super) fn frozen(&self) -> FrozenWill {
        let message = &self.message;
        FrozenWill {
            head: Head {
                topic: message.topic.clone(),
                qos: message.qos.value(),
                retain: message.retain,
                properties: message.properties.clone(),
                from: message.from,
                expires_ms: message.expires_ms,
            },
            payload: message.payload.to_vec(),
            delay_seconds: self.delay_seconds,
        }
    }
}

/// Reads everything.
pub(super) fn read(connection: &mut Connection, path: &Path) -> Result<Image, StoreError> {
    let failed = |error| match error {
        rusqlite::Error::FromSqlConversionFailure(..) => StoreError::Damaged { path: path.into() },
        source => StoreError::Sqlite { path: path.into(), source },
    };
    let mut image = Image { next_message: 1, ..Image::default() };
    image.fill(connection).map_err(failed)?;
    Ok(image)
}

impl Image {
    fn fill(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        // Of sessions that ended as the broker started.
        connection
            .execute("DELETE FROM message WHERE number NOT IN (SELECT message FROM queue)", [])?;
        let mut messages = HashMap::new();
        each(connection, "SELECT number, head, payload FROM message", |row| {
            let message = message(row, 0)?;
            messages.insert(message.number, Arc::new(message));
            Ok(())
        })?;
        let retained = "SELECT number, head, payload, account FROM retained ORDER BY topic";
        each(connection, retained, |row| {
            let account: Option<String> = row.get(3)?;
            self.retained.push((Arc::new(message(row, 0)?), account.map(Into::into)));
            Ok(())
        })?;
        let retained = self.retained.iter().map(|(message, _)| message);
        let numbers = messages.values().chain(retained).map(|message| message.number);
        self.next_message = numbers.max().unwrap_or(0) + 1;
        each(
            connection,
            "SELECT serial, account, client, expiry_seconds, ends_ms, will, will_at_ms
             FROM session ORDER BY serial",
            |row| {
                let account: Option<String> = row.get(1)?;
                let client: String = row.get(2)?;
                let will: Option<Vec<u8>> = row.get(5)?;
                self.sessions.push(StoredSession {
                    serial: number(row, 0)?,
                    client: (account.map(Into::into), client.into()),
                    expiry_seconds: row.get(3)?,
                    ends_ms: row.get::<_, Option<i64>>(4)?.map(i64::cast_unsigned),
                    will: will.map(|will| thaw(&will, 5)).transpose()?,
                    will_at_ms: row.get::<_, Option<i64>>(6)?.map(i64::cast_unsigned),
                });
                Ok(())
            },
        )?;
        each(
            connection,
            "SELECT serial, filter, options, id, is_checked FROM subscription",
            |row| {
                let subscription = Subscription {
                    options: unpack(row.get(2)?),
                    id: row.get::<_, Option<u32>>(3)?.and_then(NonZeroU32::new),
                    is_checked: row.get(4)?,
                };
                let filter = row.get::<_, String>(1)?.into();
                self.subscriptions.push((number(row, 0)?, filter, subscription));
                Ok(())
            },
        )?;
        each(
            connection,
            "SELECT serial, place, message, due, packet_id, has_arrived FROM queue
             ORDER BY serial, place",
            |row| {
                let serial = number(row, 0)?;
                let Some(message) = messages.get(&number(row, 2)?).cloned() else { return Ok(()) };
                let entry: Entry = decode(&row.get::<_, Vec<u8>>(3)?, 3)?;
                let due = Due {
                    place: number(row, 1)?,
                    message,
                    qos: qos(entry.qos),
                    retain: entry.retain,
                    subscriptions: entry.subscriptions,
                    share: entry.share,
                };
                let is_received = row.get(5)?;
                match row.get::<_, Option<u16>>(4)?.and_then(NonZeroU16::new) {
                    Some(packet_id) => {
                        self.in_flight.push((serial, InFlight { packet_id, due, is_received }));
                    }
                    None => self.queued.push((serial, due)),
                }
                Ok(())
            },
        )?;
        each(connection, "SELECT serial, id FROM received", |row| {
            if let Some(id) = NonZeroU16::new(row.get(1)?) {
                self.received.push((number(row, 0)?, id));
            }
            Ok(())
        })
    }
}

fn each(
    connection: &Connection,
    sql: &str,
    mut take: impl FnMut(&Row<'_>) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        take(row)?;
    }
    Ok(())
}

fn number(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(i64::cast_unsigned)
}

/// A message from the columns number, head and payload.
fn message(row: &Row<'_>, first: usize) -> rusqlite::Result<Message> {
    let head = decode(&row.get::<_, Vec<u8>>(first + 1)?, first + 1)?;
    Ok(whole(number(row, first)?, head, row.get(first + 2)?))
}

fn whole(number: u64, head: Head, payload: Vec<u8>) -> Message {
    Message {
        number,
        topic: head.topic,
        payload: Bytes::from(payload),
        qos: qos(head.qos),
        retain: head.retain,
        properties: head.properties,
        from: head.from,
        expires_ms: head.expires_ms,
    }
}

fn thaw(bytes: &[u8], column: usize) -> rusqlite::Result<Will> {
    let FrozenWill { head, payload, delay_seconds } = decode(bytes, column)?;
    Ok(Will { message: Arc::new(whole(0, head, payload)), delay_seconds })
}

fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8], column: usize) -> rusqlite::Result<T> {
    postcard::from_bytes(bytes).map_err(|error| {
        let kind = rusqlite::types::Type::Blob;
        rusqlite::Error::FromSqlConversionFailure(column, kind, Box::new(error))
    })
}
