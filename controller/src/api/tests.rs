use reqwest::{Client, Method};
use serde_json::{Value, json};

use super::*;
use crate::bench::Stand;
use crate::images::archive::tests::docker_archive;
use crate::store::ContainerState;

mod networks;
mod volumes;

struct Rest {
    stand: Stand,
    base: String,
    client: Client,
    link: watch::Sender<Link>,
    shutdown: CancellationToken,
}

async fn rest() -> Rest {
    let stand = Stand::new().await;
    let (link, watched) = watch::channel(Link::Up);
    let shutdown = CancellationToken::new();
    let api = Api {
        service: stand.service.clone(),
        accounts: None,
        link: watched,
        broker: None,
        fabric: Uuid::new_v4(),
        shutdown: shutdown.clone(),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(serve(listener, api));
    Rest { stand, base, client: Client::new(), link, shutdown }
}

impl Rest {
    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.json().await.unwrap())
    }
    async fn get(&self, path: &str) -> (u16, Value) {
        self.ask(Method::GET, path, None).await
    }
    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.ask(Method::POST, path, Some(body)).await
    }
    async fn watch(&self, query: &str) -> Watched {
        let url = format!("{}/api/v1/events{query}", self.base);
        let answer = self.client.get(url).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        Watched { answer, text: String::new() }
    }
}

/// An event stream, read event by event.
struct Watched {
    answer: reqwest::Response,
    text: String,
}

impl Watched {
    async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                self.text = rest;
                let field = |name: &str| {
                    event.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
                };
                let Some(kind) = field("event:") else { continue };
                let data = serde_json::from_str(field("data:").unwrap()).unwrap();
                return Some((kind.to_owned(), data));
            }
            let piece = self.answer.chunk().await.unwrap()?;
            self.text.push_str(std::str::from_utf8(&piece).unwrap());
        }
    }

    async fn until_ready(&mut self) -> Vec<String> {
        let mut kinds = Vec::new();
        loop {
            match self.next().await.unwrap() {
                (kind, _) if kind == "ready" => return kinds,
                (kind, _) => kinds.push(kind),
            }
        }
    }
}

#[tokio::test]
async fn a_container_is_made_found_and_listed() {
    let rest = rest().await;
    let body = json!({"image": "counter", "name": "web", "labels": null, "node": "edge-b"});
    let (status, made) = rest.post("/api/v1/containers", body).await;
    assert_eq!((status, &made["state"]), (202, &json!("creating")), "{made}");
    assert_eq!(made["ip"], "10.77.1.1");
    assert_eq!(made["interfaces"][0]["mac"], "02:67:0a:4d:01:01");
    assert_eq!(made["image_name"], "localhost/counter:latest");
    let id = made["id"].as_str().unwrap();
    for reference in ["web", id] {
        let (status, found) = rest.get(&format!("/api/v1/containers/{reference}")).await;
        assert_eq!((status, &found), (200, &made));
    }
    let (_, other) = rest.post("/api/v1/containers", json!({"image": "counter"})).await;
    assert_ne!(other["ip"], made["ip"]);
    assert_eq!(rest.get("/api/v1/containers").await.1.as_array().unwrap().len(), 2);
    let (_, there) = rest.get("/api/v1/containers?node=edge-b").await;
    assert_eq!(there, json!([made]));
}

