//! What the broker keeps of one client, connected or not.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;

use bytestring::ByteString;
use rmqtt_codec::types::QoS;
use rmqtt_codec::v5::SubscriptionOptions;

use crate::access::Rights;
use crate::accounts::SharedRights;
use crate::core::holdings::tenant;
use crate::core::share::ShareKey;
use crate::core::{ClientKey, Facts};
use crate::message::{ConnectionId, Delivery, Message};
use crate::notice::{Notice, Pace};

/// A session that never ends by itself.
pub(crate) const NEVER: u32 = u32::MAX;

/// One subscription of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subscription {
    pub(crate) options: SubscriptionOptions,
    pub(crate) id: Option<NonZeroU32>,
    /// Not everything that the filter matches may be read.
    pub(crate) is_checked: bool,
}

/// A message that one client is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Due {
    /// Its place in the client's queue, counted from the session's beginning.
    pub(crate) place: u64,
    pub(crate) message: Arc<Message>,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) subscriptions: Vec<NonZeroU32>,
    /// The shared subscription that it came by: another member may have it instead.
    pub(crate) share: Option<ShareKey>,
}

/// A message that was sent and is not done with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InFlight {
    pub(crate) packet_id: NonZeroU16,
    pub(crate) due: Due,
    /// QoS 2: the client has it (PUBREC), and is told to forget its id (PUBREL).
    pub(crate) is_received: bool,
}

/// The will of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Will {
    pub(crate) message: Arc<Message>,
    pub(crate) delay_seconds: u32,
}

/// The connection that a session has.
#[derive(Debug)]
pub(crate) struct Online {
    pub(crate) connection: ConnectionId,
    /// How many messages of QoS 1 and 2 may be under way to it.
    pub(crate) window: usize,
    /// How many messages of QoS 2 it may publish before it releases the first.
    pub(crate) quota: usize,
    /// What was under way when the last connection ended, and is to be sent again as soon as there
    /// is room for it.
    pub(crate) again: VecDeque<NonZeroU16>,
    /// What the connection judges by.
    pub(crate) rights: SharedRights,
    pub(crate) facts: Arc<Facts>,
}

/// One client's state.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) client: ClientKey,
    /// No other session of any life of the broker has it.
    pub(crate) serial: u64,
    /// Whose groups it may be in: in the fabric those of its tenant, whose turns strangers could take
    /// otherwise; elsewhere everybody's.
    pub(crate) realm: Option<ByteString>,
    /// What its account holds is counted by this number.
    pub(crate) holder: usize,
    pub(crate) online: Option<Online>,
    /// What its account may do, connected or not.
    pub(crate) rights: Rights,
    /// How long it outlives its connection.
    pub(crate) expiry_seconds: u32,
    /// It is in the store.
    pub(crate) is_kept: bool,
    /// When it ends, while it has no connection, in milliseconds since 1970.
    pub(crate) ends_ms: Option<u64>,
    pub(crate) subscriptions: BTreeMap<ByteString, Subscription>,
    /// Ids of messages of QoS 2 that it published and has not released.
    pub(crate) received: BTreeSet<NonZeroU16>,
    /// In the order in which they were sent. Changed by [`Session::push_sent`] and its like.
    pub(crate) in_flight: VecDeque<InFlight>,
    /// The ids of those.
    ids: HashSet<NonZeroU16>,
    /// What they weigh.
    pub(crate) in_flight_bytes: usize,
    /// Changed by [`Session::push_due`] and its like.
    pub(crate) queue: VecDeque<Due>,
    /// The weight of what is in the queue.
    pub(crate) queued_bytes: usize,
    /// Nothing in the queue expires before, in milliseconds since 1970.
    expires_ms: u64,
    pub(crate) next_place: u64,
    pub(crate) last_id: u16,
    pub(crate) will: Option<Will>,
    /// When the will is published, while it has no connection.
    pub(crate) will_at_ms: Option<u64>,
    /// How much is said of what it does not get.
    pub(crate) pace: Pace,
}

impl Session {
    /// A new one without a connection.
    pub(crate) fn new(client: ClientKey, serial: u64, holder: usize, rights: Rights) -> Self {
        let is_fabric = rights.are_of_the_fabric();
        Self {
            realm: client.0.as_ref().filter(|_| is_fabric).map(tenant),
            client,
            serial,
            holder,
            online: None,
            rights,
            expiry_seconds: 0,
            is_kept: false,
            ends_ms: None,
            subscriptions: BTreeMap::new(),
            received: BTreeSet::new(),
            in_flight: VecDeque::new(),
            ids: HashSet::new(),
            in_flight_bytes: 0,
            queue: VecDeque::new(),
            queued_bytes: 0,
            expires_ms: u64::MAX,
            next_place: 1,
            last_id: 0,
            will: None,
            will_at_ms: None,
            pace: Pace::default(),
        }
    }

    /// True while one more message of QoS 1 or 2 may be sent.
    pub(crate) fn has_room(&self) -> bool {
        let has_room = |online: &Online| {
            self.in_flight.len().saturating_sub(online.again.len()) < online.window
        };
        self.online.as_ref().is_some_and(has_room)
    }

    /// A line for the log, if there was not too much of it.
    pub(crate) fn notice(
        &mut self,
        now_ms: u64,
        what: &'static str,
        cause: &'static str,
        topic: &ByteString,
    ) -> Option<Notice> {
        let more = self.pace.step(now_ms)?;
        Some(Notice { what, cause, client: self.client.clone(), topic: topic.clone(), more })
    }

