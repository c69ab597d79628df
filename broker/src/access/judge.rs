//! One filter against many rules: may all, some or none of its topics be read?
//!
//! A rule may allow what another denies, and several narrow rules may together allow
//! what none does alone, so the topics of the filter are searched, level by level. Names
//! that no rule writes out all fare alike: one stands for them. Rules that have fallen
//! behind are dropped, and once those left all end in `#`, deeper topics fare alike too,
//! which is what makes the search finite.

use std::collections::BTreeSet;

use super::filter::Filter;
use super::rules::Effect;

/// How many rules the search may look at before it settles for the cautious answer.
/// Rules that a person writes need a few hundred; entangled ones double at every level.
const PATIENCE: usize = 100_000;

/// How a subscription is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Grant {
    /// None of its topics may be read.
    Refused,
    /// Every one of its topics may be read: deliveries need no further question.
    Granted,
    /// Some of its topics may be read: every delivery must be asked for.
    Checked,
}

/// Judges `wanted`: exact, except that [`Grant::Checked`] is also the answer when the
/// rules are too entangled to tell.
pub(super) fn judge(wanted: &Filter, allow: &[Filter], deny: &[Filter]) -> Grant {
    let allow: Vec<_> = allow.iter().filter(|rule| rule.overlaps(wanted)).collect();
    let deny: Vec<_> = deny.iter().filter(|rule| rule.overlaps(wanted)).collect();
    if allow.is_empty() || deny.iter().any(|rule| rule.covers(wanted)) {
        return Grant::Refused;
    }
    if deny.is_empty() && allow.iter().any(|rule| rule.covers(wanted)) {
        return Grant::Granted;
    }
    search(wanted, &allow, &deny)
}

/// The search, among rules that overlap `wanted`: with that, `$` needs no further thought.
fn search(wanted: &Filter, allow: &[&Filter], deny: &[&Filter]) -> Grant {
    let wanted: Vec<_> = wanted.levels().collect();
    let allow = allow.iter().map(|rule| (Effect::Allow, rule));
    let deny = deny.iter().map(|rule| (Effect::Deny, rule));
    let rules: Vec<(Effect, Vec<&str>)> =
        allow.chain(deny).map(|(effect, rule)| (effect, rule.levels().collect())).collect();
    let remnants = rules.iter().map(|(effect, levels)| Remnant { effect: *effect, levels });
    let mut open = vec![Crossing { wanted: &wanted, ends: false, rules: remnants.collect() }];
    let (mut readable, mut hidden, mut looked_at) = (false, false, 0);
    while let Some(here) = open.pop() {
        if here.ends || here.is_uniform() {
            let may_read = here.may_read();
            readable |= may_read;
            hidden |= !may_read;
        }
        let names = if here.is_uniform() { BTreeSet::new() } else { here.names() };
        looked_at += names.len() * here.rules.len();
        if readable && hidden || looked_at > PATIENCE {
            return Grant::Checked;
        }
        open.extend(names.into_iter().map(|name| here.onward(name)));
    }
    if hidden { Grant::Refused } else { Grant::Granted }
}

/// One point of the search: what is left, behind the names walked so far, of the filter
/// and of the rules that match these names.
struct Crossing<'a> {
    wanted: &'a [&'a str],
    /// Whether the filter matches a topic that ends here.
    ends: bool,
    rules: Vec<Remnant<'a>>,
}

/// What is left of one rule.
#[derive(Clone, Copy)]
struct Remnant<'a> {
    effect: Effect,
    levels: &'a [&'a str],
}

impl<'a> Crossing<'a> {
    /// Whether a topic that ends here may be read.
    fn may_read(&self) -> bool {
        let is_met = |effect| {
            let mut rules = self.rules.iter().filter(|rule| rule.effect == effect);
            rules.any(|rule| matches!(rule.levels, [] | ["#"]))
        };
        is_met(Effect::Allow) && !is_met(Effect::Deny)
    }

