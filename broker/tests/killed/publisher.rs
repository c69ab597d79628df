//! A publisher of numbered messages, which sends again what was not acknowledged (MQTT 5, 4.4).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU16;

use bytes::Bytes;
use rmqtt_codec::types::{Publish, QoS};
use rmqtt_codec::v5::{Connect, Packet, PublishAck2, PublishAck2Reason, PublishAckReason};
use tokio::sync::watch;

use crate::link::{Link, lasting};

/// What it says.
pub(crate) struct Plan {
    pub(crate) client: &'static str,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    /// Its messages go to so many topics in turns.
    pub(crate) topics: u64,
    /// So many are under way.
    pub(crate) window: usize,
}

impl Plan {
    pub(crate) fn topic(&self, number: u64) -> String {
        format!("work/{}/{}", self.client, number % self.topics)
    }
}

/// How far it has come.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Progress {
    /// The numbers below this have been sent.
    pub(crate) sent: u64,
    /// The numbers below this have all been acknowledged.
    pub(crate) acknowledged: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Sent,
    /// PUBREC came: it is not sent again, its id is.
    Received,
}

pub(crate) struct Publisher {
    plan: Plan,
    connect: Connect,
    next: u64,
    /// By number: what is not done with, and its id.
    under_way: BTreeMap<u64, (NonZeroU16, Stage)>,
    progress: watch::Sender<Progress>,
}

impl Publisher {
    pub(crate) fn new(plan: Plan) -> (Self, watch::Receiver<Progress>) {
        let (progress, seen) = watch::channel(Progress::default());
        let connect = lasting(plan.client, 3600);
        (Self { plan, connect, next: 0, under_way: BTreeMap::new(), progress }, seen)
    }

    /// Publishes over every death of the broker, until it is told the number to end before.
    pub(crate) async fn run(mut self, address: SocketAddr, end: watch::Receiver<u64>) {
        let mut was_welcome = false;
        loop {
            let (mut link, is_resumed) = Link::join(address, &self.connect).await;
            assert!(is_resumed || !was_welcome, "the session of {} is lost", self.plan.client);
            was_welcome = true;
            if self.resume(&mut link).await.is_some() && self.talk(&mut link, &end).await.is_some()
            {
                return;
            }
        }
    }

    /// Sends again what the broker may not have.
    async fn resume(&mut self, link: &mut Link) -> Option<()> {
        for (&number, &(id, stage)) in &self.under_way {
            let packet = match stage {
                Stage::Sent => self.message(number, id, true),
                Stage::Received => release(id),
            };
            link.send(packet).await?;
        }
        Some(())
    }

    /// `None` when the connection ends before all is done.
    async fn talk(&mut self, link: &mut Link, end: &watch::Receiver<u64>) -> Option<()> {
        loop {
            while self.under_way.len() < self.plan.window && self.next < *end.borrow() {
                let (number, id) = (self.next, self.free_id());
                self.next += 1;
                self.under_way.insert(number, (id, Stage::Sent));
                self.tell();
                link.send(self.message(number, id, false)).await?;
            }
            if self.under_way.is_empty() {
                return Some(());
            }
            match link.next().await? {
                Packet::PublishAck(ack) => {
                    assert_eq!(ack.reason_code, PublishAckReason::Success);
                    self.done(ack.packet_id);
                }
                Packet::PublishReceived(ack) => {
                    assert_eq!(ack.reason_code, PublishAckReason::Success);
                    let found = self.under_way.values_mut().find(|(id, _)| *id == ack.packet_id);
                    found.expect("an id that is under way").1 = Stage::Received;
                    link.send(release(ack.packet_id)).await?;
                }
                Packet::PublishComplete(done) => self.done(done.packet_id),
                other => panic!("{} is told {other:?}", self.plan.client),
            }
        }
    }

    fn done(&mut self, id: NonZeroU16) {
        self.under_way.retain(|_, (other, _)| *other != id);
        self.tell();
    }

    fn tell(&self) {
        let acknowledged = self.under_way.keys().next().copied().unwrap_or(self.next);
        self.progress.send_replace(Progress { sent: self.next, acknowledged });
    }

    fn free_id(&self) -> NonZeroU16 {
        let is_free = |id: &NonZeroU16| self.under_way.values().all(|(other, _)| other != id);
        (1..=u16::MAX).filter_map(NonZeroU16::new).find(is_free).expect("few are under way")
    }

    fn message(&self, number: u64, id: NonZeroU16, dup: bool) -> Packet {
        Packet::Publish(Box::new(Publish {
            dup,
            retain: self.plan.retain,
            qos: self.plan.qos,
            topic: self.plan.topic(number).into(),
            packet_id: Some(id),
            payload: Bytes::from(number.to_string()),
            properties: None,
        }))
    }
}

fn release(packet_id: NonZeroU16) -> Packet {
    Packet::PublishRelease(PublishAck2 {
        packet_id,
        reason_code: PublishAck2Reason::Success,
        properties: Vec::new(),
        reason_string: None,
    })
}
