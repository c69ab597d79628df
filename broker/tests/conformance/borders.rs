//! The borders between accounts, on real sockets: every account against every topic, whichever way it
//! tries, against a model that was written apart from the rules.

use std::collections::BTreeSet;
use std::num::NonZeroU16;
use std::sync::Arc;

use godwit_broker::Accounts;
use godwit_broker::access::{Kind, Rights};
use rmqtt_codec::types::{Publish, QoS};
use rmqtt_codec::v5::{Connect, ConnectAckReason, LastWill, PublishAckReason, PublishProperties};

use crate::client::{Client, Hub, clean, message, options, retained, will, with};
use crate::wire::Version;

/// Who is let in: everybody by its name, which is its password too.
#[derive(Debug)]
struct Book;

impl Accounts for Book {
    fn verify(&self, user: &str, password: &[u8]) -> bool {
        user.as_bytes() == password
    }

    fn of_certificate(&self, _: &[u8]) -> Option<String> {
        None
    }

    fn rights(&self, user: Option<&str>, client: &str) -> Option<Rights> {
        let filters =
            |texts: &[&str]| texts.iter().map(|text| text.parse().expect("a filter")).collect();
        let kind = match user? {
            "god" => return Some(Rights::everything()),
            tenant @ ("t1" | "t2") => Kind::Tenant(tenant.into()),
            node @ ("n1" | "n2") => Kind::Node(node.into()),
            "t1/press" => Kind::Derived {
                tenant: "t1".into(),
                publish: filters(&["app/t1/press/#"]),
                subscribe: filters(&["app/t1/press/#", "app/t1/orders/+"]),
            },
            "operator" => Kind::Operator,
            "monitor" => Kind::Monitor,
            "controller" => Kind::Controller,
            "join" => Kind::Joining(client.into()),
            _ => return None,
        };
        Rights::of(&kind).ok()
    }
}

/// Of each account: where it may publish, and what it may read. `/` ends what has to be equal, `*` is
/// one level, `>` is all that follows.
const MODEL: [(&str, &[&str], &[&str]); 9] = [
    ("t1", &["tenant/t1/command/*", "@app/t1/>"], &["tenant/t1/>", "@app/t1/>", "node/*/state"]),
    ("t2", &["tenant/t2/command/*", "@app/t2/>"], &["tenant/t2/>", "@app/t2/>", "node/*/state"]),
    ("t1/press", &["@app/t1/press/>"], &["@app/t1/press/>", "@app/t1/orders/*"]),
    (
        "n1",
        &["node/n1/>", "controller/in/n1", "agent/*/peer/n1/>", "renew/n1/request"],
        &["agent/n1/>", "controller/hello", "renew/n1/answer"],
    ),
    (
        "n2",
        &["node/n2/>", "controller/in/n2", "agent/*/peer/n2/>", "renew/n2/request"],
        &["agent/n2/>", "controller/hello", "renew/n2/answer"],
    ),
    ("monitor", &[], &["node/>"]),
    ("join", &["join/j1/request"], &["join/j1/answer"]),
    (
        "operator",
        &["tenant/>", "node/>", "admin/>", "@app/>", "@elsewhere/>"],
        &["tenant/>", "node/>", "admin/>", "@app/>", "@elsewhere/>"],
    ),
    (
        "controller",
        &[
            "agent/*/ctl",
            "agent/*/peer/controller/>",
            "controller/hello",
            "join/*/answer",
            "renew/*/answer",
            "tenant/*/command/*",
            "tenant/*/container/*/state",
            "tenant/*/migration/*",
            "tenant/*/reply/*",
        ],
        &[
            "agent/controller/>",
            "controller/in/*",
            "join/*/request",
            "renew/*/request",
            "node/>",
            "tenant/*/command/*",
            "admin/command/*",
        ],
    ),
];

