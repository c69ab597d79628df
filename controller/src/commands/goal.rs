//! What a request waits for, and how its end reads.

use std::fmt;
use std::str::FromStr;

use godwit_proto::command::{Reply, Status};
use godwit_proto::id::{ContainerId, MigrationId, RequestId, Tenant};

use crate::event::Event;
use crate::placement::Admission;
use crate::refusal::Refusal;
use crate::service::Service;
use crate::store::ContainerState;
use crate::view::{ContainerView, MigrationView};

/// What a request waits for. Its text is recorded with the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Goal {
    /// The container runs.
    Runs(ContainerId),
    /// The container is there and does not run.
    Rests(ContainerId),
    /// The container is gone.
    Gone(ContainerId),
    /// The container is on its new node.
    Moved(MigrationId),
    /// The move is off.
    CalledOff(MigrationId),
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Runs(id) => write!(f, "runs {id}"),
            Self::Rests(id) => write!(f, "rests {id}"),
            Self::Gone(id) => write!(f, "gone {id}"),
            Self::Moved(id) => write!(f, "moved {id}"),
            Self::CalledOff(id) => write!(f, "called-off {id}"),
        }
    }
}

impl FromStr for Goal {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (kind, id) = text.split_once(' ').ok_or(())?;
        let container = || id.parse().map_err(drop);
        let migration = || id.parse().map_err(drop);
        match kind {
            "runs" => container().map(Self::Runs),
            "rests" => container().map(Self::Rests),
            "gone" => container().map(Self::Gone),
            "moved" => migration().map(Self::Moved),
            "called-off" => migration().map(Self::CalledOff),
            _ => Err(()),
        }
    }
}

impl Goal {
    /// True when an event is about what is waited for.
    pub(super) fn concerns(&self, event: &Event) -> bool {
        match (self, event) {
            (Self::Runs(id) | Self::Rests(id) | Self::Gone(id), Event::Container(view)) => {
                view.id == *id
            }
            (Self::Moved(id) | Self::CalledOff(id), Event::Migration(view)) => view.id == *id,
            _ => false,
        }
    }

    /// How it stands now, as an event.
    ///
    /// # Errors
    /// `unknown-container` when it is gone.
    pub(super) async fn look(&self, service: &Service, tenant: &Tenant) -> Result<Event, Refusal> {
        Ok(match self {
            Self::Runs(id) | Self::Rests(id) | Self::Gone(id) => {
                Event::Container(service.container(tenant, &id.to_string()).await?)
            }
            Self::Moved(id) | Self::CalledOff(id) => {
                Event::Migration(service.migration(tenant, id.as_str()).await?)
            }
        })
    }

    /// The last reply, when the container is gone and nobody saw it go.
    pub(super) fn vanished(&self, id: &RequestId) -> Reply {
        match self {
            Self::Gone(_) => Reply::ok(id.clone(), Status::Done, "it is gone"),
            _ => Reply::failed(id.clone(), "overtaken", "it was removed by another request")
                .with("remedy", "look who else gives commands to it"),
        }
    }

    /// The last reply, if the event is the end.
    pub(super) fn end(&self, id: &RequestId, event: &Event) -> Option<Reply> {
        match event {
            Event::Container(view) => self.end_of_container(id, view),
            Event::Migration(view) if view.settled => Some(self.end_of_move(id, view)),
            _ => None,
        }
    }

