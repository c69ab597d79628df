//! Standard output: tables for people, the controller's JSON or templates for programs.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::str::FromStr;
use std::sync::Arc;

use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table, presets};
use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior, escape_formatter};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::Failure;
use crate::human;

/// How results are printed.
#[derive(Debug, Clone)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// The controller's own objects.
    Json,
    /// A template, filled in for each object.
    Template(Template),
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "table" => Ok(Self::Table),
            "json" => Ok(Self::Json),
            _ if text.contains("{{") || text.contains("{%") => {
                Template::new(text).map(Self::Template)
            }
            _ => {
                Err("it is neither `table` nor `json` nor a template like '{{ name }}'".to_owned())
            }
        }
    }
}

/// A compiled template. A field that the object lacks is an error, not an empty string.
#[derive(Clone)]
pub(crate) struct Template(Arc<Environment<'static>>);

const TEMPLATE: &str = "format";

/// What stands for a value that is not known.
const UNKNOWN: &str = "-";

impl Template {
    fn new(text: &str) -> Result<Self, String> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_formatter(|out, state, value| match value.is_none() {
            true => Ok(out.write_str(UNKNOWN)?),
            false => escape_formatter(out, state, value),
        });
        environment.add_filter("size", human::size);
        environment.add_filter("duration", human::duration);
        // Shells pass `\t` and `\n` on as they are.
        let text = text.replace("\\t", "\t").replace("\\n", "\n");
        match environment.add_template_owned(TEMPLATE, text.clone()) {
            Ok(()) => Ok(Self(Arc::new(environment))),
            Err(_) if text.contains("{{.") || text.contains("{{ .") => {
                Err("templates are Jinja, not Go: write {{ name }} instead of {{.Name}}".to_owned())
            }
            Err(error) => Err(error.to_string()),
        }
    }

    fn fill(&self, object: &Value) -> Result<String, Failure> {
        let filled =
            self.0.get_template(TEMPLATE).and_then(|template| template.render(Serde(object)));
        filled.map_err(|error| Failure::Usage {
            message: format!("the template does not fit: {error}"),
            remedy: object.as_object().map(|fields| {
                let names: Vec<_> = fields.keys().map(String::as_str).collect();
                format!("one of {}", names.join(", "))
            }),
        })
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Template")
    }
}

/// Standard output.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Screen {
    colours: bool,
}

impl Screen {
    /// The screen as the terminal, the environment and `--no-color` want it.
    pub(crate) fn new(no_color: bool) -> Self {
        let unwanted = no_color
            || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self { colours: !unwanted && io::stdout().is_terminal() }
    }

    /// Prints a line.
    pub(crate) fn line(self, text: &str) -> Result<(), Failure> {
        self.bytes(format!("{text}\n").as_bytes())
    }

