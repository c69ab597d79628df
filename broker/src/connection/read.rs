//! From the socket to the lane: every packet is judged, and what is in order goes on.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use bytestring::ByteString;
use futures_util::FutureExt;
use rmqtt_codec::error::DecodeError;
use rmqtt_codec::types::{Publish, QoS};
use rmqtt_codec::v5::{
    Disconnect, DisconnectReasonCode, Packet, PublishAck, PublishAckReason, Subscribe,
};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Instant, timeout_at};

use super::aliases::Aliases;
use super::{Door, Ended};
use crate::accounts::SharedRights;
use crate::bulk::Traffic;
use crate::core::{Arrival, Event, Parting, is_filter, is_topic};
use crate::message::ConnectionId;
use crate::notice::Notices;
use crate::outbox::Outbox;
use crate::packet::{Codec, Version};
use crate::rates::Payer;

/// A buffer begins with this, which a client that is idle keeps.
const SMALL: usize = 1024;
/// One that reads fill grows to this.
const LARGE: usize = 64 << 10;

/// A packet of which so much is missing has a buffer of its own, so that it is not copied out of
/// one that it shares.
const OWN_FROM: usize = 32 << 10;
/// That buffer begins with what its client is good for, at the most with this: it may announce a
/// packet and send nothing of it.
const OWN_MOST: usize = 512 << 10;
/// After so many bytes others have their turn: a client that sends without end would hold its
/// worker for milliseconds.
const TURN: usize = 128 << 10;

/// The reading half of a connection.
pub(super) struct Reader {
    door: Arc<Door>,
    connection: ConnectionId,
    codec: Codec,
    buffer: BytesMut,
    /// The largest packet that has come whole, as far as a buffer begins with it.
    good_for: usize,
    rights: SharedRights,
    aliases: Aliases,
    keep_alive: Option<Duration>,
    /// The session outlives the connection.
    is_lasting: bool,
    events: Vec<Event>,
    notices: Arc<Notices>,
    /// Whose rates what it sends counts for.
    payer: Payer,
    /// How long the rest of a packet has been waited for.
    waited: Duration,
    traffic: Arc<Traffic>,
}

impl Reader {
    /// Reads what comes behind CONNECT, of which `buffer` may have something. `keep_alive` is in
    /// seconds.
    pub(super) fn new(
        door: Arc<Door>,
        arrival: &Arrival,
        codec: Codec,
        buffer: BytesMut,
        keep_alive: u16,
        notices: Arc<Notices>,
        traffic: Arc<Traffic>,
    ) -> Self {
        let keep_alive = Duration::from_millis(1500 * u64::from(keep_alive));
        let payer = Payer::new(arrival.user.as_ref(), arrival.facts.address.ip());
        Self {
            door,
            connection: arrival.connection,
            codec,
            buffer,
            good_for: SMALL,
            rights: arrival.rights.clone(),
            aliases: Aliases::default(),
            keep_alive: Some(keep_alive).filter(|time| !time.is_zero()),
            is_lasting: arrival.expiry_seconds > 0,
            events: Vec::new(),
            notices,
            payer,
            waited: Duration::ZERO,
            traffic,
        }
    }

    /// Reads until the connection ends.
    pub(super) async fn run(
        &mut self,
        outbox: &Outbox,
        socket: &mut (impl AsyncRead + Unpin),
    ) -> Ended {
        let limit_bytes = self.door.config.limits.max_outbox_bytes;
        // What was read and is not counted against the rates yet.
        let (mut packets, mut read) = (0, self.buffer.len());
        let mut since_turn = 0;
        loop {
            let (more, end) = self.take_all();
            packets += more;
            if end.is_ok() && !self.events.is_empty() && since_turn < TURN {
                // What is there already goes with it.
                match self.fill(socket).now_or_never() {
                    Some(Ok(more)) => {
                        since_turn += more;
                        read += more;
                        continue;
                    }
                    Some(Err(ended)) => {
                        self.door.lane.send(std::mem::take(&mut self.events)).await;
                        return ended;
                    }
                    None => {}
                }
            }
            if !self.events.is_empty() {
                self.door.lane.send(std::mem::take(&mut self.events)).await;
            }
            if let Err(ended) = end {
                return ended;
            }
            // Who does not read what it is answered is not read either, nor who is too fast.
            outbox.below(limit_bytes).await;
            self.pay(std::mem::take(&mut packets), read).await;
            give_back(&mut self.buffer, read);
            read = match self.fill(socket).await {
                Ok(read) => read,
                Err(ended) => return ended,
            };
            since_turn += read;
            if since_turn >= TURN {
                since_turn = 0;
                tokio::task::yield_now().await;
            }
        }
    }

