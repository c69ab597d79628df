//! Sessions of the bus against the real broker: the two halves of every promise that
//! `godwit_bus` makes.

mod support;

use godwit_bus::{Link, Publication, PublishError, Session};
use godwit_proto::topic::{Filter, Peer, Topic};
use support::{Hub, down, in_time, node, payload_of, until, up};

fn state(name: &str) -> Topic {
    Topic::NodeState { node: node(name) }
}

fn bulk(from: &str, to: &str) -> Topic {
    Topic::PeerBulk { to: Peer::Node(node(to)), from: Peer::Node(node(from)) }
}

#[tokio::test]
async fn a_message_arrives_as_it_was_sent_and_a_kept_one_is_marked() {
    let hub = Hub::start().await;
    let (sender, _) = hub.session("sender", []);
    up(&sender).await;
    let kept = Publication::new(&state("edge-a"), "online").retained();
    in_time(sender.publish_acked(kept)).await.unwrap();

    let (reader, mut inbox) = hub.session("reader", [Filter::Nodes]);
    let first = in_time(inbox.recv()).await.unwrap();
    assert_eq!(first.topic, Some(state("edge-a")));
    assert_eq!(first.raw_topic, "godwit/v1/node/edge-a/state");
    assert_eq!(&first.payload[..], b"online");
    assert!(first.retained);

    let fresh = Publication::new(&state("edge-a"), "draining").retained();
    in_time(sender.publish_acked(fresh)).await.unwrap();
    let second = in_time(inbox.recv()).await.unwrap();
    assert_eq!(&second.payload[..], b"draining");
    assert!(!second.retained, "it is new to this subscription");
    drop(reader);
}

#[tokio::test]
async fn a_will_speaks_for_the_lost_and_is_silent_for_the_polite() {
    let hub = Hub::start().await;
    let (watcher, mut inbox) = hub.session("watcher", [Filter::NodeStates]);
    up(&watcher).await;
    let with_will = |name: &str| {
        let mut config = hub.config(name, []);
        config.will = Some(Publication::new(&state(name), "lost").retained());
        Session::open(config).unwrap().0
    };

    let polite = with_will("polite");
    up(&polite).await;
    let goodbye = Publication::new(&state("polite"), "offline").retained();
    in_time(polite.close(Some(goodbye))).await.unwrap();
    assert_eq!(payload_of(&mut inbox, &state("polite")).await, "offline");

    let lost = with_will("lost");
    up(&lost).await;
    drop(lost);
    // In order: had the polite one's will been published, it would come before this.
    let next = in_time(inbox.recv()).await.unwrap();
    assert_eq!((next.topic, &next.payload[..]), (Some(state("lost")), &b"lost"[..]));
}

#[tokio::test]
async fn a_session_survives_the_broker_and_tells_the_next_one_everything() {
    let hub = Hub::start().await;
    let mut config = hub.config("edge-a", [Filter::ControllerHello]);
    config.births = vec![Publication::new(&state("edge-a"), "online").retained()];
    let (agent, mut agent_inbox) = Session::open(config).unwrap();
    up(&agent).await;
    let (watcher, mut watched) = hub.session("watcher", [Filter::Nodes]);
    up(&watcher).await;
    agent.set_birth(Publication::new(&state("edge-a"), "draining").retained()).unwrap();
    until(&mut watched, |delivery| delivery.payload == "draining").await;
    // Acknowledgements come in order: after this one nothing is left to be resent.
    in_time(agent.publish_acked(Publication::new(&state("other"), "x"))).await.unwrap();
    drop(watcher);

    let hub = hub.restart().await;
    down(&agent).await;
    up(&agent).await;

    // The broker forgot what it retained: only a birth said anew can be here, and the
    // newest one.
    let (controller, mut inbox) = hub.session("controller", [Filter::Nodes]);
    assert_eq!(payload_of(&mut inbox, &state("edge-a")).await, "draining");
    // It forgot the subscription as well.
    let hello = Publication::new(&Topic::ControllerHello, "run 2");
    in_time(controller.publish_acked(hello)).await.unwrap();
    assert_eq!(payload_of(&mut agent_inbox, &Topic::ControllerHello).await, "run 2");
}

