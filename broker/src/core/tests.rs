//! The core as clients see it: events in, words out.

mod flows;
mod kept;
mod limits;
mod shares;

use std::num::NonZeroU16;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use rmqtt_codec::types::{Publish, QoS};
use rmqtt_codec::v5::{
    DisconnectReasonCode, LastWill, Packet, PublishProperties, RetainHandling, Subscribe,
    SubscribeAckReason, SubscriptionOptions, Unsubscribe,
};

use super::{Arrival, Core, Effects, Event, Facts, NEVER, Parting};
use crate::access::Rights;
use crate::accounts::Accounts;
use crate::config::Limits;
use crate::listener::{PeerAddress, Transport};
use crate::message::{ConnectionId, Delivery, Out};
use crate::store::Op;

/// Whoever is given rights has an account.
#[derive(Debug)]
struct Told(fn(Option<&str>, &str) -> Option<Rights>);

/// Everybody has one, and may do everything.
const ANYBODY: Told = Told(|_, _| Some(Rights::everything()));

impl Accounts for Told {
    fn verify(&self, _user: &str, _password: &[u8]) -> bool {
        true
    }

    fn of_certificate(&self, _certificate: &[u8]) -> Option<String> {
        None
    }

    fn rights(&self, user: Option<&str>, client: &str) -> Option<Rights> {
        (self.0)(user, client)
    }
}

/// A core and what it has said.
struct World {
    core: Core,
    now_ms: u64,
    next_connection: u64,
    next_id: u16,
    ops: Vec<Op>,
    said: Vec<(ConnectionId, Out)>,
    dropped: u64,
    crowded_out: u64,
    unretained: u64,
}

/// What a client connects with.
#[derive(Clone)]
struct Hello {
    user: Option<&'static str>,
    client: &'static str,
    is_clean: bool,
    expiry_seconds: u32,
    receive_max: u16,
    will: Option<LastWill>,
}

impl Hello {
    fn clean(client: &'static str) -> Self {
        let (user, will) = (None, None);
        Self { user, client, is_clean: true, expiry_seconds: 0, receive_max: 100, will }
    }

    fn lasting(client: &'static str) -> Self {
        Self { is_clean: false, expiry_seconds: NEVER, ..Self::clean(client) }
    }

    fn with_will(self, topic: &str, delay_seconds: u32) -> Self {
        let will = LastWill {
            qos: QoS::AtLeastOnce,
            retain: false,
            topic: topic.into(),
            message: "gone".into(),
            will_delay_interval_sec: Some(delay_seconds),
            correlation_data: None,
            message_expiry_interval: None,
            content_type: None,
            user_properties: Vec::new(),
            is_utf8_payload: None,
            response_topic: None,
        };
        Self { will: Some(will), ..self }
    }
}

fn id(number: u16) -> NonZeroU16 {
    NonZeroU16::new(number).expect("not 0")
}

fn qos(level: u8) -> QoS {
    QoS::try_from(level).expect("0 to 2")
}

fn options(level: u8) -> SubscriptionOptions {
    SubscriptionOptions {
        qos: qos(level),
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::AtSubscribe,
    }
}

fn publish(topic: &str, payload: &str, level: u8) -> Publish {
    Publish {
        dup: false,
        retain: false,
        qos: qos(level),
        topic: topic.into(),
        packet_id: None,
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        properties: None,
    }
}

impl World {
    fn new() -> Self {
        Self::with(Limits::default())
    }

    fn with(limits: Limits) -> Self {
        Self {
            core: Core::new(limits, Arc::new(ANYBODY)),
            now_ms: 1_000_000,
            next_connection: 1,
            next_id: 1,
            ops: Vec::new(),
            said: Vec::new(),
            dropped: 0,
            crowded_out: 0,
            unretained: 0,
        }
    }

    fn take_in(&mut self, effects: Effects) {
        self.ops.extend(effects.ops);
        self.said.extend(effects.out);
        self.dropped += effects.counts.dropped;
        self.crowded_out += effects.counts.crowded_out;
        self.unretained += effects.counts.unretained;
    }

    fn event(&mut self, event: Event) {
        let mut effects = Effects::default();
        self.core.handle(self.now_ms, event, &mut effects);
        self.take_in(effects);
    }

    fn pass(&mut self, seconds: u64) {
        self.now_ms += 1000 * seconds;
        let mut effects = Effects::default();
        self.core.wake(self.now_ms, &mut effects);
        self.take_in(effects);
    }