/// Topics of every row of docs/TOPICS.md, of both tenants and both nodes, and one of nobody.
fn topics() -> Vec<String> {
    let mut tails: Vec<String> = ["controller/hello", "admin/command/drain"].map(Into::into).into();
    for tenant in ["t1", "t2"] {
        for tail in
            ["command/stop", "container/c/state", "container/c/log", "migration/m-1", "reply/1"]
        {
            tails.push(format!("tenant/{tenant}/{tail}"));
        }
    }
    for (node, other) in [("n1", "n2"), ("n2", "n1")] {
        for tail in ["state", "info", "metrics"] {
            tails.push(format!("node/{node}/{tail}"));
        }
        tails.extend([
            format!("agent/{node}/ctl"),
            format!("agent/{node}/peer/{other}/bulk"),
            format!("agent/{node}/peer/controller/ctl"),
            format!("agent/controller/peer/{node}/ctl"),
            format!("controller/in/{node}"),
            format!("renew/{node}/request"),
            format!("renew/{node}/answer"),
        ]);
    }
    for id in ["j1", "j2"] {
        tails.extend([format!("join/{id}/request"), format!("join/{id}/answer")]);
    }
    let mut topics: Vec<_> = tails.iter().map(|tail| format!("godwit/v1/{tail}")).collect();
    for tenant in ["t1", "t2"] {
        for tail in ["x", "press", "press/bar", "orders/1", "orders/1/line"] {
            topics.push(format!("app/{tenant}/{tail}"));
        }
    }
    topics.push("elsewhere/x".into());
    topics
}

fn is_in(patterns: &[&str], topic: &str) -> bool {
    patterns.iter().any(|pattern| {
        let whole = match pattern.strip_prefix('@') {
            Some(pattern) => pattern.to_owned(),
            None => format!("godwit/v1/{pattern}"),
        };
        let (mut wanted, mut levels) = (whole.split('/'), topic.split('/'));
        loop {
            match (wanted.next(), levels.next()) {
                (None, None) | (Some(">"), _) => return true,
                (Some("*"), Some(_)) => {}
                (Some(name), Some(level)) if name == level => {}
                _ => return false,
            }
        }
    })
}

fn hello(user: &str, client: &str) -> Connect {
    let password = Some(bytes::Bytes::copy_from_slice(user.as_bytes()));
    Connect { username: Some(user.into()), password, ..clean(client) }
}

async fn come(hub: &Hub, user: &str, client: &str) -> Client {
    hub.join(Version::V5, hello(user, client)).await
}

/// The topics of all that a client has heard of what was published before.
async fn heard(client: &mut Client) -> BTreeSet<String> {
    client.ping().await;
    client.drain().into_iter().map(|publish| publish.topic.to_string()).collect()
}

#[tokio::test]
async fn nobody_publishes_where_it_may_not_whichever_way_it_tries() {
    let hub = Hub::start_for(Arc::new(Book)).await;
    let mut god = come(&hub, "god", "god").await;
    god.subscribe("#", QoS::AtMostOnce).await;
    for (user, publishes, _) in MODEL {
        let mut client = come(&hub, user, "j1").await;
        let mut expected = Vec::new();
        for (number, topic) in topics().into_iter().enumerate() {
            let may = is_in(publishes, &topic);
            let reason = match may {
                true => PublishAckReason::Success,
                false => PublishAckReason::NotAuthorized,
            };
            let plain = message(&topic, user, QoS::AtLeastOnce);
            assert_eq!(client.publish_packet(plain).await, reason, "{user} to {topic}");
            // An alias that a refused message gave leads no further than its topic.
            let alias = NonZeroU16::new(u16::try_from(number % 60 + 1).unwrap());
            let properties = PublishProperties { topic_alias: alias, ..Default::default() };
            let named = with(properties.clone(), message(&topic, user, QoS::ExactlyOnce));
            assert_eq!(client.publish_packet(named).await, reason, "{user} names {topic}");
            let by_alias = with(properties, message("", user, QoS::AtLeastOnce));
            assert_eq!(client.publish_packet(by_alias).await, reason, "{user} by alias {topic}");
            let last = Connect { last_will: Some(will(&topic, user)), ..hello(user, "j1") };
            let (_, ack) =
                hub.greet(Version::V5, Connect { client_id: "other".into(), ..last }).await;
            // Who joins has its place by its client id.
            let may_will = may && user != "join";
            let is_let_in = ack.reason_code == ConnectAckReason::Success;
            assert_eq!(is_let_in, may_will, "{user} leaves a will to {topic}");
            if may {
                expected.extend([topic.clone(), topic.clone(), topic.clone()]);
                if is_let_in {
                    // It went without a word.
                    expected.push(topic.clone());
                }
            }
        }
        // The last will may be under way.
        let mut found: Vec<String> = Vec::new();
        while found.len() < expected.len() {
            found.push(god.next().await.topic.to_string());
        }
        god.hears_nothing().await;
        expected.sort();
        found.sort();
        assert_eq!(found, expected, "what came of {user}");
    }
}

