use std::time::Duration;

use super::*;
use crate::id::Digest;
use crate::migration::record::Role;
use crate::migration::tests::spec;

const NOW: Duration = Duration::from_secs(1);
const EPOCH: Epoch = Epoch { generation: 1, counter: 1 };
const OPENER: Run = Run { generation: 1, nonce: 1 };
const LATER: Run = Run { generation: 2, nonce: 2 };

fn node(name: &str) -> NodeId {
    name.parse().unwrap()
}

fn row() -> Row {
    Row::open(spec(1), EPOCH, (node("a"), node("b")), Default::default(), OPENER)
}

fn report(epoch: Epoch, phase: Phase) -> Report {
    Report {
        container: spec(1).id,
        epoch,
        phase,
        role: Role::Owner,
        peer: None,
        ready: None,
        is_busy: false,
        image: Some(Digest([7; 32])),
        reason: None,
        exit_code: None,
    }
}

/// A decider with its database: whatever it writes is written.
struct Desk(Decider);

impl Desk {
    fn new(row: Row, run: Run) -> Self {
        Self(Decider::new(row, run, NOW))
    }
    /// The orders that follow, once every row is stored.
    fn carry_out(&mut self, mut decisions: Vec<Decision>) -> Vec<(NodeId, Order)> {
        let mut orders = Vec::new();
        while !decisions.is_empty() {
            match decisions.remove(0) {
                Decision::Persist(row) => decisions.extend(self.0.stored(*row, NOW)),
                Decision::Order(node, order) => orders.push((node, order)),
            }
        }
        orders
    }
    fn hear(&mut self, from: &str, phase: Phase) -> Vec<(NodeId, Order)> {
        let decisions = self.0.hear(&node(from), report(EPOCH, phase), NOW);
        self.carry_out(decisions)
    }
    fn ruling(&self) -> Option<(End, Cause)> {
        self.0.row().ruling.map(|ruling| (ruling.side, ruling.cause))
    }
}

fn committed() -> Desk {
    let mut desk = Desk::new(row(), OPENER);
    desk.hear("b", Phase::Staged);
    desk.hear("a", Phase::Frozen);
    assert_eq!(desk.ruling(), Some((End::Target, Cause::Commit)));
    desk
}

fn aborted() -> Desk {
    let mut desk = Desk::new(row(), OPENER);
    desk.hear("a", Phase::Frozen);
    let decisions = desk.0.cancel("an operator's wish");
    desk.carry_out(decisions);
    assert_eq!(desk.ruling(), Some((End::Source, Cause::Abort)));
    desk
}

#[test]
fn both_votes_are_needed_for_a_commit() {
    let mut desk = Desk::new(row(), OPENER);
    desk.hear("b", Phase::Staged);
    assert_eq!(desk.ruling(), None);
    let orders = desk.hear("a", Phase::Frozen);
    assert!(
        orders.iter().any(|(to, order)| *to == node("b") && matches!(order, Order::Open { .. }))
    );
}

#[test]
fn nothing_is_ordered_before_the_row_was_read_back() {
    let mut desk = Desk::new(row(), OPENER);
    desk.hear("b", Phase::Staged);
    let decisions = desk.0.hear(&node("a"), report(EPOCH, Phase::Frozen), NOW);
    assert!(matches!(decisions[..], [Decision::Persist(_)]), "{decisions:?}");
    assert!(desk.0.tick(NOW).is_empty(), "it waits for the database");
}

#[test]
fn whoever_wrote_the_verdict_first_is_obeyed() {
    let mut desk = Desk::new(row(), OPENER);
    desk.hear("b", Phase::Staged);
    desk.0.hear(&node("a"), report(EPOCH, Phase::Frozen), NOW);
    let by_other = Ruling { side: End::Source, cause: Cause::Abort, by: OPENER };
    let stored = Row { ruling: Some(by_other), ..row() };
    let decisions = desk.0.stored(stored, NOW);
    let orders = desk.carry_out(decisions);
    assert!(orders.contains(&(node("a"), Order::Thaw)), "{orders:?}");
    assert!(!orders.iter().any(|(_, order)| matches!(order, Order::Open { .. })));
}

#[test]
fn the_first_verdict_of_an_epoch_stands() {
    let mut desk = committed();
    assert!(desk.0.cancel("too late").is_empty());
    let late = NOW + timing::DEADLINE * 2;
    let decisions = desk.0.tick(late);
    desk.carry_out(decisions);
    assert_eq!(desk.ruling(), Some((End::Target, Cause::Commit)));
}

