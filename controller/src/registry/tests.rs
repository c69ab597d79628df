use super::*;

struct Fixture {
    directory: tempfile::TempDir,
    registry: Registry,
    events: broadcast::Receiver<Event>,
}

async fn open(directory: tempfile::TempDir) -> Fixture {
    let store = StoreHandle::open(&directory.path().join("godwit.db")).unwrap();
    let (sender, events) = broadcast::channel(16);
    Fixture { directory, registry: Registry::open(store, sender).await.unwrap(), events }
}

async fn fresh() -> Fixture {
    open(tempfile::tempdir().unwrap()).await
}

impl Fixture {
    fn hear(&self, level: &str, payload: &str) {
        let topic = format!("godwit/v1/node/edge-a/{level}").parse().unwrap();
        self.registry.hear(&topic, payload.as_bytes());
    }
    fn state(&self) -> Option<NodeState> {
        self.registry.node(&edge_a()).map(|view| view.state)
    }
}

fn edge_a() -> NodeId {
    "edge-a".parse().unwrap()
}

const INFO: &str = r#"{"agent_version":"0.1.0","arch":"x86_64","os":"Debian 13","kernel":"6.18.2",
    "cpus":2,"memory_bytes":8589934592,"disk_bytes":1,"engine":"podman 5.4.2",
    "runtime":"runc 1.1.15","criu":"4.2.1","mood":"good",
    "probe":{"can_migrate":false,"problems":["no nft","no criu"]}}"#;
const METRICS: &str = r#"{"cpu_percent":1.5,"memory_free_bytes":1000,"disk_free_bytes":2000,
    "network_rx_bytes_per_s":0,"network_tx_bytes_per_s":0,
    "containers":[{"name":"counter","cpu_percent":0.1,"memory_bytes":77,"processes":1}]}"#;

#[tokio::test]
async fn a_node_comes_and_goes() {
    let mut fixture = fresh().await;
    assert_eq!(fixture.state(), None);
    fixture.hear("state", r#"{"state":"online","since":"2026-11-22T18:00:00Z"}"#);
    assert_eq!(fixture.state(), Some(NodeState::Online));
    let Ok(Event::Node(view)) = fixture.events.try_recv() else { panic!("no event") };
    assert_eq!(view.since.to_string(), "2026-11-22T18:00:00Z");
    fixture.hear("state", r#"{"state":"lost","since":"2026-11-22T18:00:00Z"}"#);
    let view = fixture.registry.node(&edge_a()).unwrap();
    assert_eq!(view.state, NodeState::Lost);
    assert_ne!(view.since.to_string(), "2026-11-22T18:00:00Z", "a will's time is not the loss's");
}

#[tokio::test]
async fn facts_come_from_announcement_and_metrics() {
    let fixture = fresh().await;
    fixture.hear("state", r#"{"state":"online","since":"2026-11-22T18:00:00Z"}"#);
    fixture.hear("info", INFO);
    fixture.hear("metrics", METRICS);
    let facts = fixture.registry.facts(&edge_a()).unwrap();
    assert_eq!(facts.engine, Some(("podman".into(), Version::read("5.4.2").unwrap())));
    assert_eq!(facts.probe_failure.as_deref(), Some("no nft; no criu"));
    assert_eq!((facts.memory_free_bytes, facts.disk_free_bytes), (Some(1000), Some(2000)));
    let counter = "counter".parse().unwrap();
    assert_eq!(fixture.registry.memory_of(&edge_a(), &counter), Some(77));
    let raw = fixture.registry.node(&edge_a()).unwrap().info.unwrap();
    assert_eq!(raw["mood"], "good", "what is not understood is passed on");
}

#[tokio::test]
async fn garbage_changes_nothing() {
    let mut fixture = fresh().await;
    fixture.hear("state", r#"{"state":"online","since":"2026-11-22T18:00:00Z"}"#);
    fixture.events.try_recv().unwrap();
    for garbage in ["", "{", r#"{"state":"dancing","since":"x"}"#, "\u{0}"] {
        fixture.hear("state", garbage);
        fixture.hear("info", garbage);
    }
    assert!(fixture.events.try_recv().is_err());
    assert_eq!(fixture.state(), Some(NodeState::Online));
}

#[tokio::test]
async fn a_restart_remembers_a_node_and_takes_it_for_lost() {
    let fixture = fresh().await;
    fixture.hear("state", r#"{"state":"online","since":"2026-11-22T18:00:00Z"}"#);
    fixture.hear("info", INFO);
    let over = CancellationToken::new();
    over.cancel();
    fixture.registry.run(over).await;
    let again = open(fixture.directory).await;
    assert_eq!(again.state(), Some(NodeState::Lost));
    assert!(again.registry.facts(&edge_a()).unwrap().is_announced);
}

#[tokio::test]
async fn a_node_that_is_only_seen_has_not_joined() {
    let fixture = fresh().await;
    fixture.registry.seen(edge_a());
    assert_eq!(fixture.state(), Some(NodeState::Unjoined));
    fixture.hear("state", r#"{"state":"online","since":"2026-11-22T18:00:00Z"}"#);
    assert_eq!(fixture.state(), Some(NodeState::Online));
    fixture.registry.unseen(&edge_a());
    assert_eq!(fixture.state(), Some(NodeState::Online));
}

#[tokio::test]
async fn a_fenced_node_stays_so_until_it_is_alive_again() {
    let fixture = fresh().await;
    fixture.hear("state", r#"{"state":"lost","since":"2026-11-22T18:00:00Z"}"#);
    fixture.hear("info", INFO);
    fixture.registry.fence(&edge_a());
    assert_eq!(fixture.state(), Some(NodeState::Fenced));
    // A broker says again what it kept from before.
    fixture.hear("state", r#"{"state":"online","since":"2026-11-22T18:00:00Z"}"#);
    fixture.hear("info", INFO);
    assert_eq!(fixture.state(), Some(NodeState::Fenced));
    let over = CancellationToken::new();
    over.cancel();
    fixture.registry.run(over).await;

    let again = open(fixture.directory).await;
    assert_eq!(again.state(), Some(NodeState::Fenced), "a restart forgets no fence");
    again.hear("state", r#"{"state":"online","since":"2026-11-22T18:00:00Z"}"#);
    again.hear("metrics", METRICS);
    assert_eq!(again.state(), Some(NodeState::Online));
}
