//! From a session's queue to its client, and back when the client is gone.

use std::num::NonZeroU16;

use rmqtt_codec::types::QoS;
use rmqtt_codec::v5::{Packet, PublishAck2, PublishAck2Reason};

use crate::core::session::{Due, InFlight};
use crate::core::{BYTES, Core, Effects};
use crate::message::{ConnectionId, Delivery, Message, Out};
use crate::store::Op;

impl Core {
    /// Gives a session a message: at once where it has a connection and room, else later.
    pub(super) fn deliver(&mut self, key: usize, mut due: Due, effects: &mut Effects) {
        let session = &mut self.sessions[key];
        if due.qos == QoS::AtMostOnce {
            // Those who are away did not ask for it to be kept.
            if let Some(online) = &session.online {
                effects.out.push((online.connection, Out::Publish(fleeting(due))));
            }
            return;
        }
        let mut obstacle = self.obstacle(key, &due.message);
        if obstacle.is_some() && self.drop_expired(key, effects) {
            obstacle = self.obstacle(key, &due.message);
        }
        let session = &mut self.sessions[key];
        if let Some(obstacle) = obstacle {
            let (count, cause) = match obstacle {
                Obstacle::Full => (&mut effects.counts.dropped, "queue full"),
                Obstacle::Crowded => (&mut effects.counts.crowded_out, "all queues full"),
                Obstacle::Gone => (&mut effects.counts.dropped, "client gone"),
            };
            *count += 1;
            let topic = &due.message.topic;
            effects.notices.extend(session.notice(self.now_ms, "message dropped", cause, topic));
            return;
        }
        self.held.add(session.holder, BYTES, due.message.weight());
        due.place = session.next_place;
        session.next_place += 1;
        if session.is_kept {
            let serial = session.serial;
            let message = due.message.clone();
            self.keep(&message, effects);
            effects.ops.push(Op::Queue { serial, due: due.clone() });
        }
        self.sessions[key].push_due(due);
        self.fill(key, effects);
    }

    /// Why a session cannot be given a message of QoS 1 or 2.
    pub(super) fn obstacle(&self, key: usize, message: &Message) -> Option<Obstacle> {
        let session = &self.sessions[key];
        let weight = message.weight();
        let is_full = session.queue.len() >= self.limits.max_queued
            || session.queued_bytes + weight > self.limits.max_queued_bytes;
        let limit = self.limits.max_total_queued_bytes;
        if is_full {
            Some(Obstacle::Full)
        } else if !self.held.has_room(session.holder, BYTES, weight, limit) {
            Some(Obstacle::Crowded)
        } else if session.online.is_none() && !session.is_kept {
            Some(Obstacle::Gone)
        } else {
            None
        }
    }

    /// Drops what waits for a session and is of no more use; true if there was something.
    fn drop_expired(&mut self, key: usize, effects: &mut Effects) -> bool {
        let expired = self.sessions[key].take_expired(self.now_ms);
        effects.counts.expired += expired.len() as u64;
        expired.iter().for_each(|due| self.settle(key, due, effects));
        !expired.is_empty()
    }

    /// Sends what is queued, as far as the client takes it.
    pub(super) fn fill(&mut self, key: usize, effects: &mut Effects) {
        let now_ms = self.now_ms;
        while self.sessions[key].has_room() {
            let session = &mut self.sessions[key];
            if let Some(online) = &mut session.online
                && let Some(id) = online.again.pop_front()
            {
                let sent = session.in_flight.iter().find(|sent| sent.packet_id == id);
                let out = sent.map(|sent| Out::Publish(sent.delivery(true)));
                effects.out.extend(out.map(|out| (online.connection, out)));
                continue;
            }
            if session.in_flight_bytes >= self.limits.max_in_flight_bytes {
                return;
            }
            let Some(due) = session.pop_due() else { return };
            if due.message.has_expired(now_ms) {
                effects.counts.expired += 1;
                self.settle(key, &due, effects);
                continue;
            }
            let packet_id = session.free_id();
            if session.is_kept {
                let (serial, place) = (session.serial, due.place);
                effects.ops.push(Op::Send { serial, place, id: packet_id });
            }
            let sent = InFlight { packet_id, due, is_received: false };
            if let Some(online) = &session.online {
                effects.out.push((online.connection, Out::Publish(sent.delivery(false))));
            }
            session.push_sent(sent);
        }
    }

    /// PUBACK, PUBCOMP, or a client that takes no packets of that size.
    pub(super) fn on_done(
        &mut self,
        connection: ConnectionId,
        id: NonZeroU16,
        effects: &mut Effects,
    ) {
        let Some(&key) = self.by_connection.get(&connection) else { return };
        let session = &mut self.sessions[key];
        let Some(sent) = session.remove_sent(id) else { return };
        if let Some(online) = &mut session.online {
            online.again.retain(|waiting| *waiting != id);
        }
        self.settle(key, &sent.due, effects);
        self.fill(key, effects);
    }

    /// PUBREC.
    pub(super) fn on_received(
        &mut self,
        connection: ConnectionId,
        id: NonZeroU16,
        effects: &mut Effects,
    ) {
        let Some(&key) = self.by_connection.get(&connection) else { return };
        let session = &mut self.sessions[key];
        let mut reason_code = PublishAck2Reason::PacketIdNotFound;
        if let Some(at) = session.sent(id) {
            let sent = &mut session.in_flight[at];
            if !sent.is_received && session.is_kept {
                let (serial, place) = (session.serial, sent.due.place);
                effects.ops.push(Op::Arrive { serial, place });
            }
            sent.is_received = true;
            reason_code = PublishAck2Reason::Success;
        }
        effects.out.push((connection, release(id, reason_code)));
    }

