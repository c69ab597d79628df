//! Between columns and the types that they hold.

use std::error::Error;
use std::str::FromStr;

use godwit_proto::id::{Epoch, Run};
use jiff::Timestamp;
use rusqlite::types::Type;
use rusqlite::{Result, Row};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The error for a column that does not hold what it should.
pub(super) fn damaged(error: impl Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, Type::Text, Box::new(error))
}

/// A TEXT column as the type whose `Display` was written.
pub(super) fn text<T>(row: &Row<'_>, column: &str) -> Result<T>
where
    T: FromStr<Err: Error + Send + Sync + 'static>,
{
    row.get_ref(column)?.as_str().map_err(damaged)?.parse().map_err(damaged)
}

/// As [`text`], of a column that may be null.
pub(super) fn text_or_none<T>(row: &Row<'_>, column: &str) -> Result<Option<T>>
where
    T: FromStr<Err: Error + Send + Sync + 'static>,
{
    let value = row.get_ref(column)?.as_str_or_null().map_err(damaged)?;
    value.map(str::parse).transpose().map_err(damaged)
}

/// A JSON column.
pub(super) fn json<T: DeserializeOwned>(row: &Row<'_>, column: &str) -> Result<T> {
    serde_json::from_str(row.get_ref(column)?.as_str().map_err(damaged)?).map_err(damaged)
}

/// As [`json`], of a column that may be null.
pub(super) fn json_or_none<T: DeserializeOwned>(row: &Row<'_>, column: &str) -> Result<Option<T>> {
    let value = row.get_ref(column)?.as_str_or_null().map_err(damaged)?;
    value.map(serde_json::from_str).transpose().map_err(damaged)
}

/// A value for a JSON column.
pub(super) fn to_json<T: Serialize>(value: &T) -> String {
    // Maps have string keys and numbers are finite in every type that is stored.
    serde_json::to_string(value).unwrap_or_else(|_| "null".into())
}

/// A time as it is stored.
pub(super) fn at(time: Timestamp) -> String {
    time.to_string()
}

/// The two columns of an epoch.
pub(super) fn epoch(row: &Row<'_>) -> Result<Epoch> {
    Ok(Epoch { generation: row.get("epoch_generation")?, counter: row.get("epoch_counter")? })
}

/// The two columns of a run, whose names begin with `prefix`.
///
/// SQLite's integers are signed: the nonce keeps its bits, not its value.
pub(super) fn run(row: &Row<'_>, prefix: &str) -> Result<Run> {
    let nonce: i64 = row.get(format!("{prefix}_nonce").as_str())?;
    Ok(Run {
        generation: row.get(format!("{prefix}_generation").as_str())?,
        nonce: nonce.cast_unsigned(),
    })
}
