//! `events`, and what happens to output that nobody reads.

use std::process::Stdio;

use serde_json::{Value, json};

use crate::fake::{Fake, Stream, godwit, problem};
use crate::objects::{container, migration, settled};

const EVENTS: [&str; 2] = ["events", "--format"];

fn node(containers: u64) -> Value {
    json!({"name": "edge-a", "state": "online", "since": null, "containers": containers,
           "info": null, "metrics": {"tick": containers}})
}

/// A stream that ends, and a controller that refuses the next: `events` ends too.
async fn told(snapshot: &[(&str, Value)], news: &[(&str, Value)]) -> Fake {
    Fake::start().await.stream(Stream::of(snapshot, news).cut()).no_stream(500, "internal")
}

#[tokio::test]
async fn events_begin_with_news_and_do_not_repeat_what_is_the_same() {
    let fake = told(
        &[("container", container("running", "rest")), ("node", node(1))],
        &[
            ("node", node(1)),
            ("migration", migration("transferring", 41.5)),
            ("migration", settled("moved")),
            ("node", node(2)),
        ],
    )
    .await;
    let out = fake.run(&["events", "--node", "edge-a", "--container", "counter"]).await.out;
    let without_time: String = out.lines().map(|line| line[8..].to_owned() + "\n").collect();
    let wanted = "  \
  migration  m-0007-3  counter edge-a → edge-b  transferring 42 %
  migration  m-0007-3  counter edge-a → edge-b  moved
  node       edge-a  online, 2 containers
";
    assert_eq!(without_time, wanted);
    assert_eq!(fake.asked()[0].line, "GET /api/v1/events?container=counter&node=edge-a");
}

#[tokio::test]
async fn events_as_json_are_whole_one_a_line_and_with_a_from_the_start() {
    let fake = told(&[("node", node(1))], &[("node", node(1))]).await;
    let out = fake.run(&[EVENTS[0], "-a", EVENTS[1], "json"]).await.out;
    let lines: Vec<Value> =
        out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let event = json!({"event": "node", "data": node(1)});
    assert_eq!(lines, [event.clone(), event]);
    let fake = told(&[], &[("node", node(1))]).await;
    let out = fake.run(&[EVENTS[0], EVENTS[1], "{{ event }} {{ data.name }}"]).await.out;
    assert_eq!(out, "node edge-a\n");
}

#[tokio::test]
async fn events_of_nothing_known_end_at_once() {
    let fake = Fake::start().await.no_stream(404, "unknown-container");
    let ended = fake.run(&["events", "--container", "nobody"]).await;
    ended.failed(4);
    let mut fake = Fake::start().await;
    fake.stop().await;
    fake.run(&["events"]).await.failed(5);
}

#[tokio::test]
async fn a_reader_that_left_is_no_failure() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut command = godwit(&["completion", "bash"]);
    let output = command.stdout(Stdio::from(writer)).output().await.expect("godwit runs");
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[tokio::test]
async fn nothing_is_coloured_without_a_terminal() {
    let fake = Fake::start()
        .await
        .on("GET /api/v1/containers", 200, json!([container("running", "rest")]))
        .on("GET /api/v1/nodes", 404, problem("unknown", "nothing"));
    for args in [["ps", "-a"], ["node", "ls"]] {
        let ended = fake.run(&args).await;
        assert!(!ended.out.contains('\x1b') && !ended.err.contains('\x1b'), "{ended:?}");
    }
}
