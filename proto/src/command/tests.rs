//! What is understood, and how everything else is answered.

use super::*;
use crate::topic::Topic;
use proptest::prelude::*;

fn parse(verb: &str, payload: &str) -> Result<Command, CommandError> {
    let tenant = Tenant::default_tenant();
    Request::parse(&tenant, &verb.parse().unwrap(), false, payload.as_bytes())
        .map(|request| request.command)
}

/// Where `payload` is answered, with which code and words.
fn answer(verb: &str, payload: &str) -> (String, String, String) {
    let (topic, reply) = parse(verb, payload).unwrap_err().answer().unwrap();
    assert_eq!(reply.status, Status::Failed);
    let last = topic.to_string().rsplit('/').next().unwrap().to_owned();
    (last, reply.code, reply.message)
}

#[test]
fn a_container_needs_only_a_name_and_an_image() {
    let Command::Create(create) =
        parse("create", r#"{"id":"1","container":"counter","image":"demo"}"#).unwrap()
    else {
        panic!("another command")
    };
    assert_eq!(create.container.as_str(), "counter");
    assert_eq!(create.image, "demo");
    assert!(create.start);
    assert_eq!((create.node, create.limits), (None, Limits::default()));
}

#[test]
fn everything_that_can_be_said_of_a_container_is_read() {
    let payload = r#"{"id":"1","container":"c","image":"i","args":["a","b"],"env":{"K":"v"},
        "labels":{"l":"x"},"memory_bytes":1048576,"cpus":0.5,"node":"edge-a","start":false,
        "from-the-future":{}}"#;
    let Command::Create(create) = parse("create", payload).unwrap() else {
        panic!("another command")
    };
    assert_eq!(create.args, ["a", "b"]);
    assert_eq!(create.env["K"], "v");
    assert_eq!(create.labels["l"], "x");
    assert_eq!(create.limits.memory_bytes, Some(1 << 20));
    assert_eq!(create.limits.nano_cpus, Some(500_000_000));
    assert_eq!(create.node.unwrap().as_str(), "edge-a");
    assert!(!create.start);
}

