//! A client of an application, at work on the host `client`.

use std::path::PathBuf;
use std::process::Child;

use godwit_tests::{Lab, eventually};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;

/// `NAME_load.py`. It runs in the applications' tree, where the libraries are that it speaks with.
#[derive(Debug)]
pub(super) struct Client {
    name: String,
    child: Child,
    log: PathBuf,
}

/// How far a client is. See `load.py`.
#[derive(Debug, Default, Deserialize)]
struct Said {
    /// How often all that it asked was answered rightly.
    steps: u64,
    /// What was answered wrongly.
    wrong: Option<String>,
    /// Why a connection was lost.
    lost: Option<String>,
    ended: bool,
}

impl Client {
    /// Starts the one of this name against a server at `ip`; `log` takes what it says.
    pub(super) fn start(lab: &Lab, name: &str, ip: &str, log: PathBuf) -> Self {
        let here = lab.checkout();
        let tree = here.join("target/workload/applications/tree");
        let tree = tree.canonicalize().expect("scripts/lab applications was run");
        let script = "mount --bind $0 $1/mnt && exec chroot $1 \
             python3 -u /mnt/tests/live/applications/$2_load.py $3";
        let (here, tree) = (here.to_string_lossy(), tree.to_string_lossy());
        let command = ["unshare", "--mount", "sh", "-c", script, &here, &tree, name, ip];
        let child = lab.spawn("client", &command, &log);
        Self { name: name.to_owned(), child, log }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Waits until it is further than it is now.
    #[track_caller]
    pub(super) fn goes_on(&self) {
        let before = self.said().steps;
        eventually(&format!("the client of {} goes on", self.name), || {
            let said = self.said();
            assert!(!said.ended, "{}: {}", self.name, self.log());
            if said.steps > before { Ok(()) } else { Err(self.log()) }
        });
    }

    /// Ends it, and asserts that every answer was right and no connection lost.
    #[track_caller]
    pub(super) fn hang_up(mut self) {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM).expect("it runs");
        let _status = self.child.wait();
        let said = self.said();
        assert!(said.ended, "{}: {}", self.name, self.log());
        assert_eq!((said.wrong, said.lost), (None, None), "{}", self.name);
    }

    /// What it said last.
    fn said(&self) -> Said {
        let log = self.log();
        log.lines().rev().find_map(|line| serde_json::from_str(line).ok()).unwrap_or_default()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
