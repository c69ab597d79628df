//! Archives, sent while they are being made.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;

use godwit_proto::stream::StopReason;
use godwit_proto::stream::pace::MAX_WINDOW_BYTES;

use super::air::*;
use crate::stream::*;

/// A file that grows, and the archive that it is appended to as it does.
struct Growing {
    file: Arc<File>,
    path: PathBuf,
    bytes: Vec<u8>,
    at: usize,
}

impl Growing {
    fn new(scene: &Scene, name: &str, size: usize) -> Self {
        let path = scene.path(name);
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path);
        Self { file: Arc::new(file.unwrap()), path, bytes: contents(size), at: 0 }
    }

    fn grow(&mut self, archive: &Archive, bytes: usize) {
        let end = (self.at + bytes).min(self.bytes.len());
        self.file.write_all_at(&self.bytes[self.at..end], self.at as u64).unwrap();
        archive.append("pages-1.img", &self.file, self.at as u64..end as u64).unwrap();
        self.at = end;
    }
}

fn receive(scene: &Scene) -> Receiving {
    receive_with(scene, ReceiveOptions::default())
}

fn receive_with(scene: &Scene, options: ReceiveOptions) -> Receiving {
    scene.target.receive_archive(checkpoint(), peer("source"), scene.path("into/images"), options)
}

/// What is sent of so many bytes while more may follow.
fn whole_blocks(bytes: u64) -> u64 {
    bytes - bytes % tree::BLOCK_BYTES
}