#[test]
fn a_move_takes_as_long_as_more_comes_and_no_longer() {
    let mut desk = Desk::new(row(), OPENER);
    let cancelled = |desk: &Desk| desk.0.row().cancelled.is_some();
    let advanced = NOW + timing::DEADLINE;
    desk.0.advanced(advanced);
    let decisions = desk.0.tick(advanced + timing::DEADLINE);
    desk.carry_out(decisions);
    assert!(!cancelled(&desk));
    let decisions = desk.0.tick(advanced + timing::DEADLINE + Duration::from_millis(1));
    desk.carry_out(decisions);
    assert!(cancelled(&desk));
}

#[test]
fn a_stale_vote_is_not_committed_on() {
    let mut desk = Desk::new(row(), OPENER);
    desk.hear("b", Phase::Staged);
    let later = NOW + timing::VOTE_FRESH * 2;
    desk.0.hear(&node("a"), report(EPOCH, Phase::Frozen), later);
    assert_eq!(desk.ruling(), None);
}

#[test]
fn a_refusal_after_the_commit_gives_the_container_back() {
    let mut desk = committed();
    let orders = desk.hear("b", Phase::Dead);
    assert_eq!(desk.ruling(), Some((End::Source, Cause::Returned)));
    assert!(orders.contains(&(node("a"), Order::Thaw)));
    assert!(!desk.0.row().possible_loss);
}

#[test]
fn a_source_that_died_after_the_abort_is_salvaged_from_the_target() {
    let mut desk = aborted();
    desk.hear("b", Phase::Staged);
    desk.hear("a", Phase::Dead);
    assert_eq!(desk.ruling(), Some((End::Target, Cause::Salvaged)));
    assert!(!desk.0.row().possible_loss);
}

#[test]
fn what_an_agent_has_begun_overrules_the_row() {
    let mut desk = Desk::new(row(), LATER);
    desk.hear("b", Phase::Opening);
    assert_eq!(desk.ruling(), Some((End::Target, Cause::Overruled)));
}

#[test]
fn a_later_run_does_not_act_on_a_row_before_both_have_reported_to_it() {
    let ruling = Ruling { side: End::Source, cause: Cause::Abort, by: OPENER };
    let mut desk = Desk::new(Row { ruling: Some(ruling), ..row() }, LATER);
    let orders = desk.hear("a", Phase::Frozen);
    assert!(!orders.contains(&(node("a"), Order::Thaw)), "the target may have begun");
    let orders = desk.hear("b", Phase::Staged);
    assert!(orders.contains(&(node("a"), Order::Thaw)));
}

#[test]
fn a_later_run_aborts_only_once_the_target_says_that_it_has_not_begun() {
    let mut desk = Desk::new(row(), LATER);
    desk.hear("a", Phase::Frozen);
    assert_eq!(desk.ruling(), None);
    desk.hear("b", Phase::Preparing);
    assert_eq!(desk.ruling(), Some((End::Source, Cause::Abort)));
}

#[test]
fn the_source_is_discarded_only_when_the_target_runs() {
    let mut desk = committed();
    assert!(!desk.hear("b", Phase::Opening).contains(&(node("a"), Order::Discard)));
    assert!(desk.hear("b", Phase::Active).contains(&(node("a"), Order::Discard)));
    assert!(!desk.0.row().is_settled);
    desk.hear("a", Phase::Gone);
    assert!(desk.0.row().is_settled);
}

#[test]
fn a_copy_that_was_not_heard_of_is_not_discarded() {
    let ruling = Ruling { side: End::Source, cause: Cause::Abort, by: OPENER };
    let mut desk = Desk::new(Row { ruling: Some(ruling), ..row() }, LATER);
    let orders = desk.hear("a", Phase::Ran);
    assert!(!orders.contains(&(node("b"), Order::Discard)), "it may be the last: {orders:?}");
}

#[test]
fn what_ended_by_itself_is_not_brought_back() {
    let mut desk = aborted();
    desk.hear("b", Phase::Staged);
    let ended = Report { exit_code: Some(0), ..report(EPOCH, Phase::Ran) };
    let decisions = desk.0.hear(&node("a"), ended, NOW);
    let orders = desk.carry_out(decisions);
    assert_eq!(desk.ruling(), Some((End::Source, Cause::Abort)));
    assert!(orders.contains(&(node("b"), Order::Discard)));
}

#[test]
fn late_news_of_an_older_epoch_is_no_ground_for_a_ruling() {
    let mut desk = Desk::new(row(), OPENER);
    let old = Epoch { generation: 1, counter: 0 };
    let decisions = desk.0.hear(&node("a"), report(old, Phase::Ran), NOW);
    desk.carry_out(decisions);
    desk.hear("b", Phase::Dead);
    assert_eq!(desk.ruling(), None);
}

