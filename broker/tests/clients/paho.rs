//! paho-mqtt of Python: `paho_client.py`, in both versions over every transport.

use crate::broker::{ALICE, Broker};
use crate::programs::{command, installed, run};

/// Has `paho_client.py` do what a function of it says, over each transport; its asserts are its word.
async fn does(what: &str, versions: usize) {
    let broker = Broker::start().await;
    let mut python = command(installed("venv/bin/python"));
    python.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/paho_client.py")).arg(what);
    python.arg(broker.authority()).args([ALICE.0, ALICE.1]);
    let ports = broker.ports;
    for port in [ports.mqtt, ports.tls, ports.websocket, ports.secure_websocket] {
        python.arg(port.to_string());
    }
    let ended = run(python).await;
    assert!(ended.is_success, "{}{}", ended.said, ended.complained);
    assert_eq!(ended.said.lines().count(), 4 * versions, "{}", ended.said);
}

#[tokio::test]
async fn paho_sends_and_hears_each_quality() {
    does("each_quality", 2).await;
}

#[tokio::test]
async fn properties_of_paho_go_both_ways_and_a_request_is_answered() {
    does("properties_and_requests", 1).await;
}

#[tokio::test]
async fn paho_finds_its_session_when_it_is_back() {
    does("session_taken_back", 2).await;
}

#[tokio::test]
async fn the_will_of_paho_is_published_when_its_socket_breaks() {
    does("will", 2).await;
}

#[tokio::test]
async fn paho_is_told_why_it_is_refused() {
    does("refusals", 2).await;
}