#[tokio::test]
async fn nobody_hears_what_it_may_not_whichever_way_it_tries() {
    let hub = Hub::start_for(Arc::new(Book)).await;
    let mut god = come(&hub, "god", "god").await;
    for (user, _, reads) in MODEL {
        for filter in ["#", "+/#", "+/+/#", "godwit/#", "godwit/v1/+/+/#", "app/#", "app/+/+/#"] {
            for group in ["", "$share/g/"] {
                let mut client = come(&hub, user, "j1").await;
                let shared = format!("{group}{filter}");
                let status = client.subscribe_with(&shared, options(QoS::AtMostOnce)).await;
                for topic in topics() {
                    god.publish(&topic, "x", QoS::AtLeastOnce).await;
                }
                let expected: BTreeSet<_> = topics()
                    .into_iter()
                    .filter(|topic| is_in(reads, topic) && is_under(filter, topic))
                    .collect();
                assert_eq!(heard(&mut client).await, expected, "{user} subscribes to {shared}");
                let is_granted = u8::from(status) < 0x80;
                assert!(is_granted || expected.is_empty(), "{user} is refused {shared}");
            }
        }
        let mut client = come(&hub, user, "j1").await;
        for topic in topics() {
            for filter in [topic.clone(), format!("$share/g/{topic}")] {
                let status = client.subscribe_with(&filter, options(QoS::AtMostOnce)).await;
                let is_granted = u8::from(status) < 0x80;
                assert_eq!(is_granted, is_in(reads, &topic), "{user} subscribes to {filter}");
            }
        }
    }
}

/// Enough of filters for those that are tried here.
fn is_under(filter: &str, topic: &str) -> bool {
    let fixed: Vec<_> = filter.trim_end_matches("/#").split('/').collect();
    let levels: Vec<_> = topic.split('/').collect();
    filter == "#"
        || (levels.len() >= fixed.len()
            && fixed.iter().zip(levels).all(|(wanted, level)| *wanted == "+" || *wanted == level))
}

#[tokio::test]
async fn what_is_retained_is_replayed_to_those_who_may_read_it() {
    let hub = Hub::start_for(Arc::new(Book)).await;
    let mut god = come(&hub, "god", "god").await;
    for topic in topics() {
        god.publish_packet(retained(&topic, "kept", QoS::AtLeastOnce)).await;
    }
    for (user, _, reads) in MODEL {
        let mut client = come(&hub, user, "j1").await;
        client.subscribe_with("#", options(QoS::AtMostOnce)).await;
        let expected: BTreeSet<_> =
            topics().into_iter().filter(|topic| is_in(reads, topic)).collect();
        assert_eq!(heard(&mut client).await, expected, "{user}");
    }
}

#[tokio::test]
async fn a_command_is_kept_for_nobody() {
    let hub = Hub::start_for(Arc::new(Book)).await;
    for user in ["t1", "operator"] {
        let mut client = come(&hub, user, "c").await;
        let stop = |payload: &str| -> Publish {
            retained("godwit/v1/tenant/t1/command/stop", payload, QoS::AtLeastOnce)
        };
        let refused = client.publish_packet(stop("{}")).await;
        assert_eq!(refused, PublishAckReason::NotAuthorized, "{user}");
        assert_eq!(client.publish_packet(stop("")).await, PublishAckReason::Success, "{user}");
    }
}

#[tokio::test]
async fn a_command_is_kept_for_nobody_as_a_will_either() {
    let hub = Hub::start_for(Arc::new(Book)).await;
    let topic = "godwit/v1/tenant/t1/command/stop";
    let (refused, let_in) = (ConnectAckReason::NotAuthorized, ConnectAckReason::Success);
    for user in ["t1", "operator"] {
        for (retain, payload, reason) in
            [(true, "{}", refused), (true, "", let_in), (false, "{}", let_in)]
        {
            let last = LastWill { retain, ..will(topic, payload) };
            let connect = Connect { last_will: Some(last), ..hello(user, "c") };
            let (_, ack) = hub.greet(Version::V5, connect).await;
            assert_eq!(ack.reason_code, reason, "{user}: {payload:?}, retained: {retain}");
        }
    }
}

#[tokio::test]
async fn a_client_id_is_its_accounts_own() {
    let hub = Hub::start_for(Arc::new(Book)).await;
    let mut alice = come(&hub, "t1", "same").await;
    alice.subscribe("app/t1/#", QoS::AtLeastOnce).await;
    let mut bob = come(&hub, "t2", "same").await;
    bob.publish("app/t2/x", "mine", QoS::AtLeastOnce).await;
    alice.publish("app/t1/x", "hers", QoS::AtLeastOnce).await;
    assert_eq!(alice.heard().await, "hers");
    bob.hears_nothing().await;
}
