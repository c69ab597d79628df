//! `migrate`, `migration watch` and `cancel`: a move from order to end.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tokio::process::Child;

use crate::fake::{Ended, Fake, Stream, until_said};
use crate::objects::{migration, settled, with};

const ORDER: &str = "POST /api/v1/containers/counter/migrate";

async fn ordered() -> Fake {
    Fake::start().await.on(ORDER, 202, migration("preparing", 0.0))
}

fn said(kind: &str, data: Value) -> (&str, Value) {
    (kind, data)
}

async fn end(child: Child) -> Ended {
    Ended::of(child.wait_with_output()).await
}

fn press_ctrl_c(child: &Child) {
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).expect("it runs");
    kill(Pid::from_raw(pid), Signal::SIGINT).expect("the signal is sent");
}

#[tokio::test]
async fn a_move_shows_its_phases_and_what_it_cost() {
    let fake = ordered().await.stream(Stream::of(
        &[said("migration", migration("preparing", 0.0))],
        &[
            said("migration", migration("transferring", 41.5)),
            said("migration", migration("transferring", 41.9)),
            said("migration", settled("moved")),
        ],
    ));
    let args = ["migrate", "counter", "--to", "edge-b", "--cold", "--bwlimit", "10MB"];
    let ended = fake.run(&args).await;
    let wanted = "\
preparing     0.0 %  28.31 MB of 68.16 MB  118.00 MB/s  340 ms left
transferring  41.5 %  28.31 MB of 68.16 MB  118.00 MB/s  340 ms left
done          100.0 %  68.16 MB of 68.16 MB
";
    assert_eq!(ended.err, wanted);
    let wanted = "\
counter moved from edge-a to edge-b (live)
PHASE         TIME
preparing     210 ms
freezing      140 ms
transferring  1.40 s
total         1.90 s
gap           912 ms
bytes         68.16 MB (34.08 MB on the wire)
";
    assert_eq!(ended.done(), wanted);
    let asked = fake.asked();
    let order = json!({"to": "edge-b", "mode": "cold", "bwlimit": 10_000_000, "dry_run": false});
    assert_eq!(asked[0].json(), order);
    assert_eq!(asked[1].line, "GET /api/v1/events?migration=m-0007-3");
}

#[tokio::test]
async fn a_move_that_fails_tells_cause_and_remedy() {
    let why = json!({"reason": "edge-b's disk is full", "remedy": "free 40 MB on edge-b"});
    for (outcome, where_it_is) in [
        ("aborted", "counter runs on at edge-a"),
        ("cancelled", "counter runs on at edge-a"),
        ("returned", "counter runs on edge-a again"),
        ("salvaged", "counter runs on edge-b"),
        ("rolled-back", "counter was taken back to edge-a"),
        ("lost", "counter is lost"),
        ("transmuted", "ended as transmuted"),
    ] {
        let fake = ordered()
            .await
            .stream(Stream::of(&[said("migration", with(settled(outcome), why.clone()))], &[]));
        let ended = fake.run(&["migrate", "counter"]).await;
        assert_eq!(ended.out, "");
        let err = ended.failed(1);
        assert!(err.contains(where_it_is), "{outcome}: {err}");
        let end = ": edge-b's disk is full\n  try: free 40 MB on edge-b\n";
        assert!(err.ends_with(end), "{outcome}: {err}");
    }
}

#[tokio::test]
async fn json_of_a_failed_move_is_printed_all_the_same() {
    let fake = ordered().await.stream(Stream::of(&[said("migration", settled("aborted"))], &[]));
    let ended = fake.run(&["migrate", "counter", "--format", "json"]).await;
    let printed: Value = serde_json::from_str(&ended.out).expect("JSON");
    assert_eq!(printed, settled("aborted"));
    ended.failed(1);
}

#[tokio::test]
async fn a_move_is_followed_across_a_restart_of_the_controller() {
    let mut fake = ordered()
        .await
        .stream(Stream::of(&[said("migration", migration("transferring", 41.5))], &[]));
    let mut child = fake.command(&["migrate", "counter"]).spawn().expect("godwit runs");
    until_said(&mut child, "41.5 %").await;
    fake.stop().await;
    until_said(&mut child, "the controller went away").await;
    let mut fake = fake.stream(Stream::of(&[said("migration", settled("moved"))], &[]));
    fake.start_again().await;
    let ended = end(child).await;
    assert!(ended.err.contains("the controller is back"), "{ended:?}");
    assert!(ended.done().starts_with("counter moved from edge-a to edge-b"));
    assert_eq!(fake.asked_to("POST").len(), 1, "a move is ordered once");
}

