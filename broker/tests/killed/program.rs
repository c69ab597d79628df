//! `godwit-broker` with a store, which is killed and started again.

use std::net::{SocketAddr, TcpListener};

use tempfile::TempDir;
use tokio::process::{Child, Command};

pub(crate) struct Program {
    pub(crate) address: SocketAddr,
    folder: TempDir,
    child: Child,
}

impl Program {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let settings = format!(
            "listen = ['{address}']\nanonymous = 'loopback'\nstore = {:?}\n\
             limits.max-queued = 1000000\n",
            folder.path().join("broker.db")
        );
        std::fs::write(folder.path().join("broker.toml"), settings).unwrap();
        let child = run(&folder);
        Self { address, folder, child }
    }

    /// SIGKILL, and another one in its place.
    pub(crate) async fn die_and_rise(&mut self) {
        assert_eq!(self.child.try_wait().unwrap(), None, "it ended by itself");
        self.child.kill().await.unwrap();
        self.child = run(&self.folder);
    }
}

fn run(folder: &TempDir) -> Child {
    Command::new(env!("CARGO_BIN_EXE_godwit-broker"))
        .arg("--config")
        .arg(folder.path().join("broker.toml"))
        .args(["--log", "error"])
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}
