//! The task behind a session: connect, greet, carry messages both ways, start over.
//!
//! It is the sole owner of the connection. Its rules:
//! - Greeting: subscribe and wait for the confirmation, then say the births, then
//!   resend what no broker has acknowledged, then everything else.
//! - Nobody waits for anybody: while the inbox is full the socket is not read, but
//!   writing and keep-alive go on, so that a reader that publishes cannot deadlock
//!   and a busy one is not taken for dead.
//! - A delivery is acknowledged once it is in the inbox.

use std::collections::VecDeque;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use rumqttc::{Packet, PubAck, Publish, QoS, Subscribe, SubscribeFilter, SubscribeReasonCode};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, trace, warn};

use crate::config::{BrokerUrl, Config};
use crate::in_flight::InFlight;
use crate::message::{Delivery, Lane};
use crate::session::{Births, Link, Parcel};
use crate::wire::{Wire, WireError, keep_alive};

/// The first wait before another attempt to connect, and the longest; jitter comes on top.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LONGEST: Duration = Duration::from_secs(5);

/// The packet id of the one SUBSCRIBE, written before any message takes an id.
const SUBSCRIBE_ID: u16 = 1;

/// How many packets are handled between two flushes, at most.
const BATCH: usize = 16;

/// Why a connection ended without an error.
enum Ended {
    /// [`crate::Session::close`]: with a clean disconnect.
    Stopped,
    /// Every handle is gone: without.
    Abandoned,
}

/// What the handles tell the task at any time.
pub(crate) struct Told {
    pub(crate) births: watch::Receiver<Births>,
    pub(crate) broker: watch::Receiver<BrokerUrl>,
    pub(crate) stop: CancellationToken,
}

/// What the task owns.
pub(crate) struct Pump {
    config: Config,
    control: mpsc::Receiver<Parcel>,
    bulk: mpsc::Receiver<Parcel>,
    told: Told,
    inbox: mpsc::Sender<Delivery>,
    link: watch::Sender<Link>,
    in_flight: InFlight,
    /// Unacknowledged by the last connection: goes before anything new.
    resend: VecDeque<Parcel>,
    /// Read from the socket while the inbox was full; nothing more is read until it fits.
    waiting: Option<(Delivery, Option<PubAck>)>,
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.link.send_replace(Link::Closed);
    }
}

impl Pump {
    pub(crate) fn new(
        config: Config,
        control: mpsc::Receiver<Parcel>,
        bulk: mpsc::Receiver<Parcel>,
        told: Told,
        inbox: mpsc::Sender<Delivery>,
        link: watch::Sender<Link>,
    ) -> Self {
        let (in_flight, resend, waiting) = (InFlight::default(), VecDeque::new(), None);
        Self { config, control, bulk, told, inbox, link, in_flight, resend, waiting }
    }

