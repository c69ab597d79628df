//! What one client may publish and read.
//!
//! Rules are written once, with `%u` and `%c` where the user name and the client id
//! belong; [`Rights`] are the rules of one client, with its names put in. A client
//! chooses its id freely, so a name must never be read as a wildcard, as further levels,
//! or as the `$` of the broker's own topics.

use std::sync::Arc;

use super::filter::{Filter, is_topic};
use super::judge::{Grant, judge};
use super::kinds::is_never_retained;

/// Whether a rule opens or closes what it matches; closing beats opening.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The action may be done there, unless another rule denies it.
    Allow,
    /// The action may not be done there, whatever other rules say.
    Deny,
}

/// What a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Publishing to a topic, a will included.
    Publish,
    /// Subscribing to a filter, and being sent what is published there.
    Subscribe,
}

/// One rule, for any client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Allow or deny.
    pub effect: Effect,
    /// What.
    pub action: Action,
    /// Where. `%u` stands for the client's user name and `%c` for its id.
    pub pattern: Filter,
}

/// Who a client is, as the broker knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity<'a> {
    /// The name it signed in with; `None` for one that did not sign in.
    pub user: Option<&'a str>,
    /// Its client id, chosen by itself or given by the broker.
    pub client: &'a str,
}

/// What one client may do. Never changes; a clone is one count more.
#[derive(Debug, Clone)]
pub struct Rights(Arc<Scope>);

#[derive(Debug)]
enum Scope {
    Everything,
    Rules { publish: Territory, read: Territory, is_fabric: bool },
}

/// The topics of one action: those allowed, without those denied.
#[derive(Debug, Default)]
pub(super) struct Territory {
    pub(super) allow: Vec<Filter>,
    pub(super) deny: Vec<Filter>,
}

impl Territory {
    /// This and what `filter` matches.
    pub(super) fn with(mut self, filter: Filter) -> Self {
        self.allow.push(filter);
        self
    }

    fn contains(&self, topic: &str) -> bool {
        is_topic(topic)
            && self.allow.iter().any(|rule| rule.matches(topic))
            && !self.deny.iter().any(|rule| rule.matches(topic))
    }
}

impl Rights {
    /// Everything, the topics that begin with `$` included.
    pub fn everything() -> Self {
        Self(Arc::new(Scope::Everything))
    }

    /// What `rules` come to for the client `who`; nothing where no rule allows.
    ///
    /// A pattern is about nobody when the name that it asks for is missing or empty. A
    /// name with `+`, `#` or NUL stands in no topic, so a pattern with it matches
    /// nothing. A name with `/`, or with `$` where the pattern begins, allows nothing but
    /// still denies what it spells out: dropping that rule would open what it closes.
    pub fn new<'a>(rules: impl IntoIterator<Item = &'a Rule>, who: Identity<'_>) -> Self {
        let (mut publish, mut read) = (Territory::default(), Territory::default());
        for rule in rules {
            let territory = match rule.action {
                Action::Publish => &mut publish,
                Action::Subscribe => &mut read,
            };
            match rule.effect {
                Effect::Allow => territory.allow.extend(rule.expand(who)),
                Effect::Deny => territory.deny.extend(rule.expand(who)),
            }
        }
        Self(Arc::new(Scope::Rules { publish, read, is_fabric: false }))
    }

    /// Rights of one of the fabric's accounts, which are known without any rule.
    pub(super) fn within(publish: Territory, read: Territory) -> Self {
        Self(Arc::new(Scope::Rules { publish, read, is_fabric: true }))
    }

    /// True when that message may be published to `topic`, retained or not: the fabric's commands may
    /// not be retained, for one that is replayed would be obeyed again. Without a payload it clears.
    pub fn may_publish_message(&self, topic: &str, retain: bool, payload: &[u8]) -> bool {
        let is_kept = retain && !payload.is_empty();
        let is_never = is_kept && self.are_of_the_fabric() && is_never_retained(topic);
        self.may_publish(topic) && !is_never
    }

    /// True for those of an account of the fabric; false for those by an ACL file, or without one.
    pub fn are_of_the_fabric(&self) -> bool {
        matches!(&*self.0, Scope::Rules { is_fabric: true, .. })
    }

    /// True when a message may be published to `topic`; never for what is no topic. An
    /// MQTT 5 alias must have been resolved.
    pub fn may_publish(&self, topic: &str) -> bool {
        match &*self.0 {
            Scope::Everything => is_topic(topic),
            Scope::Rules { publish, .. } => publish.contains(topic),
        }
    }

    /// True when a message on `topic` may be sent to the client: to be asked for every
    /// delivery of a subscription that was [`Grant::Checked`].
    pub fn may_read(&self, topic: &str) -> bool {
        match &*self.0 {
            Scope::Everything => is_topic(topic),
            Scope::Rules { read, .. } => read.contains(topic),
        }
    }

    /// Whether the client may subscribe to `filter`; what is no filter is refused.
    ///
    /// `$share/<group>/<filter>` is judged by its inner filter. Mind that a shared
    /// message goes to one member only: if that one may not read it, the group loses it.
    pub fn may_subscribe(&self, filter: &str) -> Grant {
        let Some(wanted) = unshared(filter).and_then(|inner| inner.parse().ok()) else {
            return Grant::Refused;
        };
        match &*self.0 {
            Scope::Everything => Grant::Granted,
            Scope::Rules { read, .. } => judge(&wanted, &read.allow, &read.deny),
        }
    }
}

