//! A whole fabric in a lab: the controller on `hub`, an agent on each edge host.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Child;

use serde_json::Value;

use crate::wait::eventually;
use crate::{Dial, Lab, Observer, Said};

/// The hub's broker.
const BROKER: &str = "mqtt://10.77.0.1:1883";
/// Where the counter answers TCP clients.
const ECHO: &str = "7000";

/// The controller, agents and the command line, as a user has them.
#[derive(Debug)]
pub struct Fabric {
    programs: RefCell<BTreeMap<String, Program>>,
    door: Door,
    edges: Vec<String>,
    logs: tempfile::TempDir,
    // Last: the programs end before their hosts.
    lab: Lab,
}

/// How the fabric's broker is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    /// The controller's, where everybody may do everything.
    Open,
    /// The same in a program of its own.
    Apart,
    /// As it is by default: TLS, accounts, nodes that join with tokens.
    Joined,
}

/// A running program of the fabric.
#[derive(Debug)]
pub struct Program {
    host: String,
    pattern: &'static str,
    child: Child,
}

impl Fabric {
    /// Brings up a lab with so many edge hosts and a fabric in it; ready when every node is
    /// online and found fit to migrate.
    ///
    /// # Panics
    /// When anything of it does not come up.
    pub fn start(edges: u8) -> Self {
        Self::bare(edges, Door::Open).complete()
    }

    /// As [`Self::start`], with the broker as a program of its own.
    ///
    /// # Panics
    /// When anything of it does not come up.
    pub fn with_broker_apart(edges: u8) -> Self {
        let fabric = Self::bare(edges, Door::Apart);
        fabric.start_broker();
        fabric.complete()
    }

    /// As [`Self::start`], with TLS, accounts, and nodes that join with tokens.
    ///
    /// # Panics
    /// When anything of it does not come up.
    pub fn joined(edges: u8) -> Self {
        let fabric = Self::bare(edges, Door::Joined);
        fabric.start_controller();
        for host in &fabric.edges {
            let token = fabric.godwit(&["node", "token", host]).ok();
            let join = crate::program("godwit-agent");
            let join = [&*join.to_string_lossy(), "join", "--node", host, token.trim()];
            fabric.lab.run(host, &join).ok();
        }
        fabric.edges.iter().for_each(|host| fabric.start_agent(host));
        fabric.edges.iter().for_each(|host| fabric.await_fit(host));
        fabric
    }

    /// A lab in which nothing runs yet.
    fn bare(edges: u8, door: Door) -> Self {
        let logs = tempfile::tempdir().expect("a directory for logs");
        let edges =
            (0..edges).map(|n| format!("edge-{}", char::from(b'a' + n))).collect::<Vec<_>>();
        let lab = Lab::up(edges.len() as u8);
        Self { programs: RefCell::default(), door, edges, logs, lab }
    }

    fn complete(self) -> Self {
        self.start_controller();
        self.edges.iter().for_each(|host| self.start_agent(host));
        self.edges.iter().for_each(|host| self.await_fit(host));
        self
    }

    /// The lab beneath.
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// Starts the controller with its embedded broker.
    pub fn start_controller(&self) {
        // Where nothing else is said, clients and containers are on one layer 2.
        let mut command = vec!["--data-dir", "/var/lib/godwit/controller", "--network", "direct"];
        match self.door {
            Door::Apart => command.extend(["--broker", "mqtt://127.0.0.1:1883"]),
            Door::Open => {
                command.extend(["--broker-listen", "0.0.0.0:1883", "--anonymous", "anyone"]);
            }
            Door::Joined => {}
        }
        self.start_program("controller", "hub", "godwit-controller", &command);
        eventually("the controller answers", || {
            let said = self.godwit(&["version"]);
            if said.code == 0 { Ok(()) } else { Err(said) }
        });
    }

    /// Starts a broker on the hub.
    pub fn start_broker(&self) {
        let open = ["--listen", "0.0.0.0:1883", "--anonymous", "anyone"];
        self.start_program("broker", "hub", "godwit-broker", &open);
    }

    /// Starts the agent of an edge host: it finds the broker by mDNS, or where it joined.
    pub fn start_agent(&self, host: &str) {
        self.start_agent_with(host, &[]);
    }

    /// The same with more to tell it.
    pub fn start_agent_with(&self, host: &str, options: &[&str]) {
        let args = [&["run", "--node", host][..], options].concat();
        self.start_program(host, host, "godwit-agent", &args);
    }

    /// The same, told where the broker is: nobody need be there to be found.
    pub fn start_agent_without_discovery(&self, host: &str) {
        let args = ["run", "--node", host, "--broker", BROKER];
        self.start_program(host, host, "godwit-agent", &args);
    }

    fn start_program(&self, name: &str, host: &str, program: &'static str, args: &[&str]) {
        let path = crate::program(program);
        let path = path.to_string_lossy();
        let command = [&[&*path], args].concat();
        let child = self.lab.spawn(host, &command, &self.log(name));
        // The kernel knows a process by the first fifteen bytes of its name.
        let pattern = &program[..program.len().min(15)];
        let program = Program { host: host.into(), pattern, child };
        self.programs.borrow_mut().insert(name.into(), program);
    }

    /// What a program has logged so far, over all its lives.
    pub fn log(&self, name: &str) -> PathBuf {
        self.logs.path().join(format!("{name}.log"))
    }

