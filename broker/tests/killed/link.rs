//! One connection of a client whose session outlives it, and the broker.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use rmqtt_codec::types::QoS;
use rmqtt_codec::v5::{Codec, Connect, ConnectAckReason, LastWill, Packet};
use tokio::net::TcpStream;
use tokio_util::codec::Framed;

/// A connection that was accepted; it may end at any moment.
pub(crate) struct Link(Framed<TcpStream, Codec>);

/// Goes on with the session of that name. Its will is published when it is away for so long.
pub(crate) fn lasting(client: &str, will_delay_seconds: u32) -> Connect {
    let will = LastWill {
        qos: QoS::ExactlyOnce,
        retain: false,
        topic: format!("wills/{client}").into(),
        message: Bytes::from_static(b"0"),
        will_delay_interval_sec: Some(will_delay_seconds),
        correlation_data: None,
        message_expiry_interval: None,
        content_type: None,
        user_properties: Vec::new(),
        is_utf8_payload: None,
        response_topic: None,
    };
    Connect {
        client_id: client.to_owned().into(),
        clean_start: false,
        session_expiry_interval_secs: 3600,
        last_will: Some(will),
        ..Connect::default()
    }
}

impl Link {
    /// Connects, as often as it takes; whether the session was there.
    pub(crate) async fn join(address: SocketAddr, connect: &Connect) -> (Self, bool) {
        loop {
            if let Ok(socket) = TcpStream::connect(address).await {
                let mut link = Self(Framed::new(socket, Codec::new(0, 0)));
                let hello = Packet::Connect(Box::new(connect.clone()));
                if link.send(hello).await.is_some()
                    && let Some(Packet::ConnectAck(ack)) = link.next().await
                {
                    assert_eq!(ack.reason_code, ConnectAckReason::Success);
                    return (link, ack.session_present);
                }
            }
            // There is no broker at the moment.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// `None` at the end of the connection.
    pub(crate) async fn send(&mut self, packet: Packet) -> Option<()> {
        self.0.send(packet).await.ok()
    }

    /// The next packet; `None` at the end of the connection. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<Packet> {
        self.0.next().await?.ok().map(|(packet, _)| packet)
    }
}
