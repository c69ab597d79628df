//! Shared subscriptions: one of a group's members has each message.

use std::cell::Cell;

use bytestring::ByteString;
use indexmap::IndexSet;

/// What the filter of a shared subscription begins with.
pub(crate) const SHARED: &str = "$share/";

/// A group's name and the filter that it shares.
pub(crate) type ShareKey = (ByteString, ByteString);

/// The members of a shared subscription, by their sessions' keys.
#[derive(Debug)]
pub(crate) struct Share {
    pub(crate) name: ShareKey,
    /// As its members call it.
    pub(crate) text: ByteString,
    /// Those with a connection, and the others.
    here: IndexSet<usize>,
    away: IndexSet<usize>,
    next: Cell<usize>,
}

impl Share {
    /// A group of nobody.
    pub(crate) fn new(name: ShareKey, text: ByteString) -> Self {
        let (here, away) = (IndexSet::new(), IndexSet::new());
        Self { name, text, here, away, next: Cell::new(0) }
    }

    /// Adds a member, or notes that it has come or gone.
    pub(crate) fn join(&mut self, session: usize, is_here: bool) {
        self.here.swap_remove(&session);
        self.away.swap_remove(&session);
        let side = if is_here { &mut self.here } else { &mut self.away };
        side.insert(session);
    }

    /// Removes a member; true when nobody is left.
    pub(crate) fn leave(&mut self, session: usize) -> bool {
        self.here.swap_remove(&session);
        self.away.swap_remove(&session);
        self.here.is_empty() && self.away.is_empty()
    }

    /// Whose turn it is of those with a connection: the next that is `best`, else the next that is
    /// `good`.
    pub(crate) fn choose(
        &self,
        best: impl Fn(usize) -> bool,
        good: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        self.turn(&self.here, best).or_else(|| self.turn(&self.here, good))
    }

    /// The next that is `good` of those without one.
    pub(crate) fn choose_away(&self, good: impl Fn(usize) -> bool) -> Option<usize> {
        self.turn(&self.away, good)
    }

    fn turn(&self, members: &IndexSet<usize>, is_fit: impl Fn(usize) -> bool) -> Option<usize> {
        let count = members.len();
        let turns = (0..count).map(|turn| (self.next.get() + turn) % count);
        let mut chosen = turns.map(|at| (at, members[at]));
        let (at, member) = chosen.find(|(_, member)| is_fit(*member))?;
        self.next.set(at + 1);
        Some(member)
    }
}

/// Group and filter of `$share/GROUP/FILTER`; the filter alone of any other. `None` for one that
/// is no filter (MQTT 4.8.2).
pub(crate) fn parse(text: &ByteString) -> Option<(Option<ByteString>, ByteString)> {
    let Some(rest) = text.strip_prefix(SHARED) else {
        return super::tree::is_filter(text).then(|| (None, text.clone()));
    };
    let (group, filter) = rest.split_once('/')?;
    let is_fine = !group.is_empty() && !group.contains(['+', '#']);
    (is_fine && super::tree::is_filter(filter)).then(|| (Some(group.into()), filter.into()))
}

/// True for what clients may subscribe to, by themselves or in a group.
pub(crate) fn is_filter(text: &ByteString) -> bool {
    parse(text).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_taken_by_those_who_can() {
        let mut share = Share::new(("g".into(), "t".into()), "$share/g/t".into());
        (0..3).for_each(|session| share.join(session, true));
        (1..5).for_each(|session| share.join(session, session < 3));
        let turn = |best: &[usize], good: &[usize]| {
            share.choose(|s| best.contains(&s), |s| good.contains(&s))
        };
        let all = [0, 1, 2, 3, 4];
        let mut turns: Vec<_> = (0..6).map(|_| turn(&all, &all)).collect();
        assert_eq!(turns[..3], turns[3..]);
        turns[..3].sort();
        assert_eq!(turns[..3], [0, 1, 2].map(Some));
        assert_eq!(turn(&[2], &all), Some(2));
        assert_eq!(turn(&[], &[1]), Some(1));
        assert_eq!((turn(&[], &[]), turn(&[3], &[4])), (None, None));
        assert_eq!(share.choose_away(|s| s != 3), Some(4));
        assert!((0..4).all(|session| !share.leave(session)) && share.leave(4));
    }

    #[test]
    fn a_group_has_a_name_and_a_filter() {
        let parsed = |text: &str| parse(&text.into());
        assert_eq!(parsed("$share/g/a/+"), Some((Some("g".into()), "a/+".into())));
        assert_eq!(parsed("a/#"), Some((None, "a/#".into())));
        for bad in ["$share/g", "$share//a", "$share/+/a", "$share/g/", "$share/g/a#", "a/#/b"] {
            assert_eq!(parsed(bad), None, "{bad}");
        }
    }
}
