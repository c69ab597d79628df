//! Topic filters as sets of topics: what one matches, and how two relate.
//!
//! A topic whose first level begins with `$` is hidden from wildcards (MQTT 4.7.2): only
//! a filter that writes that level out matches it. `covers` and `overlaps` are exact,
//! that rule included.

use std::fmt;
use std::str::{FromStr, Split};

/// The longest text that MQTT can carry.
const LONGEST_BYTES: usize = 65_535;

/// A valid topic filter.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Filter(Box<str>);

/// Why a text is not a topic filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// There is no text.
    #[error("a filter cannot be empty: name a topic, or `#` for all")]
    Empty,
    /// The text has more bytes than MQTT can carry.
    #[error("a filter of {0} bytes is too long: {LONGEST_BYTES} are the most")]
    TooLong(usize),
    /// The text holds a NUL character.
    #[error("`{}` holds a NUL character: take it out", .0.escape_default())]
    Nul(String),
    /// `#` in the middle, or beside other characters.
    #[error("`{0}` cannot be a filter: `#` must be the whole of the last level")]
    Hash(String),
    /// `+` beside other characters.
    #[error("`{0}` cannot be a filter: `+` must be the whole of its level")]
    Plus(String),
}

/// True when a message can be published to `text`: not empty, no wildcard, no NUL.
pub fn is_topic(text: &str) -> bool {
    (1..=LONGEST_BYTES).contains(&text.len()) && !text.contains(['+', '#', '\0'])
}

impl Filter {
    /// A filter that this module's siblings wrote themselves.
    pub(super) fn known(text: String) -> Self {
        debug_assert_eq!(text.parse::<Self>().map(drop), Ok(()));
        Self(text.into())
    }

    /// The filter as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The levels, in order; `#` can only be the last.
    pub(super) fn levels(&self) -> Split<'_, char> {
        self.0.split('/')
    }

    /// True when a message on `topic`, which must be a topic, is delivered for this filter.
    pub fn matches(&self, topic: &str) -> bool {
        if self.begins_with_wildcard() && topic.starts_with('$') {
            return false;
        }
        let mut names = topic.split('/');
        for level in self.levels() {
            match (level, names.next()) {
                ("#", _) => return true,
                ("+", Some(_)) => {}
                (level, Some(name)) if level == name => {}
                _ => return false,
            }
        }
        names.next().is_none()
    }

    /// True when every topic that `other` matches is matched by this filter.
    pub fn covers(&self, other: &Self) -> bool {
        if self.begins_with_wildcard() && other.0.starts_with('$') {
            return false;
        }
        // Every topic has a first level, so this says what `#` says. Further down it
        // would not: `a/#` matches `a`, `a/+/#` does not.
        if &*self.0 == "+/#" {
            return true;
        }
        let mut theirs = other.levels();
        for level in self.levels() {
            match (level, theirs.next()) {
                ("#", _) => return true,
                ("+", Some(their)) if their != "#" => {}
                (level, Some(their)) if level == their => {}
                _ => return false,
            }
        }
        theirs.next().is_none()
    }

    /// True when some topic is matched by both filters.
    pub fn overlaps(&self, other: &Self) -> bool {
        if self.begins_with_wildcard() && other.0.starts_with('$')
            || other.begins_with_wildcard() && self.0.starts_with('$')
        {
            return false;
        }
        let (mut ours, mut theirs) = (self.levels(), other.levels());
        loop {
            match (ours.next(), theirs.next()) {
                (Some("#"), _) | (_, Some("#")) | (None, None) => return true,
                (Some(our), Some(their)) if our == their || our == "+" || their == "+" => {}
                _ => return false,
            }
        }
    }

    fn begins_with_wildcard(&self) -> bool {
        self.0.starts_with(['+', '#'])
    }
}

