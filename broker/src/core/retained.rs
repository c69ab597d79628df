//! Retained messages: the last of each topic.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use bytestring::ByteString;

use crate::core::tree::matches;
use crate::message::Message;

/// The last message of each topic that was published to be kept.
#[derive(Debug, Default)]
pub(crate) struct Retained {
    by_topic: BTreeMap<ByteString, Arc<Message>>,
    /// When those end that do.
    ends: BTreeSet<(u64, ByteString)>,
    /// Without the broker's own.
    count: usize,
    bytes: usize,
}

impl Retained {
    /// How many there are, and what they weigh; the broker's own are not counted.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.count, self.bytes)
    }

    /// Keeps a message in place of what its topic had.
    pub(crate) fn insert(&mut self, message: Arc<Message>) {
        let (count, weight) = weight(&message);
        self.count += count;
        self.bytes += weight;
        let end = message.expires_ms.map(|at| (at, message.topic.clone()));
        if let Some(old) = self.by_topic.insert(message.topic.clone(), message) {
            self.subtract(&old);
        }
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
        old.as_ref().inspect(|old| self.subtract(old)).is_some()
    }

    fn subtract(&mut self, old: &Message) {
        let (count, weight) = weight(old);
        self.count -= count;
        self.bytes -= weight;
        if let Some(at) = old.expires_ms {
            self.ends.remove(&(at, old.topic.clone()));
        }
    }

    pub(crate) fn get(&self, topic: &str) -> Option<&Arc<Message>> {
        self.by_topic.get(topic)
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
            .map(|(_, message)| message)
    }
}

/// True for what the broker says of itself. No client may publish there.
pub(super) fn is_own(topic: &str) -> bool {
    topic.starts_with("$SYS/")
}

/// What a message counts and weighs against the limits.
fn weight(message: &Message) -> (usize, usize) {
    if is_own(&message.topic) { (0, 0) } else { (1, message.weight()) }
}
