//! `run`, `start`, `stop`, `rm`, `logs`.

use serde_json::json;

use crate::fake::{Fake, Stream, problem};
use crate::objects::{COUNTER, container, with};

const ONE: &str = "/api/v1/containers/counter";

#[tokio::test]
async fn run_sends_everything_it_was_told_and_prints_the_id_once_it_runs() {
    let fake = Fake::start()
        .await
        .on("POST /api/v1/containers", 202, container("creating", "start"))
        .stream(Stream::of(
            &[("container", container("creating", "start"))],
            &[("container", container("running", "rest"))],
        ));
    let mut command = fake.command(&[
        "run",
        "--name",
        "counter",
        "--env",
        "A=b=c",
        "-e",
        "TAKEN",
        "--label",
        "tier=demo",
        "--memory",
        "64m",
        "--cpus",
        "0.5",
        "--node",
        "edge-a",
        "--network",
        "default",
        "--network",
        "direct",
        "-p",
        "8080:80",
        "--publish",
        "53/udp@edge-a",
        "-v",
        "data:/var/lib/db",
        "--volume",
        "logs:/log",
        "--device",
        "sensor:/dev/ttyS0",
        "counter",
        "--tick",
        "5",
    ]);
    let output = command.env("TAKEN", "from here").output().await.expect("godwit runs");
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{COUNTER}\n"));
    assert!(output.stderr.is_empty(), "quiet without a terminal");
    let asked = fake.asked();
    assert_eq!(
        asked[0].json(),
        json!({
            "image": "counter", "name": "counter", "node": "edge-a", "args": ["--tick", "5"],
            "env": {"A": "b=c", "TAKEN": "from here"}, "labels": {"tier": "demo"},
            "memory_bytes": 64 << 20, "nano_cpus": 500_000_000, "start": true,
            "networks": ["default", "direct"], "ports": ["8080:80", "53/udp@edge-a"],
            "devices": ["sensor:/dev/ttyS0"],
            "volumes": ["data:/var/lib/db", "logs:/log"],
        })
    );
    assert_eq!(asked[1].line, format!("GET /api/v1/events?container={COUNTER}"));
}

#[tokio::test]
async fn run_without_start_is_done_when_the_container_is_made() {
    let fake = Fake::start()
        .await
        .on("POST /api/v1/containers", 202, container("creating", "create"))
        .stream(Stream::of(&[("container", container("stopped", "rest"))], &[]));
    let args = ["run", "--no-start", "counter", "--format", "json"];
    let out = fake.run(&["run", "--no-start", "--format", "{{ state }}", "counter"]).await.done();
    assert_eq!(out, "stopped\n");
    assert_eq!(fake.asked()[0].json()["start"], false);
    // Behind the image, options are the container's.
    let _ = fake.run(&args).await;
    assert_eq!(fake.asked_to("POST")[1].json()["args"], json!(["--format", "json"]));
}

#[tokio::test]
async fn run_tells_why_the_container_failed() {
    let failed = with(container("failed", "rest"), json!({"error": "exec: no such file"}));
    let fake = Fake::start()
        .await
        .on("POST /api/v1/containers", 202, container("creating", "start"))
        .stream(Stream::of(&[], &[("container", failed)]));
    let err = fake.run(&["run", "counter"]).await.failed(1);
    assert!(err.starts_with("godwit: counter failed: exec: no such file\n  try: "), "{err}");
}

#[tokio::test]
async fn run_survives_a_controller_that_is_not_back_yet() {
    let fake = Fake::start()
        .await
        .on("POST /api/v1/containers", 202, container("creating", "start"))
        .no_stream(503, "shutting-down")
        .stream(Stream::of(&[("container", container("creating", "start"))], &[]).cut())
        .stream(Stream::of(&[("container", container("running", "rest"))], &[]));
    let ended = fake.run(&["run", "counter"]).await;
    assert!(ended.err.contains("the controller is back"), "{ended:?}");
    assert_eq!(ended.done(), format!("{COUNTER}\n"));
}

#[tokio::test]
async fn start_and_stop_wait_for_the_state() {
    let fake = Fake::start()
        .await
        .on(&format!("POST {ONE}/start"), 202, container("starting", "start"))
        .on(&format!("POST {ONE}/stop"), 202, container("stopping", "stop"))
        .stream(Stream::of(
            &[("container", container("starting", "start"))],
            &[("container", container("running", "rest"))],
        ))
        .stream(Stream::of(
            &[("container", container("stopping", "stop"))],
            &[("container", container("stopped", "rest"))],
        ));
    assert_eq!(fake.run(&["start", "counter"]).await.done(), "counter\n");
    assert_eq!(fake.run(&["stop", "counter"]).await.done(), "counter\n");
}

#[tokio::test]
async fn rm_is_done_when_the_container_is_gone() {
    let fake = Fake::start()
        .await
        .on(&format!("DELETE {ONE}"), 202, container("removing", "remove"))
        .on(&format!("DELETE {ONE}?force=true"), 202, container("removing", "remove"))
        .stream(Stream::of(
            &[("container", container("removing", "remove"))],
            &[("container", container("removed", "remove"))],
        ))
        .no_stream(404, "unknown-container");
    assert_eq!(fake.run(&["rm", "counter"]).await.done(), "counter\n");
    assert_eq!(fake.run(&["rm", "-f", "counter"]).await.done(), "counter\n");
}

#[tokio::test]
async fn one_container_that_fails_does_not_spare_the_others() {
    let fake = Fake::start()
        .await
        .on("POST /api/v1/containers/nobody/stop", 404, problem("unknown-container", "who?"))
        .on(&format!("POST {ONE}/stop"), 202, container("stopping", "stop"))
        .stream(Stream::of(&[("container", container("stopped", "rest"))], &[]));
    let ended = fake.run(&["stop", "nobody", "counter"]).await;
    assert_eq!(ended.out, "counter\n");
    assert_eq!(ended.failed(4), "godwit: who?\n  try: do better\n");
}

#[tokio::test]
async fn logs_are_printed_as_they_are() {
    let log = b"tick 1\n\xff\xfe\n";
    let fake = Fake::start().await.on_bytes(&format!("GET {ONE}/logs?tail=2"), 200, log[..].into());
    let output = fake.command(&["logs", "--tail", "2", "counter"]).output().await;
    assert_eq!(output.expect("godwit runs").stdout, log);
}

#[tokio::test]
async fn logs_follow_prints_each_line_once_until_the_container_ends() {
    let logs = format!("GET {ONE}/logs");
    let fake = Fake::start()
        .await
        .on_bytes(&logs, 200, "1\n2\n3\n".into())
        .on_bytes(&logs, 200, "1\n2\n3\n4\n".into())
        .on_bytes(&logs, 200, "3\n4\n5\n".into())
        .on(&format!("GET {ONE}"), 200, container("running", "rest"))
        .on(&format!("GET {ONE}"), 200, container("exited", "rest"));
    assert_eq!(fake.run(&["logs", "-f", "--tail", "2", "counter"]).await.done(), "2\n3\n4\n5\n");
}