    /// Ends a program at once, as `kill -9` does; returns when it is gone.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill(&self, name: &str) {
        self.signal(name, "-9");
    }

    /// Asks a program to end and waits until it has.
    ///
    /// # Panics
    /// When it does not run.
    pub fn terminate(&self, name: &str) {
        self.signal(name, "-TERM");
    }

    fn signal(&self, name: &str, signal: &str) {
        let program = self.programs.borrow_mut().remove(name);
        let mut program = program.expect("the program runs");
        // The agent's binary runs as `criu` too, with another name: -x tells them apart.
        self.lab.run(&program.host, &["pkill", signal, "-x", "-o", program.pattern]);
        let _ = program.child.wait();
    }

    /// True while the program has not ended.
    pub fn is_running(&self, name: &str) -> bool {
        let mut programs = self.programs.borrow_mut();
        programs.get_mut(name).is_some_and(|program| matches!(program.child.try_wait(), Ok(None)))
    }

    /// The process id of a program, as its host sees it.
    ///
    /// # Panics
    /// When it does not run.
    pub fn pid(&self, name: &str) -> String {
        let programs = self.programs.borrow();
        let program = &programs[name];
        let said = self.lab.run(&program.host, &["pgrep", "-x", "-o", program.pattern]);
        said.ok().trim().to_owned()
    }

    /// Runs the command line on the hub.
    pub fn godwit(&self, args: &[&str]) -> Said {
        let path = crate::program("godwit");
        let path = path.to_string_lossy();
        self.lab.run("hub", &[&[&*path], args].concat())
    }

    /// The JSON that a command prints.
    ///
    /// # Panics
    /// When it fails or prints something else.
    #[track_caller]
    pub fn json(&self, args: &[&str]) -> Value {
        let out = self.godwit(&[args, &["--format", "json"]].concat()).ok();
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{args:?}: {error}: {out}"))
    }

    /// A container as the controller has it.
    ///
    /// # Panics
    /// When there is none of that name.
    #[track_caller]
    pub fn container(&self, name: &str) -> Value {
        match self.json(&["inspect", name]) {
            Value::Array(mut all) => all.remove(0),
            one => one,
        }
    }

    /// Waits until a node is online and its doctor has found it fit.
    ///
    /// # Panics
    /// When it does not become so.
    pub fn await_fit(&self, node: &str) {
        eventually("the node is online and fit to migrate", || {
            let nodes = self.json(&["node", "ls"]);
            let found = nodes.as_array().and_then(|all| all.iter().find(|n| n["name"] == node));
            let is_fit =
                |n: &&Value| n["state"] == "online" && n["info"]["probe"]["can_migrate"] == true;
            found.filter(is_fit).map(drop).ok_or(nodes.clone())
        });
    }

    /// Starts an observer and a counter that reports to it, on `node`; returns when it ticks.
    ///
    /// # Panics
    /// When any of it fails.
    pub fn start_counter(&self, node: &str) -> Observer<'_> {
        let observer = Observer::start(&self.lab, &self.log("observe"));
        let image = self.lab.checkout().join("target/workload/counter.tar");
        self.godwit(&["image", "load", &image.to_string_lossy()]).ok();
        let run = ["run", "--name", "counter", "--node", node, "counter:1", "--memory-mb", "64"];
        let rest = ["--report", "10.77.0.2:7007", "--echo", ECHO];
        self.godwit(&[&run[..], &rest].concat()).ok();
        eventually("the counter ticks", || {
            observer.ticks().filter(|t| t.count > 20).map(drop).ok_or("no ticks")
        });
        observer
    }

    /// Connects a TCP client to the counter.
    pub fn dial_counter(&self) -> Dial<'_> {
        let ip = self.container("counter")["ip"].as_str().expect("an address").to_owned();
        Dial::start(&self.lab, &format!("{ip}:{ECHO}"), self.log("dial"))
    }

    /// The edge hosts on which processes of a container run, by the kernel's word.
    pub fn runs_on(&self) -> Vec<String> {
        let script = "for g in /sys/fs/cgroup/libpod_parent/libpod-*/; do \
             grep -q 'populated 1' $g/cgroup.events && grep -q 'frozen 0' $g/cgroup.events \
             && echo $g; done; true";
        let runs = |host: &&String| {
            let said = self.lab.run(host, &["sh", "-c", script]);
            said.out.lines().any(|line| !line.contains("conmon"))
        };
        self.edges.iter().filter(runs).cloned().collect()
    }

    /// Every program's log, for the message of a failed test.
    pub fn all_logs(&self) -> String {
        let mut text = String::new();
        let Ok(logs) = std::fs::read_dir(self.logs.path()) else { return text };
        for log in logs.flatten() {
            let said = std::fs::read_to_string(log.path()).unwrap_or_default();
            let from = said.len().saturating_sub(20_000);
            let from = (from..said.len()).find(|at| said.is_char_boundary(*at)).unwrap_or(0);
            text += &format!("\n===== {}\n{}", log.path().display(), &said[from..]);
        }
        text
    }
}

impl Drop for Fabric {
    fn drop(&mut self) {
        if std::thread::panicking() {
            #[expect(clippy::print_stderr, reason = "a failed test shows what was going on")]
            {
                eprintln!("{}", self.all_logs());
            }
        }
        for (_, mut program) in self.programs.take() {
            let _ = program.child.kill();
            let _ = program.child.wait();
        }
    }
}
