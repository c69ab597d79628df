//! A controller's run: how it comes to be obeyed, and how it learns that it is not.
//!
//! Every start claims a generation above every one that its database or any node
//! knows. A node binds its promise to its life; when a life changes, the run
//! claims again, higher, and every node reports anew under it.

use std::collections::BTreeMap;

use super::event::Message;
use crate::id::{Life, NodeId, Run};

/// What a claim asks for, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimEffect {
    /// Write the generation and sync it before the next effect; every attempt is taken
    /// up again under the new run, all reports forgotten.
    Persist(Run),
    /// Send a claim.
    Claim {
        /// To whom.
        node: NodeId,
        /// The run to be promised.
        run: Run,
        /// The life that is believed.
        life: Life,
    },
    /// Another controller is obeyed. Stop, and say so.
    Superseded {
        /// The node that said it.
        node: NodeId,
        /// The run that it obeys.
        by: Run,
    },
}

#[derive(Debug, Clone, Copy)]
struct Known {
    life: Life,
    has_promised: bool,
}

/// The machine of one controller process.
#[derive(Debug)]
pub struct Claims {
    run: Run,
    /// The run is on disk. Before it is, nobody is asked to obey it.
    is_persisted: bool,
    nodes: BTreeMap<NodeId, Known>,
    is_superseded: bool,
}

impl Claims {
    /// Starts above the generation in the database. `nonce` is random, one for each
    /// process. The first effect persists the run.
    pub fn start(stored_generation: u32, nonce: u64) -> (Self, Vec<ClaimEffect>) {
        let run = Run { generation: stored_generation + 1, nonce };
        let claims =
            Self { run, is_persisted: false, nodes: BTreeMap::new(), is_superseded: false };
        (claims, vec![ClaimEffect::Persist(run)])
    }

    /// The run was written. As long as this is not said, every step asks for it again.
    pub fn persisted(&mut self) {
        self.is_persisted = true;
    }

    /// The run that is claimed or held.
    pub fn run(&self) -> Run {
        self.run
    }

    /// True while orders may be given: nobody was heard to obey another.
    pub fn may_act(&self) -> bool {
        !self.is_superseded
    }

    /// True when that node obeys this run.
    pub fn holds(&self, node: &NodeId) -> bool {
        self.nodes.get(node).is_some_and(|known| known.has_promised)
    }

