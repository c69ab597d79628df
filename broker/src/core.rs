//! What the broker decides: sessions, subscriptions, queues, wills and retained messages, without
//! socket, disk or clock.
//!
//! [`Core::handle`] takes one [`Event`] after the other, in the order in which the router handed
//! them on, and says in [`Effects`] what each connection is to be told and what is to be written
//! down first. Whoever drives it keeps that order: nothing leaves before it is kept.
//!
//! Reading order: `event` (what comes in), this file (connections), `publish` (from a publisher to
//! the queues), `deliver` (from a queue to its client), `subscribe`, `session`, `tree`, `subscribers`
//! and `holdings` for what they work on.

mod deliver;
mod event;
mod holdings;
mod inspect;
mod publish;
mod restore;
mod retained;
mod session;
mod share;
mod subscribe;
mod subscribers;
#[cfg(test)]
mod tests;
mod tree;
mod wills;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use bytestring::ByteString;
use rmqtt_codec::v5::DisconnectReasonCode;
use slab::Slab;

pub(crate) use self::event::{Arrival, Event, Facts, Parting};
pub(crate) use self::inspect::Question;
pub(crate) use self::session::{Due, InFlight, NEVER, Session, Subscription, Will};
pub(crate) use self::share::is_filter;
pub(crate) use self::tree::is_topic;
use crate::access::Rights;
use crate::accounts::Accounts;
use crate::config::Limits;
use crate::message::{ByConnection, ConnectionId, Message, Out};
use crate::notice::Notice;
use crate::store::Op;

use self::holdings::Holdings;
use self::retained::Retained;
use self::subscribers::Subscribers;
use self::tree::Tree;

/// What is to be done, in order.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// Written down before anything of `out` leaves.
    pub(crate) ops: Vec<Op>,
    pub(crate) out: Vec<(ConnectionId, Out)>,
    pub(crate) counts: Counts,
    /// For the log.
    pub(crate) notices: Vec<Notice>,
}

/// Whose session it is: account and client id. Clients of two accounts may bear one id and have
/// nothing to do with each other.
pub(crate) type ClientKey = (Option<ByteString>, ByteString);

/// What is counted in [`Holdings`] of sessions.
const SESSIONS: usize = 0;
const SUBSCRIPTIONS: usize = 1;
/// Of messages that wait or are under way.
const BYTES: usize = 2;

/// So many sessions and wills have their time before others have their turn: there are more soon.
const ENDS_AT_A_TIME: usize = 256;

/// What is worth counting.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Messages that a full queue did not take.
    pub(crate) dropped: u64,
    /// Messages for which there was no room in all queues together.
    pub(crate) crowded_out: u64,
    /// Messages whose time was over before their client had them.
    pub(crate) expired: u64,
    /// Retained messages for which there was no room.
    pub(crate) unretained: u64,
    /// What an account may not do any more: its will, and what waited to be read by it.
    pub(crate) refused: u64,
    /// Clients for whose sessions there was no room.
    pub(crate) turned_away: u64,
    /// Subscriptions that were not granted.
    pub(crate) unsubscribed: u64,
    /// Clients that were cut off by an operator.
    pub(crate) kicked: u64,
    /// Sessions whose client stayed away too long.
    pub(crate) ended: u64,
}

/// The state of the broker.
#[derive(Debug)]
pub(crate) struct Core {
    limits: Limits,
    accounts: Arc<dyn Accounts>,
    now_ms: u64,
    sessions: Slab<Session>,
    by_client: HashMap<ClientKey, usize>,
    by_connection: ByConnection<usize>,
    tree: Tree<Subscribers>,
    /// How many groups share a subscription.
    groups: usize,
    retained: Retained,
    /// What all sessions hold together.
    held: Holdings<3>,
    /// When something is due: a session's end or its will.
    alarms: BTreeSet<(u64, usize)>,
    /// How many queues of the store hold each message.
    kept: HashMap<u64, u32>,
    next_message: u64,
    next_serial: u64,
    /// Used again for every message.
    hits: Vec<publish::Hit>,
}

impl Core {
    /// A broker that nobody ever used.
    pub(crate) fn new(limits: Limits, accounts: Arc<dyn Accounts>) -> Self {
        Self {
            limits,
            accounts,
            now_ms: 0,
            sessions: Slab::new(),
            by_client: HashMap::new(),
            by_connection: ByConnection::default(),
            tree: Tree::default(),
            groups: 0,
            retained: Retained::default(),
            held: Holdings::default(),
            alarms: BTreeSet::new(),
            kept: HashMap::new(),
            next_message: 1,
            next_serial: 1,
            hits: Vec::new(),
        }
    }

