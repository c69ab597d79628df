//! Operations as SQL.

use std::num::NonZeroU16;

use rusqlite::{Connection, Transaction, params};

use super::runs::Runs;
use super::{Batch, Entry, Head, Op, pack};
use crate::core::Due;
use crate::message::Message;

/// Writes the batches as one transaction: all of it or nothing.
pub(super) fn write(connection: &mut Connection, batches: &[Batch]) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    let mut ops = batches.iter().flat_map(|batch| &batch.ops).peekable();
    let mut runs = Runs::default();
    while let Some(op) = ops.next() {
        match (op, ops.peek()) {
            (Op::Queue { serial, due }, Some(Op::Send { serial: same, place, id }))
                if serial == same && due.place == *place =>
            {
                // Most are sent at once: one statement instead of two.
                queue(&transaction, *serial, due, Some(*id))?;
                ops.next();
            }
            _ => apply(&transaction, op, &mut runs)?,
        }
    }
    runs.apply(&transaction)?;
    transaction.commit()
}

fn apply(transaction: &Transaction<'_>, op: &Op, runs: &mut Runs) -> rusqlite::Result<()> {
    let run = |sql: &str, params: &[&dyn rusqlite::ToSql]| {
        transaction.prepare_cached(sql)?.execute(params).map(drop)
    };
    match op {
        Op::Session(session) => {
            let (account, client) = &session.client;
            let will = session.will.as_ref().map(|will| encode(&will.frozen())).transpose()?;
            run(
                "INSERT INTO session VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                 ON CONFLICT (serial) DO UPDATE SET expiry_seconds = ?4, ends_ms = ?5, will = ?6,
                     will_at_ms = ?7",
                params![
                    session.serial.cast_signed(),
                    account.as_deref(),
                    &**client,
                    session.expiry_seconds,
                    session.ends_ms.map(u64::cast_signed),
                    will,
                    session.will_at_ms.map(u64::cast_signed),
                ],
            )
        }
        Op::EndSession { serial } => {
            run("DELETE FROM session WHERE serial = ?1", params![serial.cast_signed()])
        }
        Op::Subscribe { serial, filter, subscription } => run(
            "INSERT OR REPLACE INTO subscription VALUES (?1, ?2, ?3, ?4, ?5)",
            params![
                serial.cast_signed(),
                &**filter,
                pack(subscription.options),
                subscription.id.map(|id| id.get()),
                subscription.is_checked,
            ],
        ),
        Op::Unsubscribe { serial, filter } => run(
            "DELETE FROM subscription WHERE serial = ?1 AND filter = ?2",
            params![serial.cast_signed(), &**filter],
        ),
        Op::Message(message) => {
            if runs.may_forget(message.number) {
                std::mem::take(runs).apply(transaction)?;
            }
            run(
                "INSERT INTO message VALUES (?1, ?2, ?3)",
                params![message.number.cast_signed(), head(message)?, &*message.payload],
            )
        }
        Op::Forget { number } => {
            runs.forget(*number);
            Ok(())
        }
        Op::Queue { serial, due } => queue(transaction, *serial, due, None),
        Op::Send { serial, place, id } => {
            runs.send(*serial, *place, id.get());
            Ok(())
        }
        Op::Arrive { serial, place } => run(
            "UPDATE queue SET has_arrived = 1 WHERE serial = ?1 AND place = ?2",
            params![serial.cast_signed(), place.cast_signed()],
        ),
        Op::Settle { serial, place } => {
            runs.settle(*serial, *place);
            Ok(())
        }
        Op::Receive { serial, id } => run(
            "INSERT OR IGNORE INTO received VALUES (?1, ?2)",
            params![serial.cast_signed(), id.get()],
        ),
        Op::Release { serial, id } => run(
            "DELETE FROM received WHERE serial = ?1 AND id = ?2",
            params![serial.cast_signed(), id.get()],
        ),
        Op::Retain { message, account } => run(
            "INSERT OR REPLACE INTO retained (topic, number, head, payload, account)
             VALUES (?1, ?2, ?3, ?4, ?5)",
            params![
                &*message.topic,
                message.number.cast_signed(),
                head(message)?,
                &*message.payload,
                account.as_deref(),
            ],
        ),
        Op::Unretain { topic } => run("DELETE FROM retained WHERE topic = ?1", params![&**topic]),
    }
}

/// A session's entry for a message, which may have been sent already.
fn queue(
    transaction: &Transaction<'_>,
    serial: u64,
    due: &Due,
    id: Option<NonZeroU16>,
) -> rusqlite::Result<()> {
    let entry = Entry {
        qos: due.qos.value(),
        retain: due.retain,
        subscriptions: due.subscriptions.clone(),
        share: due.share.clone(),
    };
    let mut insert = transaction.prepare_cached(
        "INSERT INTO queue (serial, place, message, due, packet_id) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    insert.execute(params![
        serial.cast_signed(),
        due.place.cast_signed(),
        due.message.number.cast_signed(),
        encode(&entry)?,
        id.map(NonZeroU16::get),
    ])?;
    Ok(())
}

fn head(message: &Message) -> rusqlite::Result<Vec<u8>> {
    encode(&Head {
        topic: message.topic.clone(),
        qos: message.qos.value(),
        retain: message.retain,
        properties: message.properties.clone(),
        from: message.from,
        expires_ms: message.expires_ms,
    })
}

fn encode(value: &impl serde::Serialize) -> rusqlite::Result<Vec<u8>> {
    postcard::to_stdvec(value)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}
