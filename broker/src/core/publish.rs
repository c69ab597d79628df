//! From a publisher to everybody's queue.

use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;

use bytestring::ByteString;
use rmqtt_codec::types::{Publish, QoS};
use rmqtt_codec::v5::{
    DisconnectReasonCode, Packet, PublishAck, PublishAck2, PublishAck2Reason, PublishAckReason,
};

use crate::core::retained::is_own;
use crate::core::session::Due;
use crate::core::share::ShareKey;
use crate::core::{Core, Effects};
use crate::message::{ConnectionId, Message, Out};
use crate::store::Op;

/// A session that is to have the message.
#[derive(Debug)]
pub(super) struct Hit {
    key: usize,
    qos: QoS,
    retain: bool,
    id: Option<NonZeroU32>,
    share: Option<ShareKey>,
}

impl Core {
    pub(super) fn on_publish(
        &mut self,
        connection: ConnectionId,
        publish: Publish,
        effects: &mut Effects,
    ) {
        // One that was taken over may have sent more.
        let Some(&key) = self.by_connection.get(&connection) else { return };
        let session = &mut self.sessions[key];
        let (qos, id) = (publish.qos, publish.packet_id);
        if let (QoS::ExactlyOnce, Some(id)) = (qos, id) {
            if session.received.contains(&id) {
                effects.out.push((connection, received(id)));
                return;
            }
            let quota = session.online.as_ref().map_or(0, |online| online.quota);
            if session.received.len() >= quota {
                let bye = Out::Close(DisconnectReasonCode::ReceiveMaximumExceeded);
                effects.out.push((connection, bye));
                return;
            }
            session.received.insert(id);
            if session.is_kept {
                effects.ops.push(Op::Receive { serial: session.serial, id });
            }
        }
        let from = session.serial;
        let message = Arc::new(Message::new(self.next_message, from, self.now_ms, publish));
        self.next_message += 1;
        let unretained = effects.counts.unretained;
        self.route(&message, Some(key), effects);
        if effects.counts.unretained > unretained {
            let (session, topic) = (&mut self.sessions[key], &message.topic);
            let notice = session.notice(self.now_ms, "message not retained", "no room", topic);
            effects.notices.extend(notice);
        }
        match (qos, id) {
            (QoS::AtLeastOnce, Some(packet_id)) => {
                let ack = Packet::PublishAck(success(packet_id));
                effects.out.push((connection, Out::Packet(ack)));
            }
            (QoS::ExactlyOnce, Some(id)) => effects.out.push((connection, received(id))),
            _ => {}
        }
    }

    /// PUBREL. One for an id that is not known is answered all the same: the broker may have
    /// completed it in an earlier life.
    pub(super) fn on_release(
        &mut self,
        connection: ConnectionId,
        id: NonZeroU16,
        effects: &mut Effects,
    ) {
        let Some(&key) = self.by_connection.get(&connection) else { return };
        let session = &mut self.sessions[key];
        let is_known = session.received.remove(&id);
        if is_known && session.is_kept {
            effects.ops.push(Op::Release { serial: session.serial, id });
        }
        let reason_code = match is_known {
            true => PublishAck2Reason::Success,
            false => PublishAck2Reason::PacketIdNotFound,
        };
        let done =
            PublishAck2 { packet_id: id, reason_code, properties: Vec::new(), reason_string: None };
        effects.out.push((connection, Out::Packet(Packet::PublishComplete(done))));
    }

    /// The broker's own word.
    pub(super) fn announce(&mut self, publish: Publish, effects: &mut Effects) {
        let message = Message::new(self.next_message, 0, self.now_ms, publish);
        self.next_message += 1;
        self.route(&Arc::new(message), None, effects);
    }