    /// Takes one event in. `now_ms` is the time since 1970; it may go back.
    pub(crate) fn handle(&mut self, now_ms: u64, event: Event, effects: &mut Effects) {
        self.now_ms = now_ms;
        match event {
            Event::Connect(arrival) => self.connect(*arrival, effects),
            Event::Publish(connection, publish) => {
                self.on_publish(connection, *publish, effects);
            }
            Event::Answer(connection, packet) => {
                effects.out.push((connection, Out::Packet(packet)));
            }
            Event::Release(connection, id) => self.on_release(connection, id, effects),
            Event::Done(connection, id) => self.on_done(connection, id, effects),
            Event::Received(connection, id) => self.on_received(connection, id, effects),
            Event::Subscribe(connection, packet) => self.subscribe(connection, packet, effects),
            Event::Unsubscribe(connection, packet) => {
                self.unsubscribe(connection, packet, effects);
            }
            Event::Leave(connection, parting) => self.leave(connection, parting, effects),
            Event::AccountsChanged => self.judge_all(effects),
            Event::Announce(publish) => self.announce(*publish, effects),
            Event::Ask(Question(ask)) => ask(self, effects),
        }
    }

    /// When [`Core::wake`] is to be called at the latest.
    pub(crate) fn alarm_ms(&self) -> Option<u64> {
        let alarm = self.alarms.first().map(|(at, _)| *at);
        alarm.into_iter().chain(self.retained.first_end_ms()).min()
    }

    /// Ends sessions and retained messages, and publishes wills, whose time has come.
    pub(crate) fn wake(&mut self, now_ms: u64, effects: &mut Effects) {
        self.now_ms = now_ms;
        for _ in 0..ENDS_AT_A_TIME {
            let Some(&(at, key)) = self.alarms.first().filter(|(at, _)| *at <= now_ms) else {
                break;
            };
            self.alarms.remove(&(at, key));
            let Some(session) = self.sessions.get_mut(key) else { continue };
            if session.will_at_ms.is_some_and(|due| due <= now_ms) {
                session.will_at_ms = None;
                self.publish_will(key, effects);
                // One that outlives its connection is in the store, and so is its will.
                effects.ops.push(Op::session(&self.sessions[key]));
            }
            let ends = self.sessions.get(key).and_then(|session| session.ends_ms);
            if ends.is_some_and(|due| due <= now_ms) {
                effects.counts.ended += 1;
                self.end(key, effects);
            }
        }
        while let Some(topic) = self.retained.remove_expired(now_ms) {
            effects.ops.push(Op::Unretain { topic });
        }
    }

    /// How many sessions there are, and how many of them have a connection.
    pub(crate) fn clients(&self) -> (usize, usize) {
        (self.sessions.len(), self.by_connection.len())
    }

    fn connect(&mut self, arrival: Arrival, effects: &mut Effects) {
        let Arrival { connection, user, client, is_clean, expiry_seconds, .. } = arrival;
        let Arrival { receive_max, quota, will, rights, facts, .. } = arrival;
        let Some(now) = self.accounts.rights(user.as_deref(), &client) else {
            // Its account went while it came in.
            effects.out.push((connection, Out::Close(DisconnectReasonCode::NotAuthorized)));
            return;
        };
        rights.store(Arc::new(now.clone()));
        let client = (user, client);
        let mut known = self.by_client.get(&client).copied();
        if let Some(key) = known {
            // One without expiry ends with its connection, which is now (MQTT 5, 3.1.2.11.2).
            let is_over = is_clean || self.sessions[key].expiry_seconds == 0;
            self.take_over(key, is_over, effects);
            if is_over {
                self.end(key, effects);
                known = None;
            }
        }
        let Some(key) = known.or_else(|| self.begin(client, now.clone())) else {
            effects.counts.turned_away += 1;
            effects.out.push((connection, Out::Close(DisconnectReasonCode::QuotaExceeded)));
            return;
        };
        let will = will.map(|will| self.make_will(key, will));
        let session = &mut self.sessions[key];
        let window = usize::from(receive_max.min(self.limits.max_in_flight));
        let quota = usize::from(quota);
        let again = VecDeque::new();
        session.rights = now;
        session.online = Some(session::Online { connection, window, quota, again, rights, facts });
        session.expiry_seconds = expiry_seconds;
        session.will = will;
        self.by_connection.insert(connection, key);
        if expiry_seconds > 0 {
            session.is_kept = true;
        }
        if session.is_kept {
            effects.ops.push(Op::session(session));
        }
        effects.out.push((connection, Out::Accept { is_resumed: known.is_some() }));
        if known.is_some() {
            self.tell_groups(key);
            self.check_subscriptions(key, effects);
            self.forget_unreadable(key, effects);
            self.resend(key, effects);
        }
    }

