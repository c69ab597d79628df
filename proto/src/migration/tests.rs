//! The rules of a node, each shown small. What they add up to is shown by `tests/sim`.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::*;
use crate::container::{ContainerSpec, Execution, Limits, Mode};
use crate::id::{ContainerId, Digest, Epoch, Life, Run, Tenant};

const RUN: Run = Run { generation: 1, nonce: 1 };
const OLD: Epoch = Epoch { generation: 1, counter: 1 };
const EPOCH: Epoch = Epoch { generation: 1, counter: 2 };
const IMAGE: Digest = Digest([7; 32]);
const STOP: Order = Order::Stop { grace_ms: Some(1500) };

pub(super) fn spec(number: u128) -> ContainerSpec {
    ContainerSpec {
        id: ContainerId(Uuid::from_u128(number)),
        tenant: Tenant::default_tenant(),
        name: "counter".parse().unwrap(),
        image: "ab".repeat(32).parse().unwrap(),
        image_name: "localhost/counter:latest".into(),
        args: Vec::new(),
        env: BTreeMap::new(),
        labels: BTreeMap::new(),
        limits: Limits::default(),
        interfaces: Vec::new(),
        ports: Vec::new(),
        resolver: None,
        volumes: Vec::new(),
        devices: Vec::new(),
    }
}

fn life() -> Life {
    Life { boot: Uuid::from_u128(1), incarnation: Uuid::from_u128(1) }
}

fn record(phase: Phase, role: Role) -> Record {
    Record {
        spec: spec(1),
        epoch: EPOCH,
        phase,
        role,
        peer: None,
        mode: Default::default(),
        image: Some(IMAGE),
        bwlimit: None,
        grace_ms: None,
        drops_volumes: false,
        reason: None,
    }
}

fn look_of(effects: &[Effect]) -> u64 {
    effects
        .iter()
        .find_map(|effect| match effect {
            Effect::Look(number) => Some(*number),
            _ => None,
        })
        .unwrap()
}

fn calls(effects: &[Effect]) -> Vec<&Call> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Call { call, .. } => Some(call),
            _ => None,
        })
        .collect()
}

/// The place of the persist of that phase among the effects.
fn persisted(effects: &[Effect], phase: Phase) -> Option<usize> {
    effects.iter().position(|effect| matches!(effect, Effect::Persist(row) if row.phase == phase))
}

fn sight(execution: Execution) -> Sight {
    Sight { execution, is_guarded: true, exit_code: None }
}

fn see(agent: &mut Agent, seen: Option<Sight>) -> Vec<Effect> {
    let look = look_of(&agent.step(Input::Tick));
    let sights = seen.map(|sight| (spec(1).id, sight)).into_iter().collect();
    agent.step(Input::Seen { look, sights, strangers: Vec::new() })
}

/// An agent that has that row, saw that, and obeys [`RUN`].
fn agent(row: Record, seen: Option<Sight>) -> Agent {
    let promise = Promise { run: RUN, life: life(), since: 1 };
    let mut agent = Agent::wake(life(), Some(promise), vec![row], false);
    see(&mut agent, seen);
    agent
}

fn order(agent: &mut Agent, epoch: Epoch, order: Order) -> Vec<Effect> {
    agent.step(Input::Order { run: RUN, container: spec(1).id, epoch, order })
}

#[test]
fn nothing_is_promised_or_told_before_the_kernel_was_seen() {
    let mut agent = Agent::wake(life(), None, vec![record(Phase::Staged, Role::Target)], false);
    let effects = agent.step(Input::Tick);
    assert!(matches!(effects[..], [Effect::Look(_)]), "{effects:?}");
    assert!(agent.step(Input::Claim { run: RUN, life: life() }).is_empty());
    let look = look_of(&effects);
    let effects = agent.step(Input::Seen { look, sights: Vec::new(), strangers: Vec::new() });
    let dead = persisted(&effects, Phase::Dead).unwrap();
    let promise = effects.iter().position(|effect| matches!(effect, Effect::Promise(_))).unwrap();
    assert!(dead < promise, "what is gone is written down first");
}