    /// Reads once; answers how much.
    async fn fill(&mut self, socket: &mut (impl AsyncRead + Unpin)) -> Result<usize, Ended> {
        let (patience, is_part) = (self.patience(), !self.buffer.is_empty());
        let missing = self.codec.missing();
        if missing >= OWN_FROM {
            let first = missing.min(self.good_for.max(self.buffer.len()));
            self.buffer.reserve(first + SMALL);
        } else if self.buffer.capacity() - self.buffer.len() < SMALL {
            self.buffer.reserve(SMALL);
        }
        let mut room = self.buffer.capacity() - self.buffer.len();
        if missing >= OWN_FROM {
            room = room.min(missing + SMALL);
        }
        let mut place = (&mut self.buffer).limit(room);
        let began = Instant::now();
        let read = socket.read_buf(&mut place);
        let read = match patience {
            None => read.await?,
            Some((patience, end)) => match timeout_at(began + patience, read).await {
                Ok(read) => read?,
                Err(_) => return Err(end.into()),
            },
        };
        if is_part {
            self.waited += began.elapsed();
        }
        if read == 0 {
            return Err(Ended::Gone);
        }
        if read == room && missing < OWN_FROM {
            self.buffer.reserve(LARGE);
        }
        self.door.metrics.bytes_received.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }

    /// How long the next byte may take, and what it means if it takes longer.
    fn patience(&self) -> Option<(Duration, TooSlow)> {
        let silent = self.keep_alive.map(|patience| (patience, TooSlow::Silent));
        if self.buffer.is_empty() {
            return silent;
        }
        let so_far = Duration::from_secs(self.buffer.len() as u64 / 1024);
        let whole = Duration::from_millis(self.door.config.packet_timeout_ms) + so_far;
        let unfinished = (whole.saturating_sub(self.waited), TooSlow::Unfinished);
        Some(silent.map_or(unfinished, |silent| silent.min(unfinished)))
    }

