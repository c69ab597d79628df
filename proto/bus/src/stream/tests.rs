//! Both ends of streams in one process: [`air`] is the link between them, [`archives`] what
//! is sent while it is made, [`failures`]
//! what goes wrong, here is what goes well.

mod air;
mod archives;
mod failures;

use std::fs;

use godwit_proto::stream::StopReason;
use tempfile::TempDir;

use super::*;
use air::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_file_arrives_whole_and_both_ends_agree_on_it() {
    let mut scene = scene();
    let bytes = contents(5 << 20);
    let path = scene.file("file", &bytes);
    let offered = scene.source.offer(checkpoint(), path, peer("target")).await.unwrap();
    let receiving = scene.receive(checkpoint());
    let progress = receiving.progress();
    let received = receiving.await.unwrap();

    assert_eq!(fs::read(&received.path).unwrap(), bytes);
    let manifest = offered.manifest().await.unwrap();
    assert_eq!(received.manifest, manifest);
    let mut tree = tree::Tree::new();
    tree.update(&bytes);
    assert_eq!(manifest.digest, tree.digest());
    assert_eq!(manifest_digest(&received.manifest), manifest_digest(&manifest));
    assert_eq!(scene.ended.recv().await, Some(StopReason::Complete));
    assert_eq!(scene.sent_bytes(), 5 << 20, "a good link was sent something twice");
    assert_eq!(scene.left(), ["file"], "something was left over");

    let total = Some(5 << 20);
    let (at_target, at_source) = (*progress.borrow(), *offered.progress().borrow());
    assert_eq!((at_target.bytes, at_target.total_bytes), (5 << 20, total));
    assert_eq!((at_source.bytes, at_source.total_bytes), (5 << 20, total));
    assert_eq!(at_target.wire_bytes, at_source.wire_bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_comes_later_is_sent_as_soon_as_it_is_there() {
    let scene = scene();
    let receiving = scene.receive(checkpoint());
    let path = scene.file("file", &contents(300_000));
    scene.source.offer(checkpoint(), path, peer("target")).await.unwrap();
    assert_eq!(receiving.await.unwrap().manifest.size_bytes, 300_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_made_on_demand_arrives() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("saved");
    fs::write(&path, contents(300_000)).unwrap();
    let scene = scene_where(Resolution::Ready(path), None);
    assert_eq!(scene.receive(image('a')).await.unwrap().manifest.size_bytes, 300_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_made_on_demand_is_closed_when_the_last_receiver_has_it() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("saved");
    fs::write(&path, contents(300_000)).unwrap();
    let mut scene = scene_where(Resolution::Ready(path), None);
    scene.receive(image('a')).await.unwrap();
    assert_eq!(scene.ended.recv().await, Some(StopReason::Complete));
    assert!(scene.source.sending(&image('a')).is_none(), "it holds its disk space for nobody");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_file_arrives() {
    let scene = scene();
    let path = scene.file("file", b"");
    scene.source.offer(image('a'), path, Audience::Anyone).await.unwrap();
    let received = scene.receive(image('a')).await.unwrap();
    assert_eq!(fs::read(received.path).unwrap(), b"");
    assert_eq!(scene.left(), ["file"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_received_once_at_a_time() {
    let scene = scene();
    let first = scene.receive(image('a'));
    // The first one is registered once the sender has heard of it.
    let error = scene.receive(image('a'));
    let (first, second) = (first, error);
    let busy = tokio::select! {
        outcome = first => outcome,
        outcome = second => outcome,
    };
    assert!(matches!(busy, Err(ReceiveError::Busy { .. })), "{busy:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limited_stream_travels_in_chunks_that_do_not_hold_up_the_link() {
    let scene = scene();
    let path = scene.file("file", &contents(400_000));
    scene.source.offer(image('a'), path, Audience::Anyone).await.unwrap();
    let limit = 1_000_000;
    let options = ReceiveOptions { bwlimit: Some(limit), ..ReceiveOptions::default() };
    scene.receive_with(image('a'), options).await.unwrap();
    let largest = scene.air.sent.lock().unwrap().iter().map(|header| header.span.len()).max();
    assert!(largest.unwrap() <= limit / 50, "{largest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_compresses_is_compressed_on_a_slow_link() {
    let scene = scene();
    let path = scene.file("file", &b"as the crow flies ".repeat(200_000));
    scene.source.offer(image('a'), path, Audience::Anyone).await.unwrap();
    let options = ReceiveOptions { bwlimit: Some(1_000_000), ..ReceiveOptions::default() };
    let received = scene.receive_with(image('a'), options).await.unwrap();
    assert!(received.wire_bytes < received.manifest.size_bytes / 2, "{received:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_in_both_directions_do_not_disturb_each_other() {
    let scene = scene();
    let mut receiving = Vec::new();
    for (digit, bytes) in ['a', 'b', 'c', 'd'].into_iter().zip(1..) {
        let path = scene.file(&format!("{digit}"), &contents(bytes << 20));
        let here = if bytes % 2 == 0 { &scene.source } else { &scene.target };
        let there = if bytes % 2 == 0 { &scene.target } else { &scene.source };
        let name = if bytes % 2 == 0 { "source" } else { "target" };
        here.offer(image(digit), path, Audience::Anyone).await.unwrap();
        let into = scene.path(&format!("into/{digit}"));
        let options = ReceiveOptions::default();
        receiving.push((bytes, there.receive(image(digit), peer(name), into, options)));
    }
    for (bytes, receiving) in receiving {
        let received = receiving.await.unwrap();
        assert_eq!(fs::read(received.path).unwrap(), contents(bytes << 20));
    }
    scene.source.shutdown().await;
    scene.target.shutdown().await;
}
