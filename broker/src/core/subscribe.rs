//! Subscriptions come and go.

use std::sync::Arc;

use bytestring::ByteString;
use rmqtt_codec::types::QoS;
use rmqtt_codec::v5::{
    DisconnectReasonCode, Packet, RetainHandling, Subscribe, SubscribeAck, SubscribeAckReason,
    SubscriptionOptions, Unsubscribe, UnsubscribeAck, UnsubscribeAckReason,
};

use crate::access::{Grant, Rights};
use crate::core::session::{Due, Subscription};
use crate::core::share::{SHARED, Share, parse};
use crate::core::subscribers::Own;
use crate::core::{Core, Effects, SUBSCRIPTIONS};
use crate::message::{ConnectionId, Out};
use crate::store::Op;

/// What a subscription is reckoned with ...
const SUBSCRIPTION_BYTES: usize = 4096;
/// ... of which a level of its filter that no other filter has takes so much.
const LEVEL_BYTES: usize = 640;

impl Core {
    pub(super) fn subscribe(
        &mut self,
        connection: ConnectionId,
        packet: Subscribe,
        effects: &mut Effects,
    ) {
        let Some(&key) = self.by_connection.get(&connection) else { return };
        let Subscribe { packet_id, id, topic_filters, .. } = packet;
        let mut status = Vec::new();
        let mut new = Vec::new();
        let most = self.limits.max_subscriptions;
        for (at, (filter, options)) in topic_filters.into_iter().enumerate() {
            // In memory of its own: it would keep the buffer alive that it was read into.
            let filter = ByteString::from(filter.to_string());
            // One filter may be there many times, and would be greeted as often.
            let admitted = match at < most {
                true => self.admit(key, &filter),
                false => Err(SubscribeAckReason::QuotaExceeded),
            };
            match admitted {
                Err(reason) => {
                    status.push(reason);
                    effects.counts.unsubscribed += 1;
                    let cause = refusal(reason);
                    let notice = self.sessions[key].notice(
                        self.now_ms,
                        "subscription refused",
                        cause,
                        &filter,
                    );
                    effects.notices.extend(notice);
                }
                Ok(is_checked) => {
                    status.push(granted(options));
                    let subscription = Subscription { options, id, is_checked };
                    let is_new = self.add_subscription(key, &filter, subscription);
                    self.keep_subscription(key, &filter, effects);
                    new.push((filter, options, is_new));
                }
            }
        }
        let ack = SubscribeAck { packet_id, properties: Vec::new(), reason_string: None, status };
        effects.out.push((connection, Out::Packet(Packet::SubscribeAck(ack))));
        // What its outbox would not take need not be made.
        let mut room_bytes = self.limits.max_outbox_bytes;
        for (filter, options, is_new) in new {
            let is_wanted = match options.retain_handling {
                RetainHandling::AtSubscribe => true,
                RetainHandling::AtSubscribeNew => is_new,
                RetainHandling::NoAtSubscribe => false,
            };
            // A group has none (MQTT 5, 4.8.2).
            if is_wanted && !filter.starts_with(SHARED) {
                self.replay(key, &filter, &mut room_bytes, effects);
            }
        }
    }

    pub(super) fn unsubscribe(
        &mut self,
        connection: ConnectionId,
        packet: Unsubscribe,
        effects: &mut Effects,
    ) {
        let Some(&key) = self.by_connection.get(&connection) else { return };
        let mut status = Vec::new();
        for filter in packet.topic_filters {
            if self.remove_subscription(key, &filter) {
                let session = &self.sessions[key];
                if session.is_kept {
                    let serial = session.serial;
                    effects.ops.push(Op::Unsubscribe { serial, filter });
                }
                status.push(UnsubscribeAckReason::Success);
            } else {
                status.push(UnsubscribeAckReason::NoSubscriptionExisted);
            }
        }
        let packet_id = packet.packet_id;
        let ack = UnsubscribeAck { packet_id, properties: Vec::new(), reason_string: None, status };
        effects.out.push((connection, Out::Packet(Packet::UnsubscribeAck(ack))));
    }