    fn end_of_container(&self, id: &RequestId, view: &ContainerView) -> Option<Reply> {
        use ContainerState::{Exited, Failed, Lost, Removed, Removing, Running, Stopped, Stopping};
        let name = &view.name;
        let done = |message: String| Reply::ok(id.clone(), Status::Done, message);
        let overtaken = || {
            let message = format!("{name} is {} by another request", view.state);
            Reply::failed(id.clone(), "overtaken", message)
                .with("remedy", "look who else gives commands to it")
        };
        let reply = match (self, view.state) {
            (Self::Runs(_), Running) => done(format!("{name} runs on {}", view.node)),
            (Self::Runs(_), Exited) => {
                let code = view.exit_code.map_or("?".to_owned(), |code| code.to_string());
                done(format!("{name} ran and ended with exit code {code}"))
                    .with("exit_code", view.exit_code)
            }
            (Self::Rests(_), Stopped | Exited | Lost) => done(format!("{name} does not run")),
            (Self::Runs(_), Lost) => {
                let message = format!("{name} is lost: {} was fenced", view.node);
                Reply::failed(id.clone(), "lost", message).with("remedy", view.error.clone())
            }
            (Self::Gone(_), Removed) => done(format!("{name} is gone")),
            (_, Failed) => {
                let why = view.error.clone().unwrap_or_else(|| "no reason was given".into());
                Reply::failed(id.clone(), "failed", why)
                    .with("remedy", format!("`godwit logs {name}` may tell more"))
            }
            (Self::Runs(_), Stopping) | (Self::Runs(_) | Self::Rests(_), Removing | Removed) => {
                overtaken()
            }
            _ => return None,
        };
        Some(reply.with("container", name.as_str()).with("node", view.node.as_str()))
    }

    fn end_of_move(&self, id: &RequestId, view: &MigrationView) -> Reply {
        let name = &view.container;
        let outcome = view.outcome.as_deref().unwrap_or("settled");
        let reason = view.reason.as_deref().unwrap_or(outcome);
        let reply = match (self, outcome) {
            (Self::CalledOff(_), "moved") => {
                let message = format!("too late: {name} runs on {} already", view.target);
                Reply::failed(id.clone(), "decided", message)
                    .with("remedy", format!("move it back with --to {}", view.source))
            }
            (Self::CalledOff(_), _) => {
                let message = format!("called off, {name} runs on {}", view.source);
                Reply::ok(id.clone(), Status::Done, message)
            }
            (_, "moved") => {
                let message = format!("{name} runs on {}", view.target);
                Reply::ok(id.clone(), Status::Done, message)
            }
            _ => Reply::failed(id.clone(), outcome, format!("{name} did not move: {reason}")),
        };
        let reply = match &view.remedy {
            Some(remedy) if reply.status == Status::Failed => reply.with("remedy", remedy.as_str()),
            _ => reply,
        };
        with_figures(reply, view)
    }

    /// A reply about what goes on, with a mark by which its like is not told twice.
    pub(super) fn progress(&self, id: &RequestId, event: &Event) -> Option<((String, u8), Reply)> {
        let Event::Migration(view) = event else { return None };
        // Ten steps suffice for people; those who want all have the status topic.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a percentage, from 0 to 100"
        )]
        let tenth = (view.percent.unwrap_or(0.0) / 10.0) as u8;
        let reply = Reply::ok(id.clone(), Status::Progress, view.phase.clone());
        Some(((view.phase.clone(), tenth), with_figures(reply, view)))
    }
}

fn with_figures(reply: Reply, view: &MigrationView) -> Reply {
    reply
        .with("container", view.container.as_str())
        .with("migration", view.id.as_str())
        .with("source", view.source.as_str())
        .with("target", view.target.as_str())
        .with("phase", view.phase.as_str())
        .with("percent", view.percent)
        .with("bytes", view.bytes)
        .with("rate_bytes_per_s", view.rate_bytes_per_s)
        .with("eta_ms", view.eta_ms)
        .with("gap_ms", view.gap_ms)
}

/// The answer to a move that was only asked for.
pub(super) fn admission(id: RequestId, admission: &Admission) -> Reply {
    let target = admission.target.as_ref().map(|node| node.as_str());
    let message = match (admission.ok, target) {
        (true, Some(target)) => format!("it may move to {target}"),
        _ => {
            let reasons: Vec<_> =
                admission.reasons.iter().map(|reason| reason.message.as_str()).collect();
            format!("it may not move: {}", reasons.join("; "))
        }
    };
    let details = serde_json::to_value(admission).unwrap_or_default();
    Reply::ok(id, Status::Done, message).with("admission", details)
}
