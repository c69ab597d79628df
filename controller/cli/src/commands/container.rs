//! `godwit run`, `start`, `stop` and `rm`: orders that are waited for.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};

use serde_json::json;

use super::Context;
use super::wait::{Interrupt, Order};
use crate::api::Container;
use crate::args::{Remove, Run};
use crate::error::{Failure, say};
use crate::render::{Format, read};

/// Makes a container, and starts it unless told otherwise.
pub(super) async fn run(context: &Context, run: Run) -> Result<(), Failure> {
    let Some((image, args)) = run.image_and_args.split_first() else {
        return Err(Failure::Usage { message: "no image is named".to_owned(), remedy: None });
    };
    // Behind the image everything is the container's, so a misspelt option arrives as the image.
    if image.starts_with('-') {
        return Err(Failure::Usage {
            message: format!("there is no option `{image}`"),
            remedy: Some("`godwit run --help`".to_owned()),
        });
    }
    let map = |pairs: Vec<(String, String)>| pairs.into_iter().collect::<BTreeMap<_, _>>();
    let order = if run.no_start { Order::Create } else { Order::Start };
    let body = json!({
        "image": image,
        "name": run.name,
        "node": run.node,
        "args": args,
        "env": map(run.env),
        "labels": map(run.label),
        "memory_bytes": run.memory,
        "nano_cpus": run.cpus,
        "networks": run.networks,
        "ports": run.ports,
        "volumes": run.volumes,
        "devices": run.devices,
        "start": !run.no_start,
    });
    let mut interrupt = Interrupt::listen()?;
    let ordered = interrupt.or(context.client.post(&["containers"], Some(&body))).await?;
    let Container { id, name, .. } = read(&ordered)?;
    let made = context.until_done(&mut interrupt, &id, &name, order).await?.unwrap_or(ordered);
    if matches!(run.output.format, Format::Table) && io::stderr().is_terminal() {
        say(&told(&read(&made)?));
    }
    context.screen.object(&run.output.format, &made, || Ok(id))
}

/// How a container is, in a sentence.
fn told(container: &Container) -> String {
    let name = &container.name;
    let node = container.node.as_deref().unwrap_or("a node");
    match (container.state.as_str(), container.exit_code, &container.ip) {
        ("exited", Some(code), _) => format!("{name} ran on {node} and ended with {code}"),
        ("running", _, Some(ip)) => format!("{name} runs on {node} at {ip}"),
        (state, _, _) => format!("{name} is {state} on {node}"),
    }
}

/// Starts containers.
pub(super) async fn start(context: &Context, names: &[String]) -> Result<(), Failure> {
    ordered(context, names, "start", Order::Start).await
}

/// Stops containers.
pub(super) async fn stop(context: &Context, names: &[String]) -> Result<(), Failure> {
    ordered(context, names, "stop", Order::Stop).await
}

async fn ordered(
    context: &Context,
    names: &[String],
    verb: &str,
    order: Order,
) -> Result<(), Failure> {
    let mut interrupt = Interrupt::listen()?;
    let act = async |name: &str| {
        let path = ["containers", name, verb];
        let container = interrupt.or(context.client.post(&path, None)).await?;
        let Container { id, .. } = read(&container)?;
        context.until_done(&mut interrupt, &id, name, order).await?;
        context.screen.line(name)
    };
    context.each(names, act).await
}

/// Removes containers.
pub(super) async fn rm(context: &Context, remove: &Remove) -> Result<(), Failure> {
    let query: &[_] = if remove.force { &[("force", "true")] } else { &[] };
    let mut interrupt = Interrupt::listen()?;
    let act = async |name: &str| {
        let path = ["containers", name];
        let container = interrupt.or(context.client.delete(&path, query)).await?;
        let Container { id, volumes, .. } = read(&container)?;
        context.until_done(&mut interrupt, &id, name, Order::Remove).await?;
        // Not before: a volume stays as long as a container has it.
        for volume in volumes.iter().filter(|_| remove.volumes) {
            let volume = volume.split_once(':').map_or(volume.as_str(), |(name, _)| name);
            interrupt.or(context.client.delete(&["volumes", volume], &[])).await?;
        }
        context.screen.line(name)
    };
    context.each(&remove.names, act).await
}