    /// Hears what a node says of itself. Reports are for the deciders.
    pub fn hear(&mut self, node: &NodeId, message: &Message) -> Vec<ClaimEffect> {
        match *message {
            _ if self.is_superseded => Vec::new(),
            Message::Hello { life, promise } => self.hello(node, life, promise),
            Message::Promised { run, life } if run == self.run => {
                if let Some(known) = self.nodes.get_mut(node).filter(|known| known.life == life) {
                    known.has_promised = true;
                }
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    /// Claims again from those that were heard of and have not promised: claims get lost.
    pub fn tick(&self) -> Vec<ClaimEffect> {
        if self.is_superseded { Vec::new() } else { self.claim_of(|known| !known.has_promised) }
    }

    fn hello(&mut self, node: &NodeId, life: Life, promise: Option<Run>) -> Vec<ClaimEffect> {
        let rival = promise.filter(|p| *p != self.run && p.generation >= self.run.generation);
        let has_claimed = self.nodes.values().any(|known| known.has_promised);
        if let Some(by) = rival {
            if has_claimed {
                self.is_superseded = true;
                return vec![ClaimEffect::Superseded { node: node.clone(), by }];
            }
            self.nodes.insert(node.clone(), Known { life, has_promised: false });
            return self.claim_above(by.generation);
        }
        let known = self.nodes.insert(node.clone(), Known { life, has_promised: false });
        match known {
            Some(known) if known.life == life => {
                // It may have forgotten nothing: the same life still holds its promise.
                let has_promised = known.has_promised && promise == Some(self.run);
                self.nodes.insert(node.clone(), Known { life, has_promised });
                self.claim_from(node, life)
            }
            Some(_) => self.claim_above(self.run.generation),
            None if promise.is_some_and(|p| p == self.run) => {
                // It promised this very run in an earlier life.
                self.claim_above(self.run.generation)
            }
            None => self.claim_from(node, life),
        }
    }

    fn claim_above(&mut self, generation: u32) -> Vec<ClaimEffect> {
        self.run.generation = generation + 1;
        self.is_persisted = false;
        for known in self.nodes.values_mut() {
            known.has_promised = false;
        }
        self.claim_of(|_| true)
    }

    fn claim_of(&self, wanted: impl Fn(&Known) -> bool) -> Vec<ClaimEffect> {
        let nodes = self.nodes.iter().filter(|(_, known)| wanted(known));
        self.after_persisting(nodes.map(|(node, known)| (node, known.life)))
    }

    fn claim_from(&self, node: &NodeId, life: Life) -> Vec<ClaimEffect> {
        self.after_persisting([(node, life)])
    }

    /// A run that a crash would forget could be claimed by the next process as well.
    fn after_persisting<'a>(
        &self,
        nodes: impl IntoIterator<Item = (&'a NodeId, Life)>,
    ) -> Vec<ClaimEffect> {
        let run = self.run;
        let persist = (!self.is_persisted).then_some(ClaimEffect::Persist(run));
        let claims = nodes.into_iter().map(|(node, life)| ClaimEffect::Claim {
            node: node.clone(),
            run,
            life,
        });
        persist.into_iter().chain(claims).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn node(name: &str) -> NodeId {
        name.parse().unwrap()
    }
    fn life(n: u128) -> Life {
        Life { boot: Uuid::from_u128(n), incarnation: Uuid::from_u128(1) }
    }
    fn hello(n: u128, promise: Option<Run>) -> Message {
        Message::Hello { life: life(n), promise }
    }
    fn promised(run: Run, n: u128) -> Message {
        Message::Promised { run, life: life(n) }
    }

    #[test]
    fn a_start_claims_above_what_any_node_obeys() {
        let (mut claims, first) = Claims::start(3, 7);
        assert_eq!(first, [ClaimEffect::Persist(Run { generation: 4, nonce: 7 })]);
        let other = Run { generation: 9, nonce: 1 };
        let effects = claims.hear(&node("a"), &hello(1, Some(other)));
        let run = Run { generation: 10, nonce: 7 };
        let claim = ClaimEffect::Claim { node: node("a"), run, life: life(1) };
        assert_eq!(effects, [ClaimEffect::Persist(run), claim]);
    }

    #[test]
    fn one_that_has_claimed_stops_when_another_is_obeyed() {
        let (mut claims, _) = Claims::start(0, 7);
        claims.hear(&node("a"), &hello(1, None));
        claims.hear(&node("a"), &promised(claims.run(), 1));
        assert!(claims.holds(&node("a")) && claims.may_act());
        let other = Run { generation: 2, nonce: 8 };
        let effects = claims.hear(&node("a"), &hello(1, Some(other)));
        assert_eq!(effects, [ClaimEffect::Superseded { node: node("a"), by: other }]);
        assert!(!claims.may_act());
    }

    #[test]
    fn a_new_life_is_claimed_under_a_higher_generation() {
        let (mut claims, _) = Claims::start(0, 7);
        claims.persisted();
        for name in ["a", "b"] {
            claims.hear(&node(name), &hello(1, None));
            claims.hear(&node(name), &promised(claims.run(), 1));
        }
        let before = claims.run();
        let effects = claims.hear(&node("b"), &hello(2, Some(before)));
        assert!(claims.run().generation > before.generation);
        assert!(!claims.holds(&node("a")), "every node promises again");
        assert_eq!(effects.len(), 3, "one persist, a claim for each node: {effects:?}");
    }
}