    /// Accounts or their rules changed: what a session may not have any more it has no more, and a
    /// session whose account is gone ends, with its will.
    pub(super) fn judge_all(&mut self, effects: &mut Effects) {
        let accounts = self.accounts.clone();
        let keys: Vec<_> = self.sessions.iter().map(|(key, _)| key).collect();
        let mut gone = Vec::new();
        for key in keys {
            let session = &mut self.sessions[key];
            let (user, client) = &session.client;
            let Some(rights) = accounts.rights(user.as_deref(), client) else {
                gone.push(key);
                continue;
            };
            if let Some(online) = &session.online {
                online.rights.store(Arc::new(rights.clone()));
            }
            session.rights = rights;
            self.check_subscriptions(key, effects);
            self.forget_unreadable(key, effects);
        }
        // They go when all others have the rights that they have from now on, for they are heard.
        for key in gone {
            if let Some(online) = self.sessions[key].online.take() {
                self.by_connection.remove(&online.connection);
                let bye = Out::Close(DisconnectReasonCode::NotAuthorized);
                effects.out.push((online.connection, bye));
            }
            // It may say that its client is gone: until now it could.
            self.publish_will(key, effects);
            self.end(key, effects);
        }
    }

    /// Holds every subscription against the rights that the session has now.
    pub(super) fn check_subscriptions(&mut self, key: usize, effects: &mut Effects) {
        let session = &self.sessions[key];
        let rights = session.rights.clone();
        let judge = |(filter, found): (&ByteString, &Subscription)| {
            let verdict = is_checked(&rights, filter);
            (verdict != Ok(found.is_checked)).then(|| (filter.clone(), verdict))
        };
        let changed: Vec<_> = session.subscriptions.iter().filter_map(judge).collect();
        for (filter, verdict) in changed {
            let Some(found) = self.sessions[key].subscriptions.get(&filter).cloned() else {
                continue;
            };
            self.remove_subscription(key, &filter);
            match verdict {
                Ok(is_checked) => {
                    self.add_subscription(key, &filter, Subscription { is_checked, ..found });
                }
                Err(_) if self.sessions[key].is_kept => {
                    let serial = self.sessions[key].serial;
                    effects.ops.push(Op::Unsubscribe { serial, filter });
                }
                Err(_) => {}
            }
        }
    }

    /// Whether a session may have that subscription, and if so, whether each message is checked.
    fn admit(&self, key: usize, filter: &ByteString) -> Result<bool, SubscribeAckReason> {
        let session = &self.sessions[key];
        if parse(filter).is_none() {
            return Err(SubscribeAckReason::TopicFilterInvalid);
        }
        let is_new = !session.subscriptions.contains_key(filter);
        let limit = self.limits.max_total_subscriptions;
        let has_room = session.subscriptions.len() < self.limits.max_subscriptions
            && self.held.has_room(session.holder, SUBSCRIPTIONS, burden(filter), limit);
        if is_new && !has_room {
            return Err(SubscribeAckReason::QuotaExceeded);
        }
        is_checked(&session.rights, filter)
    }

    /// Adds a subscription in place of one with that filter; true when there was none.
    pub(super) fn add_subscription(
        &mut self,
        key: usize,
        text: &ByteString,
        subscription: Subscription,
    ) -> bool {
        let Some((group, filter)) = parse(text) else { return false };
        let subscribers = self.tree.entry(&filter);
        if let Some(group) = group {
            let session = &self.sessions[key];
            let groups = &mut self.groups;
            let new = || {
                *groups += 1;
                Share::new((group.clone(), filter.clone()), text.clone())
            };
            let share = subscribers.share_or((session.realm.clone(), group.clone()), new);
            share.join(key, session.online.is_some());
        } else {
            let Subscription { options, id, is_checked } = subscription;
            subscribers.put(key, Own { options, id, is_checked });
        }
        let session = &mut self.sessions[key];
        let is_new = session.subscriptions.insert(text.clone(), subscription).is_none();
        if is_new {
            self.held.add(session.holder, SUBSCRIPTIONS, burden(text));
        }
        is_new
    }

