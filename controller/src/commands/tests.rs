use godwit_broker::Broker;
use godwit_bus::{Config, Inbox};
use godwit_proto::topic::Filter;
use serde_json::{Value, json};

use super::*;
use crate::bench::Stand;
use crate::store::ContainerState;

/// A broker, the commands over a stub core, and a tenant who gives them.
struct Fixture {
    stand: Stand,
    tenant: Session,
    replies: Inbox,
    broker: godwit_bus::BrokerUrl,
    over: CancellationToken,
}

fn session(broker: &godwit_bus::BrokerUrl, name: &str, filter: Filter) -> (Session, Inbox) {
    let mut config = Config::new(broker.clone(), name);
    config.subscriptions = vec![filter];
    Session::open(config).unwrap()
}

/// The controller's end: as in `app`, all that arrives are commands.
async fn commands(stand: &Stand, broker: &godwit_bus::BrokerUrl, over: CancellationToken) {
    let (session, mut inbox) = session(broker, "controller", Filter::Commands);
    let commands = Commands::new(stand.service.clone(), stand.store.clone(), session.clone());
    let (forward, waiting) = mpsc::channel(16);
    tokio::spawn(commands.run(waiting, over));
    tokio::spawn(async move {
        while let Some(delivery) = inbox.recv().await {
            if forward.send(delivery).await.is_err() {
                return;
            }
        }
    });
    session.up().await.unwrap();
}

async fn fixture() -> Fixture {
    let config = godwit_broker::Config::open_to_all("127.0.0.1:0".parse().unwrap());
    let broker = Broker::bind(config).await.unwrap();
    let url = godwit_bus::BrokerUrl::from(broker.tcp_address().unwrap());
    tokio::spawn(broker.run(CancellationToken::new()));
    let (tenant, replies) = session(&url, "alice", Filter::Tenant(Stand::tenant()));
    tenant.up().await.unwrap();
    let fixture = Fixture {
        stand: Stand::new().await,
        tenant,
        replies,
        broker: url,
        over: CancellationToken::new(),
    };
    commands(&fixture.stand, &fixture.broker, fixture.over.clone()).await;
    fixture
}

fn command(verb: &str, payload: &str) -> Publication {
    let topic: Topic = format!("godwit/v1/tenant/default/command/{verb}").parse().unwrap();
    Publication::new(&topic, payload.to_owned())
}

impl Fixture {
    async fn give(&self, verb: &str, payload: Value) {
        self.tenant.publish(command(verb, &payload.to_string())).await.unwrap();
    }

    /// The next reply and the last level of its topic.
    async fn reply(&mut self) -> (String, Value) {
        loop {
            let delivery = self.replies.recv().await.unwrap();
            if let Some((_, last)) = delivery.raw_topic.split_once("/reply/") {
                let reply = serde_json::from_slice(&delivery.payload).unwrap();
                return (last.to_owned(), reply);
            }
        }
    }

    async fn expect(&mut self, id: &str, status: &str, code: &str) -> Value {
        let (topic, reply) = self.reply().await;
        assert_eq!(
            (topic.as_str(), &reply["status"], &reply["code"]),
            (id, &json!(status), &json!(code)),
            "{reply}"
        );
        reply
    }
}

#[tokio::test]
async fn a_container_is_made_and_its_start_is_told() {
    let mut fixture = fixture().await;
    fixture.give("create", json!({"id": "1", "container": "web", "image": "counter"})).await;
    let accepted = fixture.expect("1", "accepted", "ok").await;
    assert_eq!(accepted["container"], "web");
    let web = fixture.stand.service.container(&Stand::tenant(), "web").await.unwrap();
    fixture.stand.core.reach(web.id, ContainerState::Starting).await;
    fixture.stand.core.reach(web.id, ContainerState::Running).await;
    fixture.expect("1", "done", "ok").await;
    fixture.give("delete", json!({"id": "2", "container": "web"})).await;
    let refused = fixture.expect("2", "failed", "not-stopped").await;
    assert_ne!(refused["remedy"], "");
    fixture.give("delete", json!({"id": "3", "container": "web", "force": true})).await;
    fixture.expect("3", "accepted", "ok").await;
    fixture.stand.core.forget(web.id).await;
    fixture.expect("3", "done", "ok").await;
}

#[tokio::test]
async fn a_move_is_told_step_by_step() {
    let mut fixture = fixture().await;
    fixture.stand.running("web").await;
    fixture.give("migrate", json!({"id": "1", "container": "web", "to": "edge-b"})).await;
    let accepted = fixture.expect("1", "accepted", "ok").await;
    let id = accepted["migration"].as_str().unwrap().parse().unwrap();
    assert_eq!(fixture.expect("1", "progress", "ok").await["phase"], "preparing");
    fixture.stand.core.progress(&id, 250, 1000).await;
    fixture.stand.core.progress(&id, 260, 1000).await;
    fixture.stand.core.progress(&id, 500, 1000).await;
    assert_eq!(fixture.expect("1", "progress", "ok").await["percent"], 25.0);
    assert_eq!(fixture.expect("1", "progress", "ok").await["percent"], 50.0);
    fixture.stand.core.settle(&id, "aborted").await;
    fixture.expect("1", "failed", "aborted").await;
}