    /// True when all topics from here on fare like one that ends here.
    fn is_uniform(&self) -> bool {
        self.rules.iter().all(|rule| rule.levels == ["#"])
            || self.rules.iter().all(|rule| rule.effect == Effect::Deny)
    }

    /// The names that make a difference at the next level; `None` stands for all others.
    fn names(&self) -> BTreeSet<Option<&'a str>> {
        match self.wanted.first() {
            None => BTreeSet::new(),
            Some(&"+" | &"#") => {
                let firsts = self.rules.iter().filter_map(|rule| rule.levels.first());
                let names = firsts.filter(|level| !matches!(**level, "+" | "#"));
                names.map(|name| Some(*name)).chain([None]).collect()
            }
            Some(name) => BTreeSet::from([Some(*name)]),
        }
    }

    /// The point behind `name`.
    fn onward(&self, name: Option<&str>) -> Self {
        let wanted = match self.wanted {
            [] | ["#"] => self.wanted,
            [_, rest @ ..] => rest,
        };
        let rules = self.rules.iter().filter_map(|rule| match rule.levels {
            ["#"] => Some(*rule),
            [level, rest @ ..] if *level == "+" || Some(*level) == name => {
                Some(Remnant { levels: rest, ..*rule })
            }
            _ => None,
        });
        Self { wanted, ends: matches!(wanted, [] | ["#"]), rules: rules.collect() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::filter::tests::{TOPICS, any_filter};
    use super::*;

    fn filters(texts: &[&str]) -> Vec<Filter> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn judged(wanted: &str, allow: &[&str], deny: &[&str]) -> Grant {
        judge(&wanted.parse().unwrap(), &filters(allow), &filters(deny))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

        #[test]
        fn a_grant_says_what_trying_every_topic_says(
            wanted in any_filter(),
            allow in vec(any_filter(), 0..5),
            deny in vec(any_filter(), 0..4),
        ) {
            let any = |rules: &[Filter], topic: &str| rules.iter().any(|rule| rule.matches(topic));
            let (readable, hidden): (Vec<_>, Vec<_>) = TOPICS.iter()
                .filter(|topic| wanted.matches(topic))
                .partition(|topic| any(&allow, topic) && !any(&deny, topic));
            let expected = match (readable.first(), hidden.first()) {
                (None, _) => Grant::Refused,
                (_, None) => Grant::Granted,
                _ => Grant::Checked,
            };
            prop_assert_eq!(judge(&wanted, &allow, &deny), expected);
        }
    }

    #[test]
    fn narrow_rules_grant_together_what_none_grants_alone() {
        assert_eq!(judged("a/#", &["a", "a/+", "a/+/+/#"], &[]), Grant::Granted);
        assert_eq!(judged("a/#", &["a", "a/+", "a/+/+/b/#"], &[]), Grant::Checked);
        assert_eq!(judged("a/+", &["a/b", "a/+"], &["b/#"]), Grant::Granted);
    }

    #[test]
    fn what_is_allowed_but_denied_everywhere_is_refused() {
        assert_eq!(judged("#", &["a/b", "a/c"], &["a/+"]), Grant::Refused);
        assert_eq!(judged("#", &["a/+"], &["a/b"]), Grant::Checked);
        assert_eq!(judged("a/#", &["#"], &["a", "a/+/#"]), Grant::Refused);
    }

    #[test]
    fn entangled_rules_are_answered_with_care_and_in_time() {
        let rule = |at: usize| {
            let levels: Vec<_> = (0..20).map(|level| if level == at { "x" } else { "+" }).collect();
            Filter::known(levels.join("/"))
        };
        let rules: Vec<_> = (0..20).map(rule).collect();
        assert_eq!(judge(&rule(20), &rules, &rules), Grant::Checked);
    }

    #[test]
    fn a_filter_of_very_many_levels_is_judged() {
        let deep = "+/".repeat(30_000) + "#";
        assert_eq!(judged(&deep, &["#"], &["a"]), Grant::Granted);
        assert_ne!(judged(&deep, &[&deep, "+/a/#"], &["a/b/#"]), Grant::Refused);
    }
}
