//! Retained messages: the last of each topic.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use bytestring::ByteString;

use crate::config::Limits;
use crate::core::holdings::Holdings;
use crate::core::tree::matches;
use crate::message::Message;

/// What is counted in [`Holdings`] of retained messages.
const MESSAGES: usize = 0;
const BYTES: usize = 1;

/// The last message of each topic that was published to be kept.
#[derive(Debug, Default)]
pub(crate) struct Retained {
    by_topic: BTreeMap<ByteString, Kept>,
    /// When those end that do.
    ends: BTreeSet<(u64, ByteString)>,
    /// Without the broker's own.
    held: Holdings<2>,
}

#[derive(Debug)]
struct Kept {
    message: Arc<Message>,
    /// Whose it is counted as; nobody's are the broker's own.
    holder: Option<usize>,
}

impl Retained {
    /// How many there are, and what they weigh; the broker's own are not counted.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.held.held(MESSAGES), self.held.held(BYTES))
    }

    /// Keeps a message in place of what its topic had.
    pub(crate) fn insert(&mut self, message: Arc<Message>, account: Option<&ByteString>) {
        let holder = (!is_own(&message.topic)).then(|| self.held.enter(account));
        if let Some(holder) = holder {
            self.held.add(holder, MESSAGES, 1);
            self.held.add(holder, BYTES, message.weight());
        }
        let topic = message.topic.clone();
        let end = message.expires_ms.map(|at| (at, topic.clone()));
        let old = self.by_topic.insert(topic, Kept { message, holder });
        self.subtract(old.as_ref());
        self.ends.extend(end);
    }

    /// When the first of them ends.
    pub(crate) fn first_end_ms(&self) -> Option<u64> {
        self.ends.first().map(|(at, _)| *at)
    }

    /// Forgets one whose time is over; its topic.
    pub(crate) fn remove_expired(&mut self, now_ms: u64) -> Option<ByteString> {
        self.first_end_ms().filter(|at| *at <= now_ms)?;
        let (_, topic) = self.ends.pop_first()?;
        self.remove(&topic);
        Some(topic)
    }

    /// Forgets a topic's; false when it had none.
    pub(crate) fn remove(&mut self, topic: &str) -> bool {
        let old = self.by_topic.remove(topic);
        self.subtract(old.as_ref());
        old.is_some()
    }

    fn subtract(&mut self, old: Option<&Kept>) {
        let Some(Kept { message, holder }) = old else { return };
        if let Some(at) = message.expires_ms {
            self.ends.remove(&(at, message.topic.clone()));
        }
        if let Some(holder) = *holder {
            self.held.remove(holder, MESSAGES, 1);
            self.held.remove(holder, BYTES, message.weight());
            self.held.leave(holder);
        }
    }

    /// Whether an account may have a message kept, in place of what its topic has.
    pub(crate) fn has_room(
        &mut self,
        message: &Message,
        account: Option<&ByteString>,
        limits: &Limits,
    ) -> bool {
        let old = self.get(&message.topic).map_or((0, 0), |old| (1, old.weight()));
        let (more, weight) = (1 - old.0, message.weight().saturating_sub(old.1));
        let holder = self.held.enter(account);
        let has_room = self.held.has_room(holder, MESSAGES, more, limits.max_retained)
            && self.held.has_room(holder, BYTES, weight, limits.max_retained_bytes);
        self.held.leave(holder);
        has_room
    }

    pub(crate) fn get(&self, topic: &str) -> Option<&Arc<Message>> {
        self.by_topic.get(topic).map(|kept| &kept.message)
    }

    /// Those whose topics the filter matches, in the order of their topics.
    pub(crate) fn matching<'a>(
        &'a self,
        filter: &'a str,
    ) -> impl Iterator<Item = &'a Arc<Message>> {
        self.matching_from(filter, Bound::Unbounded)
    }

    /// The same from a place in that order.
    pub(crate) fn matching_from<'a>(
        &'a self,
        filter: &'a str,
        from: Bound<&str>,
    ) -> impl Iterator<Item = &'a Arc<Message>> {
        // Up to the first wildcard every match begins as the filter does.
        let wild = filter.find(['+', '#']).unwrap_or(filter.len());
        let prefix = filter[..wild].trim_end_matches('/');
        let from = match from {
            Bound::Included(topic) | Bound::Excluded(topic) if topic >= prefix => from,
            _ => Bound::Included(prefix),
        };
        self.by_topic
            .range::<str, _>((from, Bound::Unbounded))
            .take_while(move |(topic, _)| topic.starts_with(prefix))
            .filter(move |(topic, _)| matches(filter, topic))
            .map(|(_, kept)| &kept.message)
    }
}

/// True for what the broker says of itself. No client may publish there.
pub(super) fn is_own(topic: &str) -> bool {
    topic.starts_with("$SYS/")
}
