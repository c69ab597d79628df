//! `godwit-broker` as systemd and its operators run it.

#![expect(clippy::unwrap_used, reason = "what fails here fails its test")]

mod support;

use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rmqtt_codec::v5::{ConnectAckReason, DisconnectReasonCode};
use support::client::{Client, hello, hello_as};
use support::in_time;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};

struct Program {
    child: Child,
    log: Lines<BufReader<ChildStderr>>,
    systemd: UnixDatagram,
}

impl Program {
    fn start(folder: &Path, settings: &str) -> Self {
        Self::start_logging(folder, settings, "json")
    }

    fn start_logging(folder: &Path, settings: &str, format: &str) -> Self {
        let (config, socket) = (folder.join("broker.toml"), folder.join("notify"));
        std::fs::write(&config, settings).unwrap();
        let systemd = UnixDatagram::bind(&socket).unwrap();
        systemd.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_godwit-broker"))
            .arg("--config")
            .arg(config)
            .env("NOTIFY_SOCKET", socket)
            .env("GODWIT_LOG_FORMAT", format)
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let log = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, log, systemd }
    }

    fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id().unwrap()).unwrap();
        kill(Pid::from_raw(id), signal).unwrap();
    }

    /// What systemd is told next.
    fn told(&self) -> String {
        let mut buffer = [0; 256];
        let count = self.systemd.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..count]).trim().to_owned()
    }

    /// The next line of the log with those words.
    async fn line(&mut self, words: &str) -> String {
        in_time(async {
            loop {
                let line = self.log.next_line().await.unwrap().expect("it ended");
                if line.contains(words) {
                    return line;
                }
            }
        })
        .await
    }

    /// The same as an object.
    async fn logged(&mut self, words: &str) -> serde_json::Value {
        serde_json::from_str(&self.line(words).await).unwrap()
    }
}

/// The first address in a line of the log, or in that field of one.
fn address(line: &str) -> SocketAddr {
    let (_, addresses) = line.split_once("addresses=").unwrap_or(("", line));
    addresses.split_once('=').unwrap().0.parse().unwrap()
}

#[tokio::test]
async fn systemd_hears_when_it_is_ready_and_when_it_stops_and_may_have_it_reload() {
    let folder = tempfile::tempdir().unwrap();
    let passwords = folder.path().join("passwords");
    let users = |users: &[&str]| {
        let hash = |user: &&str| godwit_broker::access::hash(user.as_bytes()).unwrap();
        let lines: String = users.iter().map(|user| format!("{user}:{}\n", hash(user))).collect();
        std::fs::write(&passwords, lines).unwrap();
    };
    users(&["alice"]);
    let settings = format!(
        "listen = ['127.0.0.1:0']\npassword-file = '{}'\nadmin = '127.0.0.1:0'\n",
        passwords.display()
    );
    let mut program = Program::start(folder.path(), &settings);
    let at = program.logged("operators are answered").await;
    let admin = at["fields"]["address"].as_str().unwrap().to_owned();
    let at = program.logged("listening for").await;
    assert_eq!(program.told(), "READY=1");

    let address = address(at["fields"]["addresses"].as_str().unwrap());
    let mut alice = Client::connect(address, hello_as("alice", "1")).await;
    let refused = Client::try_connect(address, hello("2")).await.err();
    assert_eq!(refused, Some(ConnectAckReason::NotAuthorized));
    let health = reqwest::get(format!("http://{admin}/healthz")).await.unwrap();
    assert_eq!(health.status().as_u16(), 200);

    users(&["alice", "bob"]);
    program.signal(Signal::SIGHUP);
    program.logged("read again").await;
    let mut bob = Client::connect(address, hello_as("bob", "2")).await;
    alice.ping().await;

    program.signal(Signal::SIGTERM);
    assert_eq!(alice.end().await, DisconnectReasonCode::ServerShuttingDown);
    assert_eq!(bob.end().await, DisconnectReasonCode::ServerShuttingDown);
    assert_eq!(program.told(), "STOPPING=1");
    assert!(in_time(program.child.wait()).await.unwrap().success());
}

#[tokio::test]
async fn operators_are_not_answered_where_everybody_is() {
    let folder = tempfile::tempdir().unwrap();
    let settings = "listen = ['127.0.0.1:0']\nanonymous = 'loopback'\nadmin = '0.0.0.0:0'\n";
    let mut program = Program::start(folder.path(), settings);
    let line = in_time(program.log.next_line()).await.unwrap().expect("a reason");
    assert!(line.contains("admin-anywhere = true"), "{line}");
    assert!(!in_time(program.child.wait()).await.unwrap().success());
}

#[tokio::test]
async fn what_clients_call_themselves_begins_no_line_of_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let (passwords, rules) = (folder.path().join("passwords"), folder.path().join("rules"));
    let hash = godwit_broker::access::hash(b"alice").unwrap();
    std::fs::write(&passwords, format!("alice:{hash}\n")).unwrap();
    std::fs::write(&rules, "user alice\ntopic read none\n").unwrap();
    let settings = format!(
        "listen = ['127.0.0.1:0']\npassword-file = '{}'\nacl-file = '{}'\n",
        passwords.display(),
        rules.display()
    );
    let mut program = Program::start_logging(folder.path(), &settings, "text");
    let address = address(&program.line("listening for").await);
    let evil = "a\nforged \u{1b}[31m";
    let mut alice = Client::connect(address, hello_as("alice", evil)).await;
    alice.publish(evil, "x", false).await;
    let stranger = Client::try_connect(address, hello_as(evil, evil)).await.err();
    assert_eq!(stranger, Some(ConnectAckReason::BadUserNameOrPassword));
    for what in ["client connected", "publish refused", "password is wrong"] {
        let line = program.line(what).await;
        assert!(line.contains(r"a\nforged") && !line.contains('\u{1b}'), "{line}");
    }
    drop(alice);
    let line = program.line("client lost").await;
    assert!(line.contains(r"a\nforged"), "{line}");
}

#[tokio::test]
async fn a_line_of_the_password_file_is_made_by_the_program_itself() {
    let folder = tempfile::tempdir().unwrap();
    let line = async |user: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_godwit-broker"));
        command.args(["password", user]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"alice\n").await.unwrap();
        in_time(child.wait_with_output()).await.unwrap()
    };
    let passwords = folder.path().join("passwords");
    std::fs::write(&passwords, line("alice").await.stdout).unwrap();
    let settings = format!("listen = ['127.0.0.1:0']\npassword-file = '{}'\n", passwords.display());
    let mut program = Program::start_logging(folder.path(), &settings, "text");
    let address = address(&program.line("listening for").await);
    Client::connect(address, hello_as("alice", "1")).await.ping().await;

    for impossible in ["a:b", "#a", ""] {
        let refused = line(impossible).await;
        assert!(!refused.status.success() && refused.stdout.is_empty(), "{refused:?}");
        assert!(!refused.stderr.is_empty());
    }
}
