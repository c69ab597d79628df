//! Commands over MQTT, as `mosquitto_pub` sends them.

use std::process::Child;

use godwit_tests::{Fabric, eventually};
use serde_json::Value;

use crate::scene::{EDGES, Scene};

/// `mosquitto_sub` on everything of the tenant's, from the host `client`.
struct Listener<'a> {
    fabric: &'a Fabric,
    child: Child,
}

impl<'a> Listener<'a> {
    fn start(fabric: &'a Fabric) -> Self {
        let listen = ["mosquitto_sub", "-h", "hub", "-t", "godwit/v1/tenant/default/#", "-v"];
        let child = fabric.lab().spawn("client", &listen, &fabric.log("mqtt"));
        let listener = Self { fabric, child };
        // A retained state arrives once the subscription stands.
        eventually("the listener hears", || listener.heard("container/counter/state", |_| true));
        listener
    }

    /// The last payload on a topic that ends so, if it is as wanted.
    fn heard(&self, topic: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value, String> {
        let log = std::fs::read_to_string(self.fabric.log("mqtt")).unwrap_or_default();
        let said = log.lines().filter_map(|line| line.split_once(' '));
        let on_topic = said.filter(|(at, _)| at.ends_with(topic));
        let mut payloads =
            on_topic.filter_map(|(_, text)| serde_json::from_str::<Value>(text).ok());
        payloads.rfind(wanted).ok_or(log)
    }

    fn replied(&self, id: &str, status: &str) -> Value {
        eventually(&format!("the reply to {id} is {status}"), || {
            self.heard(&format!("/reply/{id}"), |reply| reply["status"] == status)
        })
    }

    fn publish(&self, verb: &str, payload: &str, more: &[&str]) {
        let topic = format!("godwit/v1/tenant/default/command/{verb}");
        let publish = ["mosquitto_pub", "-h", "hub", "-q", "1", "-t", &topic, "-m", payload];
        self.fabric.lab().run("client", &[&publish[..], more].concat()).ok();
    }
}

impl Drop for Listener<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_move_by_mosquitto_pub_is_answered_and_told() {
    let fabric = Fabric::start(EDGES);
    let scene = Scene::open(&fabric);
    let mqtt = Listener::start(&fabric);
    mqtt.publish("migrate", r#"{"id":"go-1","container":"counter","to":"edge-b"}"#, &[]);
    mqtt.replied("go-1", "accepted");
    mqtt.replied("go-1", "done");
    scene.runs_once_on("edge-b");
    let state = |node: &'static str| move |s: &Value| s["node"] == node && s["state"] == "running";
    eventually("the retained state says so", || {
        mqtt.heard("container/counter/state", state("edge-b"))
    });
    // The same id again is answered from the record, and not done twice.
    mqtt.publish("migrate", r#"{"id":"go-1","container":"counter","to":"edge-a"}"#, &[]);
    mqtt.publish("migrate", r#"{"id":"go-2","container":"counter","to":"edge-b"}"#, &[]);
    let failed = mqtt.replied("go-2", "failed");
    assert!(failed["message"].as_str().is_some_and(|m| m.contains("edge-b")), "{failed}");
    let moves = fabric.json(&["migration", "ls"]);
    assert_eq!(moves.as_array().map(Vec::len), Some(1), "{moves}");
    scene.runs_once_on("edge-b");
}

#[test]
fn what_is_wrong_is_answered_and_moves_nothing() {
    let fabric = Fabric::start(EDGES);
    let scene = Scene::open(&fabric);
    let mqtt = Listener::start(&fabric);
    mqtt.publish("migrate", "{this is not JSON", &[]);
    mqtt.replied("unparsed", "failed");
    mqtt.publish("levitate", r#"{"id":"verb-1","container":"counter"}"#, &[]);
    let reply = mqtt.replied("verb-1", "failed");
    assert!(
        reply["message"].as_str().is_some_and(|m| m.contains("migrate")),
        "the known verbs: {reply}"
    );
    mqtt.publish("migrate", r#"{"id":"type-1","container":7}"#, &[]);
    let reply = mqtt.replied("type-1", "failed");
    assert!(reply["message"].as_str().is_some_and(|m| m.contains("container")), "{reply}");
    mqtt.publish("migrate", r#"{"id":"who-1","container":"countre","to":"edge-b"}"#, &[]);
    mqtt.replied("who-1", "failed");
    assert_eq!(fabric.json(&["migration", "ls"]).as_array().map(Vec::len), Some(0));
    scene.was_not_frozen();
    scene.runs_once_on("edge-a");
}

#[test]
fn a_retained_command_is_refused_and_cleared_when_it_is_replayed() {
    let fabric = Fabric::with_broker_apart(EDGES);
    let scene = Scene::open(&fabric);
    let mqtt = Listener::start(&fabric);
    fabric.terminate("controller");
    let command = r#"{"id":"old-1","container":"counter","to":"edge-b"}"#;
    mqtt.publish("migrate", command, &["-r"]);
    fabric.start_controller();
    let reply = mqtt.replied("old-1", "failed");
    assert!(reply["message"].as_str().is_some_and(|m| m.contains("retained")), "{reply}");
    let topic = "godwit/v1/tenant/default/command/migrate";
    eventually("the broker keeps it no more", || {
        let ask = ["mosquitto_sub", "-h", "hub", "-t", topic, "-C", "1", "-W", "1"];
        let said = fabric.lab().run("client", &ask);
        if said.out.is_empty() { Ok(()) } else { Err(said) }
    });
    scene.was_not_frozen();
    scene.runs_once_on("edge-a");
}
