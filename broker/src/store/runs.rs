//! What is done to many rows in a row, as one statement.
//!
//! A client that takes what was queued for it is sent one place after the other, and settles them in
//! that order. These changes are made at the end of their transaction, or before a row comes back that
//! one of them takes away.

use rusqlite::{Transaction, params};

/// The runs of one transaction, in the order in which they are applied.
#[derive(Debug, Default)]
pub(super) struct Runs {
    sent: Vec<Sent>,
    settled: Vec<Places>,
    forgotten: Vec<(u64, u64)>,
}

/// Neighbours in one session's queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Places {
    serial: u64,
    first: u64,
    last: u64,
}

/// Neighbours that were sent with ids that are neighbours as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sent {
    places: Places,
    first_id: u16,
}

impl Places {
    fn one(serial: u64, place: u64) -> Self {
        Self { serial, first: place, last: place }
    }

    /// Grows by a place, if that is next.
    fn grow(&mut self, serial: u64, place: u64) -> bool {
        let is_next = self.serial == serial && self.last + 1 == place;
        self.last += u64::from(is_next);
        is_next
    }
}

impl Sent {
    fn grow(&mut self, serial: u64, place: u64, id: u16) -> bool {
        let count = self.places.last - self.places.first + 1;
        u64::from(self.first_id) + count == u64::from(id) && self.places.grow(serial, place)
    }
}

impl Runs {
    /// The entry at that place is under way with that id.
    pub(super) fn send(&mut self, serial: u64, place: u64, id: u16) {
        if !self.sent.last_mut().is_some_and(|run| run.grow(serial, place, id)) {
            self.sent.push(Sent { places: Places::one(serial, place), first_id: id });
        }
    }

    /// The session is done with the entry at that place.
    pub(super) fn settle(&mut self, serial: u64, place: u64) {
        if !self.settled.last_mut().is_some_and(|run| run.grow(serial, place)) {
            self.settled.push(Places::one(serial, place));
        }
    }

    /// No queue has that message any more.
    pub(super) fn forget(&mut self, number: u64) {
        match self.forgotten.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => self.forgotten.push((number, number)),
        }
    }

    /// True where that message may be one of those that are forgotten: numbers rise, and few are kept
    /// again.
    pub(super) fn may_forget(&self, number: u64) -> bool {
        self.forgotten.iter().any(|(_, last)| number <= *last)
    }

    /// Makes the changes.
    pub(super) fn apply(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        let mut send = transaction.prepare_cached(
            "UPDATE queue SET packet_id = place - ?2 + ?4
             WHERE serial = ?1 AND place BETWEEN ?2 AND ?3",
        )?;
        for Sent { places: Places { serial, first, last }, first_id } in &self.sent {
            let (serial, first) = (serial.cast_signed(), first.cast_signed());
            send.execute(params![serial, first, last.cast_signed(), first_id])?;
        }
        let mut settle = transaction
            .prepare_cached("DELETE FROM queue WHERE serial = ?1 AND place BETWEEN ?2 AND ?3")?;
        for Places { serial, first, last } in &self.settled {
            let (serial, first) = (serial.cast_signed(), first.cast_signed());
            settle.execute(params![serial, first, last.cast_signed()])?;
        }
        let mut forget =
            transaction.prepare_cached("DELETE FROM message WHERE number BETWEEN ?1 AND ?2")?;
        for (first, last) in &self.forgotten {
            forget.execute(params![first.cast_signed(), last.cast_signed()])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use rusqlite::Connection;

    use super::*;

    /// What a queue's entries say, and the messages that are kept.
    type Rows = (BTreeMap<(i64, i64), Option<u16>>, Vec<i64>);

    fn rows(connection: &Connection) -> rusqlite::Result<Rows> {
        let entries = connection
            .prepare("SELECT serial, place, packet_id FROM queue")?
            .query_map([], |row| Ok(((row.get(0)?, row.get(1)?), row.get(2)?)))?
            .collect::<Result<_, _>>()?;
        let messages = connection
            .prepare("SELECT number FROM message ORDER BY number")?
            .query_map([], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        Ok((entries, messages))
    }

    fn check(changes: Vec<(u8, i64, i64, u16)>) -> rusqlite::Result<(Rows, Rows)> {
        let mut connection = Connection::open_in_memory()?;
        connection.execute_batch(super::super::SCHEMA)?;
        let (mut entries, mut messages) = (BTreeMap::new(), Vec::new());
        connection.execute_batch("PRAGMA foreign_keys = OFF")?;
        for serial in 1..=2 {
            for place in 1..=12 {
                let sql = "INSERT INTO queue (serial, place, message, due) VALUES (?1, ?2, 0, x'')";
                connection.execute(sql, params![serial, place])?;
                entries.insert((serial, place), None);
            }
        }
        for number in 1..=12 {
            connection.execute("INSERT INTO message VALUES (?1, x'', x'')", params![number])?;
            messages.push(number);
        }
        let mut runs = Runs::default();
        for (kind, serial, first, id) in changes {
            // Few come alone.
            for step in 0..3_u16 {
                let place = first + i64::from(step);
                let (session, at) = (serial.cast_unsigned(), place.cast_unsigned());
                match kind {
                    0 if entries.get(&(serial, place)) == Some(&None) => {
                        let id = id + step;
                        runs.send(session, at, id);
                        entries.insert((serial, place), Some(id));
                    }
                    1 if entries.remove(&(serial, place)).is_some() => runs.settle(session, at),
                    2 if messages.contains(&place) => {
                        messages.retain(|number| *number != place);
                        runs.forget(at);
                    }
                    _ => {}
                }
            }
        }
        let transaction = connection.transaction()?;
        runs.apply(&transaction)?;
        transaction.commit()?;
        Ok((rows(&connection)?, (entries, messages)))
    }

    proptest! {
        #[test]
        fn runs_change_what_each_of_their_changes_would(
            changes in prop::collection::vec((0..3_u8, 1..=2_i64, 1..=12_i64, 1..9_u16), 0..30),
        ) {
            let (found, expected) = check(changes).expect("SQLite works");
            prop_assert_eq!(found, expected);
        }
    }
}
