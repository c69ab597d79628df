//! A client of MQTT 5 that does what it is told, packet by packet.

use std::net::SocketAddr;
use std::num::NonZeroU16;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use rmqtt_codec::types::{Publish, QoS};
use rmqtt_codec::v5::{
    Codec, Connect, ConnectAckReason, DisconnectReasonCode, Packet, PublishAckReason,
    RetainHandling, Subscribe, SubscribeAckReason, SubscriptionOptions,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::codec::Framed;

use super::in_time;

/// A connection that was accepted.
pub(crate) struct Client<S = TcpStream> {
    framed: Framed<S, Codec>,
}

/// Who connects.
pub(crate) fn hello(client: &str) -> Connect {
    Connect { client_id: client.to_owned().into(), clean_start: true, ..Connect::default() }
}

/// The same with an account, whose password is its name.
pub(crate) fn hello_as(user: &str, client: &str) -> Connect {
    let password = Some(Bytes::copy_from_slice(user.as_bytes()));
    Connect { username: Some(user.to_owned().into()), password, ..hello(client) }
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr, hello: Connect) -> Self {
        Self::try_connect(address, hello).await.expect("accepted")
    }

    pub(crate) async fn try_connect(
        address: SocketAddr,
        hello: Connect,
    ) -> Result<Self, ConnectAckReason> {
        let stream = in_time(TcpStream::connect(address)).await.unwrap();
        Self::over(stream, hello).await
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub(crate) async fn over(stream: S, hello: Connect) -> Result<Self, ConnectAckReason> {
        let mut client = Self { framed: Framed::new(stream, Codec::new(0, 0)) };
        client.send(Packet::Connect(Box::new(hello))).await;
        match client.next().await {
            Some(Packet::ConnectAck(ack)) if ack.reason_code == ConnectAckReason::Success => {
                Ok(client)
            }
            Some(Packet::ConnectAck(ack)) => Err(ack.reason_code),
            other => panic!("no CONNACK: {other:?}"),
        }
    }

    pub(crate) async fn send(&mut self, packet: Packet) {
        in_time(self.framed.send(packet)).await.unwrap();
    }

    pub(crate) async fn send_raw(&mut self, bytes: &[u8]) {
        self.try_send_raw(bytes).await.unwrap();
    }

    pub(crate) async fn try_send_raw(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        in_time(self.framed.get_mut().write_all(bytes)).await
    }

    /// The next packet; `None` at the end of the connection.
    pub(crate) async fn next(&mut self) -> Option<Packet> {
        in_time(self.framed.next()).await.and_then(Result::ok).map(|(packet, _)| packet)
    }

    pub(crate) async fn subscribe(&mut self, filter: &str) -> SubscribeAckReason {
        let options = SubscriptionOptions {
            qos: QoS::AtLeastOnce,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::AtSubscribe,
        };
        let packet = Subscribe {
            packet_id: NonZeroU16::MIN,
            id: None,
            user_properties: Vec::new(),
            topic_filters: vec![(filter.to_owned().into(), options)],
        };
        self.send(Packet::Subscribe(packet)).await;
        loop {
            match self.next().await {
                Some(Packet::SubscribeAck(ack)) => return ack.status[0],
                Some(Packet::Publish(_)) => {}
                other => panic!("no SUBACK: {other:?}"),
            }
        }
    }

    pub(crate) async fn publish(
        &mut self,
        topic: &str,
        payload: &str,
        retain: bool,
    ) -> PublishAckReason {
        let publish = Publish {
            dup: false,
            retain,
            qos: QoS::AtLeastOnce,
            topic: topic.to_owned().into(),
            packet_id: NonZeroU16::new(1),
            payload: Bytes::copy_from_slice(payload.as_bytes()),
            properties: None,
        };
        self.send(Packet::Publish(Box::new(publish))).await;
        match self.next().await {
            Some(Packet::PublishAck(ack)) => ack.reason_code,
            other => panic!("no PUBACK: {other:?}"),
        }
    }

    /// Topic and payload of the next message.
    pub(crate) async fn message(&mut self) -> (String, String) {
        match self.next().await {
            Some(Packet::Publish(publish)) => {
                (publish.topic.to_string(), String::from_utf8_lossy(&publish.payload).into_owned())
            }
            other => panic!("no message: {other:?}"),
        }
    }

    /// A round trip: what was sent before is done with.
    pub(crate) async fn ping(&mut self) {
        self.send(Packet::PingRequest).await;
        assert_eq!(self.next().await, Some(Packet::PingResponse));
    }

    /// Why the broker ends the connection, which it does.
    pub(crate) async fn end(&mut self) -> DisconnectReasonCode {
        let Some(Packet::Disconnect(bye)) = self.next().await else { panic!("no DISCONNECT") };
        assert_eq!(self.next().await, None, "it stays open");
        bye.reason_code
    }
}
