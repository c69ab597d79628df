//! What the broker tells of itself, and cuts off when it is told to.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use jiff::Timestamp;
use rmqtt_codec::v5::DisconnectReasonCode;

use crate::core::session::Session;
use crate::core::share::parse;
use crate::core::{Core, Effects, Facts, Parting};
use crate::message::{Message, Out};
use crate::report::{ConnectionReport, Inventory, RetainedReport, SessionReport, TopicReport};

/// What is asked of the core, in its turn.
type Ask = dyn FnOnce(&mut Core, &mut Effects) + Send;

/// A question to the core; whoever hears the answer is in it.
pub(crate) struct Question(pub(crate) Box<Ask>);

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Question")
    }
}

impl Core {
    /// Every session, or only those with a connection; by user and client id.
    pub(crate) fn session_reports(&self, is_connected_only: bool) -> Vec<SessionReport> {
        let wanted = |session: &&Session| !is_connected_only || session.online.is_some();
        let sessions = self.sessions.iter().map(|(_, session)| session);
        let mut reports: Vec<_> = sessions.filter(wanted).map(report).collect();
        reports.sort_by(|a, b| (&a.user, &a.client).cmp(&(&b.user, &b.client)));
        reports
    }

    /// At most `limit` retained messages whose topics `filter` matches, in the order of their
    /// topics, from the first behind `after`.
    pub(crate) fn retained_reports(
        &self,
        filter: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Vec<RetainedReport> {
        let is_fresh = |message: &&Arc<Message>| !message.has_expired(self.now_ms);
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let found = self.retained.matching_from(filter, from).filter(is_fresh).take(limit);
        let report = |message: &Arc<Message>| RetainedReport {
            topic: message.topic.to_string(),
            bytes: message.payload.len(),
            qos: message.qos.value(),
            expires: message.expires_ms.and_then(time),
        };
        found.map(report).collect()
    }

    /// Every filter that somebody is subscribed to.
    pub(crate) fn topic_reports(&self) -> Vec<TopicReport> {
        let mut counts = BTreeMap::new();
        for (_, session) in &self.sessions {
            for filter in session.subscriptions.keys() {
                *counts.entry(filter).or_insert(0) += 1;
            }
        }
        let report = |(text, subscribers)| {
            let (group, filter) = parse(text)?;
            let group = group.map(|group| group.to_string());
            Some(TopicReport { filter: filter.to_string(), group, subscribers })
        };
        counts.into_iter().filter_map(report).collect()
    }

    pub(crate) fn inventory(&self) -> Inventory {
        let (retained_messages, retained_bytes) = self.retained.size();
        let mut all = Inventory {
            sessions: self.sessions.len(),
            connected: self.by_connection.len(),
            shared_subscriptions: self.groups,
            retained_messages,
            retained_bytes,
            ..Inventory::default()
        };
        for (_, session) in &self.sessions {
            all.subscriptions += session.subscriptions.len();
            all.queued_messages += session.queue.len();
            all.queued_bytes += session.queued_bytes;
            all.in_flight += session.in_flight.len();
        }
        all
    }

    /// Cuts off every connected client that is `chosen` by user and client id, as one that went
    /// without a word: its session stays as long as it would. Answers how many there were.
    pub(crate) fn kick(
        &mut self,
        chosen: impl Fn(Option<&str>, &str) -> bool,
        effects: &mut Effects,
    ) -> usize {
        let online = self.sessions.iter().filter_map(|(_, session)| {
            let (user, client) = &session.client;
            let online = session.online.as_ref()?;
            chosen(user.as_deref(), client).then_some(online.connection)
        });
        let connections: Vec<_> = online.collect();
        for connection in &connections {
            let bye = Out::Close(DisconnectReasonCode::AdministrativeAction);
            effects.out.push((*connection, bye));
            // At once: one that reads nothing may take its time to hear of it.
            let parting = Parting { is_will_void: false, expiry_seconds: None };
            self.leave(*connection, parting, effects);
        }
        effects.counts.kicked += connections.len() as u64;
        connections.len()
    }
}

fn report(session: &Session) -> SessionReport {
    let (user, client) = &session.client;
    SessionReport {
        user: user.as_ref().map(ToString::to_string),
        client: client.to_string(),
        connection: session.online.as_ref().map(|online| connection(&online.facts)),
        subscriptions: session.subscriptions.len(),
        filters: session.subscriptions.keys().map(ToString::to_string).collect(),
        queued_messages: session.queue.len(),
        queued_bytes: session.queued_bytes,
        in_flight: session.in_flight.len(),
        ends: session.ends_ms.and_then(time),
    }
}

fn connection(facts: &Facts) -> ConnectionReport {
    ConnectionReport {
        address: facts.address.to_string(),
        transport: facts.transport.name(),
        version: if facts.version == 5 { "5" } else { "3.1.1" },
        keep_alive_seconds: facts.keep_alive_seconds,
        since: time(facts.since_ms).unwrap_or_default(),
    }
}

fn time(ms: u64) -> Option<Timestamp> {
    Timestamp::from_millisecond(i64::try_from(ms).ok()?).ok()
}
