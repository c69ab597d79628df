//! `godwit-broker`: the broker as a program of its own.

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;
use godwit_broker::access::{self, PasswordFile};
use godwit_broker::listener::{Endpoint, TlsConfig};
use godwit_broker::{Anonymous, Broker, Config, Control, QUIET, admin};
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Messages are freed on other threads than they were made on, and payloads are as large as what
/// glibc gives back to the kernel each time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// An MQTT 3.1.1 and 5 broker for a Godwit fabric.
///
/// A flag overrides its environment variable, which overrides the file.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// A TOML file with the settings of docs/OPERATIONS.md.
    #[arg(long, env = "GODWIT_BROKER_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where to listen and for what, such as 0.0.0.0:1883, [::]:8883=tls+secure-websocket or
    /// /run/godwit/broker.sock; may be repeated.
    #[arg(long, env = "GODWIT_BROKER_LISTEN", value_delimiter = ',', value_name = "ENDPOINT")]
    listen: Vec<Endpoint>,
    /// The SQLite file that outlives the broker; without one all is forgotten with the process.
    #[arg(long, env = "GODWIT_BROKER_STORE", value_name = "FILE")]
    store: Option<PathBuf>,
    /// The certificate to show over TLS, with the rest of its chain, in PEM.
    #[arg(long, env = "GODWIT_BROKER_CERTIFICATE", value_name = "FILE", requires = "key")]
    certificate: Option<PathBuf>,
    /// The certificate's private key, in PEM.
    #[arg(long, env = "GODWIT_BROKER_KEY", value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
    /// Users and their passwords, as the command `password` and mosquitto_passwd write them.
    #[arg(long, env = "GODWIT_BROKER_PASSWORD_FILE", value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// What users may do, in mosquitto's format.
    #[arg(long, env = "GODWIT_BROKER_ACL_FILE", value_name = "FILE")]
    acl_file: Option<PathBuf>,
    /// Who comes in without an account.
    #[arg(long, env = "GODWIT_BROKER_ANONYMOUS", value_name = "WHO")]
    anonymous: Option<Anonymous>,
    /// How many clients may be connected.
    #[arg(long, env = "GODWIT_BROKER_MAX_CONNECTIONS", value_name = "N")]
    max_connections: Option<usize>,
    /// The largest packet that a client may send.
    #[arg(long, env = "GODWIT_BROKER_MAX_PACKET_BYTES", value_name = "BYTES")]
    max_packet_bytes: Option<u32>,
    /// Where to answer operators and Prometheus, without a sign-in, such as 127.0.0.1:9883.
    #[arg(long, env = "GODWIT_BROKER_ADMIN", value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
    /// What to log, such as `debug` or `godwit_broker=trace,rumqttd=info`.
    #[arg(long, env = "GODWIT_LOG", default_value = "info", value_name = "FILTER")]
    log: String,
    /// How to write the log.
    #[arg(long, env = "GODWIT_LOG_FORMAT", default_value = "text", value_name = "FORMAT")]
    log_format: LogFormat,
    #[command(subcommand)]
    instead: Option<Instead>,
}

/// What else there is to do than to serve.
#[derive(Debug, clap::Subcommand)]
enum Instead {
    /// Prints a user's line for the password file: `godwit-broker password alice >>FILE`.
    ///
    /// The password is the first line of standard input.
    Password {
        /// The user's name.
        user: String,
    },
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if let Some(Instead::Password { user }) = &args.instead {
        return print_password(user);
    }
    start_log(&args)?;
    let config = read_config(&args)?;
    let shutdown = CancellationToken::new();
    let admin = match config.admin {
        Some(address) => Some(admin::bind(address, config.admin_anywhere).await?),
        None => None,
    };
    let broker = Broker::bind(config).await?;
    reload_on_hangup(broker.control())?;
    if let Some(listener) = admin {
        tracing::info!(address = %listener.local_addr()?, "operators are answered");
        let (control, over) = (broker.control(), shutdown.clone());
        tokio::spawn(async move {
            if let Err(error) = admin::serve(listener, control, over).await {
                tracing::error!(%error, "operators are not answered any more");
            }
        });
    }
    let mut terminate = signal(SignalKind::terminate())?;
    let stop = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
        tell_systemd(NotifyState::Stopping);
        stop.cancel();
    });
    tell_systemd(NotifyState::Ready);
    Ok(broker.run(shutdown).await?)
}

fn print_password(user: &str) -> anyhow::Result<()> {
    if std::io::stdin().is_terminal() {
        writeln!(std::io::stderr(), "type the password of `{user}`, which is shown, and Enter")?;
    }
    let mut password = String::new();
    std::io::stdin().read_line(&mut password).context("cannot read the password")?;
    let hash = access::hash(password.trim_end_matches(['\r', '\n']).as_bytes())?;
    let line = format!("{user}:{hash}");
    // What the broker would not take up later is refused now.
    let users: PasswordFile = line.parse()?;
    anyhow::ensure!(users.contains(user), "`{user}` can be no user's name: leave out `:` and `#`");
    Ok(writeln!(std::io::stdout(), "{line}")?)
}

/// Where there is one that wants to know.
fn tell_systemd(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "systemd cannot be told");
    }
}

/// SIGHUP reads certificates, accounts and rules again.
fn reload_on_hangup(control: Control) -> std::io::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            if let Err(error) = control.reload() {
                tracing::error!(
                    error = format!("{:#}", anyhow::Error::from(error)),
                    "not reloaded"
                );
            }
        }
    });
    Ok(())
}

fn read_config(args: &Args) -> anyhow::Result<Config> {
    let mut config = match &args.config {
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            toml::from_str(&text).with_context(|| format!("mistake in {}", path.display()))?
        }
        None => Config::default(),
    };
    if !args.listen.is_empty() {
        config.listen.clone_from(&args.listen);
    }
    config.store = args.store.clone().or(config.store);
    if let (Some(certificate), Some(key)) = (&args.certificate, &args.key) {
        let clients = config.tls.take().and_then(|tls| tls.clients);
        let (certificate, key) = (certificate.clone(), key.clone());
        config.tls = Some(TlsConfig { certificate, key, clients });
    }
    config.password_file = args.password_file.clone().or(config.password_file);
    config.acl_file = args.acl_file.clone().or(config.acl_file);
    config.anonymous = args.anonymous.unwrap_or(config.anonymous);
    config.admin = args.admin.or(config.admin);
    config.max_connections = args.max_connections.unwrap_or(config.max_connections);
    config.max_packet_bytes = args.max_packet_bytes.unwrap_or(config.max_packet_bytes);
    Ok(config)
}

fn start_log(args: &Args) -> anyhow::Result<()> {
    // First the silence, then what was asked for, which may break it.
    let filter = EnvFilter::try_new(format!("{QUIET},{}", args.log))
        .with_context(|| format!("`{}` is not a log filter", args.log))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match args.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}
