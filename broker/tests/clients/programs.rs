//! How they are run.

use std::path::PathBuf;
use std::process::{Output, Stdio};

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::in_time;

/// What to do where one is missing.
const INSTALL: &str = "run scripts/interop-clients, which installs the clients of these tests";

/// A program of a Debian package.
pub(crate) fn debian(program: &str, package: &str) -> Command {
    let is_there = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|at| at.join(program).exists()));
    assert!(is_there, "there is no `{program}`: apt-get install {package}; or {INSTALL}");
    command(program.into())
}

/// A file that `scripts/interop-clients` has put below the target directory.
pub(crate) fn installed(path: &str) -> PathBuf {
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().to_owned();
    let file = target.join("clients").join(path);
    assert!(file.exists(), "there is no {}: {INSTALL}", file.display());
    file
}

/// One of them.
pub(crate) fn command(program: PathBuf) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// What became of a program.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) is_success: bool,
    pub(crate) said: String,
    pub(crate) complained: String,
}

/// Runs it to its end.
pub(crate) async fn run(mut command: Command) -> Ended {
    let Output { status, stdout, stderr } = in_time(command.output()).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ended { is_success: status.success(), said: text(stdout), complained: text(stderr) }
}

/// A program that says things as it runs.
pub(crate) struct Speaker {
    pub(crate) child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Speaker {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// The next thing that it says.
    pub(crate) async fn next(&mut self) -> String {
        in_time(self.lines.next_line()).await.unwrap().expect("it ended")
    }
}
