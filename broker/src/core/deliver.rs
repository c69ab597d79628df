//! From a session's queue to its client, and back when the client is gone.

use std::collections::VecDeque;
use std::num::NonZeroU16;

use rmqtt_codec::types::QoS;
use rmqtt_codec::v5::{Packet, PublishAck2, PublishAck2Reason};

use crate::core::session::{Due, InFlight};
use crate::core::{BYTES, Core, Effects};
use crate::message::{ConnectionId, Delivery, Out};
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
        let weight = due.message.weight();
        let is_full = session.queue.len() >= self.limits.max_queued
            || session.queued_bytes + weight > self.limits.max_queued_bytes;
        let limit = self.limits.max_total_queued_bytes;
        let is_crowded = !self.held.has_room(session.holder, BYTES, weight, limit);
        if is_full || is_crowded || (session.online.is_none() && !session.is_kept) {
            let (count, cause) = match (is_full, is_crowded) {
                (true, _) => (&mut effects.counts.dropped, "queue full"),
                (_, true) => (&mut effects.counts.crowded_out, "all queues full"),
                _ => (&mut effects.counts.dropped, "client gone"),
            };
            *count += 1;
            let topic = &due.message.topic;
            effects.notices.extend(session.notice(self.now_ms, "message dropped", cause, topic));
            return;
        }
        self.held.add(session.holder, BYTES, weight);
        due.place = session.next_place;
        session.next_place += 1;
        session.queued_bytes += weight;
        if session.is_kept {
            let serial = session.serial;
            let message = due.message.clone();
            self.keep(&message, effects);
            effects.ops.push(Op::Queue { serial, due: due.clone() });
        }
        self.sessions[key].queue.push_back(due);
        self.fill(key, effects);
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
            let Some(due) = session.queue.pop_front() else { return };
            session.queued_bytes -= due.message.weight();
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
        let (kept, lost): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut session.queue).into_iter().partition(may);
        session.queue = kept;
        session.queued_bytes -= lost.iter().map(|due| due.message.weight()).sum::<usize>();
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

    /// Gives what came by shared subscriptions and was not sent to those who are there.
    pub(super) fn pass_on(&mut self, key: usize, effects: &mut Effects) {
        let queue = std::mem::take(&mut self.sessions[key].queue);
        self.sessions[key].queued_bytes = 0;
        let (mut passed, mut kept) = (Vec::new(), VecDeque::new());
        for due in queue {
            if due.share.is_some() && self.has_other(key, &due) {
                passed.push(due);
            } else {
                self.sessions[key].queued_bytes += due.message.weight();
                kept.push_back(due);
            }
        }
        self.sessions[key].queue = kept;
        passed.into_iter().for_each(|due| self.hand_over(key, due, effects));
    }

    /// The same of a session that ends, with what was sent and is not known to have arrived.
    pub(super) fn pass_on_all(&mut self, key: usize, effects: &mut Effects) {
        let session = &mut self.sessions[key];
        let sent = session.take_sent();
        let queue = std::mem::take(&mut session.queue);
        session.queued_bytes = 0;
        let sent = sent.into_iter().map(|sent| (sent.due, sent.is_received));
        for (due, is_received) in sent.chain(queue.into_iter().map(|due| (due, false))) {
            // A client that had it may not be followed by another one that has it.
            if due.share.is_some() && !is_received {
                self.hand_over(key, due, effects);
            } else {
                self.settle(key, &due, effects);
            }
        }
    }

    fn has_other(&self, key: usize, due: &Due) -> bool {
        let share = due.share.as_ref().and_then(|share| self.shares.get(share));
        share.is_some_and(|share| {
            share.members().any(|member| member != key && self.sessions[member].online.is_some())
        })
    }

    /// Gives a message of a shared subscription to another member.
    fn hand_over(&mut self, key: usize, due: Due, effects: &mut Effects) {
        let chosen = due.share.as_ref().and_then(|share| {
            let sessions = &self.sessions;
            let may = |member: usize| {
                member != key && sessions[member].rights.may_read(&due.message.topic)
            };
            self.shares.get_mut(share)?.choose(
                |member| sessions[member].has_room() && may(member),
                |member| {
                    (sessions[member].online.is_some() || sessions[member].is_kept) && may(member)
                },
            )
        });
        if let Some(member) = chosen {
            self.deliver(member, Due { place: 0, ..due.clone() }, effects);
        } else {
            effects.counts.dropped += 1;
        }
        self.settle(key, &due, effects);
    }
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