    /// An id that no message under way has. There is one while fewer than 65535 are.
    pub(crate) fn free_id(&mut self) -> NonZeroU16 {
        loop {
            self.last_id = self.last_id.wrapping_add(1);
            if let Some(id) = NonZeroU16::new(self.last_id)
                && !self.ids.contains(&id)
            {
                return id;
            }
        }
    }

    /// Where a message under way with that id is.
    pub(crate) fn sent(&self, id: NonZeroU16) -> Option<usize> {
        let (first, wanted) = (self.in_flight.front()?.packet_id.get(), id.get());
        // Where it is while none between them is done with; after 65535 comes 1.
        let likely = match wanted >= first {
            true => wanted - first,
            false => wanted + (u16::MAX - first),
        };
        let is_it = |sent: &InFlight| sent.packet_id == id;
        let likely = usize::from(likely);
        match self.in_flight.get(likely).is_some_and(is_it) {
            true => Some(likely),
            false => self.in_flight.iter().position(is_it),
        }
    }

    /// One more message is under way.
    pub(crate) fn push_sent(&mut self, sent: InFlight) {
        self.ids.insert(sent.packet_id);
        self.in_flight_bytes += sent.due.message.weight();
        self.in_flight.push_back(sent);
    }

    /// A message is under way no longer.
    pub(crate) fn remove_sent(&mut self, id: NonZeroU16) -> Option<InFlight> {
        let sent = self.in_flight.remove(self.sent(id)?)?;
        self.ids.remove(&id);
        self.in_flight_bytes -= sent.due.message.weight();
        Some(sent)
    }

    /// One more waits.
    pub(crate) fn push_due(&mut self, due: Due) {
        self.queued_bytes += due.message.weight();
        self.expires_ms = self.expires_ms.min(due.message.expires_ms.unwrap_or(u64::MAX));
        self.queue.push_back(due);
    }

    /// The one that has waited longest waits no longer.
    pub(crate) fn pop_due(&mut self) -> Option<Due> {
        let due = self.queue.pop_front()?;
        self.queued_bytes -= due.message.weight();
        Some(due)
    }

    /// Those of that kind wait no longer.
    pub(crate) fn take_queued(&mut self, is_it: impl Fn(&Due) -> bool) -> VecDeque<Due> {
        let (taken, kept) = std::mem::take(&mut self.queue).into_iter().partition(is_it);
        (self.queued_bytes, self.expires_ms) = (0, u64::MAX);
        let kept: VecDeque<Due> = kept;
        kept.into_iter().for_each(|due| self.push_due(due));
        taken
    }

    /// Those of no more use wait no longer. Looks at the queue only when there may be some.
    pub(crate) fn take_expired(&mut self, now_ms: u64) -> VecDeque<Due> {
        if now_ms < self.expires_ms {
            return VecDeque::new();
        }
        self.take_queued(|due| due.message.has_expired(now_ms))
    }

    /// None is under way any longer.
    pub(crate) fn take_sent(&mut self) -> VecDeque<InFlight> {
        self.ids.clear();
        self.in_flight_bytes = 0;
        std::mem::take(&mut self.in_flight)
    }
}

impl InFlight {
    /// As it is sent, for the first time or again.
    pub(crate) fn delivery(&self, is_again: bool) -> Delivery {
        Delivery {
            message: self.due.message.clone(),
            qos: self.due.qos,
            retain: self.due.retain,
            is_again,
            packet_id: Some(self.packet_id),
            subscriptions: self.due.subscriptions.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use rmqtt_codec::types::Publish;

    use super::*;

    fn sent(packet_id: NonZeroU16) -> InFlight {
        let publish = Publish {
            dup: false,
            retain: false,
            qos: QoS::AtLeastOnce,
            topic: "t".into(),
            packet_id: None,
            payload: Bytes::new(),
            properties: None,
        };
        let message = Arc::new(Message::new(1, 1, 0, publish));
        let (qos, subscriptions) = (QoS::AtLeastOnce, Vec::new());
        let due = Due { place: 1, message, qos, retain: false, subscriptions, share: None };
        InFlight { packet_id, due, is_received: false }
    }

    proptest! {
        #[test]
        fn an_id_is_given_once_and_found_wherever_it_is(
            last_id in prop::sample::select(vec![0, 7, u16::MAX - 5, u16::MAX]),
            done in prop::collection::vec(any::<prop::sample::Index>(), 0..60),
        ) {
            let mut session = Session::new((None, "c".into()), 1, 0, Rights::everything());
            session.last_id = last_id;
            let mut ids = Vec::new();
            for done in done {
                for _ in 0..2 {
                    let id = session.free_id();
                    prop_assert!(!ids.contains(&id), "{id} is under way");
                    ids.push(id);
                    session.push_sent(sent(id));
                }
                for (at, id) in ids.iter().enumerate() {
                    prop_assert_eq!(session.sent(*id), Some(at));
                }
                let id = ids.remove(done.index(ids.len()));
                prop_assert_eq!(session.remove_sent(id).map(|sent| sent.packet_id), Some(id));
                prop_assert_eq!(session.sent(id), None);
                // Round the ids as soon as there is one that stays.
                session.last_id = session.last_id.wrapping_add(u16::MAX - 4);
            }
        }
    }
}
