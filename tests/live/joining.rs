//! A fabric as it is by default: nodes join with tokens, everything is TLS, people have accounts.

use godwit_tests::{Fabric, Said, eventually};

use crate::scene::{EDGES, Scene};

/// Where hosts of the lab see the certificate of the fabric's authority.
const SHARED: &str = "/lab/fabric.pem";

/// A client of MQTT on the host `client`, with the fabric's authority and an account.
struct Account<'a> {
    fabric: &'a Fabric,
    user: &'static str,
    password: String,
}

impl<'a> Account<'a> {
    fn new(fabric: &'a Fabric, user: &'static str) -> Self {
        let password = fabric.godwit(&["account", "add", user]).ok().trim().to_owned();
        let pem = fabric.godwit(&["authority"]).ok();
        std::fs::write(fabric.lab().share().join("fabric.pem"), pem).expect("the share");
        Self { fabric, user, password }
    }

    fn run(&self, program: &str, args: &[&str]) -> Said {
        let account = ["-u", self.user, "-P", &self.password];
        self.fabric.lab().run("client", &[&anonymous(program)[..], &account, args].concat())
    }
}

/// Over TLS, with no account.
fn anonymous(program: &str) -> [&str; 7] {
    [program, "-h", "hub", "-p", "8883", "--cafile", SHARED]
}

#[test]
fn a_container_moves_between_nodes_that_joined_and_its_tenant_may_say_so() {
    let fabric = Fabric::joined(EDGES);
    let scene = Scene::open(&fabric);
    let tenant = Account::new(&fabric, "default");
    let topic = "godwit/v1/tenant/default/command/migrate";
    let command = r#"{"id":"j-1","container":"counter","to":"edge-b"}"#;
    tenant.run("mosquitto_pub", &["-q", "1", "-t", topic, "-m", command]).ok();
    eventually("the counter is on edge-b", || {
        let container = fabric.container("counter");
        let is_there = container["node"] == "edge-b" && container["state"] == "running";
        if is_there { Ok(()) } else { Err(container) }
    });
    scene.runs_once_on("edge-b");
    let state = "godwit/v1/tenant/default/container/counter/state";
    let heard = tenant.run("mosquitto_sub", &["-t", state, "-C", "1", "-W", "10"]).ok();
    assert!(heard.contains("edge-b"), "{heard}");

    // Nobody, somebody else's password, and somebody else's topic.
    let publish = ["-q", "1", "-t", topic, "-m", command];
    let nobody = [&anonymous("mosquitto_pub")[..], &publish].concat();
    assert_ne!(fabric.lab().run("client", &nobody).code, 0);
    let wrong = [&nobody[..], &["-u", "default", "-P", "swordfish"]].concat();
    assert_ne!(fabric.lab().run("client", &wrong).code, 0);
    let agents = "godwit/v1/agent/edge-b/ctl";
    let told = tenant.run("mosquitto_pub", &["-V", "5", "-q", "1", "-t", agents, "-m", "x"]);
    assert!(told.err.contains("Not authorized") || told.code != 0, "{told:?}");
    let plain = ["mosquitto_pub", "-h", "hub", "-p", "1883", "-t", topic, "-m", command];
    assert_ne!(fabric.lab().run("client", &plain).code, 0, "only the hub itself is served plainly");
}

#[test]
fn a_node_is_one_until_its_account_is_removed_and_again_by_a_new_token() {
    let fabric = Fabric::joined(EDGES);
    let state = |node: &str, wanted: &str| {
        eventually(&format!("{node} is {wanted}"), || {
            let nodes = fabric.json(&["node", "ls"]);
            let is = |n: &&serde_json::Value| n["name"] == node && n["state"] == wanted;
            let found = nodes.as_array().and_then(|all| all.iter().find(is)).map(drop);
            found.ok_or(nodes.clone())
        });
    };
    fabric.kill("edge-b");
    state("edge-b", "lost");
    fabric.start_agent("edge-b");
    fabric.await_fit("edge-b");

    fabric.godwit(&["account", "rm", "node:edge-b"]).ok();
    state("edge-b", "lost");
    fabric.terminate("edge-b");
    let agent = godwit_tests::program("godwit-agent");
    let agent = agent.to_string_lossy().into_owned();
    fabric.lab().run("edge-b", &["rm", "/var/lib/godwit/identity.json"]).ok();
    let token = fabric.godwit(&["node", "token", "edge-b"]).ok().trim().to_owned();
    let as_other = fabric.lab().run("edge-b", &[&agent, "join", "--node", "edge-x", &token]);
    assert!(as_other.code != 0 && as_other.err.contains("edge-b"), "{as_other:?}");
    fabric.lab().run("edge-b", &[&agent, "join", "--node", "edge-b", &token]).ok();
    fabric.start_agent("edge-b");
    fabric.await_fit("edge-b");
}