#[tokio::test]
async fn the_same_id_twice_is_done_once() {
    let mut fixture = fixture().await;
    let web = fixture.stand.running("web").await;
    fixture.give("stop", json!({"id": "1", "container": "web"})).await;
    fixture.expect("1", "accepted", "ok").await;
    fixture.stand.core.reach(web.id, ContainerState::Stopped).await;
    let first = fixture.expect("1", "done", "ok").await;
    fixture.give("delete", json!({"id": "1", "container": "web", "force": true})).await;
    assert_eq!(fixture.expect("1", "done", "ok").await, first, "answered from the record");
    let after = fixture.stand.service.container(&Stand::tenant(), "web").await.unwrap();
    assert_eq!(after.state, ContainerState::Stopped);
}

#[tokio::test]
async fn every_wrong_command_is_answered() {
    let mut fixture = fixture().await;
    fixture.tenant.publish(command("migrate", "{\"id\":")).await.unwrap();
    fixture.expect("unparsed", "failed", "not-json").await;
    fixture.give("dance", json!({"id": "1"})).await;
    fixture.expect("1", "failed", "unknown-verb").await;
    fixture.give("migrate", json!({"id": "2"})).await;
    fixture.expect("2", "failed", "missing-field").await;
    fixture.give("migrate", json!({"id": "3", "container": "nobody"})).await;
    fixture.expect("3", "failed", "unknown-container").await;
    fixture.give("rename", json!({"id": "4", "container": "a", "new_name": "b"})).await;
    fixture.expect("4", "failed", "verb-not-served").await;
    fixture.stand.running("web").await;
    fixture.give("migrate", json!({"id": "5", "container": "web", "to": "edge-a"})).await;
    let refused = fixture.expect("5", "failed", "admission-refused").await;
    assert_eq!(refused["reasons"][0]["code"], "same-node");
    fixture.give("migrate", json!({"id": "6", "container": "web", "dry_run": true})).await;
    let asked = fixture.expect("6", "done", "ok").await;
    assert_eq!(asked["admission"]["target"], "edge-b");
}

#[tokio::test]
async fn a_retained_command_is_refused_and_cleared() {
    let mut fixture = fixture().await;
    let web = fixture.stand.running("web").await;
    // The controller is away while somebody leaves a command for it.
    fixture.over.cancel();
    let payload = json!({"id": "1", "container": "web"}).to_string();
    fixture.tenant.publish_acked(command("stop", &payload).retained()).await.unwrap();
    let over = CancellationToken::new();
    commands(&fixture.stand, &fixture.broker, over).await;
    fixture.expect("1", "failed", "retained").await;
    let after = fixture.stand.service.container(&Stand::tenant(), "web").await.unwrap();
    assert_eq!((after.state, after.id), (ContainerState::Running, web.id));

    // Cleared: whoever subscribes next is told of the next command first.
    let (late, mut inbox) = session(&fixture.broker, "late", Filter::Commands);
    late.up().await.unwrap();
    fixture.give("stop", json!({"id": "2", "container": "web"})).await;
    let first = inbox.recv().await.unwrap();
    assert!(!first.retained, "{first:?}");
    fixture.expect("2", "accepted", "ok").await;
}

#[tokio::test]
async fn a_request_is_followed_up_after_a_restart() {
    let mut fixture = fixture().await;
    fixture.stand.running("web").await;
    fixture.give("migrate", json!({"id": "1", "container": "web", "to": "edge-b"})).await;
    let accepted = fixture.expect("1", "accepted", "ok").await;
    fixture.expect("1", "progress", "ok").await;
    let id = accepted["migration"].as_str().unwrap().parse().unwrap();
    fixture.over.cancel();
    // Claimed, but the controller stopped before anything was done.
    let lost = RequestRow {
        tenant: Stand::tenant(),
        id: "2".parse().unwrap(),
        verb: "stop".into(),
        subject: None,
        status: "accepted".into(),
        reply: "{}".into(),
    };
    fixture.stand.store.call(move |store| store.claim_request(&lost)).await.unwrap();
    // It ends while nobody looks.
    fixture.stand.core.settle(&id, "moved").await;
    commands(&fixture.stand, &fixture.broker, CancellationToken::new()).await;
    let mut codes = std::collections::BTreeMap::new();
    for _ in 0..2 {
        let (topic, reply) = fixture.reply().await;
        codes.insert(topic, (reply["status"].clone(), reply["code"].clone()));
    }
    assert_eq!(codes["1"], (json!("done"), json!("ok")));
    assert_eq!(codes["2"], (json!("failed"), json!("interrupted")));
}

#[tokio::test]
async fn who_finds_the_line_full_is_told_so_at_once() {
    let mut fixture = fixture().await;
    let (session, _) = session(&fixture.broker, "intake", Filter::Commands);
    session.up().await.unwrap();
    let (intake, mut line) = Intake::new(session);
    let arrive = |id: usize, payload: &str| {
        let topic: Topic = "godwit/v1/tenant/default/command/start".parse().unwrap();
        intake.take(Delivery {
            raw_topic: topic.to_string(),
            topic: Some(topic),
            payload: payload.replace("ID", &id.to_string()).into(),
            retained: false,
            redelivered: false,
        });
    };
    const GOOD: &str = r#"{"id":"ID","container":"web"}"#;
    let mut waiting = 0;
    while line.len() == waiting {
        arrive(waiting, GOOD);
        waiting += 1;
    }
    let refused = fixture.expect(&(waiting - 1).to_string(), "failed", "busy").await;
    assert!(refused["remedy"].as_str().unwrap().contains("under the same id"), "{refused}");
    arrive(0, "no json");
    fixture.expect("unparsed", "failed", "not-json").await;
    // There is room again.
    line.recv().await.unwrap();
    arrive(7, GOOD);
    assert_eq!(line.len(), waiting - 1);
}
