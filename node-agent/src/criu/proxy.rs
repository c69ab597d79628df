//! The rules of the proxy between runc and criu, without a descriptor in sight.
//!
//! ```text
//! Held ─ go ─► Working      (only where the agent had it held: the hand-over is armed)
//!
//! Working ─ post-restore ─► Asked ─ runc says yes ─► Gated ─ commit ─► Opened ─► Ended
//!    │                        │ runc says no, or         │ abort, or
//!    │                        │ agent or runc gone       │ agent or runc gone
//!    └── agent gone ──────────┴──────────► Refused ◄─────┘
//! ```
//!
//! While the request is held criu has done nothing, and whoever leaves or refuses ends it
//! with nothing to undo. The one rule above all: `post-restore` is answered with yes only in `Gated`, and only
//! on the word `commit`. After that nobody may stop the restore: when runc dies, the proxy
//! answers in its stead; when criu dies, what it had built is killed.
//!
//! Once more criu waits, when it has caught every process on its way back into its own code
//! (`pre-resume`): the agent makes the network theirs before they send anything, and notes
//! that the copy runs. An agent that leaves before it noted that would have it rebuilt when it is
//! back, so the copy is killed; after that it runs on.

use super::message::{NOTIFY, Request, Response};
use super::word::{Kind, Order, Report};

/// The point at which every process is rebuilt and none runs.
const GATE: &str = "post-restore";
/// The point at which every process is about to run its own code.
pub(crate) const CAUGHT: &str = "pre-resume";

/// What happened at one of the three ends.
#[derive(Debug)]
pub(crate) enum Event<'a> {
    /// criu sent a message.
    Criu(&'a Response),
    /// criu closed its end.
    CriuGone,
    /// runc sent a message.
    Runc(&'a Request),
    /// runc closed its end.
    RuncGone,
    /// The agent sent a word.
    Agent(Order),
    /// The agent closed its end.
    AgentGone {
        /// Whether what it committed counts as one that runs, by its last word on that.
        may_run: bool,
    },
}

/// What is to be done about it, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Give criu the request.
    Begin,
    /// Carry the message that just came, with its descriptors, to the other side.
    Forward,
    /// Answer criu's notification in runc's stead.
    Answer(bool),
    /// Tell the agent.
    Tell(Report),
    /// Kill the container's first process, and with it its pid namespace.
    Kill(i32),
    /// Close the way to criu: it gives up.
    Hang,
    /// Nothing is left to do.
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Held,
    Working,
    Asked,
    Gated,
    Opened,
    Caught,
    Refused,
    Ended,
}

/// The proxy of one dump or restore.
#[derive(Debug)]
pub(crate) struct Proxy {
    kind: Kind,
    phase: Phase,
    /// The container's first process, once criu has made it.
    init: Option<i32>,
    has_runc: bool,
    has_agent: bool,
    /// The agent left before it noted that the copy runs.
    is_forsaken: bool,
    /// runc owes criu an answer.
    is_owed: bool,
}

impl Proxy {
    /// A proxy whose request goes to criu now.
    pub(crate) fn new(kind: Kind) -> Self {
        Self {
            kind,
            phase: Phase::Working,
            init: None,
            has_runc: true,
            has_agent: true,
            is_forsaken: false,
            is_owed: false,
        }
    }

    /// A proxy whose request waits for [`Order::Go`].
    pub(crate) fn held(kind: Kind) -> Self {
        Self { phase: Phase::Held, ..Self::new(kind) }
    }

    /// True while the request is kept from criu.
    pub(crate) fn is_held(&self) -> bool {
        self.phase == Phase::Held
    }

