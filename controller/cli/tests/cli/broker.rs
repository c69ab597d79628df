//! `broker`: what is asked of whom, and how it is shown.

use serde_json::{Value, json};

use crate::fake::Fake;

fn session(client: &str, user: Option<&str>, connection: Option<Value>) -> Value {
    json!({
        "client": client, "user": user, "connection": connection,
        "subscriptions": 2, "filters": ["a", "b"],
        "queued_messages": 3, "queued_bytes": 1500, "in_flight": 1,
        "ends": connection.is_none().then_some("2026-01-01T00:00:00Z"),
    })
}

fn connection() -> Value {
    json!({
        "address": "127.0.0.1:4711", "transport": "tls", "version": "5",
        "keep_alive_seconds": 60, "since": "2026-01-01T00:00:00Z",
    })
}

#[tokio::test]
async fn sessions_are_shown_with_what_waits_for_them() {
    let all = json!([session("s1", Some("alice"), Some(connection())), session("s2", None, None)]);
    let fake = Fake::start().await.on("GET /api/v1/broker/sessions", 200, all);
    let wanted = "\
CLIENT  USER   STATE      SUBSCRIPTIONS  QUEUED       IN FLIGHT  ENDS
s1      alice  connected  2              3 (1.50 kB)  1          -
s2      -      away       2              3 (1.50 kB)  1          2026-01-01T00:00:00Z
";
    assert_eq!(fake.run(&["broker", "sessions"]).await.done(), wanted);
}

#[tokio::test]
async fn clients_are_shown_with_their_connections() {
    let all = json!([session("s1", Some("alice"), Some(connection()))]);
    let fake = Fake::start().await.on("GET /api/v1/broker/clients", 200, all);
    let shown = fake.run(&["broker", "clients"]).await.done();
    let line = "s1      alice  127.0.0.1:4711  tls   5     60 s        3 (1.50 kB)  ";
    assert!(shown.contains(line), "{shown}");
    let template = ["broker", "clients", "--format", "{{ connection.address }}"];
    assert_eq!(fake.run(&template).await.done(), "127.0.0.1:4711\n");
}

#[tokio::test]
async fn retained_messages_come_page_by_page() {
    let message =
        |n: usize| json!({"topic": format!("t/{n:04}"), "bytes": 5, "qos": 1, "expires": null});
    let page = |range: std::ops::Range<usize>| Value::Array(range.map(message).collect());
    let first = "GET /api/v1/broker/retained?filter=t%2F%23&limit=1000";
    let fake = Fake::start().await.on(first, 200, page(0..1000)).on(
        &format!("{first}&after=t%2F0999"),
        200,
        page(1000..1002),
    );
    let shown = fake.run(&["broker", "retained", "t/#", "--format", "{{ topic }}"]).await.done();
    assert_eq!(shown.lines().count(), 1002);
    assert!(shown.ends_with("t/1000\nt/1001\n"), "{shown}");
}

#[tokio::test]
async fn a_client_is_cut_off_by_its_id_and_user() {
    let answer = json!({"client": "a/b", "disconnected": 1});
    let line = "DELETE /api/v1/broker/clients/a%2Fb?user=alice";
    let fake = Fake::start().await.on(line, 200, answer);
    let done = fake.run(&["broker", "kick", "a/b", "--user", "alice"]).await.done();
    assert_eq!(done, "a/b: 1 connection cut off\n");
}

#[tokio::test]
async fn a_broker_of_its_own_is_asked_instead_of_the_controller() {
    let topics = json!([{"filter": "a/#", "group": "g", "subscribers": 2}]);
    let broker = Fake::start().await.on("GET /api/v1/broker/topics", 200, topics);
    let controller = Fake::start().await;
    let url = broker.address.to_string();
    let shown = controller.run(&["broker", "topics", "--url", &url]).await.done();
    assert_eq!(shown, "FILTER  GROUP  SUBSCRIBERS\na/#     g      2\n");
}