#[tokio::test]
async fn a_session_follows_its_broker_to_another_address() {
    let hub = Hub::start().await;
    let (agent, mut inbox) = hub.session("edge-a", [Filter::ControllerHello]);
    up(&agent).await;
    let gone = hub.stop().await;
    down(&agent).await;
    let hub = Hub::start().await;
    assert_ne!(hub.config("x", []).broker, gone.into(), "it listens elsewhere");
    agent.set_broker(hub.config("x", []).broker);
    up(&agent).await;
    let (controller, _) = hub.session("controller", []);
    let hello = Publication::new(&Topic::ControllerHello, "run 2");
    in_time(controller.publish_acked(hello)).await.unwrap();
    assert_eq!(payload_of(&mut inbox, &Topic::ControllerHello).await, "run 2");
}

#[tokio::test]
async fn a_changed_birth_is_said_at_once() {
    let hub = Hub::start().await;
    let (agent, _) = hub.session("edge-a", []);
    let (watcher, mut inbox) = hub.session("watcher", [Filter::Nodes]);
    up(&agent).await;
    up(&watcher).await;
    for text in ["online", "draining"] {
        agent.set_birth(Publication::new(&state("edge-a"), text).retained()).unwrap();
        assert_eq!(payload_of(&mut inbox, &state("edge-a")).await, text);
    }
}

#[tokio::test]
async fn what_no_broker_acknowledged_is_resent_in_order_to_the_next() {
    let hub = Hub::start().await;
    let (sender, _) = hub.session("sender", []);
    up(&sender).await;
    let address = hub.stop().await;
    down(&sender).await;

    // Nobody listens now: the acknowledgement can only come from the next broker.
    let numbered = |n: u32| Publication::new(&Topic::ControllerHello, n.to_string());
    let waiting: Vec<_> = (0..50)
        .map(|n| {
            let sender = sender.clone();
            let publication = numbered(n);
            async move { sender.publish_acked(publication).await }
        })
        .collect();
    let all = tokio::spawn(async move {
        let mut tasks = Vec::new();
        for task in waiting {
            tasks.push(tokio::spawn(task));
            tokio::task::yield_now().await;
        }
        for task in tasks {
            task.await.unwrap().unwrap();
        }
    });
    // A gate in front of the new broker: the reader must be there before the sender.
    let hub = Hub::start_at("127.0.0.1:0".parse().unwrap()).await;
    let (reader, mut inbox) = hub.session("reader", [Filter::ControllerHello]);
    up(&reader).await;
    let _relay = support::relay(address, hub.address).await;
    in_time(all).await.unwrap();
    for n in 0..50 {
        assert_eq!(payload_of(&mut inbox, &Topic::ControllerHello).await, n.to_string());
    }
}

#[tokio::test]
async fn messages_in_flight_when_the_connection_breaks_are_sent_again() {
    let hub = Hub::start().await;
    let (reader, mut inbox) = hub.session("reader", [Filter::ControllerHello]);
    up(&reader).await;
    // A broker that takes messages and acknowledges none.
    let mute = support::mute_broker(&[]).await;
    let (sender, _) = Session::open(support::config(mute.address, "sender", [])).unwrap();
    up(&sender).await;
    let sent = tokio::spawn({
        let sender = sender.clone();
        async move { sender.publish_acked(Publication::new(&Topic::ControllerHello, "unheard")).await }
    });
    mute.has_read(b"unheard").await;
    let address = mute.stop().await;
    let _relay = support::relay(address, hub.address).await;
    in_time(sent).await.unwrap().unwrap();
    assert_eq!(payload_of(&mut inbox, &Topic::ControllerHello).await, "unheard");
}