    /// Connects, and answers whether the session was there.
    fn connect(&mut self, hello: Hello) -> (ConnectionId, bool) {
        let connection = self.try_connect(hello);
        let accepted = self
            .said
            .iter()
            .position(|(to, out)| *to == connection && matches!(out, Out::Accept { .. }));
        let (_, out) = self.said.remove(accepted.expect("accepted"));
        (connection, out == Out::Accept { is_resumed: true })
    }

    fn try_connect(&mut self, hello: Hello) -> ConnectionId {
        let connection = ConnectionId(self.next_connection);
        self.next_connection += 1;
        self.event(Event::Connect(Box::new(Arrival {
            connection,
            user: hello.user.map(Into::into),
            client: hello.client.into(),
            is_clean: hello.is_clean,
            expiry_seconds: hello.expiry_seconds,
            receive_max: hello.receive_max,
            quota: Limits::default().receive_max,
            will: hello.will,
            rights: Arc::new(ArcSwap::from_pointee(Rights::everything())),
            facts: Arc::new(Facts {
                address: PeerAddress::Unix { uid: 0, pid: None },
                transport: Transport::Mqtt,
                version: 5,
                keep_alive_seconds: 0,
                since_ms: self.now_ms,
            }),
        })));
        connection
    }

    fn subscribe(&mut self, connection: ConnectionId, filter: &str, level: u8) {
        let granted = self.subscribe_with(connection, filter, options(level));
        assert!(u8::from(granted) < 0x80, "{granted:?}");
    }

    fn subscribe_with(
        &mut self,
        connection: ConnectionId,
        filter: &str,
        options: SubscriptionOptions,
    ) -> SubscribeAckReason {
        let packet = Subscribe {
            packet_id: id(1),
            id: None,
            user_properties: Vec::new(),
            topic_filters: vec![(filter.into(), options)],
        };
        self.event(Event::Subscribe(connection, packet));
        let is_it = |(to, out): &(ConnectionId, Out)| {
            *to == connection && matches!(out, Out::Packet(Packet::SubscribeAck(_)))
        };
        let at = self.said.iter().position(is_it).expect("answered");
        match self.said.remove(at).1 {
            Out::Packet(Packet::SubscribeAck(ack)) => ack.status[0],
            other => panic!("{other:?}"),
        }
    }

    fn unsubscribe(&mut self, connection: ConnectionId, filter: &str) {
        let topic_filters = vec![filter.into()];
        let packet = Unsubscribe { packet_id: id(1), user_properties: Vec::new(), topic_filters };
        self.event(Event::Unsubscribe(connection, packet));
        self.said.retain(|(_, out)| !matches!(out, Out::Packet(Packet::UnsubscribeAck(_))));
    }

    fn publish(&mut self, connection: ConnectionId, topic: &str, payload: &str, level: u8) {
        let packet_id = (level > 0).then(|| id(self.next_id));
        self.next_id += 1;
        let publish = Publish { packet_id, ..publish(topic, payload, level) };
        self.event(Event::Publish(connection, Box::new(publish)));
    }

    fn leave(&mut self, connection: ConnectionId, is_will_void: bool) {
        self.event(Event::Leave(connection, Parting { is_will_void, expiry_seconds: None }));
    }

    /// The messages that a connection was sent since it was asked last.
    fn sent(&mut self, connection: ConnectionId) -> Vec<Delivery> {
        let mut sent = Vec::new();
        self.said.retain(|(to, out)| match out {
            Out::Publish(delivery) if *to == connection => {
                sent.push(delivery.clone());
                false
            }
            _ => true,
        });
        sent
    }

    /// Their payloads.
    fn heard(&mut self, connection: ConnectionId) -> Vec<String> {
        let text = |sent: &Delivery| String::from_utf8_lossy(&sent.message.payload).into_owned();
        self.sent(connection).iter().map(text).collect()
    }

    /// What else a connection was told since it was asked last.
    fn told(&mut self, connection: ConnectionId) -> Vec<Out> {
        let (told, rest) = std::mem::take(&mut self.said)
            .into_iter()
            .partition::<Vec<_>, _>(|(to, _)| *to == connection);
        self.said = rest;
        told.into_iter().map(|(_, out)| out).collect()
    }
}

fn expiring(topic: &str, payload: &str, seconds: u32) -> Publish {
    let message_expiry_interval = std::num::NonZeroU32::new(seconds);
    let properties = PublishProperties { message_expiry_interval, ..Default::default() };
    Publish { properties: Some(properties), ..publish(topic, payload, 1) }
}