#[tokio::test]
async fn refusals_carry_code_status_and_remedy() {
    let rest = rest().await;
    rest.stand.running("web").await;
    rest.stand.node("edge-c", "lost");
    let create = |body| (Method::POST, "/api/v1/containers", Some(body));
    let migrate = |body| (Method::POST, "/api/v1/containers/web/migrate", Some(body));
    for ((method, path, body), status, code) in [
        ((Method::GET, "/api/v1/containers/nobody", None), 404, "unknown-container"),
        ((Method::GET, "/api/v1/nodes/nowhere", None), 404, "unknown-node"),
        ((Method::GET, "/api/v1/migrations/m-1", None), 404, "unknown-migration"),
        ((Method::GET, "/api/v1/what", None), 404, "not-found"),
        ((Method::PUT, "/api/v1/containers", None), 405, "method-not-allowed"),
        ((Method::GET, "/api/v1/migrations?limit=x", None), 400, "bad-request"),
        (create(json!({"name": "x"})), 400, "bad-request"),
        (create(json!({"image": "counter", "name": "No Name"})), 400, "bad-request"),
        (create(json!({"image": "nothing"})), 404, "unknown-image"),
        (create(json!({"image": "counter", "name": "web"})), 409, "name-taken"),
        (create(json!({"image": "counter", "node": "edge-c"})), 409, "admission-refused"),
        (migrate(json!({"to": "edge-a"})), 409, "admission-refused"),
        (migrate(json!({"to": "nowhere"})), 404, "unknown-node"),
        (migrate(json!({"to": "edge-b", "bwlimit": 0})), 400, "bad-request"),
        ((Method::DELETE, "/api/v1/containers/web", None), 409, "not-stopped"),
        ((Method::DELETE, "/api/v1/images/counter", None), 409, "image-in-use"),
    ] {
        let (got, answer) = rest.ask(method.clone(), path, body).await;
        assert_eq!((got, &answer["code"]), (status, &json!(code)), "{method} {path}: {answer}");
        assert_ne!(answer["remedy"], "", "{path}");
        assert_ne!(answer["message"], "", "{path}");
    }
    let (_, answer) = rest.post("/api/v1/containers/web/migrate", json!({"to": "edge-a"})).await;
    assert_eq!(answer["reasons"][0]["code"], "same-node");
}

#[tokio::test]
async fn addresses_run_out_with_a_word() {
    let rest = rest().await;
    for _ in 0..6 {
        assert_eq!(rest.post("/api/v1/containers", json!({"image": "counter"})).await.0, 202);
    }
    let (status, answer) = rest.post("/api/v1/containers", json!({"image": "counter"})).await;
    assert_eq!((status, &answer["code"]), (409, &json!("addresses-exhausted")));
}

#[tokio::test]
async fn a_dry_run_moves_nothing() {
    let rest = rest().await;
    rest.stand.running("web").await;
    let path = "/api/v1/containers/web/migrate";
    let (status, answer) = rest.post(path, json!({"dry_run": true})).await;
    assert_eq!((status, &answer["ok"], &answer["target"]), (200, &json!(true), &json!("edge-b")));
    assert_eq!(answer["prediction"], Value::Null, "nobody knows its memory yet");
    rest.stand.uses_memory("edge-a", "web", 64_000_000);
    let (_, answer) = rest.post(path, json!({"dry_run": true, "bwlimit": 1_000_000})).await;
    let predicted = &answer["prediction"];
    assert!(predicted["bytes"].as_u64().unwrap() >= 64_000_000, "{answer}");
    assert!(predicted["gap_ms"].as_u64().unwrap() >= 64_000, "{answer}");
    rest.stand.node("edge-b", "offline");
    let (status, answer) = rest.post(path, json!({"dry_run": true, "to": "edge-b"})).await;
    assert_eq!((status, &answer["ok"]), (200, &json!(false)));
    assert_eq!(answer["reasons"][0]["code"], "node-offline");
    let (status, answer) = rest.post(path, json!({})).await;
    assert_eq!((status, &answer["code"]), (409, &json!("no-node")), "{answer}");
    assert_eq!(rest.get("/api/v1/migrations").await.1, json!([]));
}