#[test]
fn only_the_promised_run_is_obeyed() {
    let mut agent = agent(record(Phase::Staged, Role::Target), Some(sight(Execution::Gated)));
    let stranger = Run { generation: 2, nonce: 9 };
    let open = Order::Open { image: IMAGE };
    let effects = agent.step(Input::Order {
        run: stranger,
        container: spec(1).id,
        epoch: EPOCH,
        order: open,
    });
    assert!(matches!(effects[..], [Effect::Send(Message::Hello { .. })]), "{effects:?}");
}

#[test]
fn a_promise_is_void_in_another_boot() {
    let promise = Promise { run: RUN, life: life(), since: 1 };
    let reborn = Life { boot: Uuid::from_u128(2), ..life() };
    let agent = Agent::wake(reborn, Some(promise), Vec::new(), true);
    assert_eq!(agent.obeys(), None);
}

#[test]
fn a_claim_of_an_earlier_generation_is_refused() {
    let mut agent = agent(record(Phase::Active, Role::Owner), Some(sight(Execution::Running)));
    let earlier = Run { generation: 1, nonce: 5 };
    let effects = agent.step(Input::Claim { run: earlier, life: life() });
    assert!(matches!(effects[..], [Effect::Send(Message::Hello { .. })]), "{effects:?}");
    assert_eq!(agent.obeys(), Some(RUN));
}

#[test]
fn a_frozen_source_only_repeats_itself() {
    let mut agent = agent(record(Phase::Frozen, Role::Owner), Some(sight(Execution::Frozen)));
    for _ in 0..1000 {
        let effects = see(&mut agent, Some(sight(Execution::Frozen)));
        assert!(calls(&effects).is_empty(), "{effects:?}");
    }
}

#[test]
fn a_staged_target_only_repeats_itself() {
    let mut agent = agent(record(Phase::Staged, Role::Target), Some(sight(Execution::Gated)));
    for _ in 0..1000 {
        let effects = see(&mut agent, Some(sight(Execution::Gated)));
        assert!(calls(&effects).is_empty(), "{effects:?}");
    }
}

#[test]
fn the_opening_is_persisted_before_the_gate_opens() {
    let mut agent = agent(record(Phase::Staged, Role::Target), Some(sight(Execution::Gated)));
    let effects = order(&mut agent, EPOCH, Order::Open { image: IMAGE });
    let call = effects.iter().position(|effect| matches!(effect, Effect::Call { .. })).unwrap();
    assert!(persisted(&effects, Phase::Opening).unwrap() < call);
    assert_eq!(calls(&effects), [&Call::Open]);
}

#[test]
fn only_the_image_that_was_voted_on_is_opened() {
    let mut agent = agent(record(Phase::Staged, Role::Target), Some(sight(Execution::Gated)));
    let effects = order(&mut agent, EPOCH, Order::Open { image: Digest([8; 32]) });
    assert!(calls(&effects).is_empty());
}

#[test]
fn a_lost_gate_is_a_refusal_that_is_persisted_before_it_is_told() {
    let mut agent = agent(record(Phase::Staged, Role::Target), Some(sight(Execution::Gated)));
    let effects = see(&mut agent, None);
    let told = effects.iter().position(|effect| matches!(effect, Effect::Send(_))).unwrap();
    assert!(persisted(&effects, Phase::Dead).unwrap() < told);
    let effects = order(&mut agent, EPOCH, Order::Open { image: IMAGE });
    assert!(calls(&effects).is_empty(), "a refusal stands");
}

#[test]
fn a_target_rebooted_while_it_prepared_refuses() {
    let mut agent = Agent::wake(life(), None, vec![record(Phase::Preparing, Role::Target)], true);
    assert!(persisted(&agent.step(Input::Tick), Phase::Dead).is_some());
}

#[test]
fn an_unseen_copy_is_built_again_but_never_after_its_guard_fell() {
    let row = record(Phase::Opening, Role::Target);
    let promise = Promise { run: RUN, life: life(), since: 1 };
    let mut guarded = Agent::wake(life(), Some(promise), vec![row.clone()], false);
    assert_eq!(calls(&see(&mut guarded, Some(sight(Execution::Absent)))), [&Call::Stage]);
    let bare = Sight { is_guarded: false, ..sight(Execution::Absent) };
    for seen in [Some(bare), None] {
        let mut agent = Agent::wake(life(), Some(promise), vec![row.clone()], false);
        assert!(persisted(&see(&mut agent, seen), Phase::Ran).is_some());
    }
}