#[tokio::test]
async fn a_controller_that_stays_away_is_given_up_with_its_own_exit_code() {
    let mut fake = ordered()
        .await
        .stream(Stream::of(&[said("migration", migration("transferring", 41.5))], &[]));
    let mut command = fake.command(&["migrate", "counter"]);
    let mut child = command.env("GODWIT_PATIENCE", "0.2").spawn().expect("godwit runs");
    until_said(&mut child, "41.5 %").await;
    fake.stop().await;
    let err = end(child).await.failed(5);
    assert!(err.contains("cannot reach the controller"), "{err}");
}

#[tokio::test]
async fn ctrl_c_asks_nothing_of_the_controller_and_says_how_to_go_on() {
    let fake = ordered()
        .await
        .stream(Stream::of(&[said("migration", migration("transferring", 41.5))], &[]));
    let mut child = fake.command(&["migrate", "counter"]).spawn().expect("godwit runs");
    until_said(&mut child, "41.5 %").await;
    let before = fake.asked().len();
    press_ctrl_c(&child);
    let err = end(child).await.failed(130);
    assert!(err.contains("the move m-0007-3 goes on"), "{err}");
    assert!(err.contains("godwit migration watch m-0007-3"), "{err}");
    assert!(err.contains("godwit migration cancel m-0007-3"), "{err}");
    assert_eq!(fake.asked().len(), before);
}

#[tokio::test]
async fn a_detached_move_prints_its_id_and_is_not_followed() {
    let fake = ordered().await;
    assert_eq!(fake.run(&["migrate", "counter", "--detach"]).await.done(), "m-0007-3\n");
    assert_eq!(fake.asked().len(), 1);
}

#[tokio::test]
async fn a_dry_run_predicts_or_gives_every_reason() {
    let admission = json!({
        "ok": true, "source": "edge-a", "target": "edge-b", "mode": "live", "reasons": [],
        "prediction": {"bytes": 68_157_440, "total_ms": 1900, "gap_ms": 900},
    });
    let refused = with(
        admission.clone(),
        json!({"ok": false, "prediction": null, "reasons": [
            {"code": "cpu", "message": "edge-b lacks avx2", "remedy": "choose another node"},
        ]}),
    );
    let fake = Fake::start().await.on(ORDER, 200, admission).on(ORDER, 200, refused);
    let wanted = "\
counter can move from edge-a to edge-b (live)
PREDICTED
bytes      68.16 MB
total      1.90 s
gap        900 ms
";
    assert_eq!(fake.run(&["migrate", "counter", "--dry-run"]).await.done(), wanted);
    assert_eq!(fake.asked()[0].json()["dry_run"], true);
    let ended = fake.run(&["migrate", "counter", "--dry-run"]).await;
    assert_eq!(ended.out, "counter cannot move from edge-a to edge-b (live)\n");
    assert_eq!(ended.failed(3), "  - edge-b lacks avx2\n    try: choose another node\n");
}

#[tokio::test]
async fn watch_follows_a_move_that_another_ordered() {
    let fake = Fake::start()
        .await
        .on("GET /api/v1/migrations/m-0007-3", 200, migration("transferring", 41.5))
        .stream(Stream::of(&[said("migration", settled("moved"))], &[]));
    let args = ["migration", "watch", "m-0007-3", "--format", "{{ outcome }}"];
    assert_eq!(fake.run(&args).await.done(), "moved\n");
}

#[tokio::test]
async fn cancel_waits_for_the_end_and_fails_when_the_move_won() {
    let cancel = "POST /api/v1/migrations/m-0007-3/cancel";
    for (outcome, code) in [("cancelled", 0), ("aborted", 0), ("moved", 1)] {
        let fake =
            Fake::start().await.on(cancel, 202, migration("aborting", 41.5)).stream(Stream::of(
                &[said("migration", migration("aborting", 41.5))],
                &[said("migration", settled(outcome))],
            ));
        let ended = fake.run(&["migration", "cancel", "m-0007-3"]).await;
        assert_eq!(ended.code, Some(code), "{outcome}: {ended:?}");
    }
    let fake = Fake::start().await.on(cancel, 202, migration("aborting", 41.5));
    let out = fake.run(&["migration", "cancel", "--detach", "m-0007-3"]).await.done();
    assert_eq!(out, "m-0007-3\n");
}
