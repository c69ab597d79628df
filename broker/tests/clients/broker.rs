//! The broker that they meet.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use godwit_trust::Authority;
use jiff::Timestamp;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use crate::{Lines, in_time};

/// Who has topics of her own, and her password.
pub(crate) const ALICE: (&str, &str) = ("alice", "Ünlock it, \"please\"");

/// She reads what operators look at, too.
const RULES: &str = "\
user alice
topic readwrite app/alice/#
topic readwrite godwit/v1/tenant/alice/#
topic read $SYS/#
";

/// A `godwit-broker` on ports of its own, until it is dropped.
pub(crate) struct Broker {
    child: Child,
    pub(crate) log: Lines,
    pub(crate) ports: Ports,
    folder: TempDir,
}

/// Where it listens on 127.0.0.1.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Ports {
    pub(crate) mqtt: u16,
    pub(crate) tls: u16,
    pub(crate) websocket: u16,
    pub(crate) secure_websocket: u16,
}

impl Broker {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let write =
            |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        let now = Timestamp::now();
        let authority = Authority::create("interop", now).unwrap();
        let names = ["localhost", "127.0.0.1"].map(str::to_owned);
        let shown = authority.issue_server(&names, now).unwrap();
        write("ca.pem", &authority.cert_pem());
        write("broker.pem", &shown.issued.chain_pem);
        write("broker.key", shown.key_pem.as_str());
        let hash = godwit_broker::access::hash(ALICE.1.as_bytes()).unwrap();
        write("passwords", &format!("{}:{hash}\n", ALICE.0));
        write("rules", RULES);
        let (child, log, ports) = run(folder.path(), Ports::default()).await;
        Self { child, log, ports, folder }
    }

    /// Stops it as systemd does, and starts it again where it was.
    pub(crate) async fn restart(&mut self) {
        let id = i32::try_from(self.child.id().unwrap()).unwrap();
        kill(Pid::from_raw(id), Signal::SIGTERM).unwrap();
        assert!(in_time(self.child.wait()).await.unwrap().success());
        (self.child, self.log, self.ports) = run(self.folder.path(), self.ports).await;
    }

    /// The authority's certificate.
    pub(crate) fn authority(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if std::thread::panicking() {
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "{}", self.log.all().join("\n"));
        }
    }
}

async fn run(folder: &Path, wanted: Ports) -> (Child, Lines, Ports) {
    let Ports { mqtt, tls, websocket, secure_websocket } = wanted;
    let settings = format!(
        "listen = [
    '127.0.0.1:{mqtt}',
    '127.0.0.1:{tls}=tls',
    '127.0.0.1:{websocket}=websocket',
    '127.0.0.1:{secure_websocket}=secure-websocket',
]
password-file = 'passwords'
acl-file = 'rules'
store = 'broker.db'
[tls]
certificate = 'broker.pem'
key = 'broker.key'
"
    );
    std::fs::write(folder.join("broker.toml"), settings).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_godwit-broker"))
        .args(["--config", "broker.toml"])
        .current_dir(folder)
        .env("GODWIT_LOG_FORMAT", "json")
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let (sink, log) = watch::channel(Vec::new());
    tokio::spawn(async move {
        while let Ok(Some(line)) = lines.next_line().await {
            sink.send_modify(|log| log.push(line));
        }
    });
    let log = Lines(log);
    let listening = log.line(&["listening for MQTT clients"]).await;
    let mut ports = listening.split("127.0.0.1:").skip(1).map(|rest| {
        let digits = rest.find(|next: char| !next.is_ascii_digit()).unwrap();
        rest[..digits].parse().unwrap()
    });
    let mut port = || ports.next().unwrap();
    let (mqtt, tls, websocket, secure_websocket) = (port(), port(), port(), port());
    (child, log, Ports { mqtt, tls, websocket, secure_websocket })
}