#[test]
fn a_source_that_restarts_in_its_dump_refuses_before_it_thaws() {
    let promise = Promise { run: RUN, life: life(), since: 1 };
    let row = record(Phase::Arming, Role::Owner);
    let mut agent = Agent::wake(life(), Some(promise), vec![row], false);
    let effects = see(&mut agent, Some(sight(Execution::Frozen)));
    let call = effects.iter().position(|effect| matches!(effect, Effect::Call { .. })).unwrap();
    assert!(persisted(&effects, Phase::Kept).unwrap() < call);
    assert_eq!(calls(&effects), [&Call::Thaw]);
}

#[test]
fn a_look_from_before_the_last_change_proves_nothing() {
    let mut agent = agent(record(Phase::Staged, Role::Target), Some(sight(Execution::Gated)));
    let look = look_of(&agent.step(Input::Tick));
    order(&mut agent, EPOCH, Order::Open { image: IMAGE });
    let effects = agent.step(Input::Seen { look, sights: Vec::new(), strangers: Vec::new() });
    assert_eq!(persisted(&effects, Phase::Ran), None, "the call is under way");
}

#[test]
fn an_older_epoch_is_ignored() {
    let mut agent = agent(record(Phase::Frozen, Role::Owner), Some(sight(Execution::Frozen)));
    for old in [Order::Thaw, Order::Discard, Order::Start, Order::Remove, STOP] {
        assert!(calls(&order(&mut agent, OLD, old)).is_empty());
    }
}

#[test]
fn a_stop_keeps_the_grace_that_was_asked_for_over_a_restart() {
    let mut agent = agent(record(Phase::Active, Role::Owner), Some(sight(Execution::Running)));
    order(&mut agent, EPOCH, STOP);
    let rows = agent.records().cloned().collect();
    let promise = Promise { run: RUN, life: life(), since: 1 };
    let mut again = Agent::wake(life(), Some(promise), rows, false);
    let effects = see(&mut again, Some(sight(Execution::Running)));
    let asked = effects.iter().find_map(|effect| match effect {
        Effect::Call { record, call: Call::Stop, .. } => Some(record.grace_ms),
        _ => None,
    });
    assert_eq!(asked, Some(Some(1500)));
}

#[test]
fn nothing_is_prepared_over_what_an_older_attempt_left() {
    let mut agent = agent(record(Phase::Gone, Role::Owner), None);
    see(&mut agent, Some(sight(Execution::Frozen)));
    let next = Epoch { generation: 1, counter: 3 };
    let from = "a".parse().unwrap();
    let prepare = Order::Prepare { from, spec: Box::new(spec(1)), plan: Plan::default() };
    assert!(calls(&order(&mut agent, next, prepare.clone())).is_empty(), "it is being destroyed");
    let mut clean = self::agent(record(Phase::Gone, Role::Owner), None);
    assert_eq!(calls(&order(&mut clean, next, prepare)), [&Call::Prepare]);
}

#[test]
fn a_stranger_is_reported_and_left_alone() {
    let mut agent = Agent::wake(life(), None, Vec::new(), false);
    let look = look_of(&agent.step(Input::Tick));
    let strangers = vec![(Box::new(spec(1)), sight(Execution::Running))];
    let effects = agent.step(Input::Seen { look, sights: Vec::new(), strangers });
    assert!(persisted(&effects, Phase::UnknownRunning).is_some());
    assert!(calls(&effects).is_empty());
}

#[test]
fn a_stranger_that_was_met_is_not_taken_for_gone_by_the_next_look() {
    let mut agent = Agent::wake(life(), None, Vec::new(), false);
    for _ in 0..3 {
        let look = look_of(&agent.step(Input::Tick));
        let strangers = vec![(Box::new(spec(1)), sight(Execution::Running))];
        agent.step(Input::Seen { look, sights: Vec::new(), strangers });
    }
    let phases: Vec<_> = agent.records().map(|record| record.phase).collect();
    assert_eq!(phases, [Phase::UnknownRunning]);
}

