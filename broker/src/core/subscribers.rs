//! Who subscribed to one filter.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use bytestring::ByteString;
use indexmap::IndexMap;
use rmqtt_codec::v5::SubscriptionOptions;

use crate::core::share::Share;
use crate::core::tree::Left;

/// The subscribers of one filter, by the keys of their sessions. Coming and going costs the same
/// however many there are.
#[derive(Debug, Default)]
pub(super) struct Subscribers {
    own: IndexMap<usize, Own>,
    shares: BTreeMap<Group, Share>,
}

/// A group: its members' [realm](super::Session), and its name there.
pub(super) type Group = (Option<ByteString>, ByteString);

/// A session's own subscription.
#[derive(Debug, Clone, Copy)]
pub(super) struct Own {
    pub(super) options: SubscriptionOptions,
    pub(super) id: Option<NonZeroU32>,
    pub(super) is_checked: bool,
}

impl Subscribers {
    pub(super) fn own(&self) -> impl Iterator<Item = (usize, &Own)> {
        self.own.iter().map(|(key, own)| (*key, own))
    }

    pub(super) fn shares(&self) -> impl Iterator<Item = &Share> {
        self.shares.values()
    }

    pub(super) fn share(&self, group: &Group) -> Option<&Share> {
        self.shares.get(group)
    }

    /// Adds a session's own subscription, in place of one that it had.
    pub(super) fn put(&mut self, key: usize, own: Own) {
        self.own.insert(key, own);
    }

    /// Removes a session's own subscription.
    pub(super) fn remove(&mut self, key: usize) -> Left {
        self.own.swap_remove(&key);
        self.left()
    }

    /// The group of that name, made by `new` where there is none.
    pub(super) fn share_or(&mut self, group: Group, new: impl FnOnce() -> Share) -> &mut Share {
        self.shares.entry(group).or_insert_with(new)
    }

    /// Removes a session from a group, which ends with its last member; true if it has ended.
    pub(super) fn leave(&mut self, group: &Group, key: usize) -> (bool, Left) {
        let has_ended = self.shares.get_mut(group).is_some_and(|share| share.leave(key));
        if has_ended {
            self.shares.remove(group);
        }
        (has_ended, self.left())
    }

    fn left(&self) -> Left {
        match self.own.is_empty() && self.shares.is_empty() {
            true => Left::Nothing,
            false => Left::Something,
        }
    }
}
