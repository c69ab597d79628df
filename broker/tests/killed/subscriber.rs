//! A subscriber whose session outlives the broker: of QoS 2 it takes each message once, by the id that
//! it has not been told to forget (MQTT 5, 4.3.3).

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::num::NonZeroU16;

use rmqtt_codec::types::{Publish, QoS};
use rmqtt_codec::v5::{
    Connect, Packet, PublishAck, PublishAck2, PublishAck2Reason, PublishAckReason, RetainHandling,
    Subscribe, SubscriptionOptions,
};

use crate::link::{Link, lasting};

/// How often it has taken each number, by the client that sent it.
pub(crate) type Heard = BTreeMap<String, BTreeMap<u64, u64>>;

pub(crate) struct Subscriber {
    client: &'static str,
    connect: Connect,
    is_subscribed: bool,
    /// Ids of messages of QoS 2 that it has and was not told to forget.
    held: BTreeSet<NonZeroU16>,
    pub(crate) heard: Heard,
}

impl Subscriber {
    pub(crate) fn new(client: &'static str) -> Self {
        let connect = lasting(client, 3600);
        Self { client, connect, is_subscribed: false, held: BTreeSet::new(), heard: Heard::new() }
    }

    /// Listens over every death of the broker until `is_enough`.
    pub(crate) async fn listen(&mut self, address: SocketAddr, is_enough: impl Fn(&Heard) -> bool) {
        loop {
            let (mut link, is_resumed) = Link::join(address, &self.connect).await;
            assert!(is_resumed || !self.is_subscribed, "the session of {} is lost", self.client);
            if self.take(&mut link, &is_enough).await.is_some() {
                return;
            }
        }
    }

    /// Comes for the first time, and goes when its subscriptions are granted.
    pub(crate) async fn subscribe(&mut self, address: SocketAddr) {
        while !self.is_subscribed {
            let (mut link, _) = Link::join(address, &self.connect).await;
            let _ = self.ask(&mut link).await;
        }
    }

    async fn ask(&mut self, link: &mut Link) -> Option<()> {
        let options = SubscriptionOptions {
            qos: QoS::ExactlyOnce,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::NoAtSubscribe,
        };
        let filters = ["work/+/+", "wills/#"];
        let packet = Subscribe {
            packet_id: NonZeroU16::MIN,
            id: None,
            user_properties: Vec::new(),
            topic_filters: filters.map(|filter| (filter.into(), options)).to_vec(),
        };
        link.send(Packet::Subscribe(packet)).await?;
        match link.next().await? {
            Packet::SubscribeAck(ack) => {
                assert!(ack.status.iter().all(|status| u8::from(*status) == 2), "{ack:?}");
                self.is_subscribed = true;
                Some(())
            }
            other => panic!("no SUBACK: {other:?}"),
        }
    }

    /// `None` when the connection ends before it is enough.
    async fn take(&mut self, link: &mut Link, is_enough: &impl Fn(&Heard) -> bool) -> Option<()> {
        while !is_enough(&self.heard) {
            match link.next().await? {
                Packet::Publish(publish) => {
                    let id = publish.packet_id.expect("an id");
                    let answer = match publish.qos {
                        QoS::AtLeastOnce => Packet::PublishAck(ack(id)),
                        _ => Packet::PublishReceived(ack(id)),
                    };
                    if publish.qos == QoS::AtLeastOnce || self.held.insert(id) {
                        self.note(&publish);
                    }
                    link.send(answer).await?;
                }
                Packet::PublishRelease(release) => {
                    self.held.remove(&release.packet_id);
                    let done = PublishAck2 {
                        packet_id: release.packet_id,
                        reason_code: PublishAck2Reason::Success,
                        properties: Vec::new(),
                        reason_string: None,
                    };
                    link.send(Packet::PublishComplete(done)).await?;
                }
                other => panic!("{} is told {other:?}", self.client),
            }
        }
        Some(())
    }

    fn note(&mut self, publish: &Publish) {
        let number = String::from_utf8_lossy(&publish.payload).parse().expect("a number");
        // `work/CLIENT/N`, `wills/CLIENT`.
        let client = publish.topic.split('/').nth(1).expect("a client").to_owned();
        *self.heard.entry(client).or_default().entry(number).or_insert(0) += 1;
    }
}

fn ack(packet_id: NonZeroU16) -> PublishAck {
    PublishAck {
        packet_id,
        reason_code: PublishAckReason::Success,
        properties: Vec::new(),
        reason_string: None,
    }
}
