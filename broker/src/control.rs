//! What can be asked of a broker while it runs.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use rmqtt_codec::types::{Publish, QoS};
use tokio::sync::oneshot;
use tracing::info;

use crate::BrokerError;
use crate::accounts::Files;
use crate::connection::Door;
use crate::core::{Core, Effects, Event, Question, is_topic};
use crate::exposition::exposition;
use crate::listener::{ListenError, Tls};
use crate::metrics::Metrics;
use crate::report::{Inventory, RetainedReport, SessionReport, TopicReport};

/// How long the broker may take for an answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Why a broker does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// It has stopped.
    #[error("the broker has stopped")]
    Stopped,
    /// Events do not go around.
    #[error("nothing came out of the broker's router within a second")]
    Late,
    /// What it is told to keep it cannot keep.
    #[error("the store cannot be written to: nothing is acknowledged")]
    Store,
    /// Not what was asked, but how.
    #[error("that is no topic")]
    NoTopic,
}

/// A handle on a broker; a clone is the same.
#[derive(Clone)]
pub struct Control {
    door: Arc<Door>,
    files: Option<Arc<Files>>,
    tls: Option<Arc<Tls>>,
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").finish_non_exhaustive()
    }
}

impl Control {
    pub(crate) fn new(door: Arc<Door>, files: Option<Arc<Files>>, tls: Option<Arc<Tls>>) -> Self {
        Self { door, files, tls }
    }

    /// Accounts or their rules changed: every client is judged anew, and who has no account any
    /// more is cut off.
    pub fn accounts_changed(&self) {
        self.door.admission.forget();
        self.door.lane.send_now(Event::AccountsChanged);
    }

    /// Reads certificates, passwords and rules again; nobody is disconnected whose account stays.
    ///
    /// # Errors
    /// When a file cannot be used; what was read before stays then.
    pub fn reload(&self) -> Result<(), BrokerError> {
        let next =
            self.tls.as_ref().map(|tls| tls.next()).transpose().map_err(ListenError::from)?;
        if let Some(files) = &self.files {
            files.reload()?;
            self.accounts_changed();
        }
        if let (Some(tls), Some(next)) = (&self.tls, next) {
            tls.show(next);
        }
        info!("certificates, accounts and rules read again");
        Ok(())
    }

    /// Every session, with a connection or without, by user and client id.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn sessions(&self) -> Result<Vec<SessionReport>, NoAnswer> {
        self.ask(|core, _| core.session_reports(false)).await
    }

    /// Those with a connection.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn clients(&self) -> Result<Vec<SessionReport>, NoAnswer> {
        self.ask(|core, _| core.session_reports(true)).await
    }

    /// At most `limit` of the retained messages that a filter matches, in the order of their topics,
    /// from the first behind `after`.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn retained(
        &self,
        filter: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<RetainedReport>, NoAnswer> {
        let (filter, after) = (filter.to_owned(), after.map(str::to_owned));
        self.ask(move |core, _| core.retained_reports(&filter, after.as_deref(), limit)).await
    }

    /// Every filter that somebody is subscribed to.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn topics(&self) -> Result<Vec<TopicReport>, NoAnswer> {
        self.ask(|core, _| core.topic_reports()).await
    }

    /// How much there is of everything.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn inventory(&self) -> Result<Inventory, NoAnswer> {
        self.ask(|core, _| core.inventory()).await
    }

    /// Cuts off the clients with that id, of one user or of all. Answers how many there were.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn kick(&self, user: Option<&str>, client: &str) -> Result<usize, NoAnswer> {
        let (user, client) = (user.map(str::to_owned), client.to_owned());
        self.cut(move |its_user, its_id| {
            its_id == client && user.as_deref().is_none_or(|user| its_user == Some(user))
        })
        .await
    }

    /// Cuts off every client of a user. Answers how many there were.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn kick_user(&self, user: &str) -> Result<usize, NoAnswer> {
        let user = user.to_owned();
        self.cut(move |its_user, _| its_user == Some(&user)).await
    }

    async fn cut(
        &self,
        chosen: impl Fn(Option<&str>, &str) -> bool + Send + 'static,
    ) -> Result<usize, NoAnswer> {
        let count = self.ask(move |core, effects| core.kick(chosen, effects)).await?;
        info!(count, "clients cut off by an operator");
        Ok(count)
    }

    /// Publishes as the broker itself, with QoS 0.
    ///
    /// # Errors
    /// When it is no topic.
    pub async fn publish(
        &self,
        topic: &str,
        payload: impl Into<Bytes>,
        retain: bool,
    ) -> Result<(), NoAnswer> {
        if !is_topic(topic) {
            return Err(NoAnswer::NoTopic);
        }
        self.publish_all([(topic.to_owned(), payload.into())], retain).await;
        Ok(())
    }

    /// The same of many, which are topics.
    pub(crate) async fn publish_all(
        &self,
        messages: impl IntoIterator<Item = (String, Bytes)>,
        retain: bool,
    ) {
        let event = |(topic, payload): (String, Bytes)| {
            Event::Announce(Box::new(Publish {
                dup: false,
                retain,
                qos: QoS::AtMostOnce,
                topic: topic.into(),
                packet_id: None,
                payload,
                properties: None,
            }))
        };
        self.door.lane.send(messages.into_iter().map(event).collect()).await;
    }

    /// Whether it works: something went around inside of it, and it can keep what it must. Answers
    /// how long that took.
    ///
    /// # Errors
    /// Why not.
    pub async fn health(&self) -> Result<Duration, NoAnswer> {
        let asked = tokio::time::Instant::now();
        self.ask(|_, _| ()).await?;
        if self.metrics().is_store_stuck.load(Ordering::Relaxed) {
            return Err(NoAnswer::Store);
        }
        Ok(asked.elapsed())
    }

    /// What it counted, in OpenMetrics.
    pub async fn exposition(&self) -> String {
        exposition(self.door.metrics.clone(), self.inventory().await.ok())
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.door.metrics
    }

    /// The pause between two reports in `$SYS`; `None` for no reports.
    pub(crate) fn sys_interval(&self) -> Option<Duration> {
        let seconds = self.door.config.sys_interval_seconds;
        (seconds > 0).then(|| Duration::from_secs(seconds.into()))
    }

    /// Asks the core, in its turn.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Core, &mut Effects) -> T + Send + 'static,
    ) -> Result<T, NoAnswer> {
        let (answer, answered) = oneshot::channel();
        let ask = move |core: &mut Core, effects: &mut Effects| {
            // Nobody waits for it any more.
            let _ = answer.send(question(core, effects));
        };
        self.door.lane.send_now(Event::Ask(Question(Box::new(ask))));
        tokio::select! {
            answer = answered => answer.map_err(|_| NoAnswer::Stopped),
            () = self.door.stopped.cancelled() => Err(NoAnswer::Stopped),
            () = tokio::time::sleep(PATIENCE) => Err(NoAnswer::Late),
        }
    }
}
