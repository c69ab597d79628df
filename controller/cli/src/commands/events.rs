//! `godwit events`.

use std::collections::HashMap;

use jiff::Zoned;
use serde_json::{Value, json};

use super::Context;
use crate::api::{Container, Migration, Node};
use crate::args::Events;
use crate::error::{Failure, say};
use crate::follow::{Follow, News};
use crate::render::read;

/// Prints what happens, until the reader leaves or Ctrl-C.
pub(super) async fn events(context: &Context, events: &Events) -> Result<(), Failure> {
    let choices = [
        ("container", &events.container),
        ("migration", &events.migration),
        ("node", &events.node),
    ];
    let query = choices.into_iter().filter_map(|(key, value)| Some((key, value.clone()?)));
    let mut follow = Follow::new(&context.client, context.patience, query.collect());
    follow.connect().await?;
    let mut told = Told::default();
    let mut live = events.all;
    loop {
        match follow.next().await? {
            News::Object { kind, data } => {
                let subject = subject(&kind, &data);
                let words = words(&kind, &data)?;
                let is_new = told.is_new(format!("{kind} {subject}"), &words);
                if live {
                    let event = json!({"event": kind, "data": data});
                    context.screen.event(&events.format, &event, || {
                        let now = Zoned::now().strftime("%H:%M:%S");
                        Ok(is_new.then(|| format!("{now}  {kind:<9}  {subject}  {words}")))
                    })?;
                }
            }
            News::Ready => live = true,
            News::Lost => say("the controller went away; looking for it"),
            News::Back => say("the controller is back"),
        }
    }
}

/// What was last told of each object: metrics make events that tell people nothing new.
#[derive(Default)]
struct Told(HashMap<String, String>);

impl Told {
    fn is_new(&mut self, subject: String, words: &str) -> bool {
        self.0.insert(subject, words.to_owned()).is_none_or(|before| before != words)
    }
}

/// What an event is about: a name, or a migration's id.
fn subject(kind: &str, data: &Value) -> String {
    let field = if kind == "migration" { "id" } else { "name" };
    data[field].as_str().unwrap_or("-").to_owned()
}

fn words(kind: &str, data: &Value) -> Result<String, Failure> {
    Ok(match kind {
        "container" => {
            let container: Container = read(data)?;
            let node = container.node.map(|node| format!(" on {node}")).unwrap_or_default();
            let error = container.error.map(|error| format!(": {error}")).unwrap_or_default();
            format!("{}{node}{error}", container.state)
        }
        "migration" => {
            let migration: Migration = read(data)?;
            let now = migration.outcome.as_deref().unwrap_or(&migration.phase);
            let percent = match migration.percent {
                Some(percent) if !migration.settled => format!(" {percent:.0} %"),
                _ => String::new(),
            };
            let reason = migration.reason.as_deref().map(|reason| format!(": {reason}"));
            let route =
                format!("{} {} → {}", migration.container, migration.from(), migration.to());
            format!("{route}  {now}{percent}{}", reason.unwrap_or_default())
        }
        "node" => {
            let node: Node = read(data)?;
            let number = node.containers.unwrap_or(0);
            format!("{}, {number} container{}", node.state, if number == 1 { "" } else { "s" })
        }
        _ => String::new(),
    })
}
