//! Retained messages: the last of each topic.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytestring::ByteString;

use crate::core::tree::matches;
use crate::message::Message;

/// The last message of each topic that was published to be kept.
#[derive(Debug, Default)]
pub(crate) struct Retained {
    by_topic: BTreeMap<ByteString, Arc<Message>>,
    bytes: usize,
}

impl Retained {
    /// How many there are, and what they weigh.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.by_topic.len(), self.bytes)
    }

    /// Keeps a message in place of what its topic had.
    pub(crate) fn insert(&mut self, message: Arc<Message>) {
        self.bytes += message.weight();
        if let Some(old) = self.by_topic.insert(message.topic.clone(), message) {
            self.bytes -= old.weight();
        }
    }

    /// Forgets a topic's; false when it had none.
    pub(crate) fn remove(&mut self, topic: &str) -> bool {
        let old = self.by_topic.remove(topic);
        self.bytes -= old.as_ref().map_or(0, |old| old.weight());
        old.is_some()
    }

    pub(crate) fn get(&self, topic: &str) -> Option<&Arc<Message>> {
        self.by_topic.get(topic)
    }

    /// Those whose topics the filter matches, in the order of their topics.
    pub(crate) fn matching<'a>(
        &'a self,
        filter: &'a str,
    ) -> impl Iterator<Item = &'a Arc<Message>> {
        // Up to the first wildcard every match begins as the filter does.
        let wild = filter.find(['+', '#']).unwrap_or(filter.len());
        let prefix = filter[..wild].trim_end_matches('/');
        self.by_topic
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(move |(topic, _)| topic.starts_with(prefix))
            .filter(move |(topic, _)| matches(filter, topic))
            .map(|(_, message)| message)
    }
}