impl FromStr for Filter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        if text.is_empty() {
            return Err(FilterError::Empty);
        }
        if text.len() > LONGEST_BYTES {
            return Err(FilterError::TooLong(text.len()));
        }
        if text.contains('\0') {
            return Err(FilterError::Nul(text.into()));
        }
        let mut levels = text.split('/').peekable();
        while let Some(level) = levels.next() {
            if level.contains('#') && (level != "#" || levels.peek().is_some()) {
                return Err(FilterError::Hash(text.into()));
            }
            if level.contains('+') && level != "+" {
                return Err(FilterError::Plus(text.into()));
            }
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::LazyLock;

    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    /// Filters of up to three levels: every relation between them shows on some of
    /// [`TOPICS`].
    pub(in crate::access) fn any_filter() -> impl Strategy<Value = Filter> {
        let level = || select(vec!["a", "b", "$s", "+", "+"]);
        let last = select(vec!["a", "b", "", "+", "#", "#"]);
        (vec(level(), 0..3), last)
            .prop_map(|(mut levels, last)| {
                levels.push(last);
                levels.join("/")
            })
            .prop_filter_map("empty", |text| text.parse().ok())
    }

    /// All topics of up to four levels over the names of the filters and a fresh one.
    pub(in crate::access) static TOPICS: LazyLock<Vec<String>> = LazyLock::new(|| {
        let names = ["a", "b", "", "$s", "fresh"];
        let mut row = names.map(String::from).to_vec();
        let mut all = row.clone();
        for _ in 1..4 {
            let deeper = |stem: &String| names.map(|name| format!("{stem}/{name}"));
            row = row.iter().flat_map(deeper).collect();
            all.extend_from_slice(&row);
        }
        all.retain(|topic| is_topic(topic));
        all
    });

    /// MQTT 4.7 word by word, for comparison.
    fn matches_by_the_book(filter: &[&str], topic: &[&str]) -> bool {
        match (filter, topic) {
            ([], []) | (["#"], _) => true,
            ([level, filter @ ..], [name, topic @ ..]) => {
                (level == name || *level == "+") && matches_by_the_book(filter, topic)
            }
            _ => false,
        }
    }

    fn filter(text: &str) -> Filter {
        text.parse().unwrap()
    }

    #[test]
    fn every_small_filter_matches_what_the_book_says() {
        let mut filters = vec![];
        for first in ["a", "$s", "+", "#", ""] {
            filters.push(first.to_owned());
            for second in ["a", "", "+", "#"] {
                filters.push(format!("{first}/{second}"));
                filters.extend(["b", "+", "#"].map(|third| format!("{first}/{second}/{third}")));
            }
        }
        for filter in filters.iter().filter_map(|text| text.parse::<Filter>().ok()) {
            let levels: Vec<_> = filter.levels().collect();
            for topic in &*TOPICS {
                let names: Vec<_> = topic.split('/').collect();
                let is_hidden = names[0].starts_with('$') && levels[0] != names[0];
                let expected = !is_hidden && matches_by_the_book(&levels, &names);
                assert_eq!(filter.matches(topic), expected, "{filter} {topic}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

        #[test]
        fn one_filter_covers_another_when_no_topic_says_otherwise(
            ours in any_filter(), theirs in any_filter()
        ) {
            let exception =
                TOPICS.iter().find(|topic| theirs.matches(topic) && !ours.matches(topic));
            prop_assert_eq!(ours.covers(&theirs), exception.is_none(), "{:?}", exception);
        }

        #[test]
        fn two_filters_overlap_when_a_topic_shows_it(
            ours in any_filter(), theirs in any_filter()
        ) {
            let witness =
                TOPICS.iter().find(|topic| theirs.matches(topic) && ours.matches(topic));
            prop_assert_eq!(ours.overlaps(&theirs), witness.is_some(), "{:?}", witness);
        }
    }

    #[test]
    fn the_corners_of_covering_hold() {
        for (ours, theirs) in [("#", "+/#"), ("+/#", "#"), ("a/#", "a"), ("$s/#", "$s"), ("+", "a")]
        {
            assert!(filter(ours).covers(&filter(theirs)), "{ours} {theirs}");
        }
        for (ours, theirs) in [("#", "$s"), ("+/#", "$s/a"), ("a/+/#", "a/#"), ("+", "#")] {
            assert!(!filter(ours).covers(&filter(theirs)), "{ours} {theirs}");
        }
    }

    #[test]
    fn a_misplaced_wildcard_is_named() {
        for text in ["a#", "a/#/b", "#/", "##"] {
            assert_eq!(text.parse::<Filter>(), Err(FilterError::Hash(text.into())));
        }
        for text in ["a+", "a/+b/c", "++"] {
            assert_eq!(text.parse::<Filter>(), Err(FilterError::Plus(text.into())));
        }
        assert_eq!("".parse::<Filter>(), Err(FilterError::Empty));
        assert_eq!("a\0".parse::<Filter>(), Err(FilterError::Nul("a\0".into())));
        let long = "a".repeat(65_536);
        assert_eq!(long.parse::<Filter>(), Err(FilterError::TooLong(65_536)));
    }

    #[test]
    fn a_topic_has_no_wildcard_and_an_end() {
        for text in ["", "a/+", "#", "a\0"] {
            assert!(!is_topic(text), "{text}");
        }
        assert!(!is_topic(&"a".repeat(65_536)));
        assert!(is_topic("/"));
    }
}
