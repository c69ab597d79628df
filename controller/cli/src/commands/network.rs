//! `godwit network`.

use serde::Deserialize;
use serde_json::json;

use super::{Context, items};
use crate::args::NetworkCreate;
use crate::error::Failure;
use crate::render::{Format, cell, maybe};

#[derive(Deserialize)]
struct Network {
    name: String,
    vni: u32,
    #[serde(default)]
    subnets: Vec<String>,
    mtu: u16,
    exit: Option<String>,
    #[serde(default)]
    containers: Vec<String>,
}

/// Lists networks.
pub(super) async fn ls(context: &Context, format: &Format) -> Result<(), Failure> {
    let networks = items(&context.client, context.client.get(&["networks"], &[]).await?)?;
    let header = ["NAME", "VNI", "SUBNETS", "MTU", "EXIT", "CONTAINERS"];
    context.screen.list(format, &networks, header, |network: Network| {
        [
            cell(&network.name),
            cell(network.vni),
            cell(network.subnets.join(" ")),
            cell(network.mtu),
            maybe(network.exit, |node| node),
            cell(network.containers.join(" ")),
        ]
    })
}

/// Makes a network.
pub(super) async fn create(context: &Context, create: NetworkCreate) -> Result<(), Failure> {
    let body = json!({ "name": create.name, "subnet": create.subnet });
    let answer = context.client.post(&["networks"], Some(&body)).await?;
    context.screen.object(&create.output.format, &answer, || Ok(create.name.clone()))
}

/// Removes networks.
pub(super) async fn rm(context: &Context, names: &[String]) -> Result<(), Failure> {
    for name in names {
        context.client.delete(&["networks", name], &[]).await?;
        context.screen.line(name)?;
    }
    Ok(())
}
