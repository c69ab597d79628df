//! `node`, `ps`, `inspect`, `migration ls`, `version`, `completion`: tables as they are printed.

use serde_json::{Value, json};

use crate::fake::Fake;
use crate::objects::{COUNTER, container, migration, settled, with};

/// Removes the one column that depends on the clock.
fn without_last_column(table: &str) -> String {
    let width = table.lines().next().and_then(|header| header.rfind("  ")).expect("columns");
    let cut = |line: &str| line.chars().take(width).collect::<String>().trim_end().to_owned();
    table.lines().map(|line| cut(line) + "\n").collect()
}

fn four_containers() -> Value {
    let other = |name: &str, state: &str, node: Option<&str>| {
        let fields = json!({"name": name, "node": node, "labels": {}, "image_name": null});
        with(container(state, "rest"), fields)
    };
    json!([
        container("running", "rest"),
        with(other("ended", "exited", Some("edge-b")), json!({"exit_code": 3, "ip": null})),
        with(other("moving", "migrating", Some("edge-b")), json!({"migration": "m-0007-3"})),
        other("new", "creating", None),
    ])
}

#[tokio::test]
async fn ps_shows_what_is_alive_and_all_with_a() {
    let fake = Fake::start().await.on("GET /api/v1/containers", 200, four_containers());
    let wanted = "\
CONTAINER ID  NAME     IMAGE                     NODE    STATE                 ADDRESS
8f3c0000-000  counter  localhost/counter:latest  edge-a  running               10.77.1.2
8f3c0000-000  moving   abcdef012345              edge-b  migrating (m-0007-3)  10.77.1.2
8f3c0000-000  new      abcdef012345              -       creating              10.77.1.2
";
    assert_eq!(without_last_column(&fake.run(&["ps"]).await.done()), wanted);
    let all = fake.run(&["ps", "-a"]).await.done();
    assert!(
        all.contains("ended    abcdef012345              edge-b  exited (3)            -"),
        "{all}"
    );
    assert_eq!(fake.run(&["ps", "-q"]).await.done(), format!("{COUNTER}\n").repeat(3));
}

#[tokio::test]
async fn ps_filters_must_all_hold() {
    let fake = Fake::start().await.on("GET /api/v1/containers", 200, four_containers());
    for (filters, names) in [
        (&["node=edge-b"][..], "moving\n"),
        (&["state=exited"], "ended\n"),
        (&["status=exited", "node=edge-a"], ""),
        (&["label=tier=demo"], "counter\n"),
        (&["label=tier=else"], ""),
        (&["image=counter"], "counter\n"),
        (&["name=ne"], "new\n"),
    ] {
        let mut args = vec!["ps", "--format", "{{ name }}"];
        args.extend(filters.iter().flat_map(|filter| ["--filter", filter]));
        assert_eq!(fake.run(&args).await.done(), names, "{filters:?}");
    }
}

#[tokio::test]
async fn a_field_that_this_version_does_not_know_is_in_the_json() {
    let object = with(container("running", "rest"), json!({"novelty": [1]}));
    let fake = Fake::start().await.on("GET /api/v1/containers", 200, json!([object])).on(
        "GET /api/v1/containers/counter",
        200,
        object.clone(),
    );
    let all: Value =
        serde_json::from_str(&fake.run(&["ps", "--format", "json"]).await.done()).expect("JSON");
    assert_eq!(all, json!([object]));
    let one: Value =
        serde_json::from_str(&fake.run(&["inspect", "counter"]).await.done()).expect("JSON");
    assert_eq!(one, json!([object]));
    let novelty = fake.run(&["inspect", "counter", "--format", "{{ novelty[0] }}"]).await;
    assert_eq!(novelty.done(), "1\n");
}

#[tokio::test]
async fn a_template_that_asks_for_too_much_says_what_there_is() {
    let fake = Fake::start().await.on("GET /api/v1/nodes/edge-a", 200, json!({"name": "edge-a"}));
    let args = ["node", "inspect", "edge-a", "--format", "{{ nmae }}"];
    let err = fake.run(&args).await.failed(2);
    assert!(err.contains("undefined") && err.ends_with("try: one of name\n"), "{err}");
}