#[test]
fn a_refusal_of_a_node_without_history_says_that_it_is_unknown() {
    let promise = Promise { run: RUN, life: life(), since: 1 };
    for (generation, phase) in [(0, Phase::DeadUnknown), (1, Phase::Dead)] {
        let mut agent = Agent::wake(life(), Some(promise), Vec::new(), false);
        see(&mut agent, None);
        let epoch = Epoch { generation, counter: 1 };
        let effects = order(&mut agent, epoch, Order::Refuse(Box::new(spec(1))));
        assert!(persisted(&effects, phase).is_some(), "{effects:?}");
    }
}

#[test]
fn what_moves_cold_has_no_processes_and_waits_all_the_same() {
    let absent = || Some(Sight { is_guarded: false, ..sight(Execution::Absent) });
    let cold = |phase, role| Record { mode: Mode::Cold, ..record(phase, role) };
    let mut source = agent(cold(Phase::Frozen, Role::Owner), absent());
    let mut target = agent(cold(Phase::Staged, Role::Target), absent());
    for agent in [&mut source, &mut target] {
        let effects = see(agent, absent());
        assert_eq!((persisted(&effects, Phase::Dead), calls(&effects).len()), (None, 0));
    }
    assert_eq!(calls(&order(&mut source, EPOCH, Order::Thaw)), [&Call::Thaw]);
    assert_eq!(calls(&order(&mut target, EPOCH, Order::Open { image: IMAGE })), [&Call::Open]);
}

/// Whether volumes go with what is destroyed, as the row says that the call is given.
fn drops_volumes(effects: &[Effect]) -> Option<bool> {
    effects.iter().find_map(|effect| match effect {
        Effect::Call { record, call: Call::Destroy, .. } => Some(record.drops_volumes),
        _ => None,
    })
}

#[test]
fn volumes_are_removed_only_where_the_other_side_has_them() {
    let (owner, target) = (Role::Owner, Role::Target);
    let ask = |phase, role, seen, what| {
        order(&mut agent(record(phase, role), Some(sight(seen))), EPOCH, what)
    };
    let frozen = ask(Phase::Frozen, owner, Execution::Frozen, Order::Discard);
    assert_eq!(drops_volumes(&frozen), Some(true), "the target runs");
    let staged = ask(Phase::Staged, target, Execution::Gated, Order::Discard);
    assert_eq!(drops_volumes(&staged), Some(true), "the source runs");
    for role in [owner, target] {
        let removed = ask(Phase::Active, role, Execution::Running, Order::Remove);
        assert_eq!(drops_volumes(&removed), Some(false), "they outlive their container");
    }
    let mut gone = agent(record(Phase::Staged, target), Some(sight(Execution::Gated)));
    assert_eq!(drops_volumes(&see(&mut gone, Some(sight(Execution::Absent)))), Some(true));
    // Arrived here in an earlier move, given away by this one, and back by the next.
    let mut back = agent(record(Phase::Gone, owner), None);
    let epoch = Epoch { counter: EPOCH.counter + 1, ..EPOCH };
    let prepare = Order::Prepare {
        from: "edge-a".parse().unwrap(),
        spec: Box::new(spec(1)),
        plan: Plan::default(),
    };
    order(&mut back, epoch, prepare);
    let row = back.records().next().unwrap();
    assert!(!row.drops_volumes, "{row:?}");
}

#[test]
fn a_start_that_fails_is_not_taken_for_the_end_of_an_earlier_life() {
    let ended = Sight { exit_code: Some(0), ..sight(Execution::Absent) };
    let mut agent = agent(record(Phase::Stopped, Role::Owner), Some(ended));
    let epoch = Epoch { counter: EPOCH.counter + 1, ..EPOCH };
    let effects = order(&mut agent, epoch, Order::Start);
    let number = effects.iter().find_map(|effect| match effect {
        Effect::Call { number, call: Call::Start, .. } => Some(*number),
        _ => None,
    });
    let call = number.expect("it is started");
    let outcome = Outcome::Failed("no".into());
    agent.step(Input::Done { container: spec(1).id, call, outcome });
    let effects = see(&mut agent, Some(ended));
    let report = effects.iter().rev().find_map(|effect| match effect {
        Effect::Send(Message::Report { report, .. }) => Some(report.clone()),
        _ => None,
    });
    let report = report.expect("a report");
    assert_eq!((report.phase, report.exit_code), (Phase::Ran, None));
    assert_eq!(report.reason.as_deref(), Some("no"));
}