#[test]
fn memory_is_lost_only_when_both_ends_say_so() {
    let mut desk = Desk::new(row(), OPENER);
    desk.hear("a", Phase::Dead);
    assert_eq!(desk.ruling(), None);
    desk.hear("b", Phase::Dead);
    assert_eq!(desk.ruling(), Some((End::Source, Cause::MemoryLost)));
    assert!(desk.0.row().possible_loss && !desk.0.row().is_settled);
    desk.hear("b", Phase::Gone);
    assert!(desk.0.row().is_settled);
}

#[test]
fn a_silent_end_is_asked_again() {
    let mut desk = committed();
    desk.hear("b", Phase::Opening);
    let decisions = desk.0.tick(NOW);
    assert!(decisions.contains(&Decision::Order(node("b"), Order::Ask)), "{decisions:?}");
}

#[test]
fn a_verdict_that_could_not_be_written_is_not_acted_on_and_decided_again() {
    let mut desk = Desk::new(row(), OPENER);
    desk.hear("a", Phase::Frozen);
    let wish = desk.0.hear(&node("b"), report(EPOCH, Phase::Staged), NOW);
    assert!(matches!(&wish[..], [Decision::Persist(row)] if row.ruling.is_some()), "{wish:?}");
    desk.0.refused(row());
    assert_eq!(desk.ruling(), None, "what is not on disk is not decided");
    let orders = desk.hear("b", Phase::Staged);
    assert_eq!(desk.ruling(), Some((End::Target, Cause::Commit)));
    assert!(
        orders.iter().any(|(to, order)| *to == node("b") && matches!(order, Order::Open { .. }))
    );
}

#[test]
fn a_fence_that_could_not_be_written_can_be_said_again() {
    let mut desk = Desk::new(row(), OPENER);
    desk.hear("b", Phase::Preparing);
    desk.0.fence(End::Target);
    desk.0.refused(row());
    let again = desk.0.fence(End::Target);
    assert!(matches!(&again[..], [Decision::Persist(row)] if row.fenced == [End::Target]));
}

#[test]
fn a_frozen_source_goes_on_as_soon_as_its_target_is_fenced() {
    let mut desk = Desk::new(row(), OPENER);
    desk.hear("b", Phase::Preparing);
    desk.hear("a", Phase::Frozen);
    assert_eq!(desk.ruling(), None);
    let decisions = desk.0.fence(End::Target);
    let orders = desk.carry_out(decisions);
    assert_eq!(desk.ruling(), Some((End::Source, Cause::Abort)));
    assert!(orders.contains(&(node("a"), Order::Thaw)), "{orders:?}");
    assert_eq!(desk.0.row().reason.as_deref(), Some("b: it was fenced"));
    desk.hear("a", Phase::Active);
    assert!(desk.0.row().is_settled && !desk.0.row().possible_loss);
}

#[test]
fn a_fence_after_the_commit_takes_the_source_back_and_says_that_work_may_be_lost() {
    let mut desk = committed();
    desk.hear("b", Phase::Opening);
    let decisions = desk.0.fence(End::Target);
    let orders = desk.carry_out(decisions);
    assert_eq!(desk.ruling(), Some((End::Source, Cause::RolledBack)));
    assert!(desk.0.row().possible_loss);
    assert!(orders.contains(&(node("a"), Order::Thaw)), "{orders:?}");
}

#[test]
fn a_fenced_source_that_never_dumped_has_lost_the_memory() {
    let mut desk = Desk::new(row(), OPENER);
    desk.hear("b", Phase::Preparing);
    let decisions = desk.0.fence(End::Source);
    let orders = desk.carry_out(decisions);
    assert!(
        orders.iter().any(|(to, order)| *to == node("b") && matches!(order, Order::Refuse(_))),
        "{orders:?}"
    );
    desk.hear("b", Phase::Dead);
    assert_eq!(desk.ruling(), Some((End::Source, Cause::MemoryLost)));
    desk.hear("b", Phase::Gone);
    assert!(desk.0.row().is_settled);
}

#[test]
fn the_cause_at_the_source_outweighs_what_the_target_says_of_it() {
    let told = |source: &str| {
        let mut desk = Desk::new(row(), OPENER);
        for (from, phase, why) in
            [("b", Phase::Dead, "it was withdrawn"), ("a", Phase::Kept, source)]
        {
            let report = Report { reason: Some(why.into()), ..report(EPOCH, phase) };
            let decisions = desk.0.hear(&node(from), report, NOW);
            desk.carry_out(decisions);
        }
        desk.0.row().reason.clone().expect("a reason")
    };
    assert_eq!(told("no space left"), "a: no space left");
    assert_eq!(told(crate::migration::source::CALLED_OFF), "b: it was withdrawn");
}
