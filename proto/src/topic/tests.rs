//! Parsing and printing topics are inverse, and nothing else parses.

use super::*;
use proptest::prelude::*;

fn name<T: FromStr + fmt::Debug>() -> impl Strategy<Value = T> {
    "[a-z0-9-]{1,63}".prop_filter_map("reserved", |text| {
        if [CONTROLLER, UNPARSED].contains(&text.as_str()) { None } else { text.parse().ok() }
    })
}

fn peer() -> impl Strategy<Value = Peer> {
    prop_oneof![Just(Peer::Controller), name().prop_map(Peer::Node)]
}

fn verb() -> impl Strategy<Value = VerbName> {
    prop_oneof!["[a-z]{1,12}", "[^/+#\0]{1,20}"]
        .prop_map(|text| text.parse().expect("no wildcard, no slash"))
}

fn tail() -> impl Strategy<Value = Tail> {
    "[^+#\0]{0,80}".prop_map(|text| text.parse().expect("no wildcard"))
}

fn topic() -> impl Strategy<Value = Topic> {
    prop_oneof![
        name().prop_map(|node| Topic::NodeState { node }),
        name().prop_map(|node| Topic::NodeInfo { node }),
        name().prop_map(|node| Topic::NodeMetrics { node }),
        (name(), name())
            .prop_map(|(tenant, container)| Topic::ContainerState { tenant, container }),
        (name(), name()).prop_map(|(tenant, container)| Topic::ContainerLog { tenant, container }),
        (name(), name()).prop_map(|(tenant, id)| Topic::MigrationStatus { tenant, id }),
        (name(), verb()).prop_map(|(tenant, verb)| Topic::Command { tenant, verb }),
        (name(), name()).prop_map(|(tenant, id)| Topic::Reply { tenant, id }),
        name().prop_map(|tenant| Topic::ReplyUnparsed { tenant }),
        verb().prop_map(|verb| Topic::AdminCommand { verb }),
        name().prop_map(|node| Topic::AgentCtl { node }),
        (peer(), peer()).prop_map(|(to, from)| Topic::PeerCtl { to, from }),
        (peer(), peer()).prop_map(|(to, from)| Topic::PeerBulk { to, from }),
        name().prop_map(|node| Topic::ControllerIn { node }),
        Just(Topic::ControllerHello),
        (name(), tail()).prop_map(|(tenant, tail)| Topic::App { tenant, tail }),
        tail().prop_map(|tail| Topic::Sys { tail }),
    ]
}

/// Texts that are nearly topics: levels of the tree and rubbish, joined at random.
fn nearly() -> impl Strategy<Value = String> {
    let level = prop_oneof![
        Just("godwit".to_owned()),
        Just("v1".to_owned()),
        Just("app".to_owned()),
        Just("$SYS".to_owned()),
        prop::sample::select(vec![
            "node",
            "agent",
            "peer",
            "ctl",
            "bulk",
            "tenant",
            "command",
            "reply",
            "unparsed",
            "controller",
            "in",
            "hello",
            "state",
            "info",
            "container",
            "admin",
            "broker",
            "+",
            "#",
            "",
        ])
        .prop_map(str::to_owned),
        "[a-z0-9-]{0,6}",
        any::<String>(),
    ];
    (any::<bool>(), prop::collection::vec(level, 0..9)).prop_map(|(rooted, levels)| {
        let rest = levels.join("/");
        if rooted { format!("{ROOT}/{rest}") } else { rest }
    })
}

proptest! {
    #[test]
    fn a_printed_topic_parses_to_itself(topic in topic()) {
        prop_assert_eq!(topic.to_string().parse::<Topic>(), Ok(topic));
    }

    #[test]
    fn whatever_parses_prints_back_byte_for_byte(
        text in prop_oneof![nearly(), any::<String>()]
    ) {
        if let Ok(topic) = text.parse::<Topic>() {
            prop_assert_eq!(topic.to_string(), text);
        }
    }
}

#[test]
fn a_wildcard_is_never_a_topic() {
    for text in [
        "godwit/v1/node/+/state",
        "godwit/v1/agent/a/#",
        "godwit/v1/tenant/t/command/+",
        "app/t/#",
        "app/t/a/+/b",
        "$SYS/broker/#",
    ] {
        assert!(text.parse::<Topic>().is_err(), "{text}");
    }
}

#[test]
fn a_level_more_or_less_is_another_topic() {
    for text in [
        "godwit/v1",
        "godwit/v1/",
        "godwit/v2/node/a/state",
        "godwit/v1/node/a",
        "godwit/v1/node/a/state/",
        "godwit/v1/agent/a/peer/b",
        "godwit/v1/agent/a/peer/b/bulk/x",
        "app/t",
        "/godwit/v1/node/a/state",
    ] {
        assert!(text.parse::<Topic>().is_err(), "{text}");
    }
}

#[test]
fn the_controller_is_a_peer_but_never_a_node() {
    let bulk = "godwit/v1/agent/edge-a/peer/controller/bulk".parse::<Topic>().unwrap();
    assert_eq!(
        bulk,
        Topic::PeerBulk { to: Peer::Node("edge-a".parse().unwrap()), from: Peer::Controller }
    );
    for text in [
        "godwit/v1/node/controller/state",
        "godwit/v1/agent/controller/ctl",
        "godwit/v1/controller/in/controller",
    ] {
        let error = text.parse::<Topic>().unwrap_err();
        assert!(matches!(error, TopicError::Name { .. }), "{error}");
    }
}

#[test]
fn an_unknown_or_misspelt_verb_is_still_a_command_that_can_be_answered() {
    let topic = "godwit/v1/tenant/alice/command/Migrate".parse::<Topic>().unwrap();
    assert!(matches!(topic, Topic::Command { verb, .. } if verb.as_str() == "Migrate"));
}

#[test]
fn filters_stand_as_documented() {
    let node: NodeId = "edge-a".parse().unwrap();
    assert_eq!(Filter::Inbox(node.into()).to_string(), "godwit/v1/agent/edge-a/#");
    assert_eq!(Filter::Inbox(Peer::Controller).to_string(), "godwit/v1/agent/controller/#");
    assert_eq!(Filter::Commands.to_string(), "godwit/v1/tenant/+/command/+");
    assert_eq!(Filter::App(Tenant::default_tenant()).to_string(), "app/default/#");
}
