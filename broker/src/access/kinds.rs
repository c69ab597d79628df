//! The fabric's own accounts: the table of docs/TOPICS.md, row by row.

use super::filter::Filter;
use super::rules::{Rights, Territory};

/// What the fabric's topics begin with.
const ROOT: &str = "godwit/v1";

/// What an account of the fabric is for. Names are levels of `[a-z0-9-]{1,63}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// The agent of this node.
    Node(String),
    /// A tenant, by its name.
    Tenant(String),
    /// A tenant's container or sensor. Its filters are taken as they stand, and none may
    /// reach out of `app/<tenant>/#`.
    Derived {
        /// The tenant that it belongs to.
        tenant: String,
        /// Where it may publish.
        publish: Vec<Filter>,
        /// What it may subscribe to.
        subscribe: Vec<Filter>,
    },
    /// The controller.
    Controller,
    /// A person who runs the fabric.
    Operator,
    /// A program that watches the fabric.
    Monitor,
    /// A node that has a token and no certificate, by the id under which it asks for one.
    Joining(String),
}

/// Why an account cannot have rights.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KindError {
    /// A name is not a level of the fabric's topics.
    #[error(
        "`{text}` cannot be the name of a {what}: use 1 to 63 of a-z, 0-9 and '-'; no node may \
         be called `controller`"
    )]
    Name {
        /// What the text should have named.
        what: &'static str,
        /// The offending text, cut to 80 characters.
        text: String,
    },
    /// A derived account would reach further than its tenant's own topics.
    #[error("`{filter}` reaches out of `app/{tenant}/#`: narrow it to topics below that")]
    Outside {
        /// The offending filter.
        filter: Filter,
        /// The account's tenant.
        tenant: String,
    },
}

impl Rights {
    /// The rights of an account of the fabric.
    pub fn of(kind: &Kind) -> Result<Self, KindError> {
        let (publish, read) = match kind {
            Kind::Node(node) => {
                let node = name("node", node)?;
                (
                    root([
                        // Asks for its next certificate.
                        format!("renew/{node}/request"),
                        format!("node/{node}/#"),
                        format!("controller/in/{node}"),
                        format!("agent/+/peer/{node}/#"),
                    ]),
                    root([
                        format!("renew/{node}/answer"),
                        format!("agent/{node}/#"),
                        "controller/hello".into(),
                    ]),
                )
            }
            Kind::Tenant(tenant) => {
                let tenant = name("tenant", tenant)?;
                (
                    root([format!("tenant/{tenant}/command/+")]).with(app(tenant)),
                    root([format!("tenant/{tenant}/#"), "node/+/state".into()]).with(app(tenant)),
                )
            }
            Kind::Derived { tenant, publish, subscribe } => {
                let tenant = name("tenant", tenant)?;
                (narrower(tenant, publish)?, narrower(tenant, subscribe)?)
            }
            Kind::Controller => (
                root([
                    "agent/+/ctl",
                    // Images, to nodes.
                    "agent/+/peer/controller/#",
                    "controller/hello",
                    "join/+/answer",
                    "renew/+/answer",
                    // Clears what somebody had retained there.
                    "tenant/+/command/+",
                    "tenant/+/container/+/state",
                    "tenant/+/migration/+",
                    "tenant/+/reply/+",
                ]),
                root([
                    "agent/controller/#",
                    "controller/in/+",
                    "join/+/request",
                    "renew/+/request",
                    "node/#",
                    "tenant/+/command/+",
                    "admin/command/+",
                ]),
            ),
            Kind::Operator => {
                let outer = || {
                    let frames = root(["agent/#", "controller/#", "join/#", "renew/#"]).allow;
                    Territory { allow: vec![], deny: frames }.with(Filter::known("#".into()))
                };
                (outer(), outer().with(system()))
            }
            Kind::Joining(id) => {
                let id = name("join request", id)?;
                (root([format!("join/{id}/request")]), root([format!("join/{id}/answer")]))
            }
            Kind::Monitor => (Territory::default(), root(["node/#"]).with(system())),
        };
        Ok(Self::within(publish, read))
    }
}

/// True for the topics of commands.
pub(super) fn is_never_retained(topic: &str) -> bool {
    let Some(rest) = topic.strip_prefix(ROOT).and_then(|rest| rest.strip_prefix('/')) else {
        return false;
    };
    let mut levels = rest.split('/');
    match levels.next() {
        Some("tenant") => levels.nth(1) == Some("command"),
        Some("admin") => levels.next() == Some("command"),
        _ => false,
    }
}

/// Filters below the fabric's root.
fn root<const N: usize>(tails: [impl AsRef<str>; N]) -> Territory {
    let allow = tails.map(|tail| Filter::known(format!("{ROOT}/{}", tail.as_ref()))).into();
    Territory { allow, deny: vec![] }
}

