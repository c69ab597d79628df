//! From the outbox to the socket.

use std::collections::HashMap;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use bytestring::ByteString;
use rmqtt_codec::types::QoS;
use rmqtt_codec::v5::{ConnectAck, ConnectAckReason, Disconnect, DisconnectReasonCode, Packet};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::aliases::ALIASED_BYTES;
use super::{Door, Ended};
use crate::bulk::Traffic;
use crate::core::Event;
use crate::engine::now_ms;
use crate::frames::Frames;
use crate::message::{ConnectionId, Delivery, Out};
use crate::metrics::Dropped;
use crate::notice::Notices;
use crate::outbox::{Outbox, weight};
use crate::packet::{Codec, Version};

/// A buffer that grew beyond this is given back.
const KEPT: usize = 64 << 10;

/// The writing half of a connection.
pub(super) struct Writer {
    door: Arc<Door>,
    connection: ConnectionId,
    codec: Codec,
    ack: Option<Box<ConnectAck>>,
    /// CONNACK is written: nothing else comes before it.
    is_greeted: bool,
    /// Topics that the client knows an alias of.
    aliases: HashMap<ByteString, NonZeroU16>,
    max_aliases: u16,
    max_packet: usize,
    frames: Frames,
    notices: Arc<Notices>,
    traffic: Arc<Traffic>,
}

impl Writer {
    pub(super) fn new(
        door: Arc<Door>,
        connection: ConnectionId,
        version: Version,
        ack: ConnectAck,
        notices: Arc<Notices>,
        traffic: Arc<Traffic>,
    ) -> Self {
        Self {
            door,
            connection,
            codec: Codec::new(version, 0),
            ack: Some(Box::new(ack)),
            is_greeted: false,
            aliases: HashMap::new(),
            max_aliases: 0,
            max_packet: usize::MAX,
            frames: Frames::default(),
            notices,
            traffic,
        }
    }

    pub(super) fn with_limits(mut self, aliases: u16, max_packet: usize) -> Self {
        self.max_aliases = aliases;
        self.max_packet = max_packet;
        self
    }

    /// Writes what the outbox gives until the connection ends.
    pub(super) async fn run(
        &mut self,
        outbox: &Outbox,
        socket: &mut (impl AsyncWrite + Unpin),
    ) -> Ended {
        let patience = Duration::from_millis(self.door.config.write_timeout_ms);
        loop {
            let outs = outbox.take().await;
            let (now_ms, mut weights, mut end) = (now_ms(), 0, None);
            let packets = outs.len() as u64;
            for out in outs {
                weights += weight(&out);
                if let Some(reason) = self.add(out, now_ms) {
                    end = Some(Ended::Closed(reason));
                    break;
                }
            }
            match timeout(patience, self.flush(socket)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return error.into(),
                Err(_) => {
                    let kind = std::io::ErrorKind::TimedOut;
                    return std::io::Error::new(kind, "it reads nothing").into();
                }
            }
            outbox.written(weights);
            self.door.metrics.packets_sent.fetch_add(packets, Ordering::Relaxed);
            if let Some(ended) = end {
                return ended;
            }
        }
    }

    /// Says why, where there is something to say, and closes.
    pub(super) async fn finish(
        &mut self,
        ended: &Ended,
        socket: &mut (impl AsyncWrite + Unpin),
    ) -> std::io::Result<()> {
        let reason = match ended {
            Ended::Broken { reason, .. } | Ended::Closed(reason) if self.is_greeted => {
                Some((*reason, ended))
            }
            _ => None,
        };
        if let Some((reason_code, why)) = reason {
            let reason_string = match why {
                Ended::Broken { what, .. } => Some(what.as_str().into()),
                _ => advice(reason_code).map(ByteString::from_static),
            };
            let bye = Disconnect { reason_code, reason_string, ..Disconnect::default() };
            if self.write(Packet::Disconnect(bye.clone())).is_some() {
                self.write(Packet::Disconnect(Disconnect { reason_string: None, ..bye }));
            }
            self.flush(socket).await?;
        }
        socket.shutdown().await
    }

    /// Adds a word to what is written; a reason where it is the last one.
    fn add(&mut self, out: Out, now_ms: u64) -> Option<DisconnectReasonCode> {
        match out {
            Out::Accept { is_resumed } => {
                if let Some(mut ack) = self.ack.take() {
                    ack.session_present = is_resumed;
                    let refused = self.write(Packet::ConnectAck(ack));
                    self.is_greeted = refused.is_none();
                    return refused;
                }
            }
            Out::Packet(packet) => return self.write(packet),
            Out::Publish(sent) => self.publish(&sent, now_ms),
            Out::Close(reason) => {
                self.refuse(reason);
                return Some(reason);
            }
        }
        None
    }