    /// Removes a subscription; false when there is none.
    pub(super) fn remove_subscription(&mut self, key: usize, text: &ByteString) -> bool {
        let session = &mut self.sessions[key];
        if session.subscriptions.remove(text).is_none() {
            return false;
        }
        self.held.remove(session.holder, SUBSCRIPTIONS, burden(text));
        let Some((group, filter)) = parse(text) else { return false };
        if let Some(group) = group {
            let group = (session.realm.clone(), group);
            let groups = &mut self.groups;
            self.tree.change(&filter, |subscribers| {
                let (has_ended, left) = subscribers.leave(&group, key);
                *groups -= usize::from(has_ended);
                left
            });
        } else {
            self.tree.change(&filter, |subscribers| subscribers.remove(key));
        }
        true
    }

    /// Tells the groups of a session whether it has a connection.
    pub(super) fn tell_groups(&mut self, key: usize) {
        let session = &self.sessions[key];
        let is_here = session.online.is_some();
        let shared = session.subscriptions.range(ByteString::from_static(SHARED)..);
        let shared = shared.map(|(text, _)| text).take_while(|text| text.starts_with(SHARED));
        for text in shared {
            let Some((Some(group), filter)) = parse(text) else { continue };
            let new = || Share::new((group.clone(), filter.clone()), text.clone());
            let group = (session.realm.clone(), group.clone());
            self.tree.entry(&filter).share_or(group, new).join(key, is_here);
        }
    }

    fn keep_subscription(&mut self, key: usize, filter: &ByteString, effects: &mut Effects) {
        let session = &self.sessions[key];
        if let Some(found) = session.subscriptions.get(filter).filter(|_| session.is_kept) {
            let (serial, filter, subscription) = (session.serial, filter.clone(), found.clone());
            effects.ops.push(Op::Subscribe { serial, filter, subscription });
        }
    }

    /// Retained messages for a new subscription; those of QoS 0 as long as there is room.
    fn replay(
        &mut self,
        key: usize,
        filter: &ByteString,
        room_bytes: &mut usize,
        effects: &mut Effects,
    ) {
        let session = &self.sessions[key];
        let Some(found) = session.subscriptions.get(filter).cloned() else { return };
        let now_ms = self.now_ms;
        let may_read = |topic: &str| !found.is_checked || session.rights.may_read(topic);
        let messages: Vec<_> = self
            .retained
            .matching(filter)
            .filter(|message| !(found.options.no_local && message.from == session.serial))
            .filter(|message| !message.has_expired(now_ms) && may_read(&message.topic))
            .cloned()
            .collect();
        for message in messages {
            let qos = found.options.qos.less_value(message.qos);
            if qos == QoS::AtMostOnce {
                let Some(rest) = room_bytes.checked_sub(message.weight()) else {
                    effects.counts.dropped += 1;
                    continue;
                };
                *room_bytes = rest;
            }
            let due = Due {
                place: 0,
                qos,
                message,
                retain: true,
                subscriptions: found.id.into_iter().collect(),
                share: None,
            };
            self.deliver(key, due, effects);
        }
    }
}

/// As how many a subscription counts: few take more memory than one is reckoned with.
fn burden(filter: &str) -> usize {
    let levels = filter.split('/').count();
    (filter.len() + LEVEL_BYTES * levels).div_ceil(SUBSCRIPTION_BYTES)
}

fn is_checked(rights: &Rights, filter: &str) -> Result<bool, SubscribeAckReason> {
    match rights.may_subscribe(filter) {
        Grant::Granted => Ok(false),
        Grant::Checked => Ok(true),
        Grant::Refused => Err(SubscribeAckReason::NotAuthorized),
    }
}

fn refusal(reason: SubscribeAckReason) -> &'static str {
    match reason {
        SubscribeAckReason::TopicFilterInvalid => "not a filter",
        SubscribeAckReason::QuotaExceeded => "too many subscriptions",
        _ => "not authorised",
    }
}

fn granted(options: SubscriptionOptions) -> SubscribeAckReason {
    match options.qos {
        rmqtt_codec::types::QoS::AtMostOnce => SubscribeAckReason::GrantedQos0,
        rmqtt_codec::types::QoS::AtLeastOnce => SubscribeAckReason::GrantedQos1,
        rmqtt_codec::types::QoS::ExactlyOnce => SubscribeAckReason::GrantedQos2,
    }
}
