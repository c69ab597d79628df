//! What each command does, one file a subject.

mod account;
mod broker;
mod container;
mod events;
mod image;
mod logs;
mod migrate;
mod migration;
mod network;
mod node;
mod ps;
mod version;
mod volume;
mod wait;

use std::time::Duration;

use clap::CommandFactory;
use serde_json::Value;

use crate::args::{
    AccountCommand, Args, Command, ImageCommand, MigrationCommand, NetworkCommand, NodeCommand,
    VolumeCommand,
};
use crate::client::Client;
use crate::error::{Exit, Failure};
use crate::render::{Format, Screen};

/// What every command works with.
struct Context {
    client: Client,
    screen: Screen,
    /// How long a controller that went away is looked for.
    patience: Duration,
    /// Whether colours are wanted at all, also on standard error.
    colours: bool,
}

/// Carries out a command line.
///
/// # Errors
/// Whatever kept it from being done; the error knows its exit code.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let context = Context {
        client: Client::new(args.host)?,
        screen: Screen::new(args.no_color),
        patience: args.patience,
        colours: !args.no_color,
    };
    match args.command {
        Command::Node(NodeCommand::Ls(list)) => node::ls(&context, &list.output.format).await,
        Command::Node(NodeCommand::Inspect(inspect)) => {
            context.inspect("nodes", &inspect.names, &inspect.format).await
        }
        Command::Node(NodeCommand::Fence(fence)) => node::fence(&context, &fence).await,
        Command::Node(NodeCommand::Token(wanted)) => account::token(&context, wanted).await,
        Command::Account(AccountCommand::Add(add)) => account::add(&context, add).await,
        Command::Account(AccountCommand::Ls(list)) => {
            account::ls(&context, &list.output.format).await
        }
        Command::Account(AccountCommand::Passwd(passwd)) => account::passwd(&context, passwd).await,
        Command::Account(AccountCommand::Rm { names }) => account::rm(&context, &names).await,
        Command::Network(NetworkCommand::Create(create)) => network::create(&context, create).await,
        Command::Network(NetworkCommand::Ls(list)) => {
            network::ls(&context, &list.output.format).await
        }
        Command::Network(NetworkCommand::Inspect(inspect)) => {
            context.inspect("networks", &inspect.names, &inspect.format).await
        }
        Command::Network(NetworkCommand::Rm { names }) => network::rm(&context, &names).await,
        Command::Volume(VolumeCommand::Ls(list)) => volume::ls(&context, &list.output.format).await,
        Command::Volume(VolumeCommand::Inspect(inspect)) => {
            context.inspect("volumes", &inspect.names, &inspect.format).await
        }
        Command::Volume(VolumeCommand::Rm { names }) => volume::rm(&context, &names).await,
        Command::Authority => account::authority(&context).await,
        Command::Run(run) => container::run(&context, run).await,
        Command::Ps(ps) => ps::ps(&context, ps).await,
        Command::Start(names) => container::start(&context, &names.names).await,
        Command::Stop(names) => container::stop(&context, &names.names).await,
        Command::Rm(remove) => container::rm(&context, &remove).await,
        Command::Logs(logs) => logs::logs(&context, &logs).await,
        Command::Inspect(inspect) => {
            context.inspect("containers", &inspect.names, &inspect.format).await
        }
        Command::Image(ImageCommand::Load { file, name, output }) => {
            image::load(&context, &file, name.as_deref(), &output.format).await
        }
        Command::Image(ImageCommand::Ls { node, output }) => {
            image::ls(&context, node.as_deref(), &output.format).await
        }
        Command::Image(ImageCommand::Rm { images }) => image::rm(&context, &images).await,
        Command::Migrate(migrate) => migrate::migrate(&context, &migrate).await,
        Command::Migration(MigrationCommand::Ls { container, active, limit, output }) => {
            migration::ls(&context, container.as_deref(), active, limit, &output.format).await
        }
        Command::Migration(MigrationCommand::Inspect { ids, output }) => {
            migration::inspect(&context, &ids, &output.format).await
        }
        Command::Migration(MigrationCommand::Watch { id, output }) => {
            migrate::watch(&context, &id, &output.format).await
        }
        Command::Migration(MigrationCommand::Cancel { id, detach }) => {
            migration::cancel(&context, &id, detach).await
        }
        Command::Events(events) => events::events(&context, &events).await,
        Command::Broker(broker) => broker::broker(context, broker).await,
        Command::Version(version) => version::version(&context, &version.output.format).await,
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "godwit", &mut script);
            context.screen.bytes(&script)
        }
    }
}

impl Context {
    /// Prints the objects called `names` in `collection`, whole.
    async fn inspect(
        &self,
        collection: &str,
        names: &[String],
        format: &Format,
    ) -> Result<(), Failure> {
        let mut objects = Vec::with_capacity(names.len());
        for name in names {
            objects.push(self.client.get(&[collection, name], &[]).await?);
        }
        self.screen.objects(format, &objects)
    }

    /// Does something for each of `names`; one that fails does not keep the others from it.
    ///
    /// # Errors
    /// The first failure, already said.
    async fn each(
        &self,
        names: &[String],
        mut act: impl AsyncFnMut(&str) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut first: Option<Exit> = None;
        for name in names {
            match act(name).await {
                Ok(()) => {}
                Err(failure @ (Failure::Interrupted { .. } | Failure::OutputClosed)) => {
                    return Err(failure);
                }
                Err(failure) => {
                    failure.report();
                    first.get_or_insert(failure.exit());
                }
            }
        }
        first.map_or(Ok(()), |exit| Err(Failure::Said(exit)))
    }
}

/// The objects of a listing.
fn items(client: &Client, listing: Value) -> Result<Vec<Value>, Failure> {
    match listing {
        Value::Array(items) => Ok(items),
        _ => Err(client.foreign("it does not send a list".to_owned())),
    }
}
