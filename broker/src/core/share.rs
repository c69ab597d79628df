//! Shared subscriptions: one of a group's members has each message.

use bytestring::ByteString;

/// A group and the filter that it shares.
pub(crate) type ShareKey = (ByteString, ByteString);

/// The members of a shared subscription, by their sessions' keys.
#[derive(Debug, Default)]
pub(crate) struct Share {
    members: Vec<usize>,
    next: usize,
}

impl Share {
    /// Adds a member; one that is in it already stays.
    pub(crate) fn join(&mut self, session: usize) {
        if !self.members.contains(&session) {
            self.members.push(session);
        }
    }

    /// Removes a member; true when nobody is left.
    pub(crate) fn leave(&mut self, session: usize) -> bool {
        self.members.retain(|member| *member != session);
        self.members.is_empty()
    }

    pub(crate) fn members(&self) -> impl Iterator<Item = usize> {
        self.members.iter().copied()
    }

    /// Whose turn it is: the next that is `best`, else the next that is `good`.
    pub(crate) fn choose(
        &mut self,
        best: impl Fn(usize) -> bool,
        good: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let count = self.members.len();
        let turns = || (0..count).map(|turn| (self.next + turn) % count);
        let at = turns()
            .find(|at| best(self.members[*at]))
            .or_else(|| turns().find(|at| good(self.members[*at])))?;
        self.next = at + 1;
        Some(self.members[at])
    }
}

/// Group and filter of `$share/GROUP/FILTER`; the filter alone of any other. `None` for one that
/// is no filter (MQTT 4.8.2).
pub(crate) fn parse(text: &ByteString) -> Option<(Option<ByteString>, ByteString)> {
    let Some(rest) = text.strip_prefix("$share/") else {
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
        let mut share = Share::default();
        (0..3).for_each(|session| share.join(session));
        share.join(1);
        let mut turn = |best: &[usize], good: &[usize]| {
            share.choose(|s| best.contains(&s), |s| good.contains(&s))
        };
        let all = [0, 1, 2];
        let turns: Vec<_> = (0..6).map(|_| turn(&all, &all)).collect();
        assert_eq!(turns, [0, 1, 2, 0, 1, 2].map(Some));
        assert_eq!(turn(&[2], &all), Some(2));
        assert_eq!(turn(&[], &[1]), Some(1));
        assert_eq!(turn(&[], &[]), None);
        assert!(!share.leave(0) && !share.leave(1) && share.leave(2));
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