#[tokio::test]
async fn a_move_is_followed_to_its_end() {
    let rest = rest().await;
    rest.stand.running("web").await;
    let (status, begun) =
        rest.post("/api/v1/containers/web/migrate", json!({"to": "edge-b"})).await;
    assert_eq!((status, &begun["settled"]), (202, &json!(false)), "{begun}");
    let id: godwit_proto::id::MigrationId = begun["id"].as_str().unwrap().parse().unwrap();
    let (status, refused) = rest.post("/api/v1/containers/web/migrate", json!({})).await;
    assert_eq!((status, &refused["reasons"][0]["code"]), (409, &json!("busy")));
    let remedy = refused["reasons"][0]["remedy"].as_str().unwrap();
    assert!(remedy.contains(&format!("godwit migration cancel {id}")), "{remedy}");
    let (_, web) = rest.get("/api/v1/containers/web").await;
    assert_eq!(web["migration"], begun["id"]);

    let mut watched = rest.watch(&format!("?migration={id}")).await;
    assert_eq!(watched.until_ready().await, ["migration"]);
    rest.stand.core.progress(&id, 250, 1000).await;
    let (_, half) = watched.next().await.unwrap();
    assert_eq!((&half["percent"], &half["eta_ms"]), (&json!(25.0), &json!(750)));
    rest.stand.core.settle(&id, "moved").await;
    let (_, end) = watched.next().await.unwrap();
    assert_eq!((&end["settled"], &end["outcome"]), (&json!(true), &json!("moved")));
    let (status, late) = rest.post(&format!("/api/v1/migrations/{id}/cancel"), json!({})).await;
    assert_eq!((status, &late["code"]), (409, &json!("already-settled")));
    let (_, live) = rest.get("/api/v1/migrations?active=true").await;
    assert_eq!(live, json!([]));
}

#[tokio::test]
async fn watchers_see_the_state_then_only_what_they_asked_for() {
    let rest = rest().await;
    let web = rest.stand.running("web").await;
    let other = rest.stand.running("other").await;
    let mut all = rest.watch("").await;
    assert_eq!(all.until_ready().await, ["node", "node", "container", "container"]);
    let mut one = rest.watch("?container=web").await;
    assert_eq!(one.until_ready().await, ["container"]);
    rest.stand.core.reach(other.id, ContainerState::Stopped).await;
    rest.stand.core.forget(web.id).await;
    let (kind, gone) = one.next().await.unwrap();
    assert_eq!((kind.as_str(), &gone["state"]), ("container", &json!("removed")));
    assert_eq!(all.next().await.unwrap().1["name"], "other");
    let (status, answer) = rest.get("/api/v1/events?container=web").await;
    assert_eq!((status, &answer["code"]), (404, &json!("unknown-container")));
    rest.shutdown.cancel();
    assert_eq!(all.next().await.map(|(_, gone)| gone["name"].clone()), Some(json!("web")));
    assert_eq!(all.next().await, None, "the stream ends with the controller");
}

#[tokio::test]
async fn a_watcher_that_lags_gets_the_state_anew() {
    let rest = rest().await;
    let web = rest.stand.running("web").await;
    let mut watched = rest.watch("?container=web").await;
    watched.until_ready().await;
    // More than the stub's channel and the sockets hold, unread.
    let mut readies = 0;
    for _ in 0..20_000 {
        rest.stand.registry.seen("edge-z".parse().unwrap());
    }
    rest.stand.core.reach(web.id, ContainerState::Stopped).await;
    while readies == 0 {
        match watched.next().await.unwrap() {
            (kind, _) if kind == "ready" => readies += 1,
            (_, container) => assert_eq!(container["state"], "stopped"),
        }
    }
}

