//! How much accounts hold of what all of them share, so that none can take it from the others.
//!
//! Up to its limit a store is for whoever comes. At the limit only those get more who hold less than
//! their share, the limit divided by the accounts that hold something. So one account can use all
//! of what nobody else wants, and never keeps another from its share; together they hold at most
//! twice the limit.

use std::collections::HashMap;

use bytestring::ByteString;
use slab::Slab;

/// Who holds: an account with those derived from it, or all who have none.
type Name = Option<ByteString>;

/// What each account holds of `GOODS` things, which are told apart by their numbers.
#[derive(Debug)]
pub(super) struct Holdings<const GOODS: usize> {
    by_name: HashMap<Name, usize>,
    holders: Slab<Holder<GOODS>>,
    held: [usize; GOODS],
}

#[derive(Debug)]
struct Holder<const GOODS: usize> {
    name: Name,
    members: usize,
    held: [usize; GOODS],
}

impl<const GOODS: usize> Default for Holdings<GOODS> {
    fn default() -> Self {
        Self { by_name: HashMap::new(), holders: Slab::new(), held: [0; GOODS] }
    }
}

impl<const GOODS: usize> Holdings<GOODS> {
    /// One more member of an account; the number that it holds by.
    pub(super) fn enter(&mut self, account: Option<&ByteString>) -> usize {
        let name = account.map(tenant);
        let holders = &mut self.holders;
        let holder = *self.by_name.entry(name).or_insert_with_key(|name| {
            holders.insert(Holder { name: name.clone(), members: 0, held: [0; GOODS] })
        });
        self.holders[holder].members += 1;
        holder
    }

    /// One member less, which holds nothing any more.
    pub(super) fn leave(&mut self, holder: usize) {
        let found = &mut self.holders[holder];
        found.members -= 1;
        if found.members == 0 {
            let gone = self.holders.remove(holder);
            self.by_name.remove(&gone.name);
        }
    }

    pub(super) fn add(&mut self, holder: usize, good: usize, count: usize) {
        self.holders[holder].held[good] += count;
        self.held[good] += count;
    }

    pub(super) fn remove(&mut self, holder: usize, good: usize, count: usize) {
        self.holders[holder].held[good] -= count;
        self.held[good] -= count;
    }

    /// Whether so much more may be held by one who is in here.
    pub(super) fn has_room(&self, holder: usize, good: usize, more: usize, limit: usize) -> bool {
        more == 0
            || self.held[good] + more <= limit
            || self.holders[holder].held[good] + more <= limit / self.holders.len()
    }

    /// All that is held.
    pub(super) fn held(&self, good: usize) -> usize {
        self.held[good]
    }
}

/// The account that an account is derived from, or itself.
pub(super) fn tenant(account: &ByteString) -> ByteString {
    match account.split_once('/') {
        Some((tenant, _)) => tenant.into(),
        None => account.clone(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 1000;

    fn enter(holdings: &mut Holdings<1>, account: &str) -> usize {
        holdings.enter(Some(&account.to_owned().into()))
    }

    fn fill(holdings: &mut Holdings<1>, holder: usize) {
        while holdings.has_room(holder, 0, 10, LIMIT) {
            holdings.add(holder, 0, 10);
        }
    }

    #[test]
    fn one_may_have_all_and_another_that_comes_has_its_share_all_the_same() {
        let mut holdings = Holdings::<1>::default();
        let greedy = enter(&mut holdings, "greedy");
        fill(&mut holdings, greedy);
        assert_eq!(holdings.held(0), LIMIT);
        let late = enter(&mut holdings, "late");
        fill(&mut holdings, late);
        assert_eq!(holdings.held(0), LIMIT + LIMIT / 2);
        assert!(!holdings.has_room(greedy, 0, 1, LIMIT));
    }

    #[test]
    fn what_is_derived_from_an_account_has_no_share_of_its_own() {
        let mut holdings = Holdings::<1>::default();
        let tenant = enter(&mut holdings, "alice");
        assert_eq!(enter(&mut holdings, "alice/press"), tenant);
        assert_ne!(enter(&mut holdings, "alicia"), tenant);
        assert_ne!(holdings.enter(None), tenant);
    }

    #[test]
    fn nothing_is_left_of_those_who_left() {
        let mut holdings = Holdings::<1>::default();
        let holders = ["a", "b", "a"].map(|account| enter(&mut holdings, account));
        for holder in holders {
            holdings.leave(holder);
        }
        assert!(holdings.by_name.is_empty() && holdings.holders.is_empty());
    }

    proptest! {
        #[test]
        fn whoever_holds_less_than_its_share_gets_more_and_all_hold_at_most_twice_the_limit(
            steps in prop::collection::vec((0..5_usize, 1..300_usize, any::<bool>()), 1..200),
        ) {
            let mut holdings = Holdings::<1>::default();
            let holders = ["a", "b", "c", "d", "e"].map(|account| enter(&mut holdings, account));
            let mut held = [0; 5];
            for (at, weight, is_more) in steps {
                if !is_more {
                    holdings.remove(holders[at], 0, std::mem::take(&mut held[at]));
                } else if holdings.has_room(holders[at], 0, weight, LIMIT) {
                    holdings.add(holders[at], 0, weight);
                    held[at] += weight;
                } else {
                    prop_assert!(held[at] + weight > LIMIT / 5, "it had less than its share");
                }
                prop_assert_eq!(holdings.held(0), held.iter().sum::<usize>());
                prop_assert!(holdings.held(0) <= 2 * LIMIT);
            }
        }
    }
}