    /// Runs until the session is closed or every handle is dropped.
    pub(crate) async fn run(mut self) {
        let retry = ExponentialBuilder::new()
            .with_min_delay(RETRY_FIRST)
            .with_max_delay(RETRY_LONGEST)
            .without_max_times()
            .with_jitter();
        let mut delays = retry.build();
        let stop = self.told.stop.clone();
        loop {
            self.config.broker.clone_from(&self.told.broker.borrow_and_update());
            debug!(broker = %self.config.broker, "connecting");
            let connected = tokio::select! {
                () = stop.cancelled() => return,
                connected = Wire::connect(&self.config) => connected,
            };
            let since = Instant::now();
            let error = match connected {
                Ok(mut wire) => match self.converse(&mut wire).await {
                    Ok(Ended::Stopped) => return self.farewell(&mut wire).await,
                    Ok(Ended::Abandoned) => return,
                    Err(error) => error,
                },
                Err(error) => error,
            };
            self.hang_up();
            // Not after a short visit: two sessions with one id would chase each other.
            if matches!(*self.link.borrow(), Link::Up) && since.elapsed() > RETRY_LONGEST {
                delays = retry.build();
            }
            warn!(client.id = %self.config.client_id, %error, "no MQTT connection, trying again");
            self.link.send_replace(Link::Down { why: error.to_string().into() });
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(delays.next().unwrap_or(RETRY_LONGEST)) => {}
                Ok(()) = self.told.broker.changed() => delays = retry.build(),
            }
            if self.control.is_closed() && self.bulk.is_closed() {
                return;
            }
        }
    }

    /// Whatever the broker has not acknowledged goes first on the next connection.
    fn hang_up(&mut self) {
        let mut resend = self.in_flight.take();
        resend.retain(|parcel| !parcel.birth);
        resend.append(&mut self.resend);
        self.resend = resend;
        // Its acknowledgement would mean nothing to another connection.
        if let Some((_, ack)) = &mut self.waiting {
            *ack = None;
        }
    }

    /// Greets the broker and carries messages until the connection or the session ends.
    async fn converse(&mut self, wire: &mut Wire) -> Result<Ended, WireError> {
        let period = keep_alive(&self.config);
        let mut probe = interval_at(Instant::now() + period, period);
        probe.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (stop, inbox) = (self.told.stop.clone(), self.inbox.clone());
        let mut said = Births::new();
        let mut awaits_pong = false;
        // Until the subscriptions are confirmed nothing is published: an answer to it
        // could be missed.
        let mut greeted = !self.subscribe(wire).await?;
        if greeted {
            self.greet(wire, &mut said).await?;
        }
        wire.flush().await?;
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(Ended::Stopped),
                packet = wire.read(), if self.waiting.is_none() => {
                    awaits_pong = false;
                    if self.receive(wire, packet?).await? && !greeted {
                        greeted = true;
                        self.greet(wire, &mut said).await?;
                    }
                }
                room = inbox.reserve(), if self.waiting.is_some() => {
                    if let Some((delivery, ack)) = self.waiting.take() {
                        if let Ok(room) = room {
                            room.send(delivery);
                        }
                        acknowledge(wire, ack).await?;
                    }
                }
                parcel = next(&mut self.resend, &mut self.control, &mut self.bulk, &self.in_flight),
                    if greeted =>
                {
                    let Some(parcel) = parcel else { return Ok(Ended::Abandoned) };
                    self.send(wire, parcel).await?;
                }
                changed = self.told.births.changed(), if greeted => {
                    if changed.is_err() { return Ok(Ended::Abandoned) }
                    self.say_births(wire, &mut said).await?;
                }
                _ = probe.tick() => {
                    // Unread bytes may hold the answer: only a reader can miss it.
                    if self.waiting.is_none() {
                        if awaits_pong { return Err(wire.silent("answer a probe")) }
                        if !greeted { return Err(wire.silent("confirm the subscriptions")) }
                    }
                    wire.write(Packet::PingReq).await?;
                    awaits_pong = true;
                }
            }
            wire.flush().await?;
        }
    }

    /// Asks for every subscription; true when there is a confirmation to wait for.
    async fn subscribe(&mut self, wire: &mut Wire) -> Result<bool, WireError> {
        if self.config.subscriptions.is_empty() {
            return Ok(false);
        }
        let mut subscribe = Subscribe::new_many(
            self.config
                .subscriptions
                .iter()
                .map(|filter| SubscribeFilter::new(filter.to_string(), QoS::AtLeastOnce)),
        );
        subscribe.pkid = SUBSCRIBE_ID;
        wire.write(Packet::Subscribe(subscribe)).await?;
        Ok(true)
    }

    /// Fails when the broker refused one of the subscriptions.
    fn confirm(&self, wire: &Wire, answers: &[SubscribeReasonCode]) -> Result<(), WireError> {
        let refused = answers.iter().position(|code| *code == SubscribeReasonCode::Failure);
        match refused.and_then(|at| self.config.subscriptions.get(at)) {
            Some(filter) => Err(wire.refused(filter.to_string())),
            None => Ok(()),
        }
    }

    /// Says the births; from here on the link is up.
    async fn greet(&mut self, wire: &mut Wire, said: &mut Births) -> Result<(), WireError> {
        self.say_births(wire, said).await?;
        wire.flush().await?;
        info!(broker = %self.config.broker, client.id = %self.config.client_id, "connected");
        self.link.send_replace(Link::Up);
        Ok(())
    }

    /// Writes every birth that this connection has not heard yet.
    async fn say_births(&mut self, wire: &mut Wire, said: &mut Births) -> Result<(), WireError> {
        let births = self.told.births.borrow_and_update().clone();
        for (topic, birth) in births {
            if said.get(&topic) != Some(&birth) {
                let parcel = Parcel { birth: true, ..Parcel::new(birth.clone()) };
                self.write(wire, parcel).await?;
                said.insert(topic, birth);
            }
        }
        Ok(())
    }

    /// Writes `parcel` and a few more that are waiting already.
    async fn send(&mut self, wire: &mut Wire, parcel: Parcel) -> Result<(), WireError> {
        self.write(wire, parcel).await?;
        for _ in 1..BATCH {
            let parcel = if !self.in_flight.has_room(Lane::Control) {
                None
            } else if let Some(parcel) = self.resend.pop_front() {
                Some(parcel)
            } else {
                self.control.try_recv().ok()
            };
            let Some(parcel) = parcel else { break };
            self.write(wire, parcel).await?;
        }
        Ok(())
    }

    async fn write(&mut self, wire: &mut Wire, parcel: Parcel) -> Result<(), WireError> {
        let mut publish = parcel.publish.clone();
        if publish.qos != QoS::AtMostOnce {
            // Kept before it is written: a failed write is resent.
            publish.pkid = self.in_flight.insert(parcel);
        }
        wire.write(Packet::Publish(publish)).await
    }

    /// Handles `packet` and a few more that have arrived already; true when the
    /// subscriptions were confirmed among them.
    async fn receive(&mut self, wire: &mut Wire, packet: Packet) -> Result<bool, WireError> {
        let mut confirmed = false;
        let mut next = Some(packet);
        for room in (0..BATCH).rev() {
            match next {
                Some(Packet::Publish(publish)) => self.deliver(wire, publish).await?,
                Some(Packet::PubAck(ack)) => {
                    if let Some(acked) = self.in_flight.remove(ack.pkid).and_then(|p| p.acked) {
                        // Whoever waited may have given up.
                        let _ = acked.send(());
                    }
                }
                Some(Packet::SubAck(answer)) => {
                    self.confirm(wire, &answer.return_codes)?;
                    confirmed = true;
                }
                Some(other) => trace!(?other, "packet needs no answer"),
                None => break,
            }
            if room == 0 || self.waiting.is_some() {
                break;
            }
            next = wire.read_now().await?;
        }
        Ok(confirmed)
    }

    /// Puts a message into the inbox, or aside until there is room.
    async fn deliver(&mut self, wire: &mut Wire, publish: Publish) -> Result<(), WireError> {
        let ack = (publish.qos == QoS::AtLeastOnce).then(|| PubAck::new(publish.pkid));
        let delivery = Delivery {
            topic: publish.topic.parse().ok(),
            raw_topic: publish.topic,
            payload: publish.payload,
            retained: publish.retain,
            redelivered: publish.dup,
        };
        match self.inbox.try_send(delivery) {
            Err(mpsc::error::TrySendError::Full(delivery)) => {
                self.waiting = Some((delivery, ack));
                Ok(())
            }
            // A closed inbox: nobody listens any more, the session only publishes.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => acknowledge(wire, ack).await,
        }
    }

    /// Sends the control messages that are waiting, and DISCONNECT: no will.
    async fn farewell(mut self, wire: &mut Wire) {
        let outcome: Result<(), WireError> = async {
            self.control.close();
            while let Ok(parcel) = self.control.try_recv() {
                self.write(wire, parcel).await?;
            }
            wire.write(Packet::Disconnect).await?;
            wire.flush().await
        }
        .await;
        match outcome {
            Ok(()) => info!(client.id = %self.config.client_id, "MQTT session closed"),
            Err(error) => warn!(client.id = %self.config.client_id, %error, "no clean farewell"),
        }
    }
}

async fn acknowledge(wire: &mut Wire, ack: Option<PubAck>) -> Result<(), WireError> {
    match ack {
        Some(ack) => wire.write(Packet::PubAck(ack)).await,
        None => Ok(()),
    }
}

/// The next message to write: resent ones first, control before bulk; `None` when
/// every handle is gone. Waits while too much is unacknowledged. Cancel-safe.
async fn next(
    resend: &mut VecDeque<Parcel>,
    control: &mut mpsc::Receiver<Parcel>,
    bulk: &mut mpsc::Receiver<Parcel>,
    in_flight: &InFlight,
) -> Option<Parcel> {
    if !in_flight.has_room(Lane::Control) {
        return std::future::pending().await;
    }
    if let Some(parcel) = resend.pop_front() {
        return Some(parcel);
    }
    tokio::select! {
        biased;
        parcel = control.recv() => parcel,
        Some(parcel) = bulk.recv(), if in_flight.has_room(Lane::Bulk) => Some(parcel),
    }
}
