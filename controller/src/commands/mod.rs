//! Commands over MQTT: each is answered, and each id is done once.
//!
//! ```text
//! command ─▶ claim its id ─▶ ask the service ─▶ accepted ─▶ progress … ─▶ done | failed
//!               │ seen before                └▶ failed
//!               └▶ the recorded reply
//! ```
//!
//! A claim is recorded before anything is done and a reply before it is sent. A request
//! whose end was not told when the controller stopped is followed up by the next one:
//! what it waits for (its `Goal`) is recorded with it.

mod goal;
mod intake;

use std::collections::BTreeMap;
use std::time::Duration;

use godwit_bus::{Delivery, Publication, PublishError, Session};
use godwit_proto::command::{Cancel, Command, Create, Reply, Request, Status, Verb};
use godwit_proto::id::{ContainerName, RequestId, Tenant};
use godwit_proto::topic::{Topic, VerbName};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::event::Event;
use crate::refusal::{Chain, Refusal};
use crate::service::{CreateRequest, MigrateAnswer, MigrateRequest, Service};
use crate::store::{Claim, RequestRow, StoreError, StoreHandle};
use goal::Goal;
pub use intake::Intake;

/// How long an ended request is remembered.
const REMEMBERED: SignedDuration = SignedDuration::from_hours(30 * 24);
/// How often older ones are forgotten.
const FORGETTING: Duration = Duration::from_secs(3600);

/// The task behind the command topics.
pub struct Commands {
    service: Service,
    store: StoreHandle,
    session: Session,
    open: BTreeMap<(Tenant, RequestId), Open>,
}

/// A request whose end is to be told.
struct Open {
    row: RequestRow,
    goal: Goal,
    /// The progress that was told last.
    told: Option<(String, u8)>,
}