#[tokio::test]
async fn an_unheard_birth_does_not_come_after_the_one_that_replaced_it() {
    let hub = Hub::start().await;
    let (watcher, mut inbox) = hub.session("watcher", [Filter::Nodes, Filter::ControllerHello]);
    up(&watcher).await;
    let mute = support::mute_broker(&[]).await;
    let mut config = support::config(mute.address, "edge-a", []);
    config.births = vec![Publication::new(&state("edge-a"), "online").retained()];
    let (agent, _) = Session::open(config).unwrap();
    mute.has_read(b"online").await;
    let address = mute.stop().await;
    agent.set_birth(Publication::new(&state("edge-a"), "draining").retained()).unwrap();
    let _relay = support::relay(address, hub.address).await;
    in_time(agent.publish_acked(Publication::new(&Topic::ControllerHello, "after"))).await.unwrap();
    assert_eq!(payload_of(&mut inbox, &state("edge-a")).await, "draining");
    assert_eq!(payload_of(&mut inbox, &Topic::ControllerHello).await, "after");
}

#[tokio::test]
async fn too_large_a_message_is_refused_by_name_and_the_session_goes_on() {
    let hub = Hub::start().await;
    let (session, mut inbox) = hub.session("a", [Filter::ControllerHello]);
    up(&session).await;
    let limit = hub.config("a", []).max_packet_bytes;
    let error = session
        .publish(Publication::new(&Topic::ControllerHello, vec![0; limit]))
        .await
        .unwrap_err();
    assert!(matches!(error, PublishError::TooLarge { .. }));
    assert!(error.to_string().contains("godwit/v1/controller/hello"), "{error}");

    // The largest that fits does go through, both ways.
    let header = 9 + Topic::ControllerHello.to_string().len();
    let largest = Publication::new(&Topic::ControllerHello, vec![7; limit - header]);
    in_time(session.publish_acked(largest)).await.unwrap();
    assert_eq!(in_time(inbox.recv()).await.unwrap().payload.len(), limit - header);
}

