//! The main job while strangers do their worst.

use std::process::Child;

use godwit_tests::{Fabric, eventually, program};

use crate::scene::{EDGES, Scene};

/// Clients on the hub that send what makes no sense, until they are through or dropped.
struct Siege {
    child: Child,
    log: std::path::PathBuf,
}

impl Siege {
    /// With an account of a tenant, and without one.
    fn start(fabric: &Fabric) -> Self {
        let password = fabric.godwit(&["account", "add", "mallory"]).ok().trim().to_owned();
        let (hostile, log) = (program("examples/hostile"), fabric.log("siege"));
        let command = [
            &hostile.to_string_lossy(),
            "siege",
            "--address",
            "127.0.0.1:1883",
            "--user",
            "mallory",
            "--password",
            &password,
            "--prefix",
            "app/mallory",
            "--sequences",
            "1000000000",
            "--minutes",
            "0.5",
            // How long the bystander waits is looked at on a machine that does nothing else.
            "--patience-ms",
            "60000",
        ];
        Self { child: fabric.lab().spawn("hub", &command, &log), log }
    }

    fn report(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// A figure of its report.
    fn count(&self, name: &str) -> u64 {
        let report = self.report();
        let line = report.lines().find_map(|line| line.trim().strip_prefix(name));
        let count = line.and_then(|rest| rest.trim().parse().ok());
        count.unwrap_or_else(|| panic!("no {name} in {report}"))
    }
}

impl Drop for Siege {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[test]
fn a_container_moves_while_the_broker_is_besieged() {
    let fabric = Fabric::joined(EDGES);
    let scene = Scene::open(&fabric);
    let mut siege = Siege::start(&fabric);
    let mut nodes = ["edge-b", "edge-a"].into_iter().cycle();
    let mut moves = 0;
    let ended = loop {
        if let Some(status) = siege.child.try_wait().expect("its state") {
            break status;
        }
        fabric.godwit(&["migrate", "counter", "--to", nodes.next().expect("one of two")]).ok();
        moves += 1;
    };
    // It tells by its code whether the bystanders lost anything, or an answer was due to somebody.
    assert!(ended.success(), "{}", siege.report());
    assert!(siege.count("sequences") > 1000, "{}", siege.report());
    assert!(siege.count("refused by CONNACK") > 0, "{}", siege.report());
    assert!(moves >= 2, "only {moves} while it lasted");
    let node = if moves % 2 == 0 { "edge-a" } else { "edge-b" };
    scene.runs_once_on(node);
    eventually("nobody is left of them", || {
        let clients = fabric.json(&["broker", "clients"]);
        let is_theirs = |client: &serde_json::Value| client["user"] == "mallory";
        let left = clients.as_array().expect("a list").iter().filter(|c| is_theirs(c)).count();
        if left == 0 { Ok(()) } else { Err(clients) }
    });
}
