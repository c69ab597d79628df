//! The fields of a command's object, read one by one, so that every error names its
//! field. A field that is null counts as absent.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde_json::{Map, Value};

use super::Fault;
use crate::container::Mode;
use crate::id::{NameError, NodeId, RequestId};
use crate::topic::{CONTROLLER, UNPARSED};

/// A command's object.
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    pub(super) fn read(payload: &[u8]) -> Result<Self, Fault> {
        if payload.is_empty() {
            return Err(Fault::Empty);
        }
        match serde_json::from_slice(payload).map_err(Fault::Json)? {
            Value::Object(fields) => Ok(Self(fields)),
            other => Err(Fault::NotAnObject { found: kind(&other) }),
        }
    }

    pub(super) fn id(&mut self) -> Result<RequestId, Fault> {
        let id: RequestId = self.name("id")?;
        if id.as_str() == UNPARSED {
            let why = format!("`{UNPARSED}` is where commands without an id are answered");
            return Err(Fault::Value { field: "id", why });
        }
        Ok(id)
    }

    pub(super) fn name<T: FromStr<Err = NameError>>(
        &mut self,
        field: &'static str,
    ) -> Result<T, Fault> {
        self.optional_name(field)?.ok_or(Fault::Missing { field })
    }

    pub(super) fn optional_name<T: FromStr<Err = NameError>>(
        &mut self,
        field: &'static str,
    ) -> Result<Option<T>, Fault> {
        let Some(text) = self.optional_text(field)? else { return Ok(None) };
        text.parse().map(Some).map_err(|why: NameError| value(field, &why))
    }

    pub(super) fn node(&mut self, field: &'static str) -> Result<Option<NodeId>, Fault> {
        let node: Option<NodeId> = self.optional_name(field)?;
        if node.as_ref().is_some_and(|node| node.as_str() == CONTROLLER) {
            return Err(value(field, &"no node is called `controller`"));
        }
        Ok(node)
    }

    pub(super) fn text(&mut self, field: &'static str) -> Result<String, Fault> {
        match self.optional_text(field)? {
            Some(text) if text.is_empty() => Err(value(field, &"it must not be empty")),
            Some(text) => Ok(text),
            None => Err(Fault::Missing { field }),
        }
    }

    pub(super) fn texts(&mut self, field: &'static str) -> Result<Vec<String>, Fault> {
        const EXPECTED: &str = "an array of strings";
        match self.take(field) {
            None => Ok(Vec::new()),
            Some(Value::Array(items)) => {
                items.into_iter().map(|item| text(field, EXPECTED, item)).collect()
            }
            Some(other) => Err(wrong(field, EXPECTED, &other)),
        }
    }

    pub(super) fn map(&mut self, field: &'static str) -> Result<BTreeMap<String, String>, Fault> {
        const EXPECTED: &str = "an object of strings";
        match self.take(field) {
            None => Ok(BTreeMap::new()),
            Some(Value::Object(entries)) => entries
                .into_iter()
                .map(|(key, item)| Ok((key, text(field, EXPECTED, item)?)))
                .collect(),
            Some(other) => Err(wrong(field, EXPECTED, &other)),
        }
    }

    pub(super) fn flag(&mut self, field: &'static str) -> Result<Option<bool>, Fault> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(other) => Err(wrong(field, "true or false", &other)),
        }
    }

    /// A whole number, at least one.
    pub(super) fn number(&mut self, field: &'static str) -> Result<Option<u64>, Fault> {
        let Some(found) = self.take(field) else { return Ok(None) };
        let Value::Number(number) = &found else {
            return Err(wrong(field, "a whole number", &found));
        };
        match number.as_u64() {
            Some(number) if number > 0 => Ok(Some(number)),
            _ => Err(value(field, &format!("{number} is not a whole number above zero"))),
        }
    }

    /// A number of cores, parts of one allowed.
    pub(super) fn nano_cpus(&mut self, field: &'static str) -> Result<Option<u64>, Fault> {
        let Some(found) = self.take(field) else { return Ok(None) };
        let Value::Number(number) = &found else {
            return Err(wrong(field, "a number of cores", &found));
        };
        match number.as_f64() {
            // Below a thousandth no engine makes a difference; above, no machine has it.
            Some(cores) if (0.001..=65_536.0).contains(&cores) =>
            {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "within the bounds just checked"
                )]
                Ok(Some((cores * 1e9).round() as u64))
            }
            _ => Err(value(field, &format!("{number} cores: give 0.001 to 65536"))),
        }
    }

    pub(super) fn mode(&mut self, field: &'static str) -> Result<Mode, Fault> {
        match self.optional_text(field)?.as_deref() {
            None => Ok(Mode::default()),
            Some("live") => Ok(Mode::Live),
            Some("plain") => Ok(Mode::Plain),
            Some("cold") => Ok(Mode::Cold),
            Some(other) => {
                Err(value(field, &format!("`{other}` is not a mode: live, plain or cold")))
            }
        }
    }

    fn optional_text(&mut self, field: &'static str) -> Result<Option<String>, Fault> {
        self.take(field).map(|found| text(field, "a string", found)).transpose()
    }

    fn take(&mut self, field: &'static str) -> Option<Value> {
        self.0.remove(field).filter(|found| !found.is_null())
    }
}

/// The id in a payload that is not JSON, if it is still to be seen: a caller whose
/// template broke should hear of it where it listens.
pub(super) fn salvage_id(payload: &[u8]) -> Option<RequestId> {
    let text = std::str::from_utf8(payload).ok()?;
    let (_, rest) = text.split_once("\"id\"")?;
    let rest = rest.trim_start().strip_prefix(':')?.trim_start().strip_prefix('"')?;
    let (id, _) = rest.split_once('"')?;
    id.parse().ok().filter(|id: &RequestId| id.as_str() != UNPARSED)
}

fn text(field: &'static str, expected: &'static str, found: Value) -> Result<String, Fault> {
    match found {
        Value::String(text) => Ok(text),
        other => Err(wrong(field, expected, &other)),
    }
}

fn wrong(field: &'static str, expected: &'static str, found: &Value) -> Fault {
    Fault::Type { field, expected, found: kind(found) }
}

fn value(field: &'static str, why: &dyn ToString) -> Fault {
    Fault::Value { field, why: why.to_string() }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
