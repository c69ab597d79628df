//! Following the controller's events across its restarts.
//!
//! The controller begins every stream with how things are, so nothing is missed
//! by connecting again: whoever follows only waits for the state it wants.

use std::pin::Pin;
use std::time::Duration;

use eventsource_stream::{Event, Eventsource};
use futures_util::{Stream, StreamExt};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::client::Client;
use crate::error::Failure;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

type Events = Pin<Box<dyn Stream<Item = Result<Event, String>>>>;

/// What a stream of events has to tell.
#[derive(Debug)]
pub(crate) enum News {
    /// An object as it is now; `kind` is `container`, `migration` or `node`.
    Object { kind: String, data: Value },
    /// Everything that was is told; from here on it is news.
    Ready,
    /// The controller went away; it is looked for.
    Lost,
    /// It is back.
    Back,
}

/// A stream of events that outlives the controller.
pub(crate) struct Follow {
    client: Client,
    query: Vec<(&'static str, String)>,
    patience: Duration,
    stream: Option<Events>,
    /// Since when there has been no controller, and the next pause.
    search: Option<(Instant, Duration)>,
}

impl Follow {
    /// Follows events that match `query`, to begin with the first [`Follow::next`].
    ///
    /// A controller that is gone is looked for, as long as `patience` lasts.
    pub(crate) fn new(
        client: &Client,
        patience: Duration,
        query: Vec<(&'static str, String)>,
    ) -> Self {
        Self { client: client.clone(), query, patience, stream: None, search: None }
    }

    /// Connects now; a controller that does not answer is an error at once.
    pub(crate) async fn connect(&mut self) -> Result<(), Failure> {
        let query: Vec<_> = self.query.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let answer = self.client.events(&query).await?;
        let events = answer.bytes_stream().eventsource();
        self.stream = Some(Box::pin(events.map(|event| event.map_err(|error| error.to_string()))));
        Ok(())
    }

    /// The next news. Cancel safe: nothing that was read is lost.
    ///
    /// # Errors
    /// What the controller refuses, and [`Failure::Unreachable`] when patience is at its end.
    pub(crate) async fn next(&mut self) -> Result<News, Failure> {
        loop {
            let Some(stream) = &mut self.stream else {
                if let Some(news) = self.look_for_it().await? {
                    return Ok(news);
                }
                continue;
            };
            match stream.next().await {
                Some(Ok(event)) if event.event == "ready" => return Ok(News::Ready),
                Some(Ok(event)) => match serde_json::from_str(&event.data) {
                    Ok(data) => return Ok(News::Object { kind: event.event, data }),
                    Err(error) => return Err(self.client.foreign(format!("its event: {error}"))),
                },
                Some(Err(_)) | None => {
                    self.stream = None;
                    self.search = Some((Instant::now(), FIRST_PAUSE));
                    return Ok(News::Lost);
                }
            }
        }
    }

    /// Tries to connect once, after a pause that grows; tells when a search begins or ends.
    async fn look_for_it(&mut self) -> Result<Option<News>, Failure> {
        if let Some((since, pause)) = self.search {
            sleep(pause).await;
            self.search = Some((since, (pause * 2).min(LONGEST_PAUSE)));
        }
        match (self.connect().await, self.search) {
            (Ok(()), search) => {
                self.search = None;
                Ok(search.map(|_| News::Back))
            }
            (Err(failure), None) if is_passing(&failure) => {
                self.search = Some((Instant::now(), FIRST_PAUSE));
                Ok(Some(News::Lost))
            }
            (Err(failure), Some((since, _)))
                if is_passing(&failure) && since.elapsed() < self.patience =>
            {
                Ok(None)
            }
            (Err(failure), _) => Err(failure),
        }
    }
}

/// Whether a controller that restarts can be behind it.
fn is_passing(failure: &Failure) -> bool {
    match failure {
        Failure::Unreachable { .. } => true,
        Failure::Refused { status, .. } => *status == 503,
        _ => false,
    }
}
