//! Failures: what is said, what to do next, and the exit code.

use serde_json::json;

use crate::fake::{Fake, godwit, problem};

#[tokio::test]
async fn every_refusal_has_its_exit_code() {
    for (status, code, exit) in [
        (400, "bad-request", 2),
        (404, "unknown-container", 4),
        (409, "busy", 3),
        (500, "internal", 1),
        (503, "unavailable", 5),
        (504, "node-silent", 1),
        (507, "disk-full", 1),
    ] {
        let line = "GET /api/v1/containers/counter";
        let fake = Fake::start().await.on(line, status, problem(code, "it will not do"));
        let err = fake.run(&["inspect", "counter"]).await.failed(exit);
        assert_eq!(err, "godwit: it will not do\n  try: do better\n", "{code}");
    }
}

#[tokio::test]
async fn an_admission_refusal_lists_every_reason() {
    let refusal = json!({
        "code": "admission-refused", "message": "edge-b cannot take counter", "remedy": "",
        "reasons": [
            {"code": "disk", "message": "edge-b has 1 MB left", "remedy": "free some"},
            {"code": "cpu", "message": "edge-b lacks avx2", "remedy": "choose another node"},
        ],
    });
    let line = "POST /api/v1/containers/counter/migrate";
    let fake = Fake::start().await.on(line, 409, refusal);
    let err = fake.run(&["migrate", "counter", "--to", "edge-b"]).await.failed(3);
    let wanted = "\
godwit: edge-b cannot take counter
  - edge-b has 1 MB left
    try: free some
  - edge-b lacks avx2
    try: choose another node
";
    assert_eq!(err, wanted);
}

#[tokio::test]
async fn a_controller_that_is_not_there_is_named_and_how_to_name_another() {
    let mut fake = Fake::start().await;
    fake.stop().await;
    let err = fake.run(&["ps"]).await.failed(5);
    let start = format!(
        "godwit: cannot reach the controller at http://{}: Connection refused",
        fake.address
    );
    assert!(err.starts_with(&start), "{err}");
    assert!(err.contains("--host") && err.contains("GODWIT_HOST"), "{err}");
}

#[tokio::test]
async fn another_kind_of_server_is_told_from_a_controller() {
    let fake = Fake::start().await.on_bytes("GET /api/v1/nodes", 404, "<html>".into());
    let err = fake.run(&["node", "ls"]).await.failed(5);
    assert!(err.contains("is not a Godwit controller: it says 404"), "{err}");
    let fake = Fake::start().await.on_bytes("GET /api/v1/nodes", 200, "<html>".into());
    let err = fake.run(&["node", "ls"]).await.failed(5);
    assert!(err.contains("is not a Godwit controller"), "{err}");
}

#[tokio::test]
async fn nonsense_on_the_command_line_is_refused_before_anything_is_asked() {
    let fake = Fake::start().await;
    for (args, hint) in [
        (&["migrate"][..], "CONTAINER"),
        (&["run", "--memory", "lots", "counter"], "512m"),
        (&["run", "--env", "NOT_HERE", "counter"], "NOT_HERE=VALUE"),
        (&["run", "--format", "{{ name", "counter"], "syntax error"),
        (&["run", "--nmae", "c", "counter"], "there is no option `--nmae`"),
        (&["run"], "IMAGE"),
        (&["ps", "--format", "yaml"], "neither `table` nor `json`"),
        (&["ps", "--filter", "colour=red"], "none of node, state"),
        (&["migrate", "counter", "--bwlimit", "0"], "more than 0"),
        (&["--host", "https://hub", "ps"], "http://HOST:7180"),
    ] {
        let err = fake.run(args).await.failed(2);
        assert!(err.contains(hint), "{args:?}: {err}");
    }
    assert!(fake.asked().is_empty(), "{:?}", fake.asked());
}

#[tokio::test]
async fn the_flag_overrules_the_environment() {
    let fake = Fake::start().await.on("GET /api/v1/nodes", 200, json!([]));
    let host = format!("{}", fake.address);
    let mut command = godwit(&["--host", &host, "node", "ls", "--format", "json"]);
    let output = command.env("GODWIT_HOST", "http://127.0.0.1:1").output().await;
    assert_eq!(output.expect("godwit runs").stdout, b"[]\n");
}

#[tokio::test]
async fn help_lists_the_exit_codes() {
    let output = godwit(&["--help"]).output().await.expect("godwit runs");
    let help = String::from_utf8_lossy(&output.stdout).into_owned();
    for code in ["0  done", "3  refused", "5  no controller", "130  interrupted"] {
        assert!(help.contains(code), "{code} is not in:\n{help}");
    }
}
