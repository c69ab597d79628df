//! Waiting until what was ordered of a container is so.

use serde_json::Value;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Context;
use crate::api::Container;
use crate::error::{Failure, say};
use crate::follow::{Follow, News};
use crate::render::read;

/// Ctrl-C, listened for from the moment that this is made.
pub(super) struct Interrupt(Signal);

impl Interrupt {
    /// Takes Ctrl-C over: from now on it no longer ends the process.
    pub(super) fn listen() -> Result<Self, Failure> {
        let signal = signal(SignalKind::interrupt());
        signal
            .map(Self)
            .map_err(|source| Failure::Io { what: "listen for Ctrl-C".to_owned(), source })
    }

    /// Waits for Ctrl-C. Cancel safe.
    pub(super) async fn pressed(&mut self) {
        self.0.recv().await;
    }

    /// Waits for the answer to an order; Ctrl-C gives up the waiting, not the order.
    pub(super) async fn or(
        &mut self,
        answer: impl Future<Output = Result<Value, Failure>>,
    ) -> Result<Value, Failure> {
        tokio::select! {
            answer = answer => answer,
            () = self.pressed() => Err(Failure::Interrupted {
                message: "the controller had not answered yet; it may have taken the order".to_owned(),
                remedy: "see with `godwit ps -a` and `godwit migration ls --active`".to_owned(),
            }),
        }
    }
}

/// What was ordered of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// To be made, and not to run.
    Create,
    /// To run.
    Start,
    /// To stop.
    Stop,
    /// To be removed.
    Remove,
}

/// How far an order is.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    UnderWay,
    Done,
    Failed { message: String },
}

impl Order {
    fn standing(self, container: &Container) -> Standing {
        let at_rest = container.intent.as_deref().is_none_or(|intent| intent == "rest");
        let name = &container.name;
        match (self, container.state.as_str()) {
            (Self::Start, "running" | "exited") => Standing::Done,
            (Self::Stop, "stopped" | "exited" | "lost") => Standing::Done,
            (Self::Create, "stopped") => Standing::Done,
            (Self::Remove, "removed") => Standing::Done,
            (Self::Create | Self::Start, "lost") => {
                Standing::Failed { message: format!("{name} is lost") }
            }
            (_, "failed") => Standing::Failed { message: format!("{name} failed") },
            (_, "removed") => Standing::Failed { message: format!("{name} was removed meanwhile") },
            (_, state @ ("running" | "stopped" | "exited")) if at_rest => {
                Standing::Failed { message: format!("{name} is {state} still, or again") }
            }
            _ => Standing::UnderWay,
        }
    }
}

impl Context {
    /// Follows the container with this id until `order` is carried out; gives it back as it is
    /// then, or nothing when it is gone.
    ///
    /// # Errors
    /// [`Failure::Failed`] when it cannot be carried out any more, [`Failure::Interrupted`] at
    /// Ctrl-C (the order stands), and those of [`Follow::next`].
    pub(super) async fn until_done(
        &self,
        interrupt: &mut Interrupt,
        id: &str,
        name: &str,
        order: Order,
    ) -> Result<Option<Value>, Failure> {
        let query = vec![("container", id.to_owned())];
        let mut follow = Follow::new(&self.client, self.patience, query);
        loop {
            let news = tokio::select! {
                news = follow.next() => news,
                () = interrupt.pressed() => return Err(Failure::Interrupted {
                    message: format!("no longer waiting for {name}; the order stands"),
                    remedy: format!("look at it with `godwit inspect {name}`"),
                }),
            };
            match news {
                Ok(News::Object { kind, data }) if kind == "container" => {
                    let container: Container = read(&data)?;
                    if container.id != id {
                        continue;
                    }
                    match order.standing(&container) {
                        Standing::UnderWay => {}
                        Standing::Done => return Ok(Some(data)),
                        Standing::Failed { message } => {
                            return Err(Failure::Failed {
                                message: match &container.error {
                                    Some(error) => format!("{message}: {error}"),
                                    None => message,
                                },
                                remedy: Some(format!(
                                    "see what it wrote with `godwit logs {name}`, and how it is \
                                     with `godwit inspect {name}`"
                                )),
                            });
                        }
                    }
                }
                Ok(News::Object { .. } | News::Ready) => {}
                Ok(News::Lost) => say("the controller went away; waiting for it"),
                Ok(News::Back) => say("the controller is back"),
                Err(Failure::Refused { status: 404, .. }) if order == Order::Remove => {
                    return Ok(None);
                }
                Err(failure) => return Err(failure),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn standing(order: Order, state: &str, intent: &str) -> Result<Standing, serde_json::Error> {
        let container = json!({"id": "1", "name": "c", "state": state, "intent": intent});
        Ok(order.standing(&serde_json::from_value(container)?))
    }

    #[test]
    fn an_order_is_under_way_until_its_state_is_reached() -> Result<(), serde_json::Error> {
        for (order, state, intent) in [
            (Order::Start, "starting", "start"),
            (Order::Start, "stopped", "start"),
            (Order::Start, "migrating", "rest"),
            (Order::Stop, "running", "stop"),
            (Order::Remove, "removing", "remove"),
            (Order::Remove, "running", "remove"),
            (Order::Create, "creating", "create"),
        ] {
            let now = standing(order, state, intent)?;
            assert_eq!(now, Standing::UnderWay, "{order:?} {state} {intent}");
        }
        Ok(())
    }

    #[test]
    fn an_order_that_nobody_pursues_any_more_has_failed() -> Result<(), serde_json::Error> {
        for (order, state) in [
            (Order::Start, "stopped"),
            (Order::Start, "failed"),
            (Order::Start, "removed"),
            (Order::Start, "lost"),
            (Order::Stop, "running"),
            (Order::Remove, "stopped"),
        ] {
            let now = standing(order, state, "rest")?;
            assert!(matches!(now, Standing::Failed { .. }), "{order:?} {state}");
        }
        Ok(())
    }
}