    /// A new session, if there is room for one.
    fn begin(&mut self, client: ClientKey, rights: Rights) -> Option<usize> {
        let holder = self.held.enter(client.0.as_ref());
        if !self.held.has_room(holder, SESSIONS, 1, self.limits.max_sessions) {
            self.held.leave(holder);
            return None;
        }
        self.held.add(holder, SESSIONS, 1);
        let serial = self.next_serial;
        self.next_serial += 1;
        let key = self.sessions.insert(Session::new(client.clone(), serial, holder, rights));
        self.by_client.insert(client, key);
        Some(key)
    }

    /// The client has come back on another connection, or comes back after a while.
    fn take_over(&mut self, key: usize, is_over: bool, effects: &mut Effects) {
        let session = &mut self.sessions[key];
        for at in [session.ends_ms.take(), session.will_at_ms].into_iter().flatten() {
            self.alarms.remove(&(at, key));
        }
        let mut is_will_due = is_over && session.will_at_ms.is_some();
        session.will_at_ms = None;
        if let Some(online) = session.online.take() {
            self.by_connection.remove(&online.connection);
            let bye = Out::Close(DisconnectReasonCode::SessionTakenOver);
            effects.out.push((online.connection, bye));
            // It ended without a DISCONNECT, and is back before any delay is over.
            let is_prompt = |will: &Will| will.delay_seconds == 0;
            is_will_due = session.will.as_ref().is_some_and(|will| is_over || is_prompt(will));
        }
        if is_will_due {
            self.publish_will(key, effects);
        }
        self.sessions[key].will = None;
    }

    fn leave(&mut self, connection: ConnectionId, parting: Parting, effects: &mut Effects) {
        // One that was taken over is forgotten already.
        let Some(key) = self.by_connection.remove(&connection) else { return };
        let session = &mut self.sessions[key];
        session.online = None;
        if let Some(seconds) = parting.expiry_seconds
            && session.expiry_seconds > 0
        {
            session.expiry_seconds = seconds;
        }
        if parting.is_will_void {
            session.will = None;
        }
        let expiry_ms = 1000 * u64::from(session.expiry_seconds);
        let delay_ms = session.will.as_ref().map(|will| 1000 * u64::from(will.delay_seconds));
        if session.expiry_seconds == 0 {
            self.publish_will(key, effects);
            self.end(key, effects);
            return;
        }
        if session.expiry_seconds != NEVER {
            let ends_ms = self.now_ms + expiry_ms;
            session.ends_ms = Some(ends_ms);
            self.alarms.insert((ends_ms, key));
        }
        match delay_ms {
            Some(0) => self.publish_will(key, effects),
            Some(delay_ms) => {
                // A session that ends takes its will with it into the world (MQTT 5, 3.1.3.2.2).
                let at = self.now_ms + delay_ms.min(expiry_ms);
                let session = &mut self.sessions[key];
                session.will_at_ms = Some(at);
                self.alarms.insert((at, key));
            }
            None => {}
        }
        self.tell_groups(key);
        self.pass_on(key, effects);
        effects.ops.push(Op::session(&self.sessions[key]));
    }

    /// Forgets a session and everything of it.
    fn end(&mut self, key: usize, effects: &mut Effects) {
        if self.sessions[key].will_at_ms.is_some() {
            self.publish_will(key, effects);
        }
        let filters: Vec<_> = self.sessions[key].subscriptions.keys().cloned().collect();
        for filter in filters {
            self.remove_subscription(key, &filter);
        }
        self.pass_on_all(key, effects);
        let session = self.sessions.remove(key);
        for at in [session.ends_ms, session.will_at_ms].into_iter().flatten() {
            self.alarms.remove(&(at, key));
        }
        if let Some(online) = &session.online {
            self.by_connection.remove(&online.connection);
        }
        self.by_client.remove(&session.client);
        self.held.remove(session.holder, SESSIONS, 1);
        self.held.leave(session.holder);
        if session.is_kept {
            effects.ops.push(Op::EndSession { serial: session.serial });
        }
    }

    /// One queue of the store has the message less.
    fn forget(&mut self, message: &Message, effects: &mut Effects) {
        let Some(count) = self.kept.get_mut(&message.number) else { return };
        *count -= 1;
        if *count == 0 {
            self.kept.remove(&message.number);
            effects.ops.push(Op::Forget { number: message.number });
        }
    }

    /// One more queue of the store has the message.
    fn keep(&mut self, message: &Arc<Message>, effects: &mut Effects) {
        let count = self.kept.entry(message.number).or_insert(0);
        *count += 1;
        if *count == 1 {
            effects.ops.push(Op::Message(message.clone()));
        }
    }
}
