use godwit_proto::topic::Filter;

use godwit_broker::{Anonymous, Broker};

use super::*;
use crate::config::Embedded;
use crate::service::{DIRECT, Pool, Ranges};

fn config(directory: &std::path::Path) -> Config {
    Config {
        data_dir: directory.join("data"),
        listen: "127.0.0.1:0".parse().unwrap(),
        broker: BrokerChoice::Embedded(Embedded {
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            anonymous: Anonymous::Anyone,
            ..Embedded::default()
        }),
        pool: Pool::new("10.77.1.0/24", 16, None).unwrap(),
        ranges: Ranges { all: "10.128.0.0/9".parse().unwrap(), prefix: 20, has_ipv6: true },
        network: DIRECT.to_owned(),
        has_mdns: false,
        log_format: crate::config::LogFormat::Text,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_greets_the_agents_that_were_there_first() {
    let open = godwit_broker::Config::open_to_all("127.0.0.1:0".parse().unwrap());
    let broker = Broker::bind(open).await.unwrap();
    let url = BrokerUrl::from(broker.tcp_address().unwrap());
    let over = CancellationToken::new();
    let broker = tokio::spawn(broker.run(over.clone()));
    let mut agent = godwit_bus::Config::new(url.clone(), "edge-a");
    agent.subscriptions = vec![Filter::ControllerHello];
    let (agent, mut hellos) = Session::open(agent).unwrap();
    agent.up().await.unwrap();

    let directory = tempfile::tempdir().unwrap();
    let config = Config { broker: BrokerChoice::External(url), ..config(directory.path()) };
    let controller = Controller::bind(config).await.unwrap();
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(controller.run(shutdown.clone()));
    let hello = hellos.recv().await.unwrap();
    let ControllerHello { run } = wire::decode(&hello.payload).unwrap();
    assert!(run.generation > 0);
    shutdown.cancel();
    running.await.unwrap().unwrap();
    over.cancel();
    broker.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_starts_serves_and_stops() {
    let directory = tempfile::tempdir().unwrap();
    let controller = Controller::bind(config(directory.path())).await.unwrap();
    let (rest, broker) = (controller.rest_address(), controller.broker_addresses()[0]);
    let first = controller.core_store.generation().unwrap();
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(controller.run(shutdown.clone()));

    let agent = godwit_bus::Config::new(broker.into(), "edge-a");
    let (agent, _inbox) = Session::open(agent).unwrap();
    let topic = Topic::NodeState { node: "edge-a".parse().unwrap() };
    let state = r#"{"state":"online","since":"2026-11-22T18:00:00Z"}"#;
    agent.publish(Publication::new(&topic, state).retained()).await.unwrap();
    let node = format!("http://{rest}/api/v1/nodes/edge-a");
    while reqwest::get(&node).await.unwrap().status() == 404 {
        tokio::task::yield_now().await;
    }
    let health = reqwest::get(format!("http://{rest}/healthz")).await.unwrap();
    assert_eq!(health.status(), 200);

    shutdown.cancel();
    running.await.unwrap().unwrap();
    assert!(tokio::net::TcpStream::connect(broker).await.is_err(), "the broker is gone as well");
    // A second life on the same data claims a higher run.
    let again = Controller::bind(config(directory.path())).await.unwrap();
    assert!(again.core_store.generation().unwrap() > first);
}

#[tokio::test]
async fn a_port_in_use_is_named_with_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let config = Config { listen: address, ..config(directory.path()) };
    let Err(error) = Controller::bind(config).await else { panic!("it listens twice") };
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

#[test]
fn a_broker_on_this_machine_is_announced_by_this_machines_own_addresses() {
    let place = |url: &str| apart(&url.parse().unwrap()).address;
    assert_eq!(place("mqtt://127.0.0.1:1883"), None);
    assert_eq!(place("mqtt://10.0.0.7"), Some([10, 0, 0, 7].into()));
}
