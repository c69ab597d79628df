//! `image load`, `ls`, `rm`.

use std::process::Stdio;

use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::fake::{Fake, problem};

fn image() -> serde_json::Value {
    json!({
        "id": "0123456789abcdef0123456789abcdef", "names": ["localhost/counter:latest"],
        "size_bytes": 67_108_864, "archive_bytes": 67_120_128, "arch": "amd64", "os": "linux",
        "created": null, "containers": 1,
    })
}

#[tokio::test]
async fn load_sends_a_file_whole_with_its_length_and_name() {
    let tar: Vec<u8> = (0..1_000_000_u32).map(|at| (at % 251) as u8).collect();
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), &tar).expect("its content");
    let path = file.path().to_str().expect("a path");
    let fake = Fake::start().await.on("POST /api/v1/images?name=my%2Fcounter", 201, image());
    let ended = fake.run(&["image", "load", "--name", "my/counter", path]).await;
    assert_eq!(ended.err, format!("sending {path} (1.00 MB)\n"));
    assert_eq!(ended.done(), "Loaded image: localhost/counter:latest\n");
    assert!(fake.asked()[0].body == tar, "the archive arrived damaged");
}

#[tokio::test]
async fn load_reads_standard_input() {
    let fake = Fake::start().await.on("POST /api/v1/images", 200, image());
    let mut command = fake.command(&["image", "load", "-", "--format", "{{ id }}"]);
    let mut child = command.stdin(Stdio::piped()).spawn().expect("godwit runs");
    let mut stdin = child.stdin.take().expect("its input");
    stdin.write_all(b"a tar").await.expect("it reads");
    drop(stdin);
    let output = child.wait_with_output().await.expect("it ends");
    assert_eq!(output.stdout, b"0123456789abcdef0123456789abcdef\n");
    assert_eq!(fake.asked()[0].body, "a tar");
}

#[tokio::test]
async fn load_says_what_it_cannot_read_and_what_was_refused() {
    let fake = Fake::start().await.on("POST /api/v1/images", 400, problem("bad-image", "no tar"));
    let err = fake.run(&["image", "load", "/nowhere.tar"]).await.failed(1);
    assert!(err.starts_with("godwit: cannot read /nowhere.tar: No such file"), "{err}");
    let err = fake.run(&["image", "load", "/"]).await.failed(1);
    assert!(err.starts_with("godwit: cannot read /: is a directory"), "{err}");
    let err = fake.run(&["image", "load", "/dev/null"]).await.failed(1);
    assert!(err.ends_with("godwit: no tar\n  try: do better\n"), "{err}");
}

#[tokio::test]
async fn ls_shows_the_controllers_or_a_nodes_images() {
    let bare = json!({
        "id": "0123456789abcdef", "names": [], "size_bytes": null, "archive_bytes": null,
        "arch": null, "os": null, "created": null, "containers": null,
    });
    let fake = Fake::start().await.on("GET /api/v1/images", 200, json!([image()])).on(
        "GET /api/v1/images?node=edge-a",
        200,
        json!([bare]),
    );
    let wanted = "\
NAME                      IMAGE ID      SIZE      ARCH   CONTAINERS  CREATED
localhost/counter:latest  0123456789ab  67.11 MB  amd64  1           -
";
    assert_eq!(fake.run(&["image", "ls"]).await.done(), wanted);
    let wanted = "\
NAME  IMAGE ID      SIZE  ARCH  CONTAINERS  CREATED
-     0123456789ab  -     -     -           -
";
    assert_eq!(fake.run(&["image", "ls", "--node", "edge-a"]).await.done(), wanted);
}

#[tokio::test]
async fn rm_names_the_nodes_that_keep_a_copy() {
    let removed = json!({"id": "0123", "nodes": [
        {"node": "edge-a", "error": null}, {"node": "edge-b", "error": "in use"},
    ]});
    let line = "DELETE /api/v1/images/localhost%2Fcounter:latest";
    let fake = Fake::start().await.on(line, 200, removed);
    let ended = fake.run(&["image", "rm", "localhost/counter:latest"]).await;
    assert_eq!(ended.err, "godwit: edge-b still holds a copy: in use\n");
    assert_eq!(ended.done(), "Deleted: 0123\n");
}