    /// Waits until the client has its place in the rates.
    async fn pay(&mut self, packets: u64, bytes: usize) {
        let capped = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        let door = &self.door;
        if door.rates.pay(&self.payer, capped(packets), capped(bytes as u64)).await {
            door.metrics.reads_paused.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Turns everything that has been read into events; answers how many packets there were.
    fn take_all(&mut self) -> (u64, Result<(), Ended>) {
        let mut packets = 0;
        let end = loop {
            let before = self.buffer.len();
            match self.codec.read(&mut self.buffer) {
                Ok(Some(packet)) => {
                    packets += 1;
                    let size = before - self.buffer.len();
                    self.good_for = self.good_for.max(size.min(OWN_MOST));
                    if let Err(ended) = self.take(packet) {
                        break Err(ended);
                    }
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(malformed(&error)),
            }
        };
        if packets > 0 {
            self.door.metrics.packets_received.fetch_add(packets, Ordering::Relaxed);
            self.waited = Duration::ZERO;
        }
        (packets, end)
    }

    fn take(&mut self, packet: Packet) -> Result<(), Ended> {
        let connection = self.connection;
        let event = match packet {
            Packet::Publish(publish) => return self.on_publish(publish),
            Packet::PublishAck(ack) => Event::Done(connection, ack.packet_id),
            Packet::PublishComplete(done) => Event::Done(connection, done.packet_id),
            Packet::PublishReceived(ack) if u8::from(ack.reason_code) >= 0x80 => {
                // It does not want the message: there is nothing to release (MQTT 5, 4.3.3).
                Event::Done(connection, ack.packet_id)
            }
            Packet::PublishReceived(ack) => Event::Received(connection, ack.packet_id),
            Packet::PublishRelease(release) => Event::Release(connection, release.packet_id),
            Packet::Subscribe(subscribe) => {
                check(&subscribe)?;
                Event::Subscribe(connection, subscribe)
            }
            Packet::Unsubscribe(unsubscribe) => {
                unsubscribe.topic_filters.iter().try_for_each(well_formed)?;
                Event::Unsubscribe(connection, unsubscribe)
            }
            Packet::PingRequest => Event::Answer(connection, Packet::PingResponse),
            Packet::Disconnect(disconnect) => return Err(self.farewell(&disconnect)),
            Packet::Connect(_) => return Err(protocol("a second CONNECT")),
            Packet::Auth(_) => return Err(protocol("AUTH without a method")),
            _ => return Err(protocol("a packet that only brokers send")),
        };
        self.events.push(event);
        Ok(())
    }

    fn on_publish(&mut self, mut publish: Box<Publish>) -> Result<(), Ended> {
        let metrics = &self.door.metrics;
        metrics.messages_received.fetch_add(1, Ordering::Relaxed);
        let bytes = publish.payload.len() as u64;
        metrics.payload_bytes_received.fetch_add(bytes, Ordering::Relaxed);
        self.traffic.tell(publish.payload.len());
        self.aliases.resolve(&mut publish)?;
        if !is_topic(&publish.topic) {
            let what = format!("`{}` is no topic", shown(&publish.topic));
            return Err(Ended::Broken { reason: DisconnectReasonCode::TopicNameInvalid, what });
        }
        if let Some(properties) = &publish.properties
            && !properties.subscription_ids.is_empty()
        {
            return Err(protocol("a subscription identifier in a client's PUBLISH"));
        }
        if let Some(properties) = &publish.properties
            && properties.response_topic.as_ref().is_some_and(|topic| !is_topic(topic))
        {
            return Err(protocol("a response topic that is no topic"));
        }
        let rights = self.rights.load();
        let may = !publish.topic.starts_with('$')
            && rights.may_publish_message(&publish.topic, publish.retain, &publish.payload);
        drop(rights);
        let event = if !may {
            self.door.metrics.publishes_refused.fetch_add(1, Ordering::Relaxed);
            self.notices.say("publish refused", "not authorised", &publish.topic);
            let Some(answer) = self.refuse(&publish) else { return Ok(()) };
            Event::Answer(self.connection, answer)
        } else {
            Event::Publish(self.connection, publish)
        };
        self.events.push(event);
        Ok(())
    }

    /// What is said to a publish that is not allowed: a client of 3.1.1 has no way to hear of it.
    fn refuse(&self, publish: &Publish) -> Option<Packet> {
        let reason_code = match self.codec.version() {
            Version::V3 => PublishAckReason::Success,
            Version::V5 => PublishAckReason::NotAuthorized,
        };
        let ack = PublishAck {
            packet_id: publish.packet_id?,
            reason_code,
            properties: Vec::new(),
            reason_string: None,
        };
        match publish.qos {
            QoS::AtMostOnce => None,
            QoS::AtLeastOnce => Some(Packet::PublishAck(ack)),
            QoS::ExactlyOnce => Some(Packet::PublishReceived(ack)),
        }
    }

    fn farewell(&self, disconnect: &Disconnect) -> Ended {
        let is_will_void = disconnect.reason_code == DisconnectReasonCode::NormalDisconnection;
        let asked = disconnect.session_expiry_interval_secs;
        if !self.is_lasting && asked.is_some_and(|seconds| seconds > 0) {
            return protocol("a session expiry at DISCONNECT where CONNECT had none");
        }
        let most = self.door.config.limits.max_session_expiry_seconds;
        let expiry_seconds = asked.map(|seconds| seconds.min(most));
        Ended::Farewell(Parting { is_will_void, expiry_seconds })
    }
}

/// A client that does not say what it has to in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum TooSlow {
    Silent,
    Unfinished,
}

impl From<TooSlow> for Ended {
    fn from(slow: TooSlow) -> Self {
        let (reason, what) = match slow {
            TooSlow::Silent => (
                DisconnectReasonCode::KeepAliveTimeout,
                "no packet within 1.5 times its keep-alive",
            ),
            TooSlow::Unfinished => (
                DisconnectReasonCode::ImplementationSpecificError,
                "a packet that began and did not end in time",
            ),
        };
        Self::Broken { reason, what: what.into() }
    }
}

/// A SUBSCRIBE that breaks the rules of its version ends the connection.
fn check(subscribe: &Subscribe) -> Result<(), Ended> {
    subscribe.topic_filters.iter().try_for_each(|(filter, _)| well_formed(filter))?;
    let is_deaf_group = subscribe
        .topic_filters
        .iter()
        .any(|(filter, options)| options.no_local && filter.starts_with("$share/"));
    if is_deaf_group {
        return Err(protocol("No Local on a shared subscription"));
    }
    Ok(())
}

pub(super) fn protocol(what: &str) -> Ended {
    Ended::Broken { reason: DisconnectReasonCode::ProtocolError, what: what.into() }
}

fn malformed(error: &DecodeError) -> Ended {
    let reason = match error {
        DecodeError::MaxSizeExceeded { .. } => DisconnectReasonCode::PacketTooLarge,
        // SUBSCRIBE or UNSUBSCRIBE without one (MQTT 5, 3.8.3 and 3.10.3).
        DecodeError::InvalidTopicFilter => DisconnectReasonCode::ProtocolError,
        _ => DisconnectReasonCode::MalformedPacket,
    };
    Ended::Broken { reason, what: error.to_string() }
}

/// Makes an empty buffer small that was for more than comes now.
fn give_back(buffer: &mut BytesMut, read: usize) {
    if read < SMALL && buffer.is_empty() && buffer.capacity() > LARGE / 2 {
        *buffer = BytesMut::with_capacity(SMALL);
    }
}

fn well_formed(filter: &ByteString) -> Result<(), Ended> {
    if is_filter(filter) {
        return Ok(());
    }
    let what = format!("`{}` is no topic filter", shown(filter));
    Err(Ended::Broken { reason: DisconnectReasonCode::MalformedPacket, what })
}

fn shown(topic: &str) -> String {
    topic.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_that_grew_is_small_again_once_little_comes_and_nothing_is_in_it() {
        let mut buffer = BytesMut::with_capacity(LARGE);
        give_back(&mut buffer, LARGE);
        assert!(buffer.capacity() >= LARGE, "more is coming");
        buffer.extend_from_slice(b"a part");
        give_back(&mut buffer, 6);
        assert_eq!((&buffer[..], buffer.capacity() >= LARGE), (&b"a part"[..], true));
        buffer.clear();
        give_back(&mut buffer, 2);
        assert!(buffer.capacity() < LARGE / 2);
    }
}
