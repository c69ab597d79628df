//! `node fence`, and how what was on a fenced node is shown.

use serde_json::{Value, json};

use crate::fake::{Fake, problem};
use crate::objects::{container, with};

fn node(state: &str) -> Value {
    json!({
        "name": "edge-a", "state": state, "since": "2026-11-22T18:20:00Z", "containers": 1,
        "info": null, "metrics": null,
    })
}

fn fenced() -> Value {
    json!({"node": node("fenced"), "migrations": ["m-0007-3"], "containers": ["counter"]})
}

#[tokio::test]
async fn a_fence_is_not_taken_from_a_script_that_does_not_say_yes() {
    let fake = Fake::start().await.on("GET /api/v1/nodes/edge-a", 200, node("lost"));
    let err = fake.run(&["node", "fence", "edge-a"]).await.failed(2);
    assert!(err.contains("godwit node fence --yes edge-a"), "{err}");
    assert!(fake.asked_to("POST").is_empty());
}

#[tokio::test]
async fn a_fence_says_what_hung_on_the_node_and_what_to_do() {
    let fake = Fake::start().await.on("GET /api/v1/nodes/edge-a", 200, node("lost")).on(
        "POST /api/v1/nodes/edge-a/fence",
        200,
        fenced(),
    );
    let ended = fake.run(&["node", "fence", "--yes", "edge-a"]).await;
    assert!(ended.err.contains("godwit migration watch m-0007-3"), "{ended:?}");
    assert!(ended.err.contains("godwit inspect counter"), "{ended:?}");
    assert_eq!(ended.done(), "edge-a\n");
    let args = ["node", "fence", "-y", "edge-a", "--format", "{{ node.state }}"];
    assert_eq!(fake.run(&args).await.done(), "fenced\n");
}

#[tokio::test]
async fn a_node_that_is_online_is_fenced_only_by_force() {
    let fake = Fake::start()
        .await
        .on("GET /api/v1/nodes/edge-a", 200, node("online"))
        .on("POST /api/v1/nodes/edge-a/fence", 409, problem("node-online", "edge-a is online"))
        .on("POST /api/v1/nodes/edge-a/fence?force=true", 200, fenced());
    fake.run(&["node", "fence", "--yes", "edge-a"]).await.failed(3);
    fake.run(&["node", "fence", "--yes", "--force", "edge-a"]).await.done();
}

#[tokio::test]
async fn ps_shows_what_is_lost_with_what_to_do() {
    let what_now = "`edge-a` was fenced: `godwit rm counter`";
    let lost = with(container("lost", "rest"), json!({"error": what_now}));
    let fake = Fake::start().await.on("GET /api/v1/containers", 200, json!([lost]));
    let ended = fake.run(&["ps"]).await;
    assert!(ended.out.contains("lost"), "{ended:?}");
    assert_eq!(ended.err, format!("counter: {what_now}\n"));
    let quiet = fake.run(&["ps", "--format", "{{ state }}"]).await;
    assert_eq!((quiet.err.as_str(), quiet.out.as_str()), ("", "lost\n"));
}
