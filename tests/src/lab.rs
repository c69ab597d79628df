//! `scripts/lab`, called.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// A lab of this checkout. It is taken down when dropped, with all that its hosts hold.
#[derive(Debug)]
pub struct Lab {
    name: String,
    root: PathBuf,
}

/// What a program in a host said and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Its exit code; -1 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Said {
    /// Standard output of a program that succeeded.
    ///
    /// # Panics
    /// When it failed.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{}\n{}", self.out, self.err);
        self.out
    }
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Lab {
    /// A new lab with so many edge hosts, named by the environment's `GODWIT_TEST_LAB`; an old
    /// one of the name is removed.
    ///
    /// # Panics
    /// When it does not come up: the message says what is missing.
    pub fn up(edges: u8) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the checkout").to_owned();
        let name = std::env::var("GODWIT_TEST_LAB").unwrap_or_else(|_| "godwit-test".into());
        let lab = Self { name, root };
        lab.script(&["down"]);
        lab.script(&["up", &edges.to_string()]);
        lab
    }

    /// The checkout, mounted in every host under the same path.
    pub fn checkout(&self) -> &Path {
        &self.root
    }

    /// Runs a program in a host and waits for it.
    ///
    /// # Panics
    /// When the lab cannot be entered at all.
    pub fn run(&self, host: &str, command: &[&str]) -> Said {
        self.enter(host, command).stdin(Stdio::null()).output().expect("scripts/lab runs").into()
    }

    /// Starts a program in a host; what it says goes to `log`.
    ///
    /// # Panics
    /// When the log cannot be written.
    pub fn spawn(&self, host: &str, command: &[&str], log: &Path) -> Child {
        let open = || File::options().create(true).append(true).open(log).expect("a log file");
        self.enter(host, command)
            .stdin(Stdio::null())
            .stdout(open())
            .stderr(open())
            .spawn()
            .expect("scripts/lab runs")
    }

    fn enter(&self, host: &str, command: &[&str]) -> Command {
        let mut enter = Command::new(self.root.join("scripts/lab"));
        enter.args(["--lab", &self.name, "enter", host]).args(command);
        enter
    }

    /// A directory that every host sees as `/lab`, and where it is here.
    pub fn share(&self) -> PathBuf {
        Path::new("/var/lib/godwit-lab").join(&self.name).join("share")
    }

    #[track_caller]
    fn script(&self, arguments: &[&str]) {
        let script = self.root.join("scripts/lab");
        let done = Command::new(script).args(["--lab", &self.name]).args(arguments).output();
        let said = Said::from(done.expect("scripts/lab runs: are you root?"));
        assert_eq!(said.code, 0, "scripts/lab {arguments:?} failed:\n{}", said.err);
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let script = self.root.join("scripts/lab");
        // GODWIT_LAB_KEEP leaves the hosts up for whoever looks into a failure.
        if std::env::var_os("GODWIT_LAB_KEEP").is_none() {
            let _ = Command::new(script).args(["--lab", &self.name, "down"]).output();
        }
    }
}

/// Where a program of this workspace was built, next to the test that asks.
///
/// # Panics
/// When it is not built.
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let path = test.ancestors().nth(2).expect("target/PROFILE/deps/test").join(name);
    assert!(path.exists(), "{} is missing: run scripts/test", path.display());
    path
}
