//! `godwit broker`.

use jiff::Timestamp;
use serde::Deserialize;

use super::{Context, items};
use crate::args::{Broker, BrokerCommand};
use crate::client::Client;
use crate::error::Failure;
use crate::human;
use crate::render::{Format, cell, maybe, read};

/// How many retained messages are asked for at a time.
const PAGE: usize = 1_000;

/// A session of a client.
#[derive(Debug, Deserialize)]
struct Session {
    client: String,
    user: Option<String>,
    connection: Option<Connection>,
    subscriptions: usize,
    queued_messages: usize,
    queued_bytes: u64,
    in_flight: usize,
    ends: Option<Timestamp>,
}

#[derive(Debug, Deserialize)]
struct Connection {
    address: String,
    transport: String,
    version: String,
    keep_alive_seconds: u64,
    since: Timestamp,
}

#[derive(Debug, Deserialize)]
struct Retained {
    topic: String,
    bytes: u64,
    qos: u8,
    expires: Option<Timestamp>,
}

#[derive(Debug, Deserialize)]
struct Topic {
    filter: String,
    group: Option<String>,
    subscribers: usize,
}

#[derive(Debug, Deserialize)]
struct Kicked {
    disconnected: usize,
}

/// Asks the controller, or the broker that `--url` names.
pub(super) async fn broker(mut context: Context, broker: Broker) -> Result<(), Failure> {
    if let Some(url) = broker.url {
        context.client = Client::of_broker(url)?;
    }
    match broker.command {
        BrokerCommand::Clients(list) => clients(&context, &list.output.format).await,
        BrokerCommand::Sessions(list) => sessions(&context, &list.output.format).await,
        BrokerCommand::Retained { filter, output } => {
            retained(&context, &filter, &output.format).await
        }
        BrokerCommand::Topics(list) => topics(&context, &list.output.format).await,
        BrokerCommand::Kick { client, user, output } => {
            kick(&context, &client, user.as_deref(), &output.format).await
        }
        BrokerCommand::Reload(list) => reload(&context, &list.output.format).await,
    }
}

async fn clients(context: &Context, format: &Format) -> Result<(), Failure> {
    let clients = items(&context.client, context.client.get(&["broker", "clients"], &[]).await?)?;
    let header = ["CLIENT", "USER", "ADDRESS", "OVER", "MQTT", "KEEP ALIVE", "QUEUED", "CONNECTED"];
    context.screen.list(format, &clients, header, |session: Session| {
        let queued = queued(&session);
        let connection = session.connection;
        let fact = |word: fn(&Connection) -> String| maybe(connection.as_ref(), word);
        [
            cell(&session.client),
            maybe(session.user, |user| user),
            fact(|found| found.address.clone()),
            fact(|found| found.transport.clone()),
            fact(|found| found.version.clone()),
            fact(|found| match found.keep_alive_seconds {
                0 => "none".to_owned(),
                seconds => format!("{seconds} s"),
            }),
            cell(queued),
            fact(|found| human::age(found.since)),
        ]
    })
}

async fn sessions(context: &Context, format: &Format) -> Result<(), Failure> {
    let sessions = context.client.get(&["broker", "sessions"], &[]).await?;
    let sessions = items(&context.client, sessions)?;
    let header = ["CLIENT", "USER", "STATE", "SUBSCRIPTIONS", "QUEUED", "IN FLIGHT", "ENDS"];
    context.screen.list(format, &sessions, header, |session: Session| {
        let queued = queued(&session);
        [
            cell(&session.client),
            maybe(session.user, |user| user),
            cell(if session.connection.is_some() { "connected" } else { "away" }),
            cell(session.subscriptions),
            cell(queued),
            cell(session.in_flight),
            maybe(session.ends, |ends| ends.to_string()),
        ]
    })
}

fn queued(session: &Session) -> String {
    match session.queued_messages {
        0 => "0".to_owned(),
        messages => format!("{messages} ({})", human::size(session.queued_bytes)),
    }
}

async fn retained(context: &Context, filter: &str, format: &Format) -> Result<(), Failure> {
    let (mut all, limit) = (Vec::new(), PAGE.to_string());
    let mut after: Option<String> = None;
    loop {
        let mut query = vec![("filter", filter), ("limit", &limit)];
        query.extend(after.as_deref().map(|topic| ("after", topic)));
        let page = context.client.get(&["broker", "retained"], &query).await?;
        let page = items(&context.client, page)?;
        after = match page.last() {
            Some(last) if page.len() == PAGE => Some(read::<Retained>(last)?.topic),
            _ => None,
        };
        all.extend(page);
        if after.is_none() {
            break;
        }
    }
    let header = ["TOPIC", "SIZE", "QOS", "EXPIRES"];
    context.screen.list(format, &all, header, |message: Retained| {
        [
            cell(message.topic),
            cell(human::size(message.bytes)),
            cell(message.qos),
            maybe(message.expires, |expires| expires.to_string()),
        ]
    })
}

async fn topics(context: &Context, format: &Format) -> Result<(), Failure> {
    let topics = items(&context.client, context.client.get(&["broker", "topics"], &[]).await?)?;
    let header = ["FILTER", "GROUP", "SUBSCRIBERS"];
    context.screen.list(format, &topics, header, |topic: Topic| {
        [cell(topic.filter), maybe(topic.group, |group| group), cell(topic.subscribers)]
    })
}

async fn kick(
    context: &Context,
    client: &str,
    user: Option<&str>,
    format: &Format,
) -> Result<(), Failure> {
    let query: Vec<_> = user.map(|user| ("user", user)).into_iter().collect();
    let answer = context.client.delete(&["broker", "clients", client], &query).await?;
    context.screen.object(format, &answer, || {
        let Kicked { disconnected } = read(&answer)?;
        let plural = if disconnected == 1 { "" } else { "s" };
        Ok(format!("{client}: {disconnected} connection{plural} cut off"))
    })
}

async fn reload(context: &Context, format: &Format) -> Result<(), Failure> {
    let answer = context.client.post(&["broker", "reload"], None).await?;
    let words = || Ok("certificates, accounts and rules read again".to_owned());
    context.screen.object(format, &answer, words)
}