#[tokio::test]
async fn images_come_and_go() {
    let rest = rest().await;
    let (id, bytes) = docker_archive(None, &[1; 3000]);
    let url = format!("{}/api/v1/images", rest.base);
    let upload = async |query: &str, bytes: &[u8]| {
        let request = rest.client.post(format!("{url}{query}")).body(bytes.to_vec());
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    assert_eq!(upload("", &bytes).await.1["code"], "bad-image");
    let (status, again) = upload("?name=mine", &bytes).await;
    assert_eq!((status, &again["id"]), (200, &json!(id.as_str())), "the stand has that id");
    assert_eq!(again["names"], json!(["localhost/mine:latest"]));
    assert_eq!(upload("?name=x", &bytes[..2000]).await.0, 400);
    let (_, listed) = rest.get("/api/v1/images").await;
    assert_eq!(listed, json!([again]));
    let (status, gone) =
        rest.ask(Method::DELETE, "/api/v1/images/localhost/mine:latest", None).await;
    assert_eq!((status, &gone["id"]), (200, &json!(id.as_str())));
    assert_eq!(gone["nodes"][0], json!({"node": "edge-a", "error": "no answer"}));
    assert_eq!(rest.get("/api/v1/images").await.1, json!([]));
    assert_eq!(rest.get("/api/v1/images?node=edge-a").await, (200, json!([])));
}

#[tokio::test]
async fn logs_come_from_the_node() {
    let rest = rest().await;
    rest.stand.running("web").await;
    let url = format!("{}/api/v1/containers/web/logs?tail=5", rest.base);
    let answer = rest.client.get(&url).send().await.unwrap();
    assert_eq!(answer.text().await.unwrap(), "edge-a Some(5)\n");
    rest.stand.node("edge-a", "lost");
    let (status, refused) = rest.get("/api/v1/containers/web/logs").await;
    assert_eq!((status, &refused["code"]), (409, &json!("node-offline")));
}

#[tokio::test]
async fn health_follows_the_broker() {
    let rest = rest().await;
    assert_eq!(rest.get("/healthz").await.0, 200);
    rest.link.send(Link::Down { why: "gone".into() }).unwrap();
    let (status, health) = rest.get("/healthz").await;
    assert_eq!((status, &health["broker"]), (503, &json!("down: gone")));
    assert_eq!(rest.get("/version").await.1["api"], "v1");
}

#[tokio::test]
async fn a_node_is_fenced_once_it_is_lost_or_by_force() {
    let rest = rest().await;
    let web = rest.stand.running("web").await;
    rest.stand.node("edge-b", "lost");
    let path = |node: &str| format!("/api/v1/nodes/{node}/fence");
    let (status, refused) = rest.post(&path("edge-a"), Value::Null).await;
    assert_eq!((status, &refused["code"]), (409, &json!("node-online")));
    assert!(refused["remedy"].as_str().unwrap().contains("--force edge-a"), "{refused}");
    let (status, fenced) = rest.post(&path("edge-b"), Value::Null).await;
    assert_eq!((status, &fenced["node"]["state"]), (200, &json!("fenced")), "{fenced}");
    let (status, forced) = rest.post(&(path("edge-a") + "?force=true"), Value::Null).await;
    assert_eq!((status, &forced["containers"]), (200, &json!(["web"])), "{forced}");
    assert_eq!(rest.post(&path("nowhere"), Value::Null).await.0, 404);
    rest.stand.registry.seen("edge-z".parse().unwrap());
    assert_eq!(rest.post(&path("edge-z"), Value::Null).await.1["code"], "node-unjoined");

    rest.stand.core.reach(web.id, ContainerState::Lost).await;
    let (_, start) = rest.post("/api/v1/containers/web/start", Value::Null).await;
    assert!(start["remedy"].as_str().unwrap().contains("godwit rm web"), "{start}");
    let (_, moved) = rest.post("/api/v1/containers/web/migrate", json!({"to": "edge-b"})).await;
    assert_eq!(moved["reasons"][0]["code"], "lost", "{moved}");
}

#[tokio::test]
async fn the_brokers_routes_are_there_where_the_broker_is_ours() {
    let rest = rest().await;
    let (status, answer) = rest.get("/api/v1/broker/clients").await;
    assert_eq!((status, &answer["code"]), (409, &json!("broker-elsewhere")));

    let open = godwit_broker::Config::open_to_all("127.0.0.1:0".parse().unwrap());
    let broker = godwit_broker::Broker::bind(open).await.unwrap();
    let (_link, link) = watch::channel(Link::Up);
    let api = Api {
        service: rest.stand.service.clone(),
        link,
        accounts: None,
        broker: Some(broker.control()),
        fabric: Uuid::new_v4(),
        shutdown: rest.shutdown.clone(),
    };
    tokio::spawn(broker.run(rest.shutdown.clone()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(serve(listener, api));
    let rest = Rest { base, ..rest };
    assert_eq!(rest.get("/api/v1/broker/clients").await, (200, json!([])));
    let (status, answer) = rest.get("/api/v1/broker/nothing").await;
    assert_eq!((status, &answer["code"]), (404, &json!("not-found")));
    let (status, answer) = rest.ask(Method::DELETE, "/api/v1/broker/clients/x", None).await;
    assert_eq!((status, &answer["code"]), (404, &json!("unknown-client")));
}
