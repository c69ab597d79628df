//! A bag of messages: any order, some lost, some twice, some very late; links that are cut.

use std::collections::BTreeSet;

use godwit_proto::migration::{Input, Message};

use crate::world::World;

/// How many messages of a kind are kept at most; the rest is lost.
const LIMIT: usize = 160;

/// A message under way.
#[derive(Debug, Clone)]
pub(crate) enum Letter {
    ToNode(usize, Input),
    ToController(usize, Message),
}

/// Everything under way.
#[derive(Debug, Default)]
pub(crate) struct Network {
    pub(crate) bag: Vec<Letter>,
    /// Copies that come late, perhaps after their sender has been replaced.
    pub(crate) late: Vec<Letter>,
    /// Nodes that do not hear the controller, and pairs of nodes that do not hear each other.
    pub(crate) deaf: BTreeSet<usize>,
    pub(crate) cuts: BTreeSet<(usize, usize)>,
}

impl Network {
    pub(crate) fn is_cut(&self, one: usize, other: usize) -> bool {
        self.cuts.contains(&(one.min(other), one.max(other)))
    }
}

impl World {
    pub(crate) fn post(&mut self, letter: Letter) {
        let fails = self.weather.messages_fail;
        if self.rng.chance(fails) {
            self.counts.add("messages lost");
            return;
        }
        let is_kept = self.bug.is_none_or(|bug| bug.keeps_late(&letter));
        if self.rng.chance(fails) && self.network.late.len() < LIMIT && is_kept {
            self.counts.add("messages late or twice");
            self.network.late.push(letter.clone());
        }
        if self.network.bag.len() < LIMIT {
            self.network.bag.push(letter);
        }
    }

    /// Delivers one message at random.
    pub(crate) fn deliver_any(&mut self, is_late: bool) {
        let letters = if is_late { &mut self.network.late } else { &mut self.network.bag };
        if letters.is_empty() {
            return;
        }
        let pick = self.rng.below(letters.len());
        let letter = letters.swap_remove(pick);
        let (Letter::ToNode(node, _) | Letter::ToController(node, _)) = letter;
        if self.network.deaf.contains(&node) {
            self.network.late.push(letter);
            return;
        }
        self.deliver(letter);
    }

    fn deliver(&mut self, letter: Letter) {
        match letter {
            _ if self.broken.is_some() => {}
            Letter::ToNode(node, input) => self.feed(node, input),
            Letter::ToController(node, message) => self.controller_hears(node, message),
        }
    }
}
