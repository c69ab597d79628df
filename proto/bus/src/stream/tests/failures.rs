//! What goes wrong on the way, and what both ends make of it.

use std::fs;
use std::sync::Mutex;

use godwit_proto::stream::StopReason;
use godwit_proto::stream::pace::MAX_WINDOW_BYTES;

use super::air::*;
use crate::stream::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_lossy_link_delivers_all_the_same() {
    let lossy = weather(|number, _| if number % 5 == 0 { Fate::Lost } else { Fate::Arrives });
    let scene = scene_where(Resolution::NotYet, lossy);
    let bytes = contents(3 << 20);
    let path = scene.file("file", &bytes);
    scene.source.offer(image('a'), path, Audience::Anyone).await.unwrap();
    let received = scene.receive(image('a')).await.unwrap();
    assert_eq!(fs::read(received.path).unwrap(), bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_garbled_chunk_is_asked_for_again() {
    let garbling = weather(|number, _| if number % 4 == 0 { Fate::Garbled } else { Fate::Arrives });
    let scene = scene_where(Resolution::NotYet, garbling);
    let bytes = contents(2 << 20);
    let path = scene.file("file", &bytes);
    scene.source.offer(image('a'), path, Audience::Anyone).await.unwrap();
    let received = scene.receive(image('a')).await.unwrap();
    assert_eq!(fs::read(received.path).unwrap(), bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_only_garbles_is_given_up() {
    let scene = scene_where(Resolution::NotYet, weather(|_, _| Fate::Garbled));
    let path = scene.file("file", &contents(2 << 20));
    scene.source.offer(image('a'), path, Audience::Anyone).await.unwrap();
    let error = scene.receive(image('a')).await.unwrap_err();
    assert!(matches!(error, ReceiveError::Garbled { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_stream_is_resumed_without_sending_again_what_was_stored() {
    const SIZE: u64 = 12 << 20;
    const HALF: u64 = SIZE / 2;
    // The first session's link breaks in the middle.
    let first = Mutex::new(None);
    let lowest_again = Arc::new(Mutex::new(u64::MAX));
    let lowest = lowest_again.clone();
    let breaking = weather(move |_, header| {
        let first = *first.lock().unwrap().get_or_insert(header.session);
        if header.session != first {
            let mut lowest = lowest.lock().unwrap();
            *lowest = header.span.start.min(*lowest);
        }
        let broken = header.session == first && header.span.start >= HALF;
        if broken { Fate::Lost } else { Fate::Arrives }
    });
    let mut scene = scene_where(Resolution::NotYet, breaking);
    let bytes = contents(SIZE as usize);
    let path = scene.file("file", &bytes);
    scene.source.offer(checkpoint(), path, peer("target")).await.unwrap();

    let receiving = scene.receive(checkpoint());
    let mut progress = receiving.progress();
    progress.wait_for(|progress| progress.bytes >= HALF).await.unwrap();
    let stored = progress.borrow().bytes;
    drop(receiving);
    assert_eq!(scene.ended.recv().await, Some(StopReason::Cancelled));
    let before = scene.sent_bytes();

    let received = scene.receive(checkpoint()).await.unwrap();
    assert_eq!(fs::read(received.path).unwrap(), bytes);
    // A late acknowledgement may double a chunk within the second session; none of it lies
    // below what the first had stored.
    let lowest = *lowest_again.lock().unwrap();
    assert_eq!(lowest, stored, "the second session was sent what the first had stored");
    assert!(before <= stored + MAX_WINDOW_BYTES);
    assert_eq!(scene.left(), ["file"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_sender_goes_on_where_the_receiver_is() {
    const SIZE: u64 = 12 << 20;
    let scene = scene();
    let bytes = contents(SIZE as usize);
    let path = scene.file("file", &bytes);
    // Slow at first, so that there is a middle.
    scene.source.set_node_limit(Some(2_000_000));
    scene.source.offer(checkpoint(), path.clone(), peer("target")).await.unwrap();
    let receiving = scene.receive(checkpoint());
    receiving.progress().wait_for(|progress| progress.bytes > 200_000).await.unwrap();
    scene.source.shutdown().await;

    let successor = join(&scene.air, "source", Arc::new(OffersOnly));
    successor.offer(checkpoint(), path, peer("target")).await.unwrap();
    let received = receiving.await.unwrap();
    assert_eq!(fs::read(received.path).unwrap(), bytes);
    assert!(scene.sent_bytes() <= SIZE + MAX_WINDOW_BYTES);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_replaced_is_received_anew() {
    const SIZE: u64 = 12 << 20;
    let scene = scene();
    let path = scene.file("old", &vec![7; SIZE as usize]);
    scene.source.set_node_limit(Some(50_000));
    scene.source.offer(image('a'), path, Audience::Anyone).await.unwrap();
    let receiving = scene.receive(image('a'));
    receiving.progress().wait_for(|progress| progress.bytes > 0).await.unwrap();
    let bytes = contents(1 << 20);
    let path = scene.file("new", &bytes);
    scene.source.offer(image('a'), path, Audience::Anyone).await.unwrap();
    // Not before: the old one would be through before the new one is there.
    scene.source.set_node_limit(None);
    let received = receiving.await.unwrap();
    assert_eq!(fs::read(received.path).unwrap(), bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changed_while_it_was_offered_is_discarded() {
    let scene = scene();
    let mut bytes = contents(1 << 20);
    let path = scene.file("file", &bytes);
    let offered = scene.source.offer(image('a'), path.clone(), Audience::Anyone).await.unwrap();
    offered.manifest().await.unwrap();
    bytes[77] ^= 1;
    fs::write(path, bytes).unwrap();
    let error = scene.receive(image('a')).await.unwrap_err();
    assert!(matches!(error, ReceiveError::Corrupt { .. }), "{error}");
    assert!(scene.left().is_empty(), "{:?} was kept", scene.left());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_noticed_before_the_first_byte_and_the_sender_is_told() {
    let mut scene = scene();
    let path = scene.path("file");
    let huge = fs::File::create(&path).unwrap();
    const SIZE: u64 = 1 << 43; // sparse: larger than any disk under a test, small on this one
    huge.set_len(SIZE).unwrap();
    scene.source.offer(image('a'), path, Audience::Anyone).await.unwrap();
    let error = scene.receive(image('a')).await.unwrap_err();
    let ReceiveError::NoSpace { path, needed_bytes, free_bytes } = error else {
        panic!("{error}");
    };
    assert_eq!((path, needed_bytes), (scene.path("into/file"), SIZE));
    assert_eq!(scene.ended.recv().await, Some(StopReason::NoSpace { needed_bytes, free_bytes }));
    assert!(scene.left().is_empty());
    scene.source.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_reaches_the_receiver_with_its_reason() {
    let refusing = Resolution::Refused { reason: "no such image here".into() };
    let scene = scene_where(refusing, None);
    let error = scene.receive(image('a')).await.unwrap_err();
    assert!(matches!(&error, ReceiveError::Refused { .. }));
    assert!(error.to_string().contains("no such image here"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_offered_to_one_peer_is_not_sent_to_another() {
    let refusing = Resolution::Refused { reason: "not for you".into() };
    let scene = scene_where(refusing, None);
    let path = scene.file("file", &contents(1000));
    scene.source.offer(image('a'), path, peer("friend")).await.unwrap();
    let error = scene.receive(image('a')).await.unwrap_err();
    assert!(error.to_string().contains("not for you"), "{error}");
    assert_eq!(scene.sent_bytes(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_withdrawn_stream_ends_its_receivers() {
    let scene = scene();
    let path = scene.file("file", &contents(12 << 20));
    scene.source.set_node_limit(Some(50_000));
    scene.source.offer(image('a'), path, Audience::Anyone).await.unwrap();
    let receiving = scene.receive(image('a'));
    receiving.progress().wait_for(|progress| progress.bytes > 0).await.unwrap();
    scene.source.withdraw(&image('a'));
    let error = receiving.await.unwrap_err();
    assert!(matches!(error, ReceiveError::Refused { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_sender_exhausts_a_limited_patience() {
    let scene = scene();
    let patience = Some(Duration::from_millis(20));
    let options = ReceiveOptions { patience, ..ReceiveOptions::default() };
    let into = scene.path("into/file");
    let receiving = scene.target.receive(image('a'), peer("nobody"), into, options);
    let error = receiving.await.unwrap_err();
    assert!(matches!(error, ReceiveError::Silent { .. }), "{error}");
}