fn arrived(scene: &Scene, name: &str) -> Vec<u8> {
    fs::read(scene.path("into/images").join(name)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_arrives_while_it_is_being_made() {
    let mut scene = scene();
    let archive = scene.source.offer_archive(checkpoint(), peer("target"));
    let mut pages = Growing::new(&scene, "pages", 5 << 20);
    let receiving = receive(&scene);
    let mut progress = receiving.progress();
    archive.append_bytes("inventory.img", b"small".to_vec()).unwrap();
    while pages.at < pages.bytes.len() {
        pages.grow(&archive, 777_777);
        let so_far = whole_blocks(archive.bytes());
        let there = progress.wait_for(|progress| progress.bytes == so_far).await.unwrap();
        assert_eq!(there.total_bytes, None, "nobody said that it is whole");
    }
    let there = arrived(&scene, "pages-1.img");
    assert!(pages.bytes.starts_with(&there), "it is there before the end is");
    assert!(there.len() as u64 + tree::BLOCK_BYTES > pages.bytes.len() as u64);
    archive.append("empty", &pages.file, 0..0).unwrap();
    let total = archive.bytes();
    let offered = archive.finish(None).unwrap();
    let received = receiving.await.unwrap();

    assert_eq!(Some(&received.manifest), offered.manifest().await.as_ref());
    assert_eq!(received.manifest.size_bytes, total);
    assert_eq!(progress.borrow().total_bytes, Some(total));
    assert_eq!(scene.sent_bytes(), total, "something was sent twice");
    assert_eq!(arrived(&scene, "inventory.img"), b"small");
    assert_eq!(arrived(&scene, "empty"), b"");
    assert_eq!(scene.left(), ["images"], "something was left over");
    assert_eq!(scene.ended.recv().await, Some(StopReason::Complete));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_digest_is_that_of_the_records_however_it_was_sent() {
    for (size, step) in [(0, 1), (1, 1), (3 << 20, 3 << 20), (3 << 20, 200_001)] {
        let scene = scene();
        let archive = scene.source.offer_archive(checkpoint(), peer("target"));
        let receiving = receive(&scene);
        let mut pages = Growing::new(&scene, "pages", size);
        let mut whole = Vec::new();
        while pages.at < size {
            let begin = pages.at;
            pages.grow(&archive, step);
            let piece = &pages.bytes[begin..pages.at];
            let record = godwit_proto::stream::record::Record::new(
                "pages-1.img",
                begin as u64,
                piece.len() as u64,
            );
            whole.extend(record.unwrap().header());
            whole.extend(piece);
        }
        archive.finish(None).unwrap();
        let mut tree = tree::Tree::new();
        tree.update(&whole);
        assert_eq!(receiving.await.unwrap().manifest.digest, tree.digest(), "{size} {step}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lossy_link_delivers_an_archive_in_order() {
    let lossy = weather(|number, _| match number % 7 {
        3 => Fate::Lost,
        5 => Fate::Garbled,
        _ => Fate::Arrives,
    });
    let scene = scene_where(Resolution::NotYet, lossy);
    let archive = scene.source.offer_archive(checkpoint(), peer("target"));
    let receiving = receive(&scene);
    let mut pages = Growing::new(&scene, "pages", 6 << 20);
    while pages.at < pages.bytes.len() {
        pages.grow(&archive, 300_000);
        tokio::task::yield_now().await;
    }
    archive.finish(None).unwrap();
    receiving.await.unwrap();
    assert_eq!(arrived(&scene, "pages-1.img"), pages.bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_receiver_goes_on_wherever_it_was() {
    // The first session ends at a chunk's end: within a record, and within a header.
    for record_bytes in [100_000, 131_072 - 15] {
        const SIZE: usize = 4 << 20;
        let first = Mutex::new(None);
        let breaking = weather(move |_, header| {
            let first = *first.lock().unwrap().get_or_insert(header.session);
            let broken = header.session == first && header.span.start >= SIZE as u64 / 2;
            if broken { Fate::Lost } else { Fate::Arrives }
        });
        let mut scene = scene_where(Resolution::NotYet, breaking);
        let archive = scene.source.offer_archive(checkpoint(), peer("target"));
        let mut pages = Growing::new(&scene, "pages", SIZE);
        while pages.at < SIZE {
            pages.grow(&archive, record_bytes);
        }
        let receiving = receive(&scene);
        let mut progress = receiving.progress();
        let there = progress.wait_for(|progress| progress.bytes >= SIZE as u64 / 2).await;
        let stored = there.unwrap().bytes;
        drop(receiving);
        assert_eq!(scene.ended.recv().await, Some(StopReason::Cancelled));
        scene.air.sent.lock().unwrap().clear();

        let receiving = receive(&scene);
        let total = archive.bytes();
        let offered = archive.finish(None).unwrap();
        let received = receiving.await.unwrap();
        assert_eq!(Some(received.manifest), offered.manifest().await);
        assert_eq!(arrived(&scene, "pages-1.img"), pages.bytes);
        let lowest = scene.air.sent.lock().unwrap().iter().map(|h| h.span.start).min();
        assert_eq!(lowest, Some(stored), "what was stored was sent again");
        assert!(scene.sent_bytes() <= total - stored + MAX_WINDOW_BYTES);
        assert_eq!(scene.left(), ["images"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_damaged_while_nobody_received_is_noticed() {
    const SIZE: usize = 4 << 20;
    let mut scene = scene();
    let archive = scene.source.offer_archive(checkpoint(), peer("target"));
    let mut pages = Growing::new(&scene, "pages", SIZE);
    pages.grow(&archive, SIZE / 2);
    let receiving = receive(&scene);
    let so_far = whole_blocks(archive.bytes());
    receiving.progress().wait_for(|progress| progress.bytes == so_far).await.unwrap();
    drop(receiving);
    assert_eq!(scene.ended.recv().await, Some(StopReason::Cancelled));
    let damaged = File::options().write(true).open(scene.path("into/images/pages-1.img"));
    damaged.unwrap().write_all_at(b"damage", 1000).unwrap();
    pages.grow(&archive, SIZE);
    archive.finish(None).unwrap();
    let error = receive(&scene).await.unwrap_err();
    assert!(matches!(error, ReceiveError::Corrupt { .. }), "{error}");
    let kept = fs::read_dir(scene.path("into/images")).unwrap().count();
    assert_eq!((kept, scene.left()), (0, vec!["images".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_sender_offers_the_same_archive_again() {
    const SIZE: usize = 12 << 20;
    let scene = scene();
    scene.source.set_node_limit(Some(2_000_000));
    let archive = scene.source.offer_archive(checkpoint(), peer("target"));
    archive.append_bytes("inventory.img", b"small".to_vec()).unwrap();
    let mut pages = Growing::new(&scene, "pages", SIZE);
    pages.grow(&archive, SIZE);
    let layout = scene.path("layout");
    let total = archive.bytes();
    let offered = archive.finish(Some(&layout)).unwrap();
    let manifest = offered.manifest().await;
    let receiving = receive(&scene);
    receiving.progress().wait_for(|progress| progress.bytes > 200_000).await.unwrap();
    scene.source.shutdown().await;

    let successor = join(&scene.air, "source", Arc::new(OffersOnly));
    let path = pages.path.clone();
    let open = |name: &str| match name {
        "pages-1.img" => File::open(&path),
        other => panic!("{other} is in the layout"),
    };
    let again = successor.resume_archive(checkpoint(), peer("target"), &layout, open).unwrap();
    assert_eq!(again.manifest().await, manifest);
    assert_eq!(Some(receiving.await.unwrap().manifest), manifest);
    assert_eq!(arrived(&scene, "pages-1.img"), pages.bytes);
    assert!(scene.sent_bytes() <= total + MAX_WINDOW_BYTES, "{} sent", scene.sent_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layout_of_another_stream_or_a_damaged_one_is_not_used() {
    let scene = scene();
    let archive = scene.source.offer_archive(checkpoint(), peer("target"));
    archive.append_bytes("a", vec![1; 100]).unwrap();
    let layout = scene.path("layout");
    archive.finish(Some(&layout)).unwrap();
    let resume = |stream| {
        let open = |_: &str| panic!("no file is needed");
        scene.source.resume_archive(stream, Audience::Anyone, &layout, open).map(|_| ())
    };
    assert!(matches!(resume(image('a')), Err(LayoutError::Unusable { .. })));
    let whole = fs::read(&layout).unwrap();
    for cut in [0, 7, 39, 50, whole.len() - 1] {
        fs::write(&layout, &whole[..cut]).unwrap();
        assert!(matches!(resume(checkpoint()), Err(LayoutError::Unusable { .. })), "{cut}");
    }
    fs::write(&layout, whole).unwrap();
    resume(checkpoint()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_is_dropped_unfinished_is_withdrawn() {
    let scene = scene();
    let archive = scene.source.offer_archive(checkpoint(), peer("target"));
    archive.append_bytes("a", vec![1; 100]).unwrap();
    let receiving = receive(&scene);
    receiving.progress().wait_for(|progress| progress.bytes > 0).await.unwrap();
    let successor = scene.source.offer_archive(image('a'), peer("target"));
    drop(archive);
    let error = receiving.await.unwrap_err();
    assert!(matches!(error, ReceiveError::Refused { .. }), "{error}");
    assert!(scene.source.sending(&image('a')).is_some(), "another stream was withdrawn");
    successor.finish(None).unwrap();
    assert!(scene.source.sending(&image('a')).is_some(), "a finished archive stays on offer");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_is_allowed_is_refused() {
    let mut scene = scene();
    let archive = scene.source.offer_archive(checkpoint(), peer("target"));
    let options = ReceiveOptions { limit_bytes: Some(1 << 20), ..ReceiveOptions::default() };
    let receiving = receive_with(&scene, options);
    let mut pages = Growing::new(&scene, "pages", 2 << 20);
    pages.grow(&archive, 1 << 19);
    receiving.progress().wait_for(|progress| progress.bytes > 1 << 18).await.unwrap();
    pages.grow(&archive, 1 << 20);
    let error = receiving.await.unwrap_err();
    assert!(matches!(error, ReceiveError::TooLarge { .. }), "{error}");
    let Some(StopReason::Failed(reason)) = scene.ended.recv().await else { panic!("not told") };
    assert!(reason.contains("are allowed"), "{reason}");
}

/// Sends whatever bytes as an archive.
async fn hostile(scene: &Scene, bytes: &[u8]) -> ReceiveError {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    scene.source.offer(checkpoint(), file.path(), Audience::Anyone).await.unwrap();
    receive(scene).await.unwrap_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_sender_writes_nothing_outside_the_directory() {
    for name in ["../escaped", "..", "/escaped", "a/../../escaped"] {
        let scene = scene();
        let mut bytes = vec![name.len() as u8];
        bytes.extend(name.as_bytes());
        bytes.extend([0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend(b"gotya");
        let error = hostile(&scene, &bytes).await;
        assert!(matches!(error, ReceiveError::Archive { .. }), "{error}");
        assert_eq!(scene.left(), ["images", "images.journal", "images.layout"]);
        assert_eq!(fs::read_dir(scene.path("into/images")).unwrap().count(), 0);
        assert!(!scene.path("escaped").exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_in_the_directory_is_not_followed() {
    let scene = scene();
    let victim = scene.file("victim", b"untouched");
    fs::create_dir_all(scene.path("into/images")).unwrap();
    std::os::unix::fs::symlink(&victim, scene.path("into/images/stats")).unwrap();
    let archive = scene.source.offer_archive(checkpoint(), peer("target"));
    archive.append_bytes("stats", b"gotya".to_vec()).unwrap();
    let error = receive(&scene).await.unwrap_err();
    assert!(matches!(error, ReceiveError::Io { .. }), "{error}");
    assert_eq!(fs::read(victim).unwrap(), b"untouched");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_ends_within_a_record_is_refused() {
    let scene = scene();
    let error = hostile(&scene, b"\x01a\0\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0short").await;
    assert!(matches!(error, ReceiveError::Archive { source: ArchiveError::Cut, .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_archive_left_is_no_part_of_the_next() {
    let scene = scene();
    let archive = scene.source.offer_archive(checkpoint(), peer("target"));
    archive.append_bytes("long", vec![1; 1000]).unwrap();
    archive.append_bytes("old", vec![1; 10]).unwrap();
    let receiving = receive(&scene);
    let so_far = whole_blocks(archive.bytes());
    receiving.progress().wait_for(|progress| progress.bytes == so_far).await.unwrap();
    let second = scene.source.offer_archive(checkpoint(), peer("target"));
    drop(archive);
    second.append_bytes("long", vec![2; 10]).unwrap();
    second.finish(None).unwrap();
    receiving.await.unwrap();
    assert_eq!(arrived(&scene, "long"), [2; 10]);
    assert_eq!(fs::read_dir(scene.path("into/images")).unwrap().count(), 1);
}