    /// Prints bytes as they are.
    pub(crate) fn bytes(self, bytes: &[u8]) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(|source| {
            if source.kind() == io::ErrorKind::BrokenPipe {
                Failure::OutputClosed
            } else {
                Failure::Io { what: "write to standard output".to_owned(), source }
            }
        })
    }

    /// Prints many objects; `row` turns one into its cells under `header`.
    pub(crate) fn list<T: DeserializeOwned, const N: usize>(
        self,
        format: &Format,
        objects: &[Value],
        header: [&str; N],
        row: impl Fn(T) -> [Cell; N],
    ) -> Result<(), Failure> {
        match format {
            Format::Json => self.line(&format!("{:#}", Value::Array(objects.to_vec()))),
            Format::Template(template) => self.filled(template, objects),
            Format::Table => {
                let mut rows = Vec::with_capacity(objects.len());
                for object in objects {
                    rows.push(row(read(object)?));
                }
                self.line(&self.table(Some(header), rows))
            }
        }
    }

    /// Prints whole objects: JSON, unless a template picks from it.
    pub(crate) fn objects(self, format: &Format, objects: &[Value]) -> Result<(), Failure> {
        match format {
            Format::Template(template) => self.filled(template, objects),
            Format::Table | Format::Json => {
                self.line(&format!("{:#}", Value::Array(objects.to_vec())))
            }
        }
    }

    /// Prints one object; `words` tells it to people.
    pub(crate) fn object(
        self,
        format: &Format,
        object: &Value,
        words: impl FnOnce() -> Result<String, Failure>,
    ) -> Result<(), Failure> {
        match format {
            Format::Json => self.line(&format!("{object:#}")),
            Format::Template(template) => self.line(&template.fill(object)?),
            Format::Table => self.line(&words()?),
        }
    }

    /// Prints one object on one line; `words` tells it to people, or keeps silent about it.
    pub(crate) fn event(
        self,
        format: &Format,
        object: &Value,
        words: impl FnOnce() -> Result<Option<String>, Failure>,
    ) -> Result<(), Failure> {
        match format {
            Format::Json => self.line(&object.to_string()),
            Format::Template(template) => self.line(&template.fill(object)?),
            Format::Table => words()?.map_or(Ok(()), |words| self.line(&words)),
        }
    }

    /// Lays out a table without lines, as podman does.
    pub(crate) fn table<const N: usize>(
        self,
        header: Option<[&str; N]>,
        rows: Vec<[Cell; N]>,
    ) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        if self.colours {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        if let Some(header) = header {
            table.set_header(header.map(|title| Cell::new(title).add_attribute(Attribute::Bold)));
        }
        table.add_rows(rows);
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        let lines: Vec<_> = table.lines().map(|line| line.trim_end().to_owned()).collect();
        lines.join("\n")
    }

    fn filled(self, template: &Template, objects: &[Value]) -> Result<(), Failure> {
        objects.iter().try_for_each(|object| self.line(&template.fill(object)?))
    }
}

/// Reads the controller's object as one that this program knows.
pub(crate) fn read<T: DeserializeOwned>(object: &Value) -> Result<T, Failure> {
    T::deserialize(object).map_err(|error| Failure::Failed {
        message: format!("the controller's answer is not understood: {error}"),
        remedy: Some("compare the versions with `godwit version`".to_owned()),
    })
}

/// A cell of plain text; what is not known is a dash.
pub(crate) fn cell(text: impl ToString) -> Cell {
    let text = text.to_string();
    Cell::new(if text.is_empty() { UNKNOWN } else { &text })
}

/// A cell that may be unknown.
pub(crate) fn maybe<T>(value: Option<T>, words: impl FnOnce(T) -> String) -> Cell {
    cell(value.map(words).unwrap_or_default())
}

/// A state, coloured by whether it is well.
pub(crate) fn state(state: &str, text: &str) -> Cell {
    let colour = match state {
        "running" | "online" | "moved" => Color::Green,
        "failed" | "lost" | "fenced" | "in-doubt" | "rolled-back" => Color::Red,
        "stopped" | "exited" | "offline" | "unjoined" => Color::Reset,
        _ => Color::Yellow,
    };
    cell(text).fg(colour)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fill(template: &str, object: &Value) -> Result<String, String> {
        let template = Template::new(template)?;
        template.fill(object).map_err(|failure| failure.to_string())
    }

    #[test]
    fn a_template_fills_in_fields_and_knows_sizes() {
        let object = json!({"name": "counter", "bytes": 68_157_440, "ms": 1900, "gone": null});
        let line = fill(r"{{ name }}\t{{ bytes|size }}\t{{ ms|duration }}\t{{ gone }}", &object);
        assert_eq!(line.as_deref(), Ok("counter\t68.16 MB\t1.90 s\t-"));
    }

    #[test]
    fn a_field_that_is_not_there_is_an_error() {
        let error = fill("{{ nmae }}", &json!({"name": "counter"}));
        assert!(error.is_err_and(|error| error.contains("undefined")));
    }

    #[test]
    fn formats_that_would_print_nonsense_are_refused() {
        for (text, hint) in [("yaml", "neither"), ("{{.Name}}", "Jinja"), ("{{ name", "syntax")] {
            let Err(error) = text.parse::<Format>() else { panic!("{text} was taken") };
            assert!(error.contains(hint), "{error}");
        }
    }

    #[test]
    fn an_unknown_value_is_a_dash_and_lines_end_with_text() {
        let rows = vec![[cell("a"), cell("")], [cell("long name"), cell("x")]];
        let table = Screen { colours: false }.table(Some(["NAME", "NODE"]), rows);
        assert_eq!(table, "NAME       NODE\na          -\nlong name  x");
    }
}
