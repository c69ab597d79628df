//! A broker of our own: `godwit-broker` as a process, and what it holds.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use godwit_broker::access::hash;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event, MqttOptions};
use serde_json::Value;
use tempfile::TempDir;

use super::words::Account;

/// Below this are all topics.
pub(crate) const PREFIX: &str = "siege";
/// No session outlives its connection for longer.
const EXPIRY_SECONDS: u32 = 3;
/// Many begin and say no more: this is what they cost.
const CONNECT_TIMEOUT_MS: u32 = 1000;
/// What a broker with a little of everything took before it was besieged may differ by that from
/// what it takes afterwards.
const SPARE_MB: f64 = 48.0;
const PATIENCE: Duration = Duration::from_secs(60);

const RULES: &str = "\
user hostile
topic readwrite siege/hostile/#
user bystander
topic readwrite siege/bystander/#
user sweeper
topic readwrite siege/#
";

/// A running broker; killed when dropped.
#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) address: SocketAddr,
    admin: SocketAddr,
    child: Child,
    log: Option<JoinHandle<()>>,
    /// What it said of panics and errors.
    alarms: Arc<Mutex<Vec<String>>>,
    _folder: TempDir,
}

/// What the kernel says of a process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) rss_mb: f64,
    pub(crate) descriptors: usize,
    pub(crate) threads: usize,
}

/// An account of the subject's; its password is its name.
pub(crate) fn account(user: &str) -> Account {
    Account { user: user.into(), password: user.into() }
}

impl Subject {
    /// Starts a broker with accounts, rules and a store; anonymous clients have no rights.
    pub(crate) async fn start(program: &Path, max_connections: usize) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let file = |name: &str| folder.path().join(name);
        let mut passwords = String::new();
        for user in ["hostile", "bystander", "sweeper"] {
            passwords += &format!("{user}:{}\n", hash(user.as_bytes())?);
        }
        std::fs::write(file("passwords"), passwords)?;
        std::fs::write(file("rules"), RULES)?;
        let (address, admin) = (free()?, free()?);
        let settings = format!(
            "listen = ['{address}']\nadmin = '{admin}'\nanonymous = 'anyone'\n\
             password-file = {:?}\nacl-file = {:?}\nstore = {:?}\n\
             max-connections = {max_connections}\n\
             connect-timeout-ms = {CONNECT_TIMEOUT_MS}\n\
             limits.max-session-expiry-seconds = {EXPIRY_SECONDS}\n\
             rates.connects-per-second = 0\n",
            file("passwords"),
            file("rules"),
            file("broker.db"),
        );
        std::fs::write(file("broker.toml"), settings)?;
        let mut child = Command::new(program)
            .arg("--config")
            .arg(file("broker.toml"))
            .args(["--log", "error"])
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        let stderr = child.stderr.take().context("its log")?;
        let alarms = Arc::new(Mutex::new(Vec::new()));
        let heard = alarms.clone();
        let log = Some(std::thread::spawn(move || listen(stderr, &heard)));
        let mut subject = Self { address, admin, child, log, alarms, _folder: folder };
        let deadline = Instant::now() + PATIENCE;
        while subject.ask("inventory").await.is_err() {
            ensure!(subject.child.try_wait()?.is_none(), "it ended: {:?}", subject.alarms());
            ensure!(Instant::now() < deadline, "it does not answer");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(subject)
    }

    pub(crate) fn usage(&self) -> anyhow::Result<Usage> {
        usage(self.child.id())
    }