#[test]
fn a_migration_is_live_and_for_real_unless_told_otherwise() {
    let plain = parse("migrate", r#"{"id":"1","container":"c"}"#).unwrap();
    let Command::Migrate(plain) = plain else { panic!("another command") };
    assert_eq!((plain.to, plain.mode, plain.bwlimit), (None, Mode::Live, None));
    assert!(!plain.dry_run);

    let payload =
        r#"{"id":"1","container":"c","to":"b","mode":"cold","bwlimit":1000,"dry_run":true}"#;
    let Command::Migrate(full) = parse("migrate", payload).unwrap() else {
        panic!("another command")
    };
    assert_eq!(full.to.unwrap().as_str(), "b");
    assert_eq!((full.mode, full.bwlimit, full.dry_run), (Mode::Cold, Some(1000), true));
}

#[test]
fn a_migration_is_cancelled_by_its_id_or_its_container() {
    let by = |payload| match parse("cancel", payload).unwrap() {
        Command::Cancel(cancel) => cancel,
        _ => panic!("another command"),
    };
    assert!(matches!(by(r#"{"id":"1","migration":"m-1"}"#), Cancel::Migration(_)));
    assert!(matches!(by(r#"{"id":"1","container":"c"}"#), Cancel::Of(_)));
    assert_eq!(answer("cancel", r#"{"id":"1"}"#).1, "missing-field");
}

#[test]
fn what_is_wrong_is_answered_under_its_id_with_the_field_that_is_wrong() {
    for (payload, code, word) in [
        (r#"{"id":"7"}"#, "missing-field", "`container`"),
        (r#"{"id":"7","container":null}"#, "missing-field", "`container`"),
        (r#"{"id":"7","container":3}"#, "wrong-type", "`container` is a number"),
        (r#"{"id":"7","container":"UP"}"#, "invalid-value", "`UP` is not a container name"),
        (r#"{"id":"7","container":"c","to":["b"]}"#, "wrong-type", "`to` is an array"),
        (r#"{"id":"7","container":"c","to":"controller"}"#, "invalid-value", "`to`"),
        (r#"{"id":"7","container":"c","mode":"warp"}"#, "invalid-value", "live, plain or cold"),
        (r#"{"id":"7","container":"c","bwlimit":"1M"}"#, "wrong-type", "`bwlimit` is a string"),
        (r#"{"id":"7","container":"c","bwlimit":-1}"#, "invalid-value", "-1"),
        (r#"{"id":"7","container":"c","bwlimit":0}"#, "invalid-value", "above zero"),
        (r#"{"id":"7","container":"c","dry_run":"no"}"#, "wrong-type", "true or false"),
    ] {
        let (topic, found, message) = answer("migrate", payload);
        assert_eq!((topic.as_str(), found.as_str()), ("7", code), "{payload}");
        assert!(message.contains(word), "{message}");
    }
    let (_, _, message) =
        answer("create", r#"{"id":"7","container":"c","image":"i","env":{"A":1}}"#);
    assert!(message.contains("`env`"), "{message}");
}

#[test]
fn an_unknown_verb_is_answered_with_the_known_ones() {
    let (topic, code, message) = answer("migrat", r#"{"id":"7"}"#);
    assert_eq!((topic.as_str(), code.as_str()), ("7", "unknown-verb"));
    for verb in Verb::ALL {
        assert!(message.contains(verb.as_str()), "{message}");
    }
    assert_eq!(answer("exec", r#"{"id":"7"}"#).1, "verb-not-served");
}

#[test]
fn without_a_readable_id_the_answer_goes_to_unparsed() {
    for (payload, code) in [
        ("{}", "missing-field"),
        (r#"{"id":7}"#, "wrong-type"),
        (r#"{"id":"unparsed"}"#, "invalid-value"),
        (r#"{"id":"a/#"}"#, "invalid-value"),
        ("[]", "not-an-object"),
        ("hello", "not-json"),
        (r#"{"id":"a/#","#, "not-json"),
    ] {
        let (topic, found, _) = answer("migrate", payload);
        assert_eq!((topic.as_str(), found.as_str()), ("unparsed", code), "{payload}");
    }
}

#[test]
fn broken_json_is_still_answered_under_the_id_that_is_in_it() {
    let (topic, code, _) = answer("migrate", r#"{"id" : "7", "container": "counter", "to": }"#);
    assert_eq!((topic.as_str(), code.as_str()), ("7", "not-json"));
}

#[test]
fn a_retained_command_is_refused_and_its_clearing_is_not_answered() {
    let tenant = Tenant::default_tenant();
    let verb = "stop".parse().unwrap();
    let payload = br#"{"id":"7","container":"c"}"#;
    let refused = Request::parse(&tenant, &verb, true, payload).unwrap_err();
    let (topic, reply) = refused.answer().unwrap();
    assert_eq!(topic, Topic::Reply { tenant: tenant.clone(), id: "7".parse().unwrap() });
    assert_eq!(reply.code, "retained");

    let cleared = Request::parse(&tenant, &verb, false, b"").unwrap_err();
    assert_eq!(cleared.answer(), None);
}

#[test]
fn every_verb_is_read_as_itself() {
    for verb in Verb::ALL {
        assert_eq!(verb.as_str().parse::<Verb>().unwrap(), *verb);
        assert!(verb.as_str().parse::<VerbName>().is_ok());
    }
}

#[test]
fn a_reply_reads_back_with_its_details_beside_the_rest() {
    let reply = Reply::ok("7".parse().unwrap(), Status::Progress, "transferring")
        .with("percent", 40)
        .with("migration", "m-1");
    let json = serde_json::to_string(&reply).unwrap();
    assert!(json.contains(r#""status":"progress""#) && json.contains(r#""percent":40"#), "{json}");
    assert_eq!(serde_json::from_str::<Reply>(&json).unwrap(), reply);
}

proptest! {
    #[test]
    fn no_payload_panics_and_every_one_but_the_empty_is_answered(
        verb in prop::sample::select(Verb::ALL),
        retained: bool,
        payload in prop_oneof![
            prop::collection::vec(any::<u8>(), 1..200),
            r#"\{("id":"[a-z0-9/]{0,4}",?)?("(container|to|image|mode)":("[a-zA-Z]{0,4}"|[0-9]|null|\[\]),?){0,4}\}?"#
                .prop_map(String::into_bytes)
                .prop_filter("not empty", |payload| !payload.is_empty()),
        ],
    ) {
        let tenant = Tenant::default_tenant();
        let verb = verb.as_str().parse().unwrap();
        if let Err(error) = Request::parse(&tenant, &verb, retained, &payload) {
            let (topic, reply) = error.answer().expect("an answer");
            prop_assert!(!reply.message.is_empty());
            prop_assert_eq!(topic.to_string().parse::<Topic>(), Ok(topic));
        }
    }
}
