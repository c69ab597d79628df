//! The broker's address for operators and Prometheus.

#![expect(clippy::unwrap_used, reason = "what fails here fails its test")]

mod support;

use godwit_broker::{Config, admin};
use rmqtt_codec::types::QoS;
use rmqtt_codec::v5::DisconnectReasonCode;
use serde_json::{Value, json};
use support::accounts::Accounts;
use support::client::{Client, hello};
use support::{Hub, in_time};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

fn config() -> Config {
    Config::open_to_all("127.0.0.1:0".parse().unwrap())
}

/// The address for operators of a broker; it ends when dropped.
struct Desk {
    base: String,
    http: reqwest::Client,
    _open: DropGuard,
}

impl Desk {
    async fn open(hub: &Hub) -> Self {
        let listener = admin::bind("127.0.0.1:0".parse().unwrap(), false).await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        tokio::spawn(admin::serve(listener, hub.control.clone(), shutdown.clone()));
        Self { base, http: reqwest::Client::new(), _open: shutdown.drop_guard() }
    }

    async fn ask(&self, method: reqwest::Method, path: &str) -> (u16, Value) {
        let asked = self.http.request(method, format!("{}{path}", self.base)).send();
        let answer = in_time(asked).await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        self.ask(reqwest::Method::GET, path).await
    }
}

#[tokio::test]
async fn operators_are_answered_over_http() {
    let hub = Hub::start_with(config()).await;
    let desk = Desk::open(&hub).await;
    let mut client = Client::connect(hub.address, hello("a/b c")).await;
    client.publish("t/1", "12345", true).await;
    client.subscribe("$share/g/x").await;

    let (status, clients) = desk.get("/api/v1/broker/clients").await;
    assert_eq!((status, &clients[0]["client"]), (200, &json!("a/b c")));
    let (_, sessions) = desk.get("/api/v1/broker/sessions").await;
    assert_eq!(sessions[0]["filters"], json!(["$share/g/x"]));
    let retained =
        json!([{ "topic": "t/1", "bytes": 5, "qos": QoS::AtLeastOnce.value(), "expires": null }]);
    assert_eq!(desk.get("/api/v1/broker/retained?filter=t%2F%23").await, (200, retained));
    assert_eq!(desk.get("/api/v1/broker/retained?after=t%2F1").await, (200, json!([])));
    let (_, topics) = desk.get("/api/v1/broker/topics").await;
    assert_eq!(topics[0]["group"], json!("g"));
    let (_, all) = desk.get("/api/v1/broker/inventory").await;
    assert_eq!(all["retained_messages"], json!(1));
    let (status, health) = desk.get("/healthz").await;
    assert_eq!((status, &health["status"]), (200, &json!("ok")));
    let page = reqwest::get(format!("{}/metrics", desk.base)).await.unwrap();
    assert!(
        page.headers()["content-type"].to_str().unwrap().starts_with("application/openmetrics")
    );
    assert!(page.text().await.unwrap().contains("godwit_broker_clients_connected 1\n"));

    let kick = desk.ask(reqwest::Method::DELETE, "/api/v1/broker/clients/a%2Fb%20c").await;
    assert_eq!(kick, (200, json!({ "client": "a/b c", "disconnected": 1 })));
    assert_eq!(client.end().await, DisconnectReasonCode::AdministrativeAction);
    let reload = desk.ask(reqwest::Method::POST, "/api/v1/broker/reload").await;
    assert_eq!(reload, (200, json!({ "reloaded": true })));
}

#[tokio::test]
async fn operators_are_told_what_is_wrong_and_what_to_do() {
    let accounts = Accounts::new(&["alice"], "");
    let hub = Hub::start_with(accounts.config()).await;
    let desk = Desk::open(&hub).await;
    accounts.rules("nonsense a\n");
    use reqwest::Method;
    for (method, path, status, code) in [
        (Method::DELETE, "/api/v1/broker/clients/nobody?user=alice", 404, "unknown-client"),
        (Method::GET, "/api/v1/broker/retained?filter=a%23", 400, "bad-request"),
        (Method::GET, "/api/v1/broker/retained?limit=many", 400, "bad-request"),
        (Method::GET, "/api/v1/broker/nothing", 404, "not-found"),
        (Method::POST, "/api/v1/broker/clients", 405, "method-not-allowed"),
        (Method::POST, "/api/v1/broker/reload", 409, "not-reloaded"),
    ] {
        let (found, answer) = desk.ask(method, path).await;
        assert_eq!((found, &answer["code"]), (status, &json!(code)), "{path}: {answer}");
        for words in ["message", "remedy"] {
            assert!(answer[words].as_str().is_some_and(|text| text.len() > 5), "{answer}");
        }
    }
    // A page in an operator's browser, and one whose name leads here.
    let url = format!("{}/api/v1/broker/reload", desk.base);
    for header in [("origin", "http://evil.example"), ("host", "evil.example")] {
        let asked = desk.http.post(&url).header(header.0, header.1).send();
        assert_eq!(in_time(asked).await.unwrap().status().as_u16(), 403, "{header:?}");
    }

    hub.stop().await;
    let (status, health) = desk.get("/healthz").await;
    assert_eq!((status, &health["code"]), (503, &json!("unavailable")));
}

#[tokio::test]
async fn an_address_for_operators_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let error = admin::bind(address, false).await.unwrap_err();
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}
