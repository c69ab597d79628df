//! A machine becomes a node of a fabric over real TLS, and people come with accounts.

#![expect(clippy::unwrap_used, reason = "a hub that cannot be set up is a failed test")]

use std::time::Duration;

use clap::Parser as _;
use godwit_agent::identity::Identity;
use godwit_agent::join::{JoinError, join};
use godwit_bus::{BrokerUrl, Config as BusConfig, Credentials, Link, Publication, Session};
use godwit_controller::app::Controller;
use godwit_controller::config::{Config, Flags};
use godwit_proto::topic::{Filter, Peer, Topic};
use godwit_trust::client;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A controller as it is without any setting but where it listens.
struct Hub {
    rest: String,
    broker: BrokerUrl,
    shutdown: CancellationToken,
    running: JoinHandle<()>,
    data: TempDir,
}

impl Hub {
    async fn start() -> Self {
        Self::on(tempfile::tempdir().unwrap()).await
    }

    async fn on(data: TempDir) -> Self {
        let path = data.path().join("data");
        let flags = Flags::parse_from([
            "godwit-controller",
            "--data-dir",
            path.to_str().unwrap(),
            "--listen",
            "127.0.0.1:0",
            "--broker-listen",
            "127.0.0.1:0=tls+secure-websocket",
            "--no-mdns",
        ]);
        let controller = Controller::bind(Config::load(flags).unwrap()).await.unwrap();
        let rest = format!("http://{}/api/v1", controller.rest_address());
        let broker = BrokerUrl::from(controller.broker_addresses()[0]).over_tls();
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        let running = tokio::spawn(async move { controller.run(stop).await.unwrap() });
        Self { rest, broker, shutdown, running, data }
    }

    async fn stop(self) -> TempDir {
        self.shutdown.cancel();
        in_time(self.running).await.unwrap();
        self.data
    }

    async fn ask(&self, method: reqwest::Method, path: &str, body: Value) -> Value {
        let request = reqwest::Client::new().request(method, format!("{}{path}", self.rest));
        request.json(&body).send().await.unwrap().json().await.unwrap()
    }

    async fn token(&self, node: Option<&str>) -> String {
        let body = json!({ "node": node });
        let answer = self.ask(reqwest::Method::POST, "/tokens", body).await;
        answer["token"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    }

    /// Joins from a directory of its own.
    async fn join(&self, token: &str, node: &str) -> (TempDir, Result<Identity, JoinError>) {
        let home = tempfile::tempdir().unwrap();
        let joined = self.join_from(home.path(), token, node).await;
        (home, joined)
    }

    async fn join_from(
        &self,
        home: &std::path::Path,
        token: &str,
        node: &str,
    ) -> Result<Identity, JoinError> {
        in_time(join(token, node.parse().unwrap(), Some(self.broker.clone()), home)).await
    }

    /// A session as that node's agent has it.
    fn node(&self, identity: &Identity) -> BusConfig {
        let mut config = BusConfig::new(self.broker.clone(), format!("node-{}", identity.node));
        let bearer = Some(identity.bearer().unwrap());
        config.tls =
            Some(client(&self.broker.to_string(), identity.authority().unwrap(), bearer).unwrap());
        config.subscriptions =
            vec![Filter::Inbox(Peer::Node(identity.node.clone())), Filter::ControllerHello];
        config
    }
}

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("in time")
}