    /// What to do about `event`.
    pub(crate) fn step(&mut self, event: &Event<'_>) -> Vec<Action> {
        if let Event::AgentGone { may_run } = event {
            self.has_agent = false;
            self.is_forsaken = !may_run;
        }
        if self.phase == Phase::Held {
            return self.step_held(event);
        }
        match event {
            Event::Criu(response) if response.kind == NOTIFY => self.notified(response),
            Event::Criu(response) => {
                self.phase = Phase::Ended;
                vec![Action::Tell(Report::Done { success: response.success }), Action::Forward]
            }
            Event::CriuGone => self.criu_gone(),
            Event::Runc(answer) if self.phase == Phase::Asked => {
                if answer.notify_success == Some(true) {
                    self.phase = Phase::Gated;
                    vec![Action::Tell(Report::Staged)]
                } else {
                    self.refuse()
                }
            }
            // criu has its answer already: a second one would be taken for the next question's.
            Event::Runc(_) if matches!(self.phase, Phase::Refused | Phase::Caught) => Vec::new(),
            Event::Runc(_) => {
                self.is_owed = false;
                vec![Action::Forward]
            }
            Event::RuncGone => self.runc_gone(),
            Event::Agent(Order::Commit { .. }) if self.phase == Phase::Gated => {
                self.phase = Phase::Opened;
                vec![Action::Answer(true)]
            }
            Event::AgentGone { .. } if self.phase == Phase::Caught && self.is_forsaken => {
                self.destroy()
            }
            Event::Agent(_) | Event::AgentGone { .. } if self.phase == Phase::Caught => {
                self.phase = Phase::Opened;
                vec![Action::Answer(true)]
            }
            Event::Agent(_) | Event::AgentGone { .. } => self.agent_left(),
        }
    }

    /// criu waits for its first word: without one it ends by itself.
    fn step_held(&mut self, event: &Event<'_>) -> Vec<Action> {
        if matches!(event, Event::Agent(Order::Go)) {
            self.phase = Phase::Working;
            return vec![Action::Begin];
        }
        self.phase = Phase::Ended;
        let told = match event {
            Event::RuncGone => Some(Report::RuncGone),
            Event::Criu(_) | Event::CriuGone => Some(Report::CriuDied),
            Event::Runc(_) | Event::Agent(_) | Event::AgentGone { .. } => None,
        };
        told.map(Action::Tell).into_iter().chain([Action::End]).collect()
    }

    fn notified(&mut self, response: &Response) -> Vec<Action> {
        let notify = response.notify.clone().unwrap_or_default();
        let script = notify.script.unwrap_or_default();
        if self.kind == Kind::Restore {
            self.init = notify.pid.filter(|pid| *pid > 0).or(self.init);
        }
        let at_gate = self.kind == Kind::Restore && script == GATE;
        let mut actions = vec![Action::Tell(Report::Notify { script: script.clone() })];
        match self.phase {
            Phase::Held | Phase::Refused => actions.push(Action::Answer(false)),
            // Nobody else has anything to do here, and the agent is asked.
            Phase::Opened if script == CAUGHT && self.has_agent => self.phase = Phase::Caught,
            Phase::Opened if script == CAUGHT && self.is_forsaken => {
                actions.extend(self.destroy());
            }
            Phase::Working if at_gate => {
                self.phase = Phase::Asked;
                actions.push(Action::Forward);
            }
            // A second gate in one restore: criu would run on our answer to the first.
            Phase::Asked | Phase::Gated => actions.extend(self.refuse()),
            _ if self.has_runc => {
                self.is_owed = true;
                actions.push(Action::Forward);
            }
            _ => actions.push(Action::Answer(self.phase == Phase::Opened)),
        }
        actions
    }

    fn criu_gone(&mut self) -> Vec<Action> {
        if self.phase == Phase::Ended {
            return vec![Action::End];
        }
        self.phase = Phase::Ended;
        let mut actions: Vec<Action> = self.init.map(Action::Kill).into_iter().collect();
        actions.extend([Action::Tell(Report::CriuDied), Action::End]);
        actions
    }

    fn runc_gone(&mut self) -> Vec<Action> {
        self.has_runc = false;
        let mut actions = vec![Action::Tell(Report::RuncGone)];
        match self.phase {
            Phase::Asked | Phase::Gated => actions.extend(self.refuse()),
            Phase::Working => actions.push(Action::Hang),
            Phase::Opened if std::mem::take(&mut self.is_owed) => {
                actions.push(Action::Answer(true))
            }
            Phase::Held | Phase::Opened | Phase::Caught | Phase::Refused | Phase::Ended => {}
        }
        actions
    }

    fn agent_left(&mut self) -> Vec<Action> {
        match (self.phase, self.kind) {
            (Phase::Asked | Phase::Gated, _) => self.refuse(),
            (Phase::Working, Kind::Restore) => {
                self.phase = Phase::Refused;
                Vec::new()
            }
            // A dump leaves its container as it was: it may end by itself.
            _ => Vec::new(),
        }
    }

