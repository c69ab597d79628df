//! `godwit node`.

use super::{Context, items};
use crate::api::Node;
use crate::error::Failure;
use crate::human;
use crate::render::{Format, cell, maybe, state};

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