#[tokio::test]
async fn nodes_are_listed_known_or_only_seen() {
    let nodes = json!([
        {"name": "edge-a", "state": "online", "since": "2026-11-22T18:20:00Z", "containers": 1,
         "info": {"arch": "x86_64", "cpus": 2, "memory_bytes": 4_000_000_000_u64,
                  "probe": {"can_migrate": true}},
         "metrics": {"memory_free_bytes": 1_500_000_000}},
        {"name": "edge-aa", "state": "lost", "since": "2026-11-22T18:20:00Z", "containers": 0,
         "info": {"arch": "x86_64", "probe": {"can_migrate": false}}, "metrics": null},
        {"name": "edge-b", "state": "unjoined", "since": "2026-11-22T18:20:00Z",
         "containers": null, "info": null, "metrics": null},
    ]);
    let fake = Fake::start().await.on("GET /api/v1/nodes", 200, nodes);
    let wanted = "\
NAME     STATE     CONTAINERS  ARCH    CPUS  MEMORY FREE         MOVES
edge-a   online    1           x86_64  2     1.50 GB of 4.00 GB  yes
edge-aa  lost      0           x86_64  -     -                   no
edge-b   unjoined  -           -       -     -                   -
";
    assert_eq!(without_last_column(&fake.run(&["node", "ls"]).await.done()), wanted);
}

#[tokio::test]
async fn moves_are_listed_under_way_and_over() {
    let line = "GET /api/v1/migrations?limit=5&container=counter&active=true";
    let moves = json!([migration("transferring", 41.5), settled("moved")]);
    let fake = Fake::start().await.on(line, 200, moves);
    let args = ["migration", "ls", "--container", "counter", "--active", "--limit", "5"];
    let wanted = "\
ID        CONTAINER  FROM    TO      MODE  STATE              BYTES     GAP     TOTAL
m-0007-3  counter    edge-a  edge-b  live  transferring 42 %  28.31 MB  -       -
m-0007-3  counter    edge-a  edge-b  live  moved              68.16 MB  912 ms  1.90 s
";
    assert_eq!(without_last_column(&fake.run(&args).await.done()), wanted);
}

#[tokio::test]
async fn a_move_shows_where_it_spent_its_time() {
    let timeline = json!([
        {"moment": "armed", "us": -120_300}, {"moment": "freezing", "us": 0},
        {"moment": "cut", "us": 800}, {"moment": "dumping", "us": 1_000},
        {"moment": "first-byte", "us": 21_000}, {"moment": "dumped", "us": 41_000},
        {"moment": "last-byte", "us": 51_000}, {"moment": "restoring", "us": 51_000},
        {"moment": "staged", "us": 91_000}, {"moment": "verdict", "us": 92_000},
        {"moment": "opening", "us": 93_000}, {"moment": "running", "us": 100_000},
    ]);
    let object = with(settled("moved"), json!({"timeline": timeline}));
    let fake = Fake::start().await.on("GET /api/v1/migrations/m-0007-3", 200, object.clone());
    let out = fake.run(&["migration", "inspect", "m-0007-3"]).await.done();
    let wanted = "\
freeze    edge-a               █                                                      0.8 ms
dump      edge-a               ████████████████████                                  40.0 ms
transfer  edge-a, edge-b                 ██████████████                              30.0 ms
restore   edge-b                                       ████████████████████          40.0 ms
verdict   controller                                                       █          1.0 ms
open      edge-b                                                            ███       7.0 ms
moments, in ms: armed -120.3 · freezing 0.0 · cut 0.8 ·";
    assert!(out.contains(wanted), "{out}");
    assert!(out.starts_with("m-0007-3: counter from edge-a to edge-b (live): moved\n"), "{out}");
    let json = fake.run(&["migration", "inspect", "m-0007-3", "--format", "json"]).await.done();
    assert_eq!(serde_json::from_str::<Value>(&json).expect("JSON"), json!([object]));
}

#[tokio::test]
async fn version_shows_both_sides() {
    let version = json!({"version": "9.9.9", "api": "v1", "fabric": "f-1"});
    let mut fake = Fake::start().await.on("GET /version", 200, version);
    let out = fake.run(&["version"]).await.done();
    assert!(out.starts_with(concat!("godwit      ", env!("CARGO_PKG_VERSION"), "\n")), "{out}");
    assert!(out.contains("controller  9.9.9 at http://127.0.0.1:"), "{out}");
    fake.stop().await;
    let ended = fake.run(&["version"]).await;
    assert!(ended.out.starts_with("godwit "), "its own version needs no controller: {ended:?}");
    ended.failed(5);
}

#[tokio::test]
async fn completion_knows_the_commands_of_every_shell() {
    let fake = Fake::start().await;
    for shell in ["bash", "zsh", "fish"] {
        let script = fake.run(&["completion", shell]).await.done();
        assert!(script.contains("migrate") && script.contains("bwlimit"), "{shell}");
    }
    assert!(fake.asked().is_empty());
}
