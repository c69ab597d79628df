//! The broker as its operators see it, on real sockets.

#![expect(clippy::unwrap_used, reason = "what fails here fails its test")]

mod support;

use std::path::Path;
use std::sync::{Arc, Mutex};

use godwit_broker::{Config, Limits};
use rmqtt_codec::types::QoS;
use rmqtt_codec::v5::{
    Connect, ConnectAckReason, DisconnectReasonCode, LastWill, PublishAckReason, SubscribeAckReason,
};
use serde_json::json;
use support::accounts::Accounts;
use support::client::{Client, hello, hello_as};
use support::{Hub, in_time};

fn config() -> Config {
    Config::open_to_all("127.0.0.1:0".parse().unwrap())
}

async fn sample(hub: &Hub, name: &str) -> f64 {
    let page = hub.control.exposition().await;
    let line = page.lines().find_map(|line| line.strip_prefix(&format!("godwit_broker_{name} ")));
    line.unwrap_or_else(|| panic!("no {name} in {page}")).parse().unwrap()
}

/// Waits until a sample is as wanted.
async fn until_sample(hub: &Hub, name: &str, wanted: f64) {
    in_time(async {
        while sample(hub, name).await < wanted {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_client_that_is_cut_off_is_told_by_whom_and_keeps_its_session() {
    let hub = Hub::start_with(config()).await;
    let lasting = |client| Connect { session_expiry_interval_secs: 3600, ..hello(client) };
    let mut cut = Client::connect(hub.address, lasting("cut")).await;
    let mut other = Client::connect(hub.address, hello("other")).await;
    cut.subscribe("a/#").await;
    assert_eq!(hub.control.kick(None, "cut").await, Ok(1));
    assert_eq!(cut.end().await, DisconnectReasonCode::AdministrativeAction);
    other.ping().await;

    let connected = hub.control.clients().await.unwrap();
    assert_eq!(connected.iter().map(|client| &*client.client).collect::<Vec<_>>(), ["other"]);
    let sessions = hub.control.sessions().await.unwrap();
    let away = sessions.iter().find(|session| session.client == "cut").unwrap();
    assert_eq!((&away.connection, &away.filters[..]), (&None, &["a/#".to_owned()][..]));
    assert!(away.ends.is_some(), "it stays for an hour only");
    assert_eq!(hub.control.kick(None, "cut").await, Ok(0));
    assert_eq!(sample(&hub, "clients_kicked_total").await, 1.0);
}

#[tokio::test]
async fn a_user_is_cut_off_without_its_namesakes() {
    let accounts = Accounts::new(&["alice", "bob"], "");
    let hub = Hub::start_with(accounts.config()).await;
    let mut alice = Client::connect(hub.address, hello_as("alice", "same")).await;
    let mut bob = Client::connect(hub.address, hello_as("bob", "same")).await;
    assert_eq!(hub.control.kick(Some("alice"), "same").await, Ok(1));
    assert_eq!(alice.end().await, DisconnectReasonCode::AdministrativeAction);
    bob.ping().await;
    assert_eq!(hub.control.kick_user("bob").await, Ok(1));
    assert_eq!(bob.end().await, DisconnectReasonCode::AdministrativeAction);
}

#[tokio::test]
async fn what_is_held_is_told() {
    let hub = Hub::start_with(config()).await;
    let mut one = Client::connect(hub.address, Connect { keep_alive: 60, ..hello("one") }).await;
    let mut two = Client::connect(hub.address, hello("two")).await;
    for filter in ["a/+", "$share/g/b"] {
        one.subscribe(filter).await;
        two.subscribe(filter).await;
    }
    for topic in ["r/1", "r/2", "r/3", "s"] {
        assert_eq!(two.publish(topic, "12345", true).await, PublishAckReason::Success);
    }
    let clients = hub.control.clients().await.unwrap();
    let connection = clients[0].connection.as_ref().unwrap();
    assert_eq!((connection.transport, connection.version), ("mqtt", "5"));
    assert_eq!(connection.keep_alive_seconds, 60);
    assert!(connection.address.starts_with("127.0.0.1:"), "{connection:?}");

    let topics = serde_json::to_value(hub.control.topics().await.unwrap()).unwrap();
    let wanted = json!([
        { "filter": "b", "group": "g", "subscribers": 2 },
        { "filter": "a/+", "group": null, "subscribers": 2 },
    ]);
    assert_eq!(topics, wanted);
    let retained = async |filter: &str, after: Option<&str>, limit| {
        let found = hub.control.retained(filter, after, limit).await.unwrap();
        found.into_iter().map(|message| message.topic).collect::<Vec<_>>()
    };
    assert_eq!(retained("#", None, 10).await, ["r/1", "r/2", "r/3", "s"]);
    assert_eq!(retained("r/+", None, 2).await, ["r/1", "r/2"]);
    assert_eq!(retained("r/+", Some("r/2"), 2).await, ["r/3"]);
    assert_eq!(retained("r/+", Some("a"), 1).await, ["r/1"]);
    let all = hub.control.inventory().await.unwrap();
    assert_eq!((all.sessions, all.connected), (2, 2));
    assert_eq!((all.subscriptions, all.shared_subscriptions), (4, 1));
    assert_eq!(all.retained_messages, 4);
}

#[tokio::test]
async fn the_broker_speaks_of_itself_in_sys_when_something_changed() {
    let hub = Hub::start_with(Config { sys_interval_seconds: 1, ..config() }).await;
    let mut all = Client::connect(hub.address, hello("all")).await;
    all.subscribe("#").await;
    let mut sys = Client::connect(hub.address, hello("sys")).await;
    sys.subscribe("$SYS/broker/clients/connected").await;
    while sys.message().await.1 != "2" {}
    // The one that changes all the time tells that nothing else was said.
    sys.subscribe("$SYS/broker/uptime").await;
    for _ in 0..3 {
        assert_eq!(sys.message().await.0, "$SYS/broker/uptime");
    }
    hub.control.publish("x", "not of $SYS", false).await.unwrap();
    assert_eq!(all.message().await.0, "x", "`#` does not match `$SYS`");
}

#[tokio::test]
async fn what_the_broker_says_of_itself_is_retained_beside_limits_and_store() {
    for max_retained in [0, 1000] {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("broker.db");
        let limits = Limits { max_retained, ..Limits::default() };
        let hub = Hub::start_with(Config { store: Some(store.clone()), limits, ..config() }).await;
        let mut client = Client::connect(hub.address, hello("c")).await;
        let topic = "$SYS/broker/version";
        client.subscribe(topic).await;
        let (found, version) = client.message().await;
        assert_eq!(found, topic);
        assert!(version.starts_with("godwit-broker version "), "{version}");
        assert_eq!(hub.control.inventory().await.unwrap().retained_messages, 0);
        hub.stop().await;
        let kept: i64 = rusqlite::Connection::open(&store)
            .unwrap()
            .query_row("SELECT count(*) FROM retained", [], |row| row.get(0))
            .unwrap();
        assert_eq!(kept, 0);
    }
}

#[tokio::test]
async fn a_client_for_whose_session_there_is_no_room_is_told_so() {
    let limits = Limits { max_sessions: 1, ..Limits::default() };
    let hub = Hub::start_with(Config { limits, ..config() }).await;
    let lasting = Connect { session_expiry_interval_secs: 3600, ..hello("first") };
    let first = Client::connect(hub.address, lasting).await;
    let refused = Client::try_connect(hub.address, hello("second")).await.err();
    assert_eq!(refused, Some(ConnectAckReason::QuotaExceeded));
    assert_eq!(sample(&hub, "connections_refused_total{reason=\"sessions\"}").await, 1.0);
    drop(first);
    Client::connect(hub.address, hello("first")).await.ping().await;
}

#[tokio::test]
async fn sys_is_read_by_those_whose_rules_say_so() {
    let rules = "user alice\ntopic read $SYS/broker/clients/#\nuser bob\ntopic readwrite #\n";
    let accounts = Accounts::new(&["alice", "bob"], rules);
    let hub = Hub::start_with(accounts.config()).await;
    let mut alice = Client::connect(hub.address, hello_as("alice", "1")).await;
    assert_eq!(alice.subscribe("$SYS/broker/version").await, SubscribeAckReason::NotAuthorized);
    alice.subscribe("$SYS/#").await;
    let (topic, _) = alice.message().await;
    assert!(topic.starts_with("$SYS/broker/clients/"), "{topic}");
    let mut bob = Client::connect(hub.address, hello_as("bob", "2")).await;
    assert_eq!(bob.subscribe("$SYS/#").await, SubscribeAckReason::NotAuthorized);
    let reason = bob.publish("$SYS/broker/version", "mine", true).await;
    assert_eq!(reason, PublishAckReason::NotAuthorized);
    assert_eq!(sample(&hub, "subscriptions_refused_total").await, 2.0);
    assert_eq!(sample(&hub, "publishes_refused_total").await, 1.0);
}

#[tokio::test]
async fn those_who_do_not_come_in_are_counted_by_why() {
    let accounts = Accounts::new(&["alice"], "");
    let hub = Hub::start_with(accounts.config()).await;
    let wrong = Connect { password: Some("wrong".into()), ..hello_as("alice", "1") };
    let refused = Client::try_connect(hub.address, wrong).await.err();
    assert_eq!(refused, Some(ConnectAckReason::BadUserNameOrPassword));
    let refused = Client::try_connect(hub.address, hello("2")).await.err();
    assert_eq!(refused, Some(ConnectAckReason::NotAuthorized));
    until_sample(&hub, "connections_refused_total{reason=\"password\"}", 1.0).await;
    until_sample(&hub, "connections_refused_total{reason=\"anonymous\"}", 1.0).await;
    assert_eq!(sample(&hub, "sign_in_failures_total").await, 2.0);
    assert_eq!(sample(&hub, "connections_accepted_total").await, 0.0);
}

#[tokio::test]
async fn a_client_is_told_that_the_broker_stops() {
    let hub = Hub::start_with(config()).await;
    let mut client = Client::connect(hub.address, hello("c")).await;
    let stopping = tokio::spawn(hub.stop());
    assert_eq!(client.end().await, DisconnectReasonCode::ServerShuttingDown);
    in_time(stopping).await.unwrap();
}

#[tokio::test]
async fn rules_that_are_read_again_hold_at_once_for_those_who_are_there() {
    let rules = "user alice\ntopic readwrite a\ntopic readwrite b\nuser bob\ntopic write b\n";
    let accounts = Accounts::new(&["alice", "bob"], rules);
    let hub = Hub::start_with(accounts.config()).await;
    let mut alice = Client::connect(hub.address, hello_as("alice", "1")).await;
    let last_will = Some(LastWill {
        qos: QoS::AtLeastOnce,
        retain: false,
        topic: "b".into(),
        message: "bob is gone".into(),
        will_delay_interval_sec: None,
        correlation_data: None,
        message_expiry_interval: None,
        content_type: None,
        user_properties: Vec::new(),
        is_utf8_payload: None,
        response_topic: None,
    });
    let bob = Connect { last_will, ..hello_as("bob", "2") };
    let mut bob = Client::connect(hub.address, bob).await;
    for topic in ["a", "b"] {
        assert_eq!(alice.subscribe(topic).await, SubscribeAckReason::GrantedQos1);
    }
    accounts.rules("user alice\ntopic readwrite b\n");
    accounts.users(&["alice"]);
    hub.control.reload().unwrap();
    assert_eq!(bob.end().await, DisconnectReasonCode::NotAuthorized, "its account is gone");
    assert_eq!(alice.message().await.1, "bob is gone", "which others may need to hear");
    hub.control.publish("a", "secret", false).await.unwrap();
    hub.control.publish("b", "open", false).await.unwrap();
    assert_eq!(alice.message().await, ("b".to_owned(), "open".to_owned()));
    let reason = alice.publish("a", "mine", false).await;
    assert_eq!(reason, PublishAckReason::NotAuthorized);

    accounts.write("rules", "nonsense a\n");
    assert!(hub.control.reload().is_err());
    hub.control.publish("b", "still", false).await.unwrap();
    assert_eq!(alice.message().await.1, "still", "what was read before stays");
}

#[tokio::test]
async fn what_is_refused_and_dropped_is_in_the_log_but_does_not_fill_it() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).with_ansi(false).finish();
    // The engine has a thread of its own: for all of them, and so for other tests as well.
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let accounts = Accounts::new(&["alice"], "user alice\ntopic read a\ntopic write a\n");
    let limits = Limits { max_queued: 1, ..Limits::default() };
    let hub = Hub::start_with(Config { limits, ..accounts.config() }).await;
    let away = Connect {
        session_expiry_interval_secs: 60,
        clean_start: false,
        ..hello_as("alice", "away")
    };
    let mut sleeper = Client::connect(hub.address, away).await;
    sleeper.subscribe("a").await;
    sleeper.subscribe("b").await;
    hub.control.kick(None, "away").await.unwrap();
    let mut alice = Client::connect(hub.address, hello_as("alice", "loud")).await;
    for _ in 0..20 {
        assert_eq!(alice.publish("b", "x", false).await, PublishAckReason::NotAuthorized);
        alice.publish("a", "x", false).await;
    }
    let text = log.text();
    let is_ours =
        |line: &&str| line.contains("client.id=\"loud\"") || line.contains("client.id=\"away\"");
    let lines =
        |what: &str| text.lines().filter(is_ours).filter(|line| line.contains(what)).count();
    assert_eq!(lines("publish refused"), 5, "{text}");
    // Of the sleeper: one refused subscription, and four of its nineteen messages.
    assert_eq!(lines("subscription refused"), 1, "{text}");
    assert_eq!(lines("message dropped"), 4, "{text}");
    let line = text.lines().filter(is_ours).find(|line| line.contains("publish refused")).unwrap();
    for part in ["client.id=\"loud\"", "user=\"alice\"", "topic=\"b\"", "cause=\"not authorised\""]
    {
        assert!(line.contains(part), "{line}");
    }
    assert_eq!(sample(&hub, "publishes_refused_total").await, 20.0);
    let dropped = sample(&hub, "messages_dropped_total{cause=\"queue-full\"}").await;
    assert_eq!(dropped, 19.0);
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> tracing_subscriber::fmt::MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn a_certificate_that_is_read_again_is_shown_to_the_next_client_only() {
    let folder = tempfile::tempdir().unwrap();
    let renew = || certificate(folder.path());
    let first = renew();
    let tls = godwit_broker::listener::TlsConfig {
        certificate: folder.path().join("broker.pem"),
        key: folder.path().join("broker.key"),
        clients: None,
    };
    let listen = vec!["127.0.0.1:0=tls".parse().unwrap()];
    let hub = Hub::start_with(Config { listen, tls: Some(tls), ..config() }).await;
    let (mut old, shown) = secure(&hub, &first, "old").await;
    assert_eq!(shown, first);
    let second = renew();
    hub.control.reload().unwrap();
    let (_new, shown) = secure(&hub, &second, "new").await;
    assert_eq!(shown, second);
    old.ping().await;

    std::fs::write(folder.path().join("broker.pem"), "nonsense").unwrap();
    assert!(hub.control.reload().is_err());
    let (_, shown) = secure(&hub, &second, "newer").await;
    assert_eq!(shown, second, "what was read before stays");
}

type Der = tokio_rustls::rustls::pki_types::CertificateDer<'static>;

/// Another certificate in the broker's files.
fn certificate(folder: &Path) -> Der {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    std::fs::write(folder.join("broker.pem"), certificate.pem()).unwrap();
    std::fs::write(folder.join("broker.key"), key.serialize_pem()).unwrap();
    certificate.der().clone()
}

/// A client over TLS that trusts one certificate, and the one that it was shown.
async fn secure(
    hub: &Hub,
    trusted: &Der,
    client: &str,
) -> (Client<tokio_rustls::client::TlsStream<tokio::net::TcpStream>>, Der) {
    use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = tokio::net::TcpStream::connect(hub.address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = connector.connect("localhost".try_into().unwrap(), stream);
    let stream = in_time(stream).await.unwrap();
    let shown = stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned();
    (Client::over(stream, hello(client)).await.unwrap(), shown)
}