    /// CONNACK for a client that did not come as far as its session, where there is a word for it.
    fn refuse(&mut self, reason: DisconnectReasonCode) {
        let reason_code = match reason {
            DisconnectReasonCode::NotAuthorized => ConnectAckReason::NotAuthorized,
            DisconnectReasonCode::QuotaExceeded => ConnectAckReason::QuotaExceeded,
            _ => return,
        };
        if self.ack.take().is_some() {
            let ack = ConnectAck { reason_code, ..ConnectAck::default() };
            self.write(Packet::ConnectAck(Box::new(ack)));
        }
    }

    /// Adds a packet; the reason to close where the client does not take one of its size.
    fn write(&mut self, packet: Packet) -> Option<DisconnectReasonCode> {
        let before = self.frames.tail.len();
        if let Err(error) = self.codec.write(packet, &mut self.frames.tail) {
            tracing::error!(%error, "an answer cannot be written");
            self.frames.tail.truncate(before);
        }
        let is_too_large = self.frames.tail.len() - before > self.max_packet;
        if is_too_large {
            self.frames.tail.truncate(before);
        }
        is_too_large.then_some(DisconnectReasonCode::PacketTooLarge)
    }

    fn publish(&mut self, sent: &Delivery, now_ms: u64) {
        if sent.qos == QoS::AtMostOnce && sent.message.has_expired(now_ms) {
            self.door.metrics.dropped.add(Dropped::Expired, 1);
            return;
        }
        let alias = self.alias(&sent.message.topic);
        let before = self.frames.tail.len();
        let written = self.codec.write_head(sent, alias, now_ms, &mut self.frames.tail);
        let size = self.frames.tail.len() - before + sent.message.payload.len();
        if let Err(error) = written {
            tracing::error!(%error, topic = %sent.message.topic, "a message cannot be written");
            self.undo(before, alias, sent);
        } else if size > self.max_packet {
            // The client takes none of that size: as if it had it (MQTT 5, 3.1.2.11.4).
            self.undo(before, alias, sent);
        } else {
            self.frames.push(&sent.message.payload);
            let metrics = &self.door.metrics;
            metrics.messages_sent.fetch_add(1, Ordering::Relaxed);
            let bytes = sent.message.payload.len() as u64;
            metrics.payload_bytes_sent.fetch_add(bytes, Ordering::Relaxed);
            self.traffic.tell(sent.message.payload.len());
        }
    }

    fn undo(&mut self, before: usize, alias: Option<(NonZeroU16, bool)>, sent: &Delivery) {
        self.frames.tail.truncate(before);
        if let Some((_, false)) = alias {
            // It was the newest, and the client has not heard of it.
            self.aliases.remove(&sent.message.topic);
        }
        self.door.metrics.dropped.add(Dropped::TooLarge, 1);
        self.notices.say("message dropped", "larger than it takes", &sent.message.topic);
        if let Some(id) = sent.packet_id {
            self.door.lane.send_now(Event::Done(self.connection, id));
        }
    }

    /// An alias for a topic, and whether the client knows it, as long as there are some.
    fn alias(&mut self, topic: &ByteString) -> Option<(NonZeroU16, bool)> {
        if self.max_aliases == 0 {
            return None;
        }
        if let Some(alias) = self.aliases.get(topic) {
            return Some((*alias, true));
        }
        let next = u16::try_from(self.aliases.len() + 1).ok().filter(|n| *n <= self.max_aliases)?;
        let alias = NonZeroU16::new(next)?;
        let remembered: usize = self.aliases.keys().map(|topic| topic.len()).sum();
        if remembered + topic.len() > ALIASED_BYTES {
            return None;
        }
        // Not a part of the message: it would live as long.
        self.aliases.insert(topic.to_string().into(), alias);
        Some((alias, false))
    }

    async fn flush(&mut self, socket: &mut (impl AsyncWrite + Unpin)) -> std::io::Result<()> {
        self.frames.seal();
        let bytes = self.frames.remaining() as u64;
        while self.frames.has_remaining() {
            if socket.write_buf(&mut self.frames).await? == 0 {
                return Err(std::io::ErrorKind::WriteZero.into());
            }
            if self.frames.has_remaining() {
                // It takes much at a time: others have their turn.
                tokio::task::yield_now().await;
            }
        }
        socket.flush().await?;
        self.door.metrics.bytes_sent.fetch_add(bytes, Ordering::Relaxed);
        if self.frames.tail.capacity() > KEPT {
            self.frames.tail = BytesMut::new();
        }
        Ok(())
    }
}

/// What a client can do about its end, where the reason does not say it.
fn advice(reason: DisconnectReasonCode) -> Option<&'static str> {
    Some(match reason {
        DisconnectReasonCode::ServerShuttingDown => "the broker stops: connect again soon",
        DisconnectReasonCode::SessionTakenOver => {
            "a client with the same id has connected: give each an id of its own"
        }
        DisconnectReasonCode::AdministrativeAction => "an operator ended the connection",
        DisconnectReasonCode::NotAuthorized => "the account was removed, or its password changed",
        DisconnectReasonCode::ReceiveMaximumExceeded => {
            "more messages of QoS 2 under way than CONNACK said"
        }
        DisconnectReasonCode::PacketTooLarge => "an answer is larger than the client takes",
        _ => return None,
    })
}
