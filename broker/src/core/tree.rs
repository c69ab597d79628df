//! Who subscribed to what: filters as a tree of topic levels.
//!
//! A topic is looked up in one walk, level by level; at each level at most two ways lead on, the
//! level's own name and `+`. Nothing is kept of a filter that nobody holds any more.

use std::collections::HashMap;

/// No topic or filter has more levels. A tree is as deep as the deepest filter, and walking it takes
/// as much of the stack.
const MAX_LEVELS: usize = 200;

/// A value for each topic filter.
#[derive(Debug)]
pub(crate) struct Tree<V> {
    root: Node<V>,
}

/// What is left of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    Something,
    Nothing,
}

#[derive(Debug)]
struct Node<V> {
    children: HashMap<Box<str>, Node<V>>,
    any: Option<Box<Node<V>>>,
    /// Of the filter that ends here.
    here: Option<Box<V>>,
    /// Of the filter that ends with a `#` here.
    below: Option<Box<V>>,
}

impl<V> Default for Node<V> {
    fn default() -> Self {
        Self { children: HashMap::new(), any: None, here: None, below: None }
    }
}

impl<V> Default for Tree<V> {
    fn default() -> Self {
        Self { root: Node::default() }
    }
}

impl<V> Tree<V> {
    /// The value of a filter, made where there is none.
    pub(crate) fn entry(&mut self, filter: &str) -> &mut V
    where
        V: Default,
    {
        self.place(filter).get_or_insert_default()
    }

    /// The value of a filter.
    pub(crate) fn get(&self, filter: &str) -> Option<&V> {
        let mut node = &self.root;
        for level in filter.split('/') {
            node = match level {
                "#" => return node.below.as_deref(),
                "+" => node.any.as_deref()?,
                name => node.children.get(name)?,
            };
        }
        node.here.as_deref()
    }

    /// Changes the value of a filter, if it has one, and forgets it where `change` says that nothing
    /// is left of it.
    pub(crate) fn change(&mut self, filter: &str, change: impl FnOnce(&mut V) -> Left) {
        let place = self.place(filter);
        if place.as_mut().is_none_or(|value| change(value) == Left::Nothing) {
            *place = None;
            let levels: Vec<&str> = filter.split('/').filter(|level| *level != "#").collect();
            self.root.prune(&levels);
        }
    }

    fn place(&mut self, filter: &str) -> &mut Option<Box<V>> {
        let mut node = &mut self.root;
        for level in filter.split('/') {
            match level {
                "#" => return &mut node.below,
                "+" => node = node.any.get_or_insert_default(),
                name => {
                    if !node.children.contains_key(name) {
                        node.children.insert(name.into(), Node::default());
                    }
                    // Put there above where it was not.
                    node = node.children.entry(name.into()).or_default();
                }
            }
        }
        &mut node.here
    }

    /// Calls `found` with the value of every filter that matches the topic.
    pub(crate) fn matching(&self, topic: &str, found: &mut impl FnMut(&V)) {
        self.root.matching(Some(topic), topic.starts_with('$'), found);
    }
}

impl<V> Node<V> {
    fn is_empty(&self) -> bool {
        self.children.is_empty()
            && self.any.is_none()
            && self.here.is_none()
            && self.below.is_none()
    }

    /// Removes the way to a filter as far as nobody else uses it.
    fn prune(&mut self, levels: &[&str]) {
        let Some((first, rest)) = levels.split_first() else { return };
        if *first == "+" {
            if let Some(any) = &mut self.any {
                any.prune(rest);
                if any.is_empty() {
                    self.any = None;
                }
            }
        } else if let Some(child) = self.children.get_mut(*first) {
            child.prune(rest);
            if child.is_empty() {
                self.children.remove(*first);
            }
        }
    }

    /// `rest` is what is left of the topic, `None` past its last level. Wildcards at the first
    /// level match no topic that begins with `$` (MQTT 4.7.2).
    fn matching(&self, rest: Option<&str>, is_special: bool, found: &mut impl FnMut(&V)) {
        if !is_special {
            // `a/#` matches `a` as well.
            self.below.iter().for_each(|value| found(value));
        }
        let Some(rest) = rest else {
            self.here.iter().for_each(|value| found(value));
            return;
        };
        let (level, rest) = match rest.split_once('/') {
            Some((level, rest)) => (level, Some(rest)),
            None => (rest, None),
        };
        if let Some(child) = self.children.get(level) {
            child.matching(rest, false, found);
        }
        if let Some(any) = self.any.as_ref().filter(|_| !is_special) {
            any.matching(rest, false, found);
        }
    }
}

