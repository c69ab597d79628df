//! `godwit node`.

use std::io::{self, BufRead, IsTerminal, Write};

use super::{Context, items};
use crate::api::{Fenced, Node};
use crate::args::Fence;
use crate::error::{Failure, say};
use crate::human;
use crate::render::{Format, cell, maybe, read, state};

/// Lists nodes.
pub(super) async fn ls(context: &Context, format: &Format) -> Result<(), Failure> {
    let nodes = items(&context.client, context.client.get(&["nodes"], &[]).await?)?;
    let header = ["NAME", "STATE", "CONTAINERS", "ARCH", "CPUS", "MEMORY FREE", "MOVES", "SINCE"];
    context.screen.list(format, &nodes, header, |node: Node| {
        let info = node.info.unwrap_or_default();
        let free = node.metrics.unwrap_or_default().memory_free_bytes;
        [
            cell(&node.name),
            state(&node.state, &node.state),
            maybe(node.containers, |number| number.to_string()),
            maybe(info.arch, |arch| arch),
            maybe(info.cpus, |number| number.to_string()),
            maybe(free.zip(info.memory_bytes), |(free, all)| {
                format!("{} of {}", human::size(free), human::size(all))
            }),
            maybe(info.probe, |probe| if probe.can_migrate { "yes" } else { "no" }.to_owned()),
            maybe(node.since, human::age),
        ]
    })
}

/// Says that nothing runs on a node any more, once its user has said so twice.
pub(super) async fn fence(context: &Context, fence: &Fence) -> Result<(), Failure> {
    let name = fence.name.as_str();
    // Asked first, so that nobody has to swear to a node that is unknown.
    let node: Node = read(&context.client.get(&["nodes", name], &[]).await?)?;
    if !fence.yes {
        confirm(&node)?;
    }
    let query: &[_] = if fence.force { &[("force", "true")] } else { &[] };
    let answer = context.client.post_with(&["nodes", name, "fence"], query, None).await?;
    let Fenced { migrations, containers } = read(&answer)?;
    if matches!(fence.output.format, Format::Table) {
        for id in &migrations {
            say(&format!("{id} no longer waits for {name}: `godwit migration watch {id}`"));
        }
        for container in &containers {
            say(&format!(
                "{container} is lost: `godwit inspect {container}` says what can be done"
            ));
        }
    }
    context.screen.object(&fence.output.format, &answer, || Ok(name.to_owned()))
}

/// Has the user type the node's name.
fn confirm(node: &Node) -> Result<(), Failure> {
    let name = &node.name;
    let given_up = |message: &str| Failure::Usage {
        message: message.to_owned(),
        remedy: Some(format!("`godwit node fence --yes {name}` does not ask")),
    };
    if !io::stdin().is_terminal() {
        return Err(given_up("a fence wants to be confirmed, and nobody is here to ask"));
    }
    let number = node.containers.unwrap_or(0);
    say(&format!(
        "{name} is {}, with {number} container{}. A fence says that its power is gone, or that \
         every one of them was killed.\nIf that is not so, a container can come to run twice, and \
         nothing undoes that. A node that is only out of reach is not to be fenced.",
        node.state,
        if number == 1 { "" } else { "s" },
    ));
    let io = |source| Failure::Io { what: "ask".to_owned(), source };
    write!(io::stderr(), "Type the node's name to go on: ").map_err(io)?;
    let mut typed = String::new();
    io::stdin().lock().read_line(&mut typed).map_err(io)?;
    if typed.trim() == name { Ok(()) } else { Err(given_up("not confirmed: nothing was done")) }
}