    /// Lines of its log that tell of a panic or an error.
    pub(crate) fn alarms(&self) -> Vec<String> {
        self.alarms.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn ask(&self, what: &str) -> anyhow::Result<Value> {
        let url = format!("http://{}/api/v1/broker/{what}", self.admin);
        Ok(reqwest::get(url).await?.error_for_status()?.json().await?)
    }

    /// How many bytes it has had of its clients.
    pub(crate) async fn received_bytes(&self) -> anyhow::Result<u64> {
        let page = reqwest::get(format!("http://{}/metrics", self.admin)).await?.text().await?;
        let name = "godwit_broker_bytes_received_total ";
        let count = page.lines().find_map(|line| line.strip_prefix(name));
        count.and_then(|count| count.parse().ok()).context("no such metric")
    }

    /// What it holds.
    pub(crate) async fn inventory(&self) -> anyhow::Result<Value> {
        self.ask("inventory").await
    }

    /// Clears what was retained, and waits until nothing of the hostile is left: sessions are those
    /// of so many others, with so many subscriptions.
    pub(crate) async fn settle(&self, sessions: u64, subscriptions: u64) -> anyhow::Result<()> {
        self.sweep().await?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.inventory().await?;
            let count = |name: &str| found[name].as_u64().unwrap_or(u64::MAX);
            let is_clean = count("sessions") == sessions
                && count("subscriptions") == subscriptions
                && count("shared_subscriptions") == 0
                && count("retained_messages") == 0
                && count("retained_bytes") == 0
                && count("queued_messages") == 0
                && count("queued_bytes") == 0;
            if is_clean {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("this is left: {found}; sessions: {}", self.ask("sessions").await?);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            // A will may have been retained meanwhile.
            self.sweep().await?;
        }
    }

    /// Waits until it takes as little memory as before; what it takes then.
    pub(crate) async fn rests(&self, before: Usage) -> anyhow::Result<Usage> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let now = self.usage()?;
            let has_shrunk = now.rss_mb <= before.rss_mb + SPARE_MB;
            if has_shrunk && now.descriptors <= before.descriptors || Instant::now() > deadline {
                ensure!(has_shrunk, "memory does not come back: {now:?}, before {before:?}");
                ensure!(now.descriptors <= before.descriptors, "{now:?}, before {before:?}");
                return Ok(now);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Clears every retained message.
    async fn sweep(&self) -> anyhow::Result<()> {
        let found = self.ask("retained?filter=%23&limit=10000").await?;
        let topics: Vec<_> = found
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|one| one["topic"].as_str())
            .collect();
        let topics: Vec<_> = topics.iter().filter(|topic| !topic.starts_with('$')).collect();
        if topics.is_empty() {
            return Ok(());
        }
        let mut options = MqttOptions::new("sweeper", "127.0.0.1", self.address.port());
        options.set_credentials("sweeper", "sweeper");
        options.set_session_expiry_interval(Some(0));
        let (client, mut events) = AsyncClient::new(options, topics.len());
        for topic in &topics {
            client.publish(**topic, QoS::AtLeastOnce, true, "").await?;
        }
        let mut acknowledged = 0;
        while acknowledged < topics.len() {
            let event = tokio::time::timeout(PATIENCE, events.poll()).await?;
            acknowledged += usize::from(matches!(event?, Event::Incoming(Packet::PubAck(_))));
        }
        client.disconnect().await?;
        while events.poll().await.is_ok() {}
        Ok(())
    }

    /// Whether it is alive.
    pub(crate) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        // It may be dead.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = self.log.take().map(JoinHandle::join);
    }
}

/// What a process takes.
pub(crate) fn usage(process: u32) -> anyhow::Result<Usage> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let number = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok()).context("/proc")
    };
    let descriptors = std::fs::read_dir(format!("/proc/{process}/fd"))?.count();
    let rss_mb = number("VmRSS:")? as f64 / 1024.0;
    Ok(Usage { rss_mb, descriptors, threads: number("Threads:")? })
}

fn listen(stderr: ChildStderr, alarms: &Mutex<Vec<String>>) {
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        let mut alarms = alarms.lock().unwrap_or_else(PoisonError::into_inner);
        if alarms.len() < 100 {
            alarms.push(line);
        }
    }
}

/// An address that nobody listens at.
fn free() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
