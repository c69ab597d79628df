//! `godwit node`.

use super::{Context, items};
use crate::api::Node;
use crate::error::Failure;
use crate::human;
use crate::render::{Format, cell, maybe, state};

/// Lists nodes.
pub(super) async fn ls(context: &Context, format: &Format) -> Result<(), Failure> {
    let nodes = items(&context.client, context.client.get(&["nodes"], &[]).await?)?;
    let header = ["NAME", "STATE", "CONTAINERS", "SINCE"];
    context.screen.list(format, &nodes, header, |node: Node| {
        [
            cell(&node.name),
            state(&node.state, &node.state),
            maybe(node.containers, |number| number.to_string()),
            maybe(node.since, human::age),
        ]
    })
}