#[tokio::test]
async fn a_full_queue_makes_its_sender_wait_and_not_grow() {
    let hub = Hub::start().await;
    let (session, _) = hub.session("a", []);
    up(&session).await;
    let _address = hub.stop().await;
    down(&session).await;
    let chunk = || Publication::new(&bulk("a", "b"), vec![0; 256 << 10]);
    let mut queued = 0;
    let full = loop {
        match session.try_publish(chunk()) {
            Ok(()) => queued += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(full, PublishError::Dropped { .. }), "{full}");
    assert!((8..=16).contains(&queued), "4 MiB of budget held {queued} chunks of 256 KiB");
    // Control messages have a queue of their own.
    session.try_publish(Publication::new(&state("a"), "online")).unwrap();
    // What is worthless later is not queued at all.
    let metrics = Publication::new(&Topic::NodeMetrics { node: node("a") }, "{}").fleeting();
    assert!(matches!(session.try_publish(metrics), Err(PublishError::Dropped { .. })));
}

#[tokio::test]
async fn a_reader_that_is_behind_can_still_publish() {
    let hub = Hub::start().await;
    let mut config = hub.config("slow", [Filter::ControllerHello]);
    config.inbox_capacity = 1;
    let (slow, mut inbox) = Session::open(config).unwrap();
    up(&slow).await;
    let (sender, mut watched) = hub.session("sender", [Filter::NodeStates]);
    up(&sender).await;
    for n in 0..90u32 {
        let hello = Publication::new(&Topic::ControllerHello, n.to_string());
        in_time(sender.publish_acked(hello)).await.unwrap();
    }
    // Its inbox has been full for long, and nobody reads: this must not wait for that.
    in_time(slow.publish(Publication::new(&state("slow"), "busy"))).await.unwrap();
    assert_eq!(payload_of(&mut watched, &state("slow")).await, "busy");
    for n in 0..90 {
        assert_eq!(payload_of(&mut inbox, &Topic::ControllerHello).await, n.to_string());
    }
}

#[tokio::test]
async fn a_reader_that_stands_still_is_not_taken_for_dead() {
    const HELLO: &[u8] = b"\x30\x1c\0\x1agodwit/v1/controller/hello";
    let mute = support::mute_broker(&HELLO.repeat(10)).await;
    let mut config = support::config(mute.address, "still", []);
    config.inbox_capacity = 1;
    config.keep_alive = std::time::Duration::from_secs(1);
    let (still, mut inbox) = Session::open(config).unwrap();
    // It cannot see an answer, for it does not read: it goes on asking, no more.
    mute.has_read(&[0xc0, 0, 0xc0, 0, 0xc0, 0]).await;
    assert_eq!(*still.link().borrow(), Link::Up);
    for _ in 0..10 {
        assert!(in_time(inbox.recv()).await.is_some());
    }
    // Now it would see one.
    down(&still).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_streams_in_opposite_directions_do_not_block_each_other() {
    const CHUNKS: usize = 256;
    let hub = Hub::start().await;
    let inbox = |name: &str| [Filter::Inbox(Peer::Node(node(name)))];
    let (a, mut a_inbox) = hub.session("a", inbox("a"));
    let (b, mut b_inbox) = hub.session("b", inbox("b"));
    up(&a).await;
    up(&b).await;
    let send = |session: Session, topic: Topic| async move {
        for _ in 0..CHUNKS {
            let chunk = Publication::new(&topic, vec![1; 128 << 10]);
            session.publish_acked(chunk).await.unwrap();
        }
    };
    let (mut from_a, mut from_b) = (0, 0);
    let all = async {
        tokio::join!(
            send(a.clone(), bulk("a", "b")),
            send(b.clone(), bulk("b", "a")),
            async {
                while from_b < CHUNKS {
                    from_b += usize::from(a_inbox.recv().await.is_some());
                }
            },
            async {
                while from_a < CHUNKS {
                    from_a += usize::from(b_inbox.recv().await.is_some());
                }
            }
        )
    };
    in_time(all).await;
}

#[tokio::test]
async fn the_newer_session_of_a_client_id_wins_and_speaks_last() {
    let hub = Hub::start().await;
    let (watcher, mut inbox) = hub.session("watcher", [Filter::NodeStates]);
    up(&watcher).await;
    let open = |text: &'static str| {
        let mut config = hub.config("edge-a", []);
        config.will = Some(Publication::new(&state("edge-a"), "lost").retained());
        config.births = vec![Publication::new(&state("edge-a"), text).retained()];
        Session::open(config).unwrap().0
    };
    let old = open("first life");
    until(&mut inbox, |delivery| delivery.payload == "first life").await;
    let new = open("second life");
    // The old one's will may not come after the new one's birth.
    assert_eq!(payload_of(&mut inbox, &state("edge-a")).await, "lost");
    assert_eq!(payload_of(&mut inbox, &state("edge-a")).await, "second life");
    drop(old);
    drop(new);
}

#[tokio::test]
async fn a_closed_session_says_so_to_every_handle() {
    let hub = Hub::start().await;
    let (session, mut inbox) = hub.session("a", [Filter::Nodes]);
    up(&session).await;
    let other = session.clone();
    in_time(session.close(None)).await.unwrap();
    assert_eq!(*other.link().borrow(), Link::Closed);
    let hello = Publication::new(&Topic::ControllerHello, "x");
    assert_eq!(other.publish(hello.clone()).await, Err(PublishError::Closed));
    assert_eq!(other.publish_acked(hello).await, Err(PublishError::Closed));
    assert_eq!(other.up().await, Err(PublishError::Closed));
    assert!(in_time(inbox.recv()).await.is_none());
}

#[tokio::test]
async fn a_goodbye_to_nobody_ends_within_the_deadline_and_says_so() {
    let hub = Hub::start().await;
    let mut config = hub.config("a", []);
    config.close_deadline = std::time::Duration::from_millis(200);
    let (session, _) = Session::open(config).unwrap();
    up(&session).await;
    hub.stop().await;
    let goodbye = Publication::new(&state("a"), "offline");
    let error = in_time(session.close(Some(goodbye))).await.unwrap_err();
    assert!(error.to_string().contains("will"), "{error}");
}
