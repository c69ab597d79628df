//! `godwit ps`.

use serde_json::Value;

use super::{Context, items};
use crate::api::Container;
use crate::args::{FilterKey, Ps};
use crate::error::{Failure, say};
use crate::human;
use crate::render::{Format, cell, maybe, read, state};

/// States in which a container neither runs nor is about to: not shown without `--all`.
const AT_REST: [&str; 3] = ["stopped", "exited", "failed"];

/// Lists containers.
pub(super) async fn ps(context: &Context, ps: Ps) -> Result<(), Failure> {
    // As in podman, asking for a state asks for containers at rest too.
    let all = ps.all || ps.filter.iter().any(|(key, _)| *key == FilterKey::State);
    let listing = items(&context.client, context.client.get(&["containers"], &[]).await?)?;
    let mut shown: Vec<Value> = Vec::with_capacity(listing.len());
    for object in listing {
        let container: Container = read(&object)?;
        let at_rest = AT_REST.contains(&container.state.as_str());
        if (all || !at_rest) && ps.filter.iter().all(|(key, value)| fits(&container, *key, value)) {
            shown.push(object);
        }
    }
    if ps.quiet {
        return shown
            .iter()
            .try_for_each(|object| context.screen.line(object["id"].as_str().unwrap_or_default()));
    }
    print(context, &ps.output.format, &shown)?;
    if matches!(ps.output.format, Format::Table) {
        shown
            .iter()
            .try_for_each(|object| read(object).map(|container| say_if_lost(&container)))?;
    }
    Ok(())
}

/// A lost container is the operator's to decide about: what can be done stands in its error.
fn say_if_lost(container: &Container) {
    if let ("lost", Some(what_now)) = (container.state.as_str(), &container.error) {
        say(&format!("{}: {what_now}", container.name));
    }
}

fn print(context: &Context, format: &Format, containers: &[Value]) -> Result<(), Failure> {
    let header = ["CONTAINER ID", "NAME", "IMAGE", "NODE", "STATE", "ADDRESS", "SINCE"];
    context.screen.list(format, containers, header, |container: Container| {
        let words = match (container.state.as_str(), container.exit_code, &container.migration) {
            ("exited", Some(code), _) => format!("exited ({code})"),
            ("migrating", _, Some(id)) => format!("migrating ({id})"),
            (state, _, _) => state.to_owned(),
        };
        [
            cell(container.id.chars().take(12).collect::<String>()),
            cell(&container.name),
            cell(image(&container)),
            maybe(container.node, |node| node),
            state(&container.state, &words),
            maybe(container.ip, |ip| ip),
            maybe(container.since, human::age),
        ]
    })
}

/// The image by name, else the beginning of its id.
fn image(container: &Container) -> String {
    match (&container.image_name, &container.image) {
        (Some(name), _) if !name.is_empty() => name.clone(),
        (_, Some(id)) => id.chars().take(12).collect(),
        (_, None) => String::new(),
    }
}

fn fits(container: &Container, key: FilterKey, value: &str) -> bool {
    match key {
        FilterKey::Node => container.node.as_deref() == Some(value),
        FilterKey::State => container.state == value,
        FilterKey::Name => container.name.contains(value),
        FilterKey::Image => {
            let name = container.image_name.as_deref().unwrap_or_default();
            let short = name.trim_start_matches("localhost/");
            let untagged = short.split_once(':').map_or(short, |(untagged, _)| untagged);
            let id = container.image.as_deref().unwrap_or_default();
            [name, short, untagged].contains(&value) || (value.len() >= 6 && id.starts_with(value))
        }
        FilterKey::Label => match value.split_once('=') {
            Some((key, value)) => container.labels.get(key).is_some_and(|label| label == value),
            None => container.labels.contains_key(value),
        },
    }
}
