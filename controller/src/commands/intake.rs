//! Commands on their way in: they wait in line, and who finds the line full is told so.

use godwit_bus::{Delivery, Publication, Session};
use godwit_proto::command::{Reply, Request};
use godwit_proto::topic::Topic;
use tokio::sync::mpsc;

use super::text;

/// How many commands wait while one is taken up.
const WAITING: usize = 256;

/// Where commands come in. Nothing here waits: frames of nodes come in behind them.
#[derive(Debug, Clone)]
pub struct Intake {
    waiting: mpsc::Sender<Delivery>,
    session: Session,
}

impl Intake {
    /// An intake that answers through `session`, and the line for [`super::Commands::run`].
    pub fn new(session: Session) -> (Self, mpsc::Receiver<Delivery>) {
        let (waiting, line) = mpsc::channel(WAITING);
        (Self { waiting, session }, line)
    }

    /// Puts a command in line, or answers at once that it is full.
    pub fn take(&self, delivery: Delivery) {
        let Err(mpsc::error::TrySendError::Full(delivery)) = self.waiting.try_send(delivery) else {
            return;
        };
        tracing::warn!(topic = delivery.raw_topic, limit = WAITING, "too many commands wait");
        let Some((topic, reply)) = turn_away(&delivery) else { return };
        if let Err(error) = self.session.try_publish(Publication::new(&topic, text(&reply))) {
            tracing::warn!(%error, "a command is dropped unanswered: nor is there room for its answer");
        }
    }
}

/// The answer to a command that finds no place. It leaves no record: asked again under the
/// same id it is done.
fn turn_away(delivery: &Delivery) -> Option<(Topic, Reply)> {
    let Some(Topic::Command { tenant, verb }) = &delivery.topic else { return None };
    match Request::parse(tenant, verb, delivery.retained, &delivery.payload) {
        Ok(Request { tenant, id, .. }) => {
            let message = format!("{WAITING} commands wait already: this one was not taken up");
            let reply = Reply::failed(id, "busy", message)
                .with("remedy", "ask again in a moment, under the same id");
            Some((reply.topic(&tenant), reply))
        }
        Err(error) => error.answer(),
    }
}