/// True for a filter that clients may subscribe to (MQTT 4.7.1).
pub(crate) fn is_filter(filter: &str) -> bool {
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let is_last = levels.peek().is_none();
        let is_fine = match level {
            "#" => is_last,
            "+" => true,
            name => !name.contains(['+', '#']),
        };
        if !is_fine {
            return false;
        }
    }
    !filter.is_empty() && !filter.contains('\0') && !is_too_deep(filter)
}

/// True for a topic that clients may publish to.
pub(crate) fn is_topic(topic: &str) -> bool {
    !topic.is_empty() && !topic.contains(['+', '#', '\0']) && !is_too_deep(topic)
}

fn is_too_deep(text: &str) -> bool {
    text.bytes().filter(|byte| *byte == b'/').count() >= MAX_LEVELS
}

/// True where the filter matches the topic.
pub(crate) fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let (mut filter, mut topic) = (filter.split('/'), topic.split('/'));
    loop {
        match (filter.next(), topic.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(_)) => {}
            (Some(wanted), Some(level)) if wanted == level => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(tree: &Tree<Vec<u32>>, topic: &str) -> Vec<u32> {
        let mut all = Vec::new();
        tree.matching(topic, &mut |values| all.extend(values));
        all.sort_unstable();
        all
    }

    #[test]
    fn the_examples_of_the_standard_hold() {
        for (filter, topic, is_match) in [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
            ("sport/#", "sport", true),
            ("sport/tennis/+", "sport/tennis/player1", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("#", "$SYS/x", false),
            ("+/monitor/Clients", "$SYS/monitor/Clients", false),
            ("$SYS/#", "$SYS/x", true),
            ("$SYS/monitor/+", "$SYS/monitor/Clients", true),
        ] {
            assert_eq!(matches(filter, topic), is_match, "{filter} {topic}");
        }
        for filter in ["sport/tennis#", "sport/#/ranking", "sport+", "", "a/+b"] {
            assert!(!is_filter(filter), "{filter}");
        }
        assert!(is_filter("+/tennis/#") && is_filter("/") && is_filter("#"));
    }

    fn level() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec!["a", "b", "", "$x"])
    }

    fn filter() -> impl Strategy<Value = String> {
        let level = prop_oneof![3 => level(), 1 => Just("+")];
        (prop::collection::vec(level, 1..4), any::<bool>()).prop_map(|(mut levels, has_rest)| {
            if has_rest {
                levels.push("#");
            }
            levels.join("/")
        })
    }

    proptest! {
        #[test]
        fn a_walk_finds_what_each_filter_by_itself_would(
            filters in prop::collection::vec(filter(), 0..12),
            topic in prop::collection::vec(level(), 1..5),
            gone in any::<prop::sample::Index>(),
        ) {
            let topic = topic.join("/");
            let mut tree = Tree::<Vec<u32>>::default();
            for (number, filter) in filters.iter().enumerate() {
                tree.entry(filter).push(number as u32);
            }
            let of = |filters: &[String], except: Option<usize>| -> Vec<u32> {
                let hits = filters.iter().enumerate();
                let hits = hits.filter(|(n, f)| Some(*n) != except && matches(f, &topic));
                hits.map(|(n, _)| n as u32).collect()
            };
            prop_assert_eq!(found(&tree, &topic), of(&filters, None));
            let remove = |tree: &mut Tree<Vec<u32>>, number: usize| {
                tree.change(&filters[number], |values| {
                    values.retain(|value| *value != number as u32);
                    if values.is_empty() { Left::Nothing } else { Left::Something }
                });
            };
            if !filters.is_empty() {
                let gone = gone.index(filters.len());
                remove(&mut tree, gone);
                prop_assert_eq!(found(&tree, &topic), of(&filters, Some(gone)));
            }
            (0..filters.len()).for_each(|number| remove(&mut tree, number));
            prop_assert!(tree.root.is_empty(), "something is kept of what nobody holds");
        }
    }
}
