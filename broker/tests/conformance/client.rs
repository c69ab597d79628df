//! A broker for a test, and a client of it that does what it is told, right or wrong, packet by
//! packet.

use std::collections::VecDeque;
use std::future::Future;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use godwit_broker::{Accounts, Anonymous, Broker, Config};
use rmqtt_codec::types::{Publish, QoS};
use rmqtt_codec::v5::{
    Connect, ConnectAck, ConnectAckReason, Disconnect, DisconnectReasonCode, Packet,
    PublishAck2Reason, PublishAckReason, Subscribe, SubscribeAck, SubscribeAckReason,
    SubscriptionOptions, Unsubscribe, UnsubscribeAck,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::wire::{Version, Wire};
pub(crate) use crate::words::{
    ack, ack2, clean, id, lasting, message, options, retained, subscribe, text, will, with,
};

/// A running broker; stopped when dropped.
pub(crate) struct Hub {
    address: SocketAddr,
    shutdown: CancellationToken,
}

/// On a free port of the loopback, everything else as it is by default.
fn config() -> Config {
    let open = Config::open_to_all("127.0.0.1:0".parse().expect("an address"));
    // Nobody speaks but who is told to.
    Config { sys_interval_seconds: 0, ..open }
}

impl Hub {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = config();
        change(&mut config);
        Self::run(Broker::bind(config).await.expect("a broker"))
    }

    /// For those accounts and nobody else.
    pub(crate) async fn start_for(accounts: Arc<dyn Accounts>) -> Self {
        let config = Config { anonymous: Anonymous::Never, ..config() };
        Self::run(Broker::bind_with(config, accounts).await.expect("a broker"))
    }

    fn run(broker: Broker) -> Self {
        let (address, shutdown) = (broker.tcp_address().expect("a port"), CancellationToken::new());
        tokio::spawn(broker.run(shutdown.clone()));
        Self { address, shutdown }
    }

    /// Tells it to stop; its clients hear of it.
    pub(crate) fn stop(&self) {
        self.shutdown.cancel();
    }

    /// A client that has said nothing yet.
    pub(crate) async fn socket(&self, version: Version) -> Client {
        let socket = in_time(TcpStream::connect(self.address)).await.expect("a connection");
        socket.set_nodelay(true).expect("no delay");
        Client {
            socket,
            wire: Wire::new(version),
            buffer: BytesMut::new(),
            inbox: VecDeque::new(),
            last_id: 0,
        }
    }

    /// A client that has said CONNECT, and what it was answered.
    pub(crate) async fn greet(&self, version: Version, connect: Connect) -> (Client, ConnectAck) {
        let mut client = self.socket(version).await;
        client.send(connect).await;
        let ack = client.expect("CONNACK", |packet| match packet {
            Packet::ConnectAck(ack) => Some((**ack).clone()),
            _ => None,
        });
        let ack = ack.await;
        (client, ack)
    }

    /// A client that was let in.
    pub(crate) async fn join(&self, version: Version, connect: Connect) -> Client {
        let (client, ack) = self.greet(version, connect).await;
        assert_eq!(ack.reason_code, ConnectAckReason::Success);
        client
    }

    /// A client whose session was there already, or not.
    pub(crate) async fn rejoin(&self, version: Version, connect: Connect) -> (Client, bool) {
        let (client, ack) = self.greet(version, connect).await;
        assert_eq!(ack.reason_code, ConnectAckReason::Success);
        (client, ack.session_present)
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// One connection of a client.
pub(crate) struct Client {
    socket: TcpStream,
    wire: Wire,
    buffer: BytesMut,
    /// Messages that came while something else was waited for.
    inbox: VecDeque<Publish>,
    last_id: u16,
}

impl Client {
    pub(crate) async fn send(&mut self, packet: impl Into<Packet>) {
        let bytes = self.wire.write(packet.into());
        self.send_raw(&bytes).await;
    }

    pub(crate) async fn send_raw(&mut self, bytes: &[u8]) {
        // A broker that has closed shows when it is read from.
        let _ = self.try_send_raw(bytes).await;
    }

    pub(crate) async fn try_send_raw(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        in_time(self.socket.write_all(bytes)).await
    }

    /// The next packet; `None` once the broker has closed the connection.
    pub(crate) async fn receive(&mut self) -> Option<Packet> {
        loop {
            if let Some(packet) = self.wire.read(&mut self.buffer) {
                return Some(packet);
            }
            // A reset is as good an end as a close.
            let read = in_time(self.socket.read_buf(&mut self.buffer)).await.unwrap_or(0);
            if read == 0 {
                assert!(self.buffer.is_empty(), "it ends within a packet");
                return None;
            }
        }
    }

    /// All that the broker says before it closes, byte by byte.
    pub(crate) async fn last_bytes(&mut self) -> Vec<u8> {
        while in_time(self.socket.read_buf(&mut self.buffer)).await.unwrap_or(0) > 0 {}
        self.buffer.split().to_vec()
    }

    /// The next so many bytes.
    pub(crate) async fn bytes(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            let read = in_time(self.socket.read_buf(&mut self.buffer)).await.unwrap_or(0);
            assert!(read > 0, "it closed after {:x?}", self.buffer);
        }
        self.buffer.split_to(count).to_vec()
    }

    /// The next packet that is no message; `pick` finds in it what is
    /// due.
    pub(crate) async fn expect<T>(
        &mut self,
        what: &str,
        pick: impl FnOnce(&Packet) -> Option<T>,
    ) -> T {
        loop {
            match self.receive().await {
                Some(Packet::Publish(publish)) => self.inbox.push_back(*publish),
                Some(packet) => match pick(&packet) {
                    Some(found) => return found,
                    None => panic!("{what} was due, not {packet:?}"),
                },
                None => panic!("{what} was due when the broker closed the connection"),
            }
        }
    }

    pub(crate) fn next_id(&mut self) -> NonZeroU16 {
        self.last_id += 1;
        id(self.last_id)
    }

    pub(crate) async fn subscribe(&mut self, filter: &str, qos: QoS) {
        let status = self.subscribe_with(filter, options(qos)).await;
        assert_eq!(u8::from(status), qos.value(), "{filter}");
    }

    pub(crate) async fn subscribe_with(
        &mut self,
        filter: &str,
        options: SubscriptionOptions,
    ) -> SubscribeAckReason {
        let packet = subscribe(self.next_id(), &[(filter, options)]);
        self.subscribe_packet(packet).await.status[0]
    }

    pub(crate) async fn subscribe_packet(&mut self, packet: Subscribe) -> SubscribeAck {
        let asked = packet.packet_id;
        self.send(packet).await;
        let ack = self.expect("SUBACK", |packet| match packet {
            Packet::SubscribeAck(ack) => Some(ack.clone()),
            _ => None,
        });
        let ack = ack.await;
        assert_eq!(ack.packet_id, asked);
        ack
    }

    pub(crate) async fn unsubscribe(&mut self, filters: &[&str]) -> UnsubscribeAck {
        let packet_id = self.next_id();
        let topic_filters = filters.iter().map(|filter| (*filter).into()).collect();
        self.send(Packet::Unsubscribe(Unsubscribe {
            packet_id,
            user_properties: Vec::new(),
            topic_filters,
        }))
        .await;
        let ack = self.expect("UNSUBACK", |packet| match packet {
            Packet::UnsubscribeAck(ack) => Some(ack.clone()),
            _ => None,
        });
        let ack = ack.await;
        assert_eq!(ack.packet_id, packet_id);
        ack
    }

    /// Publishes, and returns when the broker has taken the message over.
    pub(crate) async fn publish(&mut self, topic: &str, payload: &str, qos: QoS) {
        self.publish_packet(message(topic, payload, qos)).await;
    }

    /// The same, and what the broker made of it: the reason code of PUBACK or PUBREC. A message of
    /// QoS 0 is followed by a ping.
    pub(crate) async fn publish_packet(&mut self, publish: Publish) -> PublishAckReason {
        let qos = publish.qos;
        let packet_id = (qos != QoS::AtMostOnce).then(|| self.next_id());
        self.send(Publish { packet_id, ..publish }).await;
        match (qos, packet_id) {
            (QoS::AtLeastOnce, Some(id)) => self.puback(id).await,
            (QoS::ExactlyOnce, Some(id)) => {
                let reason = self.pubrec(id).await;
                if reason == PublishAckReason::Success {
                    self.release(id).await;
                }
                reason
            }
            _ => {
                self.ping().await;
                PublishAckReason::Success
            }
        }
    }

    pub(crate) async fn puback(&mut self, id: NonZeroU16) -> PublishAckReason {
        let ack = self.expect("PUBACK", |packet| match packet {
            Packet::PublishAck(ack) => Some(ack.clone()),
            _ => None,
        });
        let ack = ack.await;
        assert_eq!(ack.packet_id, id);
        ack.reason_code
    }

    pub(crate) async fn pubrec(&mut self, id: NonZeroU16) -> PublishAckReason {
        let ack = self.expect("PUBREC", |packet| match packet {
            Packet::PublishReceived(ack) => Some(ack.clone()),
            _ => None,
        });
        let ack = ack.await;
        assert_eq!(ack.packet_id, id);
        ack.reason_code
    }

    /// PUBREL, and the reason code of PUBCOMP.
    pub(crate) async fn release(&mut self, id: NonZeroU16) -> PublishAck2Reason {
        self.send(Packet::PublishRelease(ack2(id))).await;
        let done = self.expect("PUBCOMP", |packet| match packet {
            Packet::PublishComplete(done) => Some(done.clone()),
            _ => None,
        });
        let done = done.await;
        assert_eq!(done.packet_id, id);
        done.reason_code
    }

    /// PUBREC, and the reason code of the PUBREL that answers it.
    pub(crate) async fn received(&mut self, id: NonZeroU16) -> PublishAck2Reason {
        self.send(Packet::PublishReceived(ack(id))).await;
        self.pubrel(id).await
    }

    pub(crate) async fn pubrel(&mut self, id: NonZeroU16) -> PublishAck2Reason {
        let release = self.expect("PUBREL", |packet| match packet {
            Packet::PublishRelease(release) => Some(release.clone()),
            _ => None,
        });
        let release = release.await;
        assert_eq!(release.packet_id, id);
        release.reason_code
    }

    /// The messages that have come while something else was waited for.
    pub(crate) fn drain(&mut self) -> Vec<Publish> {
        self.inbox.drain(..).collect()
    }

    /// The next message, not acknowledged.
    pub(crate) async fn next(&mut self) -> Publish {
        if let Some(publish) = self.inbox.pop_front() {
            return publish;
        }
        match self.receive().await {
            Some(Packet::Publish(publish)) => *publish,
            other => panic!("a message was due, not {other:?}"),
        }
    }

    /// The next message, acknowledged as its QoS asks.
    pub(crate) async fn take(&mut self) -> Publish {
        let publish = self.next().await;
        match (publish.qos, publish.packet_id) {
            (QoS::AtLeastOnce, Some(id)) => self.send(Packet::PublishAck(ack(id))).await,
            (QoS::ExactlyOnce, Some(id)) => {
                assert_eq!(self.received(id).await, PublishAck2Reason::Success);
                self.send(Packet::PublishComplete(ack2(id))).await;
            }
            (qos, id) => assert_eq!((qos, id), (QoS::AtMostOnce, None)),
        }
        publish
    }

    /// The payload of the next message, acknowledged.
    pub(crate) async fn heard(&mut self) -> String {
        text(&self.take().await)
    }

    pub(crate) async fn ping(&mut self) {
        self.send(Packet::PingRequest).await;
        self.expect("PINGRESP", |packet| match packet {
            Packet::PingResponse => Some(()),
            _ => None,
        })
        .await;
    }

    /// Asserts that nothing is on its way of what the broker has taken over.
    pub(crate) async fn hears_nothing(&mut self) {
        self.ping().await;
        assert!(self.inbox.is_empty(), "it hears {:?}", self.inbox);
    }

    /// Waits for the end of the connection: what the broker says of it, which is nothing in 3.1.1.
    pub(crate) async fn ended(&mut self) -> Option<DisconnectReasonCode> {
        self.farewell().await.map(|bye| bye.reason_code)
    }

    /// The broker's DISCONNECT, and the end of the connection.
    pub(crate) async fn farewell(&mut self) -> Option<Disconnect> {
        let mut bye = None;
        while let Some(packet) = self.receive().await {
            match packet {
                Packet::Disconnect(said) => {
                    assert_eq!(self.wire.version(), Version::V5, "3.1.1 has no such packet");
                    bye = Some(said);
                }
                Packet::Publish(_) => {}
                other => panic!("an end was due, not {other:?}"),
            }
        }
        bye
    }

    /// Asserts that the broker ends the connection, for that reason where it can say one.
    pub(crate) async fn is_ended_for(&mut self, reason: DisconnectReasonCode) {
        let said = (self.wire.version() == Version::V5).then_some(reason);
        assert_eq!(self.ended().await, said);
    }

    /// Leaves politely; the broker knows when this returns.
    pub(crate) async fn leave(self) {
        self.leave_with(Disconnect::default()).await;
    }

    /// The same; what is answered is the socket, of which the broker has closed its half.
    pub(crate) async fn leave_with(mut self, bye: Disconnect) -> TcpStream {
        self.send(bye).await;
        assert_eq!(self.ended().await, None);
        self.socket
    }
}

/// The outcome of something that must happen; a test that waits for ever fails.
pub(crate) async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("it never happened")
}