    /// Keeps the message where it is to be retained, for the account of the session that published
    /// it, and gives it to everybody who asked for it.
    pub(super) fn route(
        &mut self,
        message: &Arc<Message>,
        publisher: Option<usize>,
        effects: &mut Effects,
    ) {
        if message.retain {
            let account = publisher.and_then(|key| self.sessions[key].client.0.clone());
            self.retain(message, account, effects);
        }
        let mut hits = std::mem::take(&mut self.hits);
        self.find(message, &mut hits);
        // One copy for each session, whichever of its filters match; one more for each group.
        hits.sort_unstable_by_key(|hit| (hit.key, hit.share.is_some()));
        let mut rest = hits.drain(..).peekable();
        while let Some(hit) = rest.next() {
            let mut due = Due {
                place: 0,
                message: message.clone(),
                qos: hit.qos,
                retain: hit.retain,
                subscriptions: hit.id.into_iter().collect(),
                share: hit.share,
            };
            while due.share.is_none()
                && let Some(more) = rest.next_if(|more| more.key == hit.key && more.share.is_none())
            {
                due.qos = due.qos.max(more.qos);
                due.retain |= more.retain;
                due.subscriptions.extend(more.id);
            }
            self.deliver(hit.key, due, effects);
        }
        drop(rest);
        self.hits = hits;
    }

    fn find(&self, message: &Message, hits: &mut Vec<Hit>) {
        let sessions = &self.sessions;
        self.tree.matching(&message.topic, &mut |subscribers| {
            for (key, own) in subscribers.own() {
                let session = &sessions[key];
                let is_own = own.options.no_local && session.serial == message.from;
                if is_own || (own.is_checked && !session.rights.may_read(&message.topic)) {
                    continue;
                }
                let qos = own.options.qos.less_value(message.qos);
                let retain = own.options.retain_as_published && message.retain;
                hits.push(Hit { key, qos, retain, id: own.id, share: None });
            }
            for share in subscribers.shares() {
                // Those who may not read it have no turn.
                let may = |key: usize| sessions[key].rights.may_read(&message.topic);
                let is_free =
                    |key: usize| sessions[key].has_room() && sessions[key].queue.is_empty();
                let takes = |key: usize| may(key) && self.obstacle(key, message).is_none();
                // One that is away has its queue. Where all are full, one is to say so.
                let chosen = share
                    .choose(|key| is_free(key) && takes(key), takes)
                    .or_else(|| share.choose_away(takes))
                    .or_else(|| share.choose(may, may))
                    .or_else(|| share.choose_away(may));
                let Some(key) = chosen else { continue };
                let Some(found) = sessions[key].subscriptions.get(&share.text) else { continue };
                let qos = found.options.qos.less_value(message.qos);
                let retain = found.options.retain_as_published && message.retain;
                let (id, share) = (found.id, Some(share.name.clone()));
                hits.push(Hit { key, qos, retain, id, share });
            }
        });
    }

    fn retain(
        &mut self,
        message: &Arc<Message>,
        account: Option<ByteString>,
        effects: &mut Effects,
    ) {
        if is_own(&message.topic) {
            // Said anew by the next broker.
            self.retained.insert(message.clone(), None);
            return;
        }
        if message.payload.is_empty() {
            if self.retained.remove(&message.topic) {
                effects.ops.push(Op::Unretain { topic: message.topic.clone() });
            }
            return;
        }
        let account = account.as_ref();
        let has_room = self.retained.has_room(message, account, &self.limits);
        if !has_room {
            effects.counts.unretained += 1;
            return;
        }
        self.retained.insert(message.clone(), account);
        let account = account.cloned();
        effects.ops.push(Op::Retain { message: message.clone(), account });
    }
}

fn success(packet_id: NonZeroU16) -> PublishAck {
    PublishAck {
        packet_id,
        reason_code: PublishAckReason::Success,
        properties: Vec::new(),
        reason_string: None,
    }
}

fn received(id: NonZeroU16) -> Out {
    Out::Packet(Packet::PublishReceived(success(id)))
}