    /// What was under way when the last connection ended, then what is queued, as far as the client
    /// takes it now. PUBREL is no message, and waits for nothing (MQTT 5, 4.9).
    pub(super) fn resend(&mut self, key: usize, effects: &mut Effects) {
        let session = &mut self.sessions[key];
        if let Some(online) = &mut session.online {
            let (received, waiting): (Vec<_>, Vec<_>) =
                session.in_flight.iter().partition(|sent| sent.is_received);
            let release = |sent: &InFlight| release(sent.packet_id, PublishAck2Reason::Success);
            effects.out.extend(received.into_iter().map(|sent| (online.connection, release(sent))));
            online.again = waiting.into_iter().map(|sent| sent.packet_id).collect();
        }
        self.fill(key, effects);
    }

    /// Drops what waits for a session and its account may not read any more.
    pub(super) fn forget_unreadable(&mut self, key: usize, effects: &mut Effects) {
        let session = &mut self.sessions[key];
        let rights = session.rights.clone();
        let may = |due: &Due| rights.may_read(&due.message.topic);
        let lost = session.take_queued(|due| !may(due));
        // What the client has begun to take is finished with it.
        let unsent: Vec<_> = session
            .in_flight
            .iter()
            .filter(|sent| !sent.is_received && !may(&sent.due))
            .map(|sent| sent.packet_id)
            .collect();
        if let Some(online) = &mut session.online {
            online.again.retain(|id| !unsent.contains(id));
        }
        let unsent: Vec<_> = unsent.into_iter().filter_map(|id| session.remove_sent(id)).collect();
        for due in unsent.into_iter().map(|sent| sent.due).chain(lost) {
            effects.counts.refused += 1;
            let (session, topic) = (&mut self.sessions[key], &due.message.topic);
            let notice = session.notice(self.now_ms, "message dropped", "not authorised", topic);
            effects.notices.extend(notice);
            self.settle(key, &due, effects);
        }
    }

    /// The session is done with a message that it was given.
    fn settle(&mut self, key: usize, due: &Due, effects: &mut Effects) {
        let session = &self.sessions[key];
        self.held.remove(session.holder, BYTES, due.message.weight());
        if session.is_kept {
            let (serial, place) = (session.serial, due.place);
            effects.ops.push(Op::Settle { serial, place });
            self.forget(&due.message, effects);
        }
    }

    /// Gives what came by shared subscriptions and was not sent to those who are there, as far as they
    /// take it.
    pub(super) fn pass_on(&mut self, key: usize, effects: &mut Effects) {
        for due in self.sessions[key].take_queued(|_| true) {
            let is_taken = due.share.is_some() && self.hand_over(key, &due, Whom::Here, effects);
            if is_taken {
                self.settle(key, &due, effects);
            } else {
                self.sessions[key].push_due(due);
            }
        }
    }

    /// The same of a session that ends, with what was sent and is not known to have arrived; those
    /// who are away and have a queue get it as well.
    pub(super) fn pass_on_all(&mut self, key: usize, effects: &mut Effects) {
        let session = &mut self.sessions[key];
        let sent = session.take_sent();
        let queue = session.take_queued(|_| true);
        let sent = sent.into_iter().map(|sent| (sent.due, true));
        for (due, is_sent) in sent.chain(queue.into_iter().map(|due| (due, false))) {
            // Of QoS 2, nobody else may have what its client may have (MQTT-4.8.2-5).
            let is_free = !is_sent || due.qos == QoS::AtLeastOnce;
            if due.share.is_some() && is_free && !self.hand_over(key, &due, Whom::All, effects) {
                effects.counts.dropped += 1;
            }
            self.settle(key, &due, effects);
        }
    }

    /// Gives a message of a shared subscription to another member; false where none takes it.
    fn hand_over(&mut self, key: usize, due: &Due, whom: Whom, effects: &mut Effects) -> bool {
        let Some((group, filter)) = &due.share else { return false };
        let group = (self.sessions[key].realm.clone(), group.clone());
        // It weighs as much there.
        let (holder, weight) = (self.sessions[key].holder, due.message.weight());
        self.held.remove(holder, BYTES, weight);
        let takes = |member: usize| {
            member != key
                && self.sessions[member].rights.may_read(&due.message.topic)
                && self.obstacle(member, &due.message).is_none()
        };
        let share = self.tree.get(filter).and_then(|subscribers| subscribers.share(&group));
        let chosen = share.and_then(|share| {
            let is_free = |member: usize| self.sessions[member].has_room();
            let here = share.choose(|member| is_free(member) && takes(member), takes);
            here.or_else(|| share.choose_away(takes).filter(|_| whom == Whom::All))
        });
        if let Some(member) = chosen {
            self.deliver(member, Due { place: 0, ..due.clone() }, effects);
        }
        self.held.add(holder, BYTES, weight);
        chosen.is_some()
    }
}

/// Why a message is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Obstacle {
    Full,
    Crowded,
    Gone,
}

/// Which members of a group may have what another one leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whom {
    /// Those with a connection.
    Here,
    /// Those with a queue that is kept as well.
    All,
}

fn fleeting(due: Due) -> Delivery {
    Delivery {
        message: due.message,
        qos: QoS::AtMostOnce,
        retain: due.retain,
        is_again: false,
        packet_id: None,
        subscriptions: due.subscriptions,
    }
}

fn release(packet_id: NonZeroU16, reason_code: PublishAck2Reason) -> Out {
    let properties = Vec::new();
    let release = PublishAck2 { packet_id, reason_code, properties, reason_string: None };
    Out::Packet(Packet::PublishRelease(release))
}