/// What the broker says of itself.
fn system() -> Filter {
    Filter::known("$SYS/#".into())
}

/// All that is a tenant's own.
fn app(tenant: &str) -> Filter {
    Filter::known(format!("app/{tenant}/#"))
}

/// `filters`, none of which may reach out of the tenant's own.
fn narrower(tenant: &str, filters: &[Filter]) -> Result<Territory, KindError> {
    let all = app(tenant);
    match filters.iter().find(|filter| !all.covers(filter)) {
        Some(filter) => Err(KindError::Outside { filter: filter.clone(), tenant: tenant.into() }),
        None => Ok(Territory { allow: filters.to_vec(), deny: vec![] }),
    }
}

/// `text`, if it is one level of the fabric's topics and free for a `what`.
fn name<'a>(what: &'static str, text: &'a str) -> Result<&'a str, KindError> {
    let is_level = (1..=63).contains(&text.len())
        && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    // `agent/controller/#` is the controller's end of its streams to nodes.
    if is_level && !(what == "node" && text == "controller") {
        Ok(text)
    } else {
        Err(KindError::Name { what, text: text.chars().take(80).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::super::judge::Grant;
    use super::*;

    const EVERY_ROW: [&str; 22] = [
        "godwit/v1/node/n1/state",
        "godwit/v1/node/n1/info",
        "godwit/v1/node/n2/state",
        "godwit/v1/tenant/t1/container/c/state",
        "godwit/v1/tenant/t1/migration/m",
        "godwit/v1/tenant/t1/command/stop",
        "godwit/v1/tenant/t1/reply/1",
        "godwit/v1/tenant/t2/command/stop",
        "godwit/v1/admin/command/drain",
        "godwit/v1/agent/n1/ctl",
        "godwit/v1/agent/n1/peer/n2/bulk",
        "godwit/v1/agent/n2/peer/n1/bulk",
        "godwit/v1/controller/in/n1",
        "godwit/v1/controller/hello",
        "godwit/v1/agent/n1/peer/controller/bulk",
        "godwit/v1/join/j1/request",
        "godwit/v1/join/j1/answer",
        "godwit/v1/renew/n1/request",
        "godwit/v1/renew/n1/answer",
        "app/t1/x",
        "app/t2/x",
        "$SYS/broker/uptime",
    ];

    /// Asserts that of every row's topics `kind` may publish to `publish` and read
    /// `read`, and nothing else.
    #[track_caller]
    fn assert_table(kind: &Kind, publish: &[&str], read: &[&str]) {
        let rights = Rights::of(kind).unwrap();
        let filtered = |may: &dyn Fn(&str) -> bool| -> Vec<&str> {
            EVERY_ROW.into_iter().filter(|topic| may(topic)).collect()
        };
        assert_eq!(filtered(&|topic| rights.may_publish(topic)), publish, "{kind:?} publishes");
        assert_eq!(filtered(&|topic| rights.may_read(topic)), read, "{kind:?} reads");
    }

    fn filters(texts: &[&str]) -> Vec<Filter> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_node_speaks_for_itself_only() {
        assert_table(
            &Kind::Node("n1".into()),
            &[
                "godwit/v1/node/n1/state",
                "godwit/v1/node/n1/info",
                "godwit/v1/agent/n2/peer/n1/bulk",
                "godwit/v1/controller/in/n1",
                "godwit/v1/renew/n1/request",
            ],
            &[
                "godwit/v1/agent/n1/ctl",
                "godwit/v1/agent/n1/peer/n2/bulk",
                "godwit/v1/controller/hello",
                "godwit/v1/agent/n1/peer/controller/bulk",
                "godwit/v1/renew/n1/answer",
            ],
        );
    }

    #[test]
    fn a_tenant_commands_and_hears_its_own() {
        assert_table(
            &Kind::Tenant("t1".into()),
            &["godwit/v1/tenant/t1/command/stop", "app/t1/x"],
            &[
                "godwit/v1/node/n1/state",
                "godwit/v1/node/n2/state",
                "godwit/v1/tenant/t1/container/c/state",
                "godwit/v1/tenant/t1/migration/m",
                "godwit/v1/tenant/t1/command/stop",
                "godwit/v1/tenant/t1/reply/1",
                "app/t1/x",
            ],
        );
    }

    #[test]
    fn a_derived_account_has_its_filters_and_no_more() {
        let kind = |publish: &[&str], subscribe: &[&str]| Kind::Derived {
            tenant: "t1".into(),
            publish: filters(publish),
            subscribe: filters(subscribe),
        };
        assert_table(&kind(&["app/t1/x"], &["app/t1/y"]), &["app/t1/x"], &[]);
        assert_table(&kind(&[], &["app/t1/#"]), &[], &["app/t1/x"]);
        for wide in ["app/+/x", "#", "app/t2/#", "godwit/v1/node/#", "$SYS/#"] {
            for kind in [kind(&[wide], &[]), kind(&[], &["app/t1/x", wide])] {
                let error = Rights::of(&kind).unwrap_err().to_string();
                assert!(error.contains(wide) && error.contains("app/t1/#"), "{error}");
            }
        }
    }

    #[test]
    fn the_controller_directs_and_reports() {
        assert_table(
            &Kind::Controller,
            &[
                "godwit/v1/tenant/t1/container/c/state",
                "godwit/v1/tenant/t1/migration/m",
                "godwit/v1/tenant/t1/command/stop",
                "godwit/v1/tenant/t1/reply/1",
                "godwit/v1/tenant/t2/command/stop",
                "godwit/v1/agent/n1/ctl",
                "godwit/v1/controller/hello",
                "godwit/v1/agent/n1/peer/controller/bulk",
                "godwit/v1/join/j1/answer",
                "godwit/v1/renew/n1/answer",
            ],
            &[
                "godwit/v1/node/n1/state",
                "godwit/v1/node/n1/info",
                "godwit/v1/node/n2/state",
                "godwit/v1/tenant/t1/command/stop",
                "godwit/v1/tenant/t2/command/stop",
                "godwit/v1/admin/command/drain",
                "godwit/v1/controller/in/n1",
                "godwit/v1/join/j1/request",
                "godwit/v1/renew/n1/request",
            ],
        );
    }

    #[test]
    fn an_operator_has_all_but_the_frames() {
        let all = || {
            let is_frame = |topic: &&str| {
                let level = topic.split('/').nth(2).unwrap_or_default();
                !["agent", "controller", "join", "renew"].contains(&level)
            };
            EVERY_ROW.into_iter().filter(is_frame)
        };
        let publish: Vec<_> = all().filter(|topic| !topic.starts_with('$')).collect();
        assert_table(&Kind::Operator, &publish, &all().collect::<Vec<_>>());
        let rights = Rights::of(&Kind::Operator).unwrap();
        assert_eq!(rights.may_subscribe("#"), Grant::Checked);
        assert_eq!(rights.may_subscribe("godwit/v1/tenant/#"), Grant::Granted);
        assert_eq!(rights.may_subscribe("godwit/v1/agent/n1/#"), Grant::Refused);
    }

    #[test]
    fn who_has_only_a_token_may_ask_and_hear_the_answer() {
        assert_table(
            &Kind::Joining("j1".into()),
            &["godwit/v1/join/j1/request"],
            &["godwit/v1/join/j1/answer"],
        );
        assert!(Rights::of(&Kind::Joining("+".into())).is_err());
    }

    #[test]
    fn commands_are_never_retained() {
        for (topic, is_command) in [
            ("godwit/v1/tenant/t1/command/stop", true),
            ("godwit/v1/admin/command/drain", true),
            ("godwit/v1/tenant/t1/container/command/state", false),
            ("godwit/v1/node/n1/state", false),
            ("app/t1/command/x", false),
        ] {
            assert_eq!(is_never_retained(topic), is_command, "{topic}");
        }
    }

    #[test]
    fn a_monitor_only_watches() {
        assert_table(
            &Kind::Monitor,
            &[],
            &[
                "godwit/v1/node/n1/state",
                "godwit/v1/node/n1/info",
                "godwit/v1/node/n2/state",
                "$SYS/broker/uptime",
            ],
        );
    }

    #[test]
    fn the_filters_that_programs_use_are_granted_outright() {
        for (kind, used) in [
            (Kind::Node("n1".into()), &["godwit/v1/agent/n1/#", "godwit/v1/controller/hello"][..]),
            (Kind::Tenant("t1".into()), &["godwit/v1/tenant/t1/#", "godwit/v1/node/+/state"]),
            (Kind::Controller, &["godwit/v1/node/#", "godwit/v1/tenant/+/command/+"]),
            (Kind::Monitor, &["$SYS/#", "godwit/v1/node/+/metrics"]),
        ] {
            let rights = Rights::of(&kind).unwrap();
            for filter in used {
                assert_eq!(rights.may_subscribe(filter), Grant::Granted, "{kind:?} {filter}");
            }
        }
    }

    #[test]
    fn a_name_that_is_no_level_has_no_rights() {
        for name in ["", "+", "a/b", "#", "Node", "a_b", &"a".repeat(64)] {
            assert!(Rights::of(&Kind::Node(name.into())).is_err(), "{name}");
            assert!(Rights::of(&Kind::Tenant(name.into())).is_err(), "{name}");
            let derived = Kind::Derived { tenant: name.into(), publish: vec![], subscribe: vec![] };
            assert!(Rights::of(&derived).is_err(), "{name}");
        }
        assert!(Rights::of(&Kind::Node("controller".into())).is_err());
        assert!(Rights::of(&Kind::Tenant("controller".into())).is_ok());
    }
}
