//! The command line: what may be said, and what is said wrong before anything is asked.

mod account;
mod broker;
mod network;
mod volume;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::client::Host;
use crate::human;
use crate::render::Format;

pub(crate) use self::account::{AccountAdd, AccountCommand, NodeToken, Passwd};
pub(crate) use self::broker::{Broker, BrokerCommand};
pub(crate) use self::network::{NetworkCommand, NetworkCreate};
pub(crate) use self::volume::VolumeCommand;

const AFTER_HELP: &str = "\
Exit codes:
    0  done
    1  the operation failed
    2  the command line makes no sense
    3  refused by admission, or something is in the way
    4  no such container, node, image or migration
    5  no controller answered
  130  interrupted (a move that was ordered goes on)

Output:
  --format json prints the controller's own objects; --format '{{ name }} {{ node }}' fills in
  a template (Jinja, with the filters `size` and `duration`) for each of them. Results go to
  standard output, progress and errors to standard error; colours and the progress bar need a
  terminal (NO_COLOR is honoured).";

/// Runs containers on a fabric of nodes, and moves them while they run.
#[derive(Debug, Parser)]
#[command(name = "godwit", version, after_help = AFTER_HELP, max_term_width = 100)]
pub(crate) struct Args {
    /// The controller
    #[arg(
        long,
        env = "GODWIT_HOST",
        default_value = "http://127.0.0.1:7180",
        global = true,
        value_name = "URL"
    )]
    pub(crate) host: Host,

    /// No colours
    #[arg(long, global = true)]
    pub(crate) no_color: bool,

    /// How long to look for a controller that went away while it was followed
    #[arg(
        long,
        env = "GODWIT_PATIENCE",
        default_value = "120",
        global = true,
        hide_short_help = true,
        value_name = "SECONDS",
        value_parser = parse_seconds
    )]
    pub(crate) patience: Duration,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Look at nodes, and say that one is off
    #[command(subcommand)]
    Node(NodeCommand),
    /// Make a container and start it
    Run(Run),
    /// List containers
    Ps(Ps),
    /// Start containers
    Start(Names),
    /// Stop containers
    Stop(Names),
    /// Remove containers
    Rm(Remove),
    /// Print what a container has written
    Logs(Logs),
    /// Show all there is to know of containers
    Inspect(Inspect),
    /// Load, list and remove images
    #[command(subcommand)]
    Image(ImageCommand),
    /// Move a running container to another node
    Migrate(Migrate),
    /// Look at moves, follow and cancel them
    #[command(subcommand)]
    Migration(MigrationCommand),
    /// Make, list and remove networks of containers
    #[command(subcommand)]
    Network(NetworkCommand),
    /// List and remove volumes of containers
    #[command(subcommand)]
    Volume(VolumeCommand),
    /// Make, list and remove accounts of the broker
    #[command(subcommand)]
    Account(AccountCommand),
    /// Print the certificate of the fabric's authority, for clients that verify the broker
    Authority,
    /// Print what happens, as it happens
    Events(Events),
    /// Look at the broker and its clients, and cut them off
    Broker(Broker),
    /// Show the versions of this program and of the controller
    Version(List),
    /// Print the completion script of a shell
    Completion { shell: Shell },
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// List nodes
    Ls(List),
    /// Show all there is to know of nodes
    Inspect(Inspect),
    /// Say that a node lost its power, or that all its containers were killed
    Fence(Fence),
    /// Make a token by which a machine joins as a node
    Token(NodeToken),
}