    /// Every process is caught and none has run.
    fn destroy(&mut self) -> Vec<Action> {
        self.phase = Phase::Refused;
        self.init.map(Action::Kill).into_iter().chain([Action::Hang]).collect()
    }

    fn refuse(&mut self) -> Vec<Action> {
        self.phase = Phase::Refused;
        vec![Action::Answer(false)]
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::{Notify, RESTORE};
    use super::*;

    fn notify(script: &str) -> Response {
        let notify = Notify { script: Some(script.into()), pid: Some(42) };
        Response { kind: NOTIFY, success: true, notify: Some(notify) }
    }
    fn told(script: &str) -> Action {
        Action::Tell(Report::Notify { script: script.into() })
    }
    fn commit() -> Order {
        Order::Commit { mark: "/m".into() }
    }
    fn says(success: bool) -> Request {
        Request { kind: NOTIFY, opts: None, notify_success: Some(success) }
    }
    fn done(success: bool) -> Response {
        Response { kind: RESTORE, success, notify: None }
    }
    fn asked() -> Proxy {
        let mut proxy = Proxy::new(Kind::Restore);
        let actions = proxy.step(&Event::Criu(&notify(GATE)));
        assert_eq!(actions, [told(GATE), Action::Forward]);
        proxy
    }
    fn gated() -> Proxy {
        let mut proxy = asked();
        assert_eq!(proxy.step(&Event::Runc(&says(true))), [Action::Tell(Report::Staged)]);
        proxy
    }

    #[test]
    fn a_restore_runs_only_when_the_agent_commits() {
        let mut proxy = gated();
        assert_eq!(proxy.step(&Event::Agent(commit())), [Action::Answer(true)]);
        assert_eq!(
            proxy.step(&Event::Criu(&done(true))),
            [Action::Tell(Report::Done { success: true }), Action::Forward]
        );
        assert_eq!(proxy.step(&Event::CriuGone), [Action::End]);
    }

    #[test]
    fn a_held_request_goes_to_criu_on_the_agent_s_word_alone() {
        let mut proxy = Proxy::held(Kind::Restore);
        assert_eq!(proxy.step(&Event::Agent(Order::Go)), [Action::Begin]);
        assert_eq!(proxy.step(&Event::Criu(&notify(GATE))), [told(GATE), Action::Forward]);
        for (event, said) in [
            (Event::Agent(commit()), None),
            (Event::Agent(Order::Abort), None),
            (Event::AgentGone { may_run: false }, None),
            (Event::RuncGone, Some(Report::RuncGone)),
            (Event::CriuGone, Some(Report::CriuDied)),
            (Event::Criu(&notify(GATE)), Some(Report::CriuDied)),
            (Event::Runc(&says(true)), None),
        ] {
            let mut proxy = Proxy::held(Kind::Dump);
            let expected: Vec<_> =
                said.map(Action::Tell).into_iter().chain([Action::End]).collect();
            assert_eq!(proxy.step(&event), expected, "{event:?}");
            assert!(!proxy.step(&Event::Agent(Order::Go)).contains(&Action::Begin));
        }
    }

    #[test]
    fn whoever_leaves_at_the_gate_refuses() {
        for mut proxy in [asked(), gated()] {
            assert_eq!(proxy.step(&Event::AgentGone { may_run: false }), [Action::Answer(false)]);
        }
        for mut proxy in [asked(), gated()] {
            let actions = proxy.step(&Event::RuncGone);
            assert_eq!(actions, [Action::Tell(Report::RuncGone), Action::Answer(false)]);
        }
        assert_eq!(gated().step(&Event::Agent(Order::Abort)), [Action::Answer(false)]);
    }

    #[test]
    fn a_commit_before_the_gate_never_opens_it() {
        for mut proxy in [Proxy::new(Kind::Restore), asked()] {
            let actions = proxy.step(&Event::Agent(commit()));
            assert!(!actions.contains(&Action::Answer(true)));
            let later = proxy.step(&Event::Criu(&notify(GATE)));
            assert_eq!(later, [told(GATE), Action::Answer(false)]);
        }
    }

    #[test]
    fn a_refused_restore_stays_refused() {
        let mut proxy = gated();
        proxy.step(&Event::AgentGone { may_run: false });
        assert_eq!(proxy.step(&Event::Agent(commit())), []);
        assert_eq!(proxy.step(&Event::Runc(&says(true))), []);
        assert_eq!(proxy.step(&Event::Criu(&notify("x"))), [told("x"), Action::Answer(false)]);
    }

    #[test]
    fn an_agent_that_leaves_early_is_answered_for_at_the_gate() {
        let mut proxy = Proxy::new(Kind::Restore);
        assert_eq!(proxy.step(&Event::AgentGone { may_run: false }), []);
        assert_eq!(proxy.step(&Event::Criu(&notify(GATE))), [told(GATE), Action::Answer(false)]);
    }

    #[test]
    fn a_runc_that_says_no_is_believed() {
        assert_eq!(asked().step(&Event::Runc(&says(false))), [Action::Answer(false)]);
    }

    #[test]
    fn after_a_commit_the_proxy_stands_in_for_runc() {
        let mut proxy = gated();
        proxy.step(&Event::Agent(commit()));
        assert_eq!(proxy.step(&Event::RuncGone), [Action::Tell(Report::RuncGone)]);
        let actions = proxy.step(&Event::Criu(&notify("network-unlock")));
        assert_eq!(actions, [told("network-unlock"), Action::Answer(true)]);
        let mut asked = gated();
        asked.step(&Event::Agent(commit()));
        asked.step(&Event::Criu(&notify("network-unlock")));
        let actions = asked.step(&Event::RuncGone);
        assert_eq!(actions, [Action::Tell(Report::RuncGone), Action::Answer(true)]);
    }

    #[test]
    fn the_caught_wait_for_the_agent_while_there_is_one() {
        let caught = || {
            let mut proxy = gated();
            proxy.step(&Event::Agent(commit()));
            assert_eq!(proxy.step(&Event::Criu(&notify(CAUGHT))), [told(CAUGHT)]);
            proxy
        };
        for event in [Event::Agent(Order::Go), Event::AgentGone { may_run: true }] {
            let mut proxy = caught();
            assert_eq!(proxy.step(&Event::RuncGone), [Action::Tell(Report::RuncGone)]);
            assert_eq!(proxy.step(&event), [Action::Answer(true)], "{event:?}");
        }
        let mut alone = gated();
        alone.step(&Event::Agent(commit()));
        assert_eq!(alone.step(&Event::AgentGone { may_run: true }), []);
        let actions = alone.step(&Event::Criu(&notify(CAUGHT)));
        assert_eq!(actions, [told(CAUGHT), Action::Forward]);
    }

    #[test]
    fn a_copy_that_counts_as_one_that_never_ran_does_not_run_without_the_agent() {
        let dies = [Action::Kill(42), Action::Hang];
        let mut caught = gated();
        caught.step(&Event::Agent(commit()));
        caught.step(&Event::Criu(&notify(CAUGHT)));
        assert_eq!(caught.step(&Event::AgentGone { may_run: false }), dies);
        assert_eq!(caught.step(&Event::Agent(Order::Go)), []);
        let mut opened = gated();
        opened.step(&Event::Agent(commit()));
        assert_eq!(opened.step(&Event::AgentGone { may_run: false }), []);
        let actions = opened.step(&Event::Criu(&notify(CAUGHT)));
        assert_eq!(actions[1..], dies);
    }

    #[test]
    fn when_criu_dies_what_it_built_is_killed() {
        let mut proxy = gated();
        let expected = [Action::Kill(42), Action::Tell(Report::CriuDied), Action::End];
        assert_eq!(proxy.step(&Event::CriuGone), expected);
    }

    #[test]
    fn a_dump_has_no_gate_and_kills_nobody() {
        let mut proxy = Proxy::new(Kind::Dump);
        let point = notify(GATE);
        assert_eq!(proxy.step(&Event::Criu(&point)), [told(GATE), Action::Forward]);
        assert_eq!(proxy.step(&Event::AgentGone { may_run: false }), []);
        assert_eq!(proxy.step(&Event::CriuGone), [Action::Tell(Report::CriuDied), Action::End]);
    }

    #[test]
    fn without_runc_criu_gives_up() {
        let mut proxy = Proxy::new(Kind::Restore);
        let actions = proxy.step(&Event::RuncGone);
        assert_eq!(actions, [Action::Tell(Report::RuncGone), Action::Hang]);
        assert_eq!(proxy.step(&Event::Criu(&notify("x"))), [told("x"), Action::Answer(false)]);
    }
}