/// Waits until the session has no broker, and says why.
async fn cut_off(session: &Session) -> String {
    let mut link = session.link();
    let down = in_time(link.wait_for(|link| matches!(link, Link::Down { .. }))).await.unwrap();
    match &*down {
        Link::Down { why } => why.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_with_a_token_is_a_node_from_then_on() {
    let hub = Hub::start().await;
    let token = hub.token(None).await;
    let (home, joined) = hub.join(&token, "edge-a").await;
    let identity = joined.unwrap();
    assert_eq!(Identity::load(home.path()).unwrap().as_ref(), Some(&identity));

    let (session, _inbox) = Session::open(hub.node(&identity)).unwrap();
    in_time(session.up()).await.unwrap();
    let state = Topic::NodeState { node: "edge-a".parse().unwrap() };
    let online = r#"{"state":"online","since":"2026-11-22T18:00:00Z"}"#;
    in_time(session.publish_acked(Publication::new(&state, online).retained())).await.unwrap();
    let nodes = loop {
        let nodes = hub.ask(reqwest::Method::GET, "/nodes", json!(null)).await;
        if nodes[0]["state"] == "online" {
            break nodes;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(nodes[0]["name"], "edge-a");

    let why = hub.join_from(home.path(), &token, "edge-a").await.unwrap_err().to_string();
    assert!(why.contains("already"), "{why}");
    let (_home, refused) = hub.join(&token, "edge-b").await;
    let why = refused.unwrap_err().to_string();
    assert!(why.contains("used") && why.contains("godwit node token"), "{why}");

    // It stays one when the controller comes back, and is none once its account is removed.
    let again = Hub::on(hub.stop().await).await;
    let (session, _inbox) = Session::open(again.node(&identity)).unwrap();
    in_time(session.up()).await.unwrap();
    again.ask(reqwest::Method::DELETE, "/accounts/node:edge-a", json!(null)).await;
    cut_off(&session).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_another_fabric_is_refused_before_its_secret_is_shown() {
    let (hub, other) = (Hub::start().await, Hub::start().await);
    let foreign = other.token(None).await;
    let (home, refused) = hub.join(&foreign, "edge-a").await;
    let why = refused.unwrap_err().to_string();
    assert!(why.contains("another authority") && why.contains("new token"), "{why}");
    assert_eq!(Identity::load(home.path()).unwrap(), None);
    // Nothing of it was used up.
    let (_home, joined) = other.join(&foreign, "edge-a").await;
    joined.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_was_never_made_here_is_said_to_be_so() {
    let hub = Hub::start().await;
    let token: godwit_trust::Token = hub.token(None).await.parse().unwrap();
    let secret = godwit_trust::Secret::random().unwrap();
    let forged = godwit_trust::Token::new(token.fabric(), token.authority(), vec![], secret);
    let (_home, refused) = hub.join(&forged.to_string(), "edge-a").await;
    let why = refused.unwrap_err().to_string();
    assert!(why.contains("no such token"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_holds_a_token_may_do_nothing_but_ask() {
    let hub = Hub::start().await;
    let token: godwit_trust::Token = hub.token(None).await.parse().unwrap();
    // With the id of a node, which is what its own topics are told by.
    let mut config = BusConfig::new(hub.broker.clone(), "edge-a");
    let password = token.secret().reveal();
    config.credentials = Some(Credentials { username: "join".into(), password });
    config.tls = Some(client("hub", token.authority(), None).unwrap());
    config.subscriptions = vec![Filter::Nodes];
    let (session, _inbox) = Session::open(config).unwrap();
    let why = cut_off(&session).await;
    assert!(why.contains("refused the subscription"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_is_made_used_changed_and_removed() {
    let hub = Hub::start().await;
    let token: godwit_trust::Token = hub.token(None).await.parse().unwrap();
    let body = json!({ "name": "alice", "kind": "tenant", "password": "swordfish 1" });
    let made = hub.ask(reqwest::Method::POST, "/accounts", body.clone()).await;
    assert_eq!(made["kind"], "tenant", "{made}");
    let again = hub.ask(reqwest::Method::POST, "/accounts", body).await;
    assert_eq!(again["code"], "account-exists");
    let wide = json!({ "name": "alice/press", "kind": "derived", "topics": ["app/bob/#"] });
    let refused = hub.ask(reqwest::Method::POST, "/accounts", wide).await;
    assert_eq!(refused["code"], "wrong-account", "{refused}");
    assert!(refused["message"].as_str().unwrap().contains("app/alice/#"), "{refused}");
    let sensor = json!({ "name": "alice/press", "kind": "derived" });
    let sensor = hub.ask(reqwest::Method::POST, "/accounts", sensor).await;
    let made_up = sensor["password"].as_str().unwrap().to_owned();

    let session = |user: &str, password: &str, filter: Filter| {
        let mut config = BusConfig::new(hub.broker.clone(), "one-id-for-all");
        let (username, password) = (user.to_owned(), password.to_owned());
        config.credentials = Some(Credentials { username, password });
        config.tls = Some(client("hub", token.authority(), None).unwrap());
        config.subscriptions = vec![filter];
        Session::open(config).unwrap()
    };
    let alices = || Filter::App("alice".parse().unwrap());
    let (alice, mut heard) = session("alice", "swordfish 1", alices());
    in_time(alice.up()).await.unwrap();
    // The same client id, and nobody is thrown out: it is another account's.
    let (press, _inbox) = session("alice/press", &made_up, alices());
    in_time(press.up()).await.unwrap();
    let topic: Topic = "app/alice/press/bar".parse().unwrap();
    in_time(press.publish_acked(Publication::new(&topic, "7"))).await.unwrap();
    assert_eq!(in_time(heard.recv()).await.unwrap().payload, "7");
    assert_eq!(*alice.link().borrow(), Link::Up);

    let (wrong, _inbox) = session("alice", "swordfish 3", alices());
    let why = cut_off(&wrong).await;
    assert!(why.contains("BadUserNamePassword"), "{why}");
    let (curious, _inbox) = session("alice/press", &made_up, Filter::App("bob".parse().unwrap()));
    assert!(cut_off(&curious).await.contains("refused the subscription"));

    let changed = json!({ "password": "swordfish 2" });
    hub.ask(reqwest::Method::POST, "/accounts/alice/password", changed).await;
    cut_off(&alice).await;
    let (alice, _inbox) = session("alice", "swordfish 2", alices());
    in_time(alice.up()).await.unwrap();
    hub.ask(reqwest::Method::DELETE, "/accounts/alice", json!(null)).await;
    cut_off(&alice).await;
    let left = hub.ask(reqwest::Method::GET, "/accounts", json!(null)).await;
    let names: Vec<_> = left.as_array().unwrap().iter().map(|account| &account["name"]).collect();
    assert_eq!(names, ["alice/press"]);
    assert!(!left.to_string().contains("argon2"), "hashes are nobody's business");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_comes_anew_cuts_off_who_has_its_old_certificate() {
    let hub = Hub::start().await;
    let (_stolen, before) = hub.join(&hub.token(None).await, "edge-a").await;
    let (thief, _inbox) = Session::open(hub.node(&before.unwrap())).unwrap();
    in_time(thief.up()).await.unwrap();
    let (_home, anew) = hub.join(&hub.token(Some("edge-a")).await, "edge-a").await;
    let anew = anew.unwrap();
    cut_off(&thief).await;
    let _not_there_to_say_goodbye_to = thief.close(None).await;
    let (node, _inbox) = Session::open(hub.node(&anew)).unwrap();
    in_time(node.up()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_on_the_controllers_machine_signs_in_as_an_operator() {
    let hub = Hub::start().await;
    for (name, kind) in [("olga", "operator"), ("alice", "tenant")] {
        let body = json!({ "name": name, "kind": kind, "password": "swordfish 1" });
        hub.ask(reqwest::Method::POST, "/accounts", body).await;
    }
    let ask = async |header: (&str, &str), account: Option<(&str, &str)>, path: &str| {
        let request = reqwest::Client::new().get(format!("{}{path}", hub.rest));
        let request = request.header(header.0, header.1);
        let request = match account {
            Some((user, password)) => request.basic_auth(user, Some(password)),
            None => request,
        };
        request.send().await.unwrap().status().as_u16()
    };
    let plain = ("accept", "application/json");
    for path in ["/accounts", "/broker/clients"] {
        assert_eq!(ask(plain, None, path).await, 200, "on its own machine");
        for passed_on in [
            ("origin", "http://evil.example"),
            ("host", "evil.example:7180"),
            ("x-forwarded-for", "192.0.2.7"),
        ] {
            assert_eq!(ask(passed_on, None, path).await, 401, "{passed_on:?}");
            let olga = Some(("olga", "swordfish 1"));
            assert_eq!(ask(passed_on, olga, path).await, 200, "{passed_on:?}");
        }
    }
    let alice = Some(("alice", "swordfish 1"));
    let evil = ("origin", "http://evil.example");
    assert_eq!(ask(evil, alice, "/accounts").await, 401, "a tenant is no operator");
    let wrong = Some(("olga", "swordfish 2"));
    let mut answers = Vec::new();
    for _ in 0..6 {
        answers.push(ask(evil, wrong, "/accounts").await);
    }
    assert_eq!(answers.last(), Some(&429), "{answers:?}");
}