/// Says that a node lost its power, or that all its containers were killed.
///
/// Moves that wait for its word end without it: a container goes on where its other copy is, and
/// what it did since it was frozen may be lost. Containers that were on the node are shown as lost;
/// they are as the node says as soon as it is heard again, and can be removed until then.
///
/// A node that is merely out of reach runs its containers on. Fencing such a one can make a
/// container run twice, with the same address and its work torn in two: nothing undoes that.
#[derive(Debug, clap::Args)]
pub(crate) struct Fence {
    #[arg(value_name = "NODE")]
    pub(crate) name: String,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Also one that the controller still has online, because you know better
    #[arg(short, long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// A listing without choices of its own.
#[derive(Debug, clap::Args)]
pub(crate) struct List {
    #[command(flatten)]
    pub(crate) output: Output,
}

/// How results are printed.
#[derive(Debug, clap::Args)]
pub(crate) struct Output {
    /// `table`, `json`, or a template such as '{{ name }} {{ node }}'
    #[arg(long, default_value = "table", value_name = "FORMAT")]
    pub(crate) format: Format,
}

/// How whole objects are printed.
#[derive(Debug, clap::Args)]
pub(crate) struct Inspect {
    #[arg(required = true)]
    pub(crate) names: Vec<String>,
    /// `json`, or a template such as '{{ name }} {{ node }}'
    #[arg(long, default_value = "json", value_name = "FORMAT")]
    pub(crate) format: Format,
}

#[derive(Debug, clap::Args)]
#[command(override_usage = "godwit run [OPTIONS] IMAGE [ARGS]...")]
pub(crate) struct Run {
    /// What to call it; one is made up otherwise
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Set a variable; without =VALUE it is taken from this shell
    #[arg(short, long, value_name = "KEY[=VALUE]", value_parser = parse_env)]
    pub(crate) env: Vec<(String, String)>,
    /// Set a label
    #[arg(short, long, value_name = "KEY[=VALUE]", value_parser = parse_label)]
    pub(crate) label: Vec<(String, String)>,
    /// Memory that it may use, such as 512m
    #[arg(short, long, value_name = "SIZE", value_parser = human::parse_memory)]
    pub(crate) memory: Option<u64>,
    /// Processors that it may use, such as 0.5
    #[arg(long, value_name = "NUMBER", value_parser = human::parse_cpus)]
    pub(crate) cpus: Option<u64>,
    /// Where to run it; the best fitting node otherwise
    #[arg(long)]
    pub(crate) node: Option<String>,
    /// A network that it is in, or `direct` for the nodes' own; may be repeated, the first one leads
    /// outside [default: the controller's --network]
    #[arg(long = "network", value_name = "NETWORK")]
    pub(crate) networks: Vec<String>,
    /// Open a port of the nodes for it, on all of them or on those named: 8080:80, 53/udp,
    /// 8080:80@edge-a,edge-b; may be repeated
    #[arg(short, long = "publish", value_name = "[PORT:]PORT[/udp][@NODES]")]
    pub(crate) ports: Vec<String>,
    /// A volume and where it sees it; made if it is new, otherwise it runs where the volume is; may
    /// be repeated
    #[arg(short, long = "volume", value_name = "NAME:/PATH")]
    pub(crate) volumes: Vec<String>,
    /// A device that it may use, by the label under which nodes declare it, and where it sees it
    /// [default: /dev/LABEL]; may be repeated
    #[arg(long = "device", value_name = "LABEL[:/dev/PATH]")]
    pub(crate) devices: Vec<String>,
    /// Make it only
    #[arg(long)]
    pub(crate) no_start: bool,
    #[command(flatten)]
    pub(crate) output: Output,
    /// Name or id of the image, then arguments in place of its own, whatever they look like
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_names = ["IMAGE", "ARGS"]
    )]
    pub(crate) image_and_args: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Ps {
    /// Those too that are stopped, exited or failed
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Print ids only
    #[arg(short, long, conflicts_with = "format")]
    pub(crate) quiet: bool,
    /// Only those with node=, state=, name=, image= or label=KEY[=VALUE]; all given must hold
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = parse_filter)]
    pub(crate) filter: Vec<(FilterKey, String)>,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// What containers can be filtered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FilterKey {
    Node,
    #[value(alias = "status")]
    State,
    Name,
    Image,
    Label,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Names {
    #[arg(required = true, value_name = "CONTAINER")]
    pub(crate) names: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Remove {
    /// Also when it runs
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Remove their volumes too, which stay otherwise
    #[arg(short, long)]
    pub(crate) volumes: bool,
    #[arg(required = true, value_name = "CONTAINER")]
    pub(crate) names: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Logs {
    /// Go on printing until the container ends
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Begin with the last LINES lines
    #[arg(short, long, value_name = "LINES")]
    pub(crate) tail: Option<usize>,
    #[arg(value_name = "CONTAINER")]
    pub(crate) name: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Bring an image to the fabric
    Load {
        /// A tar as `podman save` writes it; - reads standard input
        file: PathBuf,
        /// What to call it; needed if the tar carries no name
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// List images
    Ls {
        /// What this node's engine holds instead
        #[arg(long)]
        node: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Remove images from the controller and every node
    Rm {
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
    },
}

/// Moves a running container to another node, memory, files, address and all.
///
/// Shows how it goes and prints what it cost. Ctrl-C only stops looking: the move goes on, and the
/// message says how to look at it again (`godwit migration watch`) or cancel it (`godwit migration
/// cancel`). A controller that restarts meanwhile is waited for.
#[derive(Debug, clap::Args)]
pub(crate) struct Migrate {
    #[arg(value_name = "CONTAINER")]
    pub(crate) name: String,
    /// Where to; the best fitting node otherwise
    #[arg(long, value_name = "NODE")]
    pub(crate) to: Option<String>,
    /// Stop it, move its files, start it there
    #[arg(long, conflicts_with = "plain")]
    pub(crate) cold: bool,
    /// Take the memory along by podman's own export and import: slower, for nodes that cannot arm
    #[arg(long)]
    pub(crate) plain: bool,
    /// Only say whether it would be let in and what it would cost
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Order it, print its id, and do not wait
    #[arg(short, long, conflicts_with = "dry_run")]
    pub(crate) detach: bool,
    /// Bytes a second that it may send, such as 10MB
    #[arg(long, value_name = "RATE", value_parser = human::parse_rate)]
    pub(crate) bwlimit: Option<u64>,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Subcommand)]
pub(crate) enum MigrationCommand {
    /// List moves, the newest first
    Ls {
        /// Only this container's
        #[arg(long)]
        container: Option<String>,
        /// Only those that are under way
        #[arg(long)]
        active: bool,
        /// At most so many
        #[arg(long, default_value_t = 100)]
        limit: u32,
        #[command(flatten)]
        output: Output,
    },
    /// Show where moves spent their time, or with `--format json` all there is to know of them
    Inspect {
        #[arg(required = true)]
        ids: Vec<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Follow a move to its end, as `migrate` does
    Watch {
        id: String,
        #[command(flatten)]
        output: Output,
    },
    /// Call a move off: the container runs on where it was
    Cancel {
        id: String,
        /// Do not wait until it is over
        #[arg(short, long)]
        detach: bool,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Events {
    /// Only this container's and its moves'
    #[arg(long)]
    pub(crate) container: Option<String>,
    /// Only this move's
    #[arg(long, value_name = "ID")]
    pub(crate) migration: Option<String>,
    /// Only this node's
    #[arg(long)]
    pub(crate) node: Option<String>,
    /// Begin with how everything is now
    #[arg(short, long)]
    pub(crate) all: bool,
    /// `table`, `json` (one object a line), or a template on `event` and `data`
    #[arg(long, default_value = "table", value_name = "FORMAT")]
    pub(crate) format: Format,
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().map_err(|error| error.to_string())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

fn parse_env(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some(("", _)) => Err("a variable needs a name".to_owned()),
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        None => match std::env::var(text) {
            Ok(value) => Ok((text.to_owned(), value)),
            Err(_) => Err(format!("this shell has no {text}; write {text}=VALUE")),
        },
    }
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=').unwrap_or((text, "")) {
        ("", _) => Err("a label needs a name".to_owned()),
        (key, value) => Ok((key.to_owned(), value.to_owned())),
    }
}

fn parse_filter(text: &str) -> Result<(FilterKey, String), String> {
    let (key, value) = text.split_once('=').ok_or("write it like node=edge-a")?;
    let key = FilterKey::from_str(key, true)
        .map_err(|_| format!("`{key}` is none of node, state, name, image, label"))?;
    Ok((key, value.to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        Args::command().debug_assert();
    }

    #[test]
    fn arguments_after_the_image_are_the_containers_own() {
        let line = ["godwit", "run", "--name", "c", "counter", "--name", "x", "-5"];
        let Command::Run(run) = Args::parse_from(line).command else { panic!("not a run") };
        assert_eq!(run.name.as_deref(), Some("c"));
        assert_eq!(run.image_and_args, ["counter", "--name", "x", "-5"]);
    }
}