/// Why a request was not carried on with; the broker or the database is gone.
#[derive(Debug, thiserror::Error)]
enum Interrupted {
    #[error("a request cannot be recorded")]
    Store(#[from] StoreError),
    #[error("a reply cannot be sent")]
    Publish(#[from] PublishError),
}

/// A request that was taken up: what is answered, and what is waited for.
struct Taken {
    reply: Reply,
    goal: Option<Goal>,
}

impl Commands {
    /// The commands of `service`, answered through `session`.
    pub fn new(service: Service, store: StoreHandle, session: Session) -> Self {
        Self { service, store, session, open: BTreeMap::new() }
    }

    /// Answers what `inbox` (the line of an [`Intake`]) brings until `shutdown`.
    pub async fn run(mut self, inbox: mpsc::Receiver<Delivery>, shutdown: CancellationToken) {
        // What is cut off here, the next start takes up, as after a crash.
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.answer(inbox) => {}
        }
    }

    async fn answer(&mut self, mut inbox: mpsc::Receiver<Delivery>) {
        let mut events = self.service.events();
        let mut forgetting = tokio::time::interval(FORGETTING);
        log(self.take_up_again().await);
        loop {
            tokio::select! {
                delivery = inbox.recv() => match delivery {
                    Some(delivery) => log(self.command(delivery).await),
                    None => return,
                },
                event = events.recv() => match event {
                    Ok(event) => log(self.event(&event).await),
                    Err(RecvError::Lagged(_)) => log(self.look().await),
                    Err(RecvError::Closed) => return,
                },
                _ = forgetting.tick() => log(self.forget().await),
            }
        }
    }

    async fn command(&mut self, delivery: Delivery) -> Result<(), Interrupted> {
        let Some(topic @ Topic::Command { .. }) = &delivery.topic else { return Ok(()) };
        let Topic::Command { tenant, verb } = topic else { return Ok(()) };
        if delivery.retained && !delivery.payload.is_empty() {
            // Else it would be done again at every start of a controller.
            self.session.publish(Publication::new(topic, "").retained()).await?;
        }
        match Request::parse(tenant, verb, delivery.retained, &delivery.payload) {
            Ok(request) => self.request(verb, request).await,
            Err(error) => match error.answer() {
                Some((topic, reply)) => {
                    tracing::info!(%tenant, %error, "command refused");
                    self.publish(&topic, text(&reply)).await
                }
                None => Ok(()),
            },
        }
    }

    async fn request(&mut self, verb: &VerbName, request: Request) -> Result<(), Interrupted> {
        let Request { tenant, id, command } = request;
        let reply = Reply::ok(id.clone(), Status::Accepted, "received");
        let mut row = RequestRow {
            tenant: tenant.clone(),
            id: id.clone(),
            verb: verb.as_str().to_owned(),
            subject: None,
            status: word(Status::Accepted),
            reply: text(&reply),
        };
        let claimed = row.clone();
        let claim = self.store.call(move |store| store.claim_request(&claimed)).await?;
        if let Claim::Seen(seen) = claim {
            let topic = Topic::Reply { tenant, id };
            return self.publish(&topic, seen.reply).await;
        }
        tracing::info!(%tenant, request = %id, verb = verb.as_str(), "command");
        let taken = self
            .take(&tenant, id.clone(), command)
            .await
            .unwrap_or_else(|refusal| Taken { reply: failed(id.clone(), &refusal), goal: None });
        row.subject = taken.goal.as_ref().map(Goal::to_string);
        self.reply(&mut row, taken.reply).await?;
        if let Some(goal) = taken.goal {
            self.open.insert((tenant.clone(), id.clone()), Open { row, goal, told: None });
            self.look_at(&(tenant, id)).await?;
        }
        Ok(())
    }

    /// Does what is asked, as far as that is a matter of a moment.
    async fn take(
        &self,
        tenant: &Tenant,
        id: RequestId,
        command: Command,
    ) -> Result<Taken, Refusal> {
        let accepted = |message: String| Reply::ok(id.clone(), Status::Accepted, message);
        let service = &self.service;
        Ok(match command {
            Command::Create(create) => {
                let is_started = create.start;
                let view = service.create(tenant, create_request(*create)).await?;
                let (name, node) = (view.name.as_str(), view.node.as_str());
                Taken {
                    reply: accepted(format!("{name} is being made on {node}"))
                        .with("container", name)
                        .with("node", node),
                    goal: Some(if is_started { Goal::Runs(view.id) } else { Goal::Rests(view.id) }),
                }
            }
            Command::Start { container } => {
                let view = service.start(tenant, container.as_str()).await?;
                about(accepted(format!("{container} is being started")), &container)
                    .until(Goal::Runs(view.id))
            }
            Command::Stop { container, .. } => {
                let view = service.stop(tenant, container.as_str()).await?;
                about(accepted(format!("{container} is being stopped")), &container)
                    .until(Goal::Rests(view.id))
            }
            Command::Delete { container, force } => {
                let view = service.remove(tenant, container.as_str(), force).await?;
                about(accepted(format!("{container} is being removed")), &container)
                    .until(Goal::Gone(view.id))
            }
            Command::Migrate(migrate) => {
                let name = migrate.container;
                let request = MigrateRequest {
                    to: migrate.to,
                    mode: Some(migrate.mode),
                    bwlimit: migrate.bwlimit,
                    dry_run: Some(migrate.dry_run),
                };
                match service.migrate(tenant, name.as_str(), request).await? {
                    MigrateAnswer::Admission(admission) => Taken {
                        reply: goal::admission(id, &admission).with("container", name.as_str()),
                        goal: None,
                    },
                    MigrateAnswer::Started(view) => {
                        let message = format!("{name} moves to {}", view.target);
                        about(accepted(message), &name)
                            .with("migration", view.id.as_str())
                            .with("source", view.source.as_str())
                            .with("target", view.target.as_str())
                            .until(Goal::Moved(view.id))
                    }
                }
            }
            Command::Cancel(which) => {
                let migration = match which {
                    Cancel::Migration(migration) => migration,
                    Cancel::Of(container) => {
                        service.migration_of(tenant, container.as_str()).await?
                    }
                };
                let view = service.cancel(tenant, migration.as_str()).await?;
                about(accepted(format!("{migration} is being called off")), &view.container)
                    .with("migration", migration.as_str())
                    .until(Goal::CalledOff(migration))
            }
            Command::Restart { .. } => return Err(not_served(Verb::Restart)),
            Command::Rename { .. } => return Err(not_served(Verb::Rename)),
        })
    }

    /// Follows up what an earlier life of the controller did not bring to its end.
    async fn take_up_again(&mut self) -> Result<(), Interrupted> {
        for mut row in self.store.call(|store| store.open_requests()).await? {
            if let Some(goal) = row.subject.as_deref().and_then(|text| text.parse().ok()) {
                let key = (row.tenant.clone(), row.id.clone());
                self.open.insert(key, Open { row, goal, told: None });
                continue;
            }
            let refusal = Refusal::new(
                "interrupted",
                "the controller stopped before it could say whether this was taken up",
                "look at the container, then ask again under another id",
            );
            let reply = failed(row.id.clone(), &refusal);
            self.reply(&mut row, reply).await?;
        }
        self.look().await
    }

    /// Looks at everything that is waited for, where events were missed.
    async fn look(&mut self) -> Result<(), Interrupted> {
        for key in self.open.keys().cloned().collect::<Vec<_>>() {
            self.look_at(&key).await?;
        }
        Ok(())
    }

    async fn look_at(&mut self, key: &(Tenant, RequestId)) -> Result<(), Interrupted> {
        let Some(open) = self.open.get(key) else { return Ok(()) };
        match open.goal.look(&self.service, &key.0).await {
            Ok(event) => self.note(key, &event).await,
            Err(gone) if gone.code == "unknown-container" => {
                let (mut row, reply) = (open.row.clone(), open.goal.vanished(&key.1));
                self.reply(&mut row, reply).await?;
                self.open.remove(key);
                Ok(())
            }
            // The database does not answer: the next event or start will tell.
            Err(_) => Ok(()),
        }
    }

    async fn event(&mut self, event: &Event) -> Result<(), Interrupted> {
        let concerned: Vec<_> = self
            .open
            .iter()
            .filter(|(_, open)| open.goal.concerns(event))
            .map(|(key, _)| key.clone())
            .collect();
        for key in concerned {
            self.note(&key, event).await?;
        }
        Ok(())
    }

    /// Tells what an event means for an open request.
    async fn note(&mut self, key: &(Tenant, RequestId), event: &Event) -> Result<(), Interrupted> {
        let Some(open) = self.open.get_mut(key) else { return Ok(()) };
        if let Some(reply) = open.goal.end(&key.1, event) {
            let mut row = open.row.clone();
            self.reply(&mut row, reply).await?;
            self.open.remove(key);
        } else if let Some((mark, reply)) = open.goal.progress(&key.1, event)
            && open.told.as_ref() != Some(&mark)
        {
            open.told = Some(mark);
            self.publish(&reply.topic(&key.0), text(&reply)).await?;
        }
        Ok(())
    }

    async fn forget(&self) -> Result<(), Interrupted> {
        let before = Timestamp::now() - REMEMBERED;
        self.store.call(move |store| store.prune_requests(before)).await?;
        Ok(())
    }

    /// Records a reply, then sends it.
    async fn reply(&self, row: &mut RequestRow, reply: Reply) -> Result<(), Interrupted> {
        row.status = word(reply.status);
        row.reply = text(&reply);
        let answered = row.clone();
        self.store.call(move |store| store.answer_request(&answered)).await?;
        self.publish(&reply.topic(&row.tenant), row.reply.clone()).await
    }

    async fn publish(&self, topic: &Topic, text: String) -> Result<(), Interrupted> {
        Ok(self.session.publish(Publication::new(topic, text)).await?)
    }
}

impl Taken {
    fn with(mut self, name: &str, value: &str) -> Self {
        self.reply = self.reply.with(name, value);
        self
    }