/// The filter of a subscription, shared or not; `None` when the sharing is malformed.
fn unshared(filter: &str) -> Option<&str> {
    let Some(shared) = filter.strip_prefix("$share/") else {
        return Some(filter);
    };
    let (group, inner) = shared.split_once('/')?;
    (!group.is_empty() && !group.contains(['+', '#'])).then_some(inner)
}

impl Rule {
    /// The pattern with the client's names in it; `None` when it matches no topic. Walks
    /// the pattern once: a name that holds `%u` or `%c` is not read again.
    fn expand(&self, who: Identity<'_>) -> Option<Filter> {
        let mut text = String::new();
        let mut rest = self.pattern.as_str();
        while let Some((before, after)) = rest.split_once('%') {
            text.push_str(before);
            let name = match after.as_bytes().first() {
                Some(b'u') => who.user?,
                Some(b'c') => who.client,
                _ => {
                    text.push('%');
                    rest = after;
                    continue;
                }
            };
            let is_elsewhere = name.contains('/') || text.is_empty() && name.starts_with('$');
            if name.is_empty()
                || name.contains(['+', '#', '\0'])
                || is_elsewhere && self.effect == Effect::Allow
            {
                return None;
            }
            text.push_str(name);
            rest = &after[1..];
        }
        text.push_str(rest);
        // Only too long a text can fail here, and no topic is that long.
        text.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rule(effect: Effect, action: Action, pattern: &str) -> Rule {
        Rule { effect, action, pattern: pattern.parse().unwrap() }
    }

    /// The rights of a client that may do both within `allow` but not within `deny`.
    fn rights(allow: &[&str], deny: &[&str], user: Option<&str>, client: &str) -> Rights {
        let mut rules = vec![];
        for action in [Action::Publish, Action::Subscribe] {
            rules.extend(allow.iter().map(|pattern| rule(Effect::Allow, action, pattern)));
            rules.extend(deny.iter().map(|pattern| rule(Effect::Deny, action, pattern)));
        }
        Rights::new(&rules, Identity { user, client })
    }

    fn may_both(rights: &Rights, topic: &str) -> bool {
        assert_eq!(rights.may_publish(topic), rights.may_read(topic), "{topic}");
        rights.may_read(topic)
    }

    #[test]
    fn names_stand_for_levels_and_for_parts_of_them() {
        let rights = rights(&["u/%u/c/%c", "x-%u.%c/100%/#"], &[], Some("alice"), "c1");
        for topic in ["u/alice/c/c1", "x-alice.c1/100%/y"] {
            assert!(may_both(&rights, topic), "{topic}");
        }
        for topic in ["u/bob/c/c1", "u/alice/c/c2", "u/%u/c/%c", "x-alice.c2/100%/y"] {
            assert!(!may_both(&rights, topic), "{topic}");
        }
    }

    #[test]
    fn a_name_that_reads_like_a_placeholder_stays_what_it_is() {
        let rights = rights(&["app/%u/#"], &[], Some("%c"), "alice");
        assert!(!may_both(&rights, "app/alice/x"));
        assert!(may_both(&rights, "app/%c/x"));
    }

    #[test]
    fn a_dangerous_name_allows_nothing() {
        for name in ["+", "#", "a/b", "a+", "x#", "/", "a\0", ""] {
            for pattern in ["app/%u/#", "app/%u", "app/x%u/#", "%u/#", "app/%u/%u"] {
                let by_user = rights(&[pattern], &[], Some(name), "c");
                let by_client = rights(&[&pattern.replace("%u", "%c")], &[], None, name);
                for rights in [by_user, by_client] {
                    assert_eq!(rights.may_subscribe("#"), Grant::Refused, "{name:?} {pattern}");
                    for topic in ["app/a/b", "app/+/x", "app/alice/x", "a/b", "app/xa/b", "app//"] {
                        assert!(!may_both(&rights, topic), "{name:?} {pattern} {topic}");
                    }
                }
            }
        }
    }

    proptest! {
        #[test]
        fn a_name_opens_its_own_level_whatever_is_in_it(
            name in "[a/+#$%uc\0]{0,4}", other in "[a/$%uc]{1,4}"
        ) {
            let pattern = "%c/app/x%u/#";
            let rights = rights(&[pattern], &[], Some(&name), &name);
            for level in [&name, &other] {
                for topic in [format!("{level}/app/x{level}"), format!("{other}/app/x{level}/y")] {
                    let levels: Vec<_> = topic.split('/').collect();
                    let is_own = levels[0] == name && levels.get(2) == Some(&&*format!("x{name}"));
                    prop_assert!(is_own || !may_both(&rights, &topic), "{topic}");
                }
            }
            let is_plain = !name.is_empty()
                && !name.contains(['/', '+', '#', '\0'])
                && !name.starts_with('$');
            let own = format!("{name}/app/x{name}/y");
            prop_assert_eq!(may_both(&rights, &own), is_plain);
        }
    }

    #[test]
    fn a_name_does_not_open_the_brokers_own_topics() {
        let rights = rights(&["%u/#", "%c/#", "x/%u/#"], &[], Some("$SYS"), "$SYS");
        assert!(!may_both(&rights, "$SYS/broker/uptime"));
        assert_eq!(rights.may_subscribe("$SYS/#"), Grant::Refused);
        assert!(may_both(&rights, "x/$SYS/y"));
    }

    #[test]
    fn who_did_not_sign_in_is_not_meant_by_a_user_name() {
        let rights = rights(&["app/%u/#", "id/%c"], &["%u/#"], None, "c");
        assert!(may_both(&rights, "id/c"));
        assert!(!may_both(&rights, "app//x"));
    }

    #[test]
    fn a_dangerous_name_does_not_shed_what_is_denied_to_it() {
        let rights = rights(&["#", "$SYS/#"], &["data/%c/x", "%c/y"], None, "a/b");
        assert!(!may_both(&rights, "data/a/b/x"));
        assert!(!may_both(&rights, "a/b/y"));
        assert!(may_both(&rights, "data/a/c/x"));
        let rights = super::tests::rights(&["#", "$SYS/#"], &["%c/y"], None, "$SYS");
        assert!(!may_both(&rights, "$SYS/y"));
        assert!(may_both(&rights, "$SYS/z"));
    }

    #[test]
    fn deny_beats_allow_in_any_order() {
        let allow = rule(Effect::Allow, Action::Publish, "a/#");
        let deny = rule(Effect::Deny, Action::Publish, "a/secret/#");
        let who = Identity { user: None, client: "c" };
        for rules in [[&allow, &deny], [&deny, &allow]] {
            let rights = Rights::new(rules, who);
            assert!(rights.may_publish("a/b"));
            assert!(!rights.may_publish("a/secret"));
        }
    }

    #[test]
    fn publishing_and_reading_are_apart() {
        let who = Identity { user: None, client: "c" };
        let rights = Rights::new(&[rule(Effect::Allow, Action::Publish, "#")], who);
        assert!(rights.may_publish("a"));
        assert!(!rights.may_read("a"));
        assert_eq!(rights.may_subscribe("a"), Grant::Refused);
        let rights = Rights::new(&[rule(Effect::Allow, Action::Subscribe, "#")], who);
        assert!(!rights.may_publish("a"));
        assert!(rights.may_read("a"));
        assert_eq!(rights.may_subscribe("a"), Grant::Granted);
    }

    #[test]
    fn a_subscription_is_granted_checked_or_refused() {
        let rights = rights(&["a/#", "$SYS/broker/#"], &["a/secret"], None, "c");
        for (filter, grant) in [
            ("a/b/#", Grant::Granted),
            ("a/b", Grant::Granted),
            ("a/#", Grant::Checked),
            ("#", Grant::Checked),
            ("a/secret", Grant::Refused),
            ("b/#", Grant::Refused),
            ("$SYS/broker/+", Grant::Granted),
            ("$SYS/#", Grant::Checked),
            ("a/#/b", Grant::Refused),
            ("", Grant::Refused),
        ] {
            assert_eq!(rights.may_subscribe(filter), grant, "{filter}");
        }
    }

    #[test]
    fn a_shared_subscription_is_judged_by_its_inner_filter() {
        let rights = rights(&["a/#"], &[], None, "c");
        for (filter, grant) in [
            ("$share/g/a/b", Grant::Granted),
            ("$share/g/#", Grant::Checked),
            ("$share/a/b", Grant::Refused),
            ("$share/a", Grant::Refused),
            ("$share//a/b", Grant::Refused),
            ("$share/+/a/b", Grant::Refused),
            ("$share/g/", Grant::Refused),
        ] {
            assert_eq!(rights.may_subscribe(filter), grant, "{filter}");
        }
        assert_eq!(Rights::everything().may_subscribe("$share/g/"), Grant::Refused);
    }

    #[test]
    fn wildcards_do_not_reach_the_brokers_own_topics() {
        let wide = rights(&["#", "+/broker/uptime"], &[], None, "c");
        assert!(!may_both(&wide, "$SYS/broker/uptime"));
        assert_eq!(wide.may_subscribe("$SYS/#"), Grant::Refused);
        assert_eq!(wide.may_subscribe("#"), Grant::Granted);
    }

    #[test]
    fn everything_is_every_topic_and_filter_but_nothing_else() {
        let rights = Rights::everything().clone();
        for topic in ["a", "$SYS/broker/uptime", "/"] {
            assert!(may_both(&rights, topic), "{topic}");
            assert_eq!(rights.may_subscribe(topic), Grant::Granted);
        }
        for topic in ["", "a/+", "#", "a\0"] {
            assert!(!may_both(&rights, topic), "{topic:?}");
        }
        assert_eq!(rights.may_subscribe("#"), Grant::Granted);
        assert_eq!(rights.may_subscribe("a/#/b"), Grant::Refused);
    }

    #[test]
    fn a_wildcard_in_a_topic_is_never_matched() {
        let rights = rights(&["#"], &[], None, "c");
        for topic in ["", "+", "a/#", "a\0"] {
            assert!(!may_both(&rights, topic), "{topic:?}");
        }
    }
}
