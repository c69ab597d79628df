//! What may be said of accounts and tokens.

use std::time::Duration;

use clap::Subcommand;

use super::{List, Output};

/// Accounts of the fabric's broker: people, tenants, and a tenant's sensors and containers.
///
/// On the controller's own machine nobody has to sign in; elsewhere GODWIT_USER and GODWIT_PASSWORD
/// name an operator.
#[derive(Debug, Subcommand)]
pub(crate) enum AccountCommand {
    /// Make an account
    Add(AccountAdd),
    /// List accounts
    Ls(List),
    /// Change an account's password; who signed in with the old one is cut off
    Passwd(Passwd),
    /// Remove accounts; who is connected with one is cut off
    Rm {
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
}

/// Makes an account; prints its password, unless it is given.
#[derive(Debug, clap::Args)]
pub(crate) struct AccountAdd {
    /// alice for a tenant or a person; alice/press for a sensor or container of tenant alice
    pub(crate) name: String,
    /// operator, tenant, derived or monitor [default: derived for TENANT/NAME, else tenant]
    #[arg(long)]
    pub(crate) kind: Option<String>,
    /// Where a sensor may publish and subscribe, such as 'app/alice/press/#'; may be repeated
    /// [default: all of app/TENANT/#]
    #[arg(long = "topic", value_name = "FILTER")]
    pub(crate) topics: Vec<String>,
    /// What it may only subscribe to; may be repeated
    #[arg(long = "read", value_name = "FILTER")]
    pub(crate) read: Vec<String>,
    /// Read the password from standard input
    #[arg(long)]
    pub(crate) password_stdin: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Passwd {
    pub(crate) name: String,
    /// Read the password from standard input; one is made up otherwise
    #[arg(long)]
    pub(crate) password_stdin: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// Makes a token by which a machine joins this fabric as a node, once: `godwit-agent join TOKEN`.
#[derive(Debug, clap::Args)]
pub(crate) struct NodeToken {
    /// The only node that it lets in; also one that joined before and comes anew
    pub(crate) node: Option<String>,
    /// How long it lets in, such as 1h or 7d
    #[arg(long, default_value = "24h", value_parser = lifetime)]
    pub(crate) lifetime: Duration,
    #[command(flatten)]
    pub(crate) output: Output,
}

fn lifetime(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.len() - text.chars().last().map_or(0, char::len_utf8));
    let seconds: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err("write it as 90s, 30m, 1h or 7d".to_owned()),
    };
    let number: u32 = number.parse().map_err(|_| "write it as 90s, 30m, 1h or 7d".to_owned())?;
    Ok(Duration::from_secs(seconds * u64::from(number)))
}