    fn until(mut self, goal: Goal) -> Self {
        self.goal = Some(goal);
        self
    }
}

fn about(reply: Reply, container: &ContainerName) -> Taken {
    Taken { reply: reply.with("container", container.as_str()), goal: None }
}

fn create_request(create: Create) -> CreateRequest {
    CreateRequest {
        image: create.image,
        name: Some(create.container),
        node: create.node,
        args: Some(create.args),
        env: Some(create.env),
        labels: Some(create.labels),
        memory_bytes: create.limits.memory_bytes,
        nano_cpus: create.limits.nano_cpus,
        networks: Some(create.networks),
        ports: Some(create.ports),
        volumes: Some(create.volumes),
        devices: Some(create.devices),
        start: Some(create.start),
    }
}

fn not_served(verb: Verb) -> Refusal {
    Refusal::new(
        "verb-not-served",
        format!("`{verb}` is not served by this version"),
        "use create, start, stop, delete, migrate or cancel",
    )
}

fn failed(id: RequestId, refusal: &Refusal) -> Reply {
    let reply =
        Reply::failed(id, refusal.code, &refusal.message).with("remedy", refusal.remedy.as_str());
    match serde_json::to_value(&refusal.reasons) {
        Ok(reasons) if !refusal.reasons.is_empty() => reply.with("reasons", reasons),
        _ => reply,
    }
}

fn text(reply: &Reply) -> String {
    serde_json::to_string(reply).unwrap_or_default()
}

fn word(status: Status) -> String {
    match status {
        Status::Accepted => "accepted",
        Status::Progress => "progress",
        Status::Done => "done",
        Status::Failed => "failed",
    }
    .to_owned()
}

fn log(outcome: Result<(), Interrupted>) {
    if let Err(error) = outcome {
        tracing::error!(error = %Chain(&error), "a command is left unanswered until the next start");
    }
}

#[cfg(test)]
mod tests;
