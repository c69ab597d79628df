//! One connection to a broker, packet by packet: the only place that knows how
//! rumqttc is driven.
//!
//! rumqttc's event loop connects (resolves, dials, says CONNECT, checks CONNACK);
//! from then on its network half is used directly instead of `poll()`, because
//! `poll()` cannot stop reading without also stopping to write, forgets unacknowledged
//! messages with a lost session, and reuses packet ids that are still in flight.

use std::future::ready;
use std::time::Duration;

use rumqttc::{
    ConnectionError, EventLoop, LastWill, MqttOptions, Packet, QoS, StateError, TlsConfiguration,
    Transport,
};
use tokio::time::timeout;

use crate::config::{BrokerUrl, Config};

/// How long a broker may take to accept a connection.
const CONNECT_SECONDS: u64 = 5;

/// Why there is no connection, or no longer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    /// There is nothing by which a broker over TLS could be believed.
    #[error("{broker} speaks TLS, and this program has joined no fabric: join with a token first")]
    NoTrust { broker: BrokerUrl },
    /// The broker is not reachable, or refused the session.
    #[error("cannot connect to {broker}: {source}")]
    Connect { broker: BrokerUrl, source: Box<ConnectionError> },
    /// The connection broke, or a packet is beyond the limit.
    #[error("connection to {broker} lost: {source}")]
    Lost { broker: BrokerUrl, source: Box<StateError> },
    /// The broker takes nothing any more, or does not answer.
    #[error("{broker} did not {missed} within {limit:?}")]
    Silent { broker: BrokerUrl, missed: &'static str, limit: Duration },
    /// The broker refused a subscription.
    #[error("{broker} refused the subscription to `{filter}`: check what this account may read")]
    Refused { broker: BrokerUrl, filter: String },
}

/// An open connection.
pub(crate) struct Wire {
    events: EventLoop,
    broker: BrokerUrl,
    patience: Duration,
}

impl Wire {
    /// Connects. Cancel-safe.
    pub(crate) async fn connect(config: &Config) -> Result<Self, WireError> {
        let broker = config.broker.clone();
        let mut options = options(config);
        if broker.is_secure() {
            let Some(tls) = config.tls.clone() else { return Err(WireError::NoTrust { broker }) };
            options.set_transport(Transport::Tls(TlsConfiguration::Rustls(tls)));
        }
        let mut events = EventLoop::new(options, 1);
        events.network_options.set_tcp_nodelay(true);
        events.network_options.set_connection_timeout(CONNECT_SECONDS);
        match events.poll().await {
            Ok(_connack) => Ok(Self { events, broker, patience: keep_alive(config) }),
            Err(source) => Err(WireError::Connect { broker, source: Box::new(source) }),
        }
    }

    /// The next packet. Cancel-safe.
    pub(crate) async fn read(&mut self) -> Result<Packet, WireError> {
        match self.events.network.as_mut() {
            Some(network) => network.read().await,
            None => Err(StateError::ConnectionAborted),
        }
        .map_err(|source| self.lost(source))
    }

    /// The next packet, if it has already arrived.
    pub(crate) async fn read_now(&mut self) -> Result<Option<Packet>, WireError> {
        tokio::select! {
            biased;
            packet = self.read() => packet.map(Some),
            () = ready(()) => Ok(None),
        }
    }

    /// Puts a packet into the write buffer; [`Wire::flush`] sends it. Not cancel-safe.
    pub(crate) async fn write(&mut self, packet: Packet) -> Result<(), WireError> {
        let written = match self.events.network.as_mut() {
            Some(network) => timeout(self.patience, network.write(packet)).await,
            None => Ok(Err(StateError::ConnectionAborted)),
        };
        self.accepted(written)
    }

    /// Sends what was written. Not cancel-safe.
    pub(crate) async fn flush(&mut self) -> Result<(), WireError> {
        let flushed = match self.events.network.as_mut() {
            Some(network) => timeout(self.patience, network.flush()).await,
            None => Ok(Err(StateError::ConnectionAborted)),
        };
        self.accepted(flushed)
    }

    /// The error for a broker that did not do what was due.
    pub(crate) fn silent(&self, missed: &'static str) -> WireError {
        WireError::Silent { broker: self.broker.clone(), missed, limit: self.patience }
    }

    /// The error for a subscription that was refused.
    pub(crate) fn refused(&self, filter: String) -> WireError {
        WireError::Refused { broker: self.broker.clone(), filter }
    }

    fn lost(&self, source: StateError) -> WireError {
        WireError::Lost { broker: self.broker.clone(), source: Box::new(source) }
    }

    fn accepted(
        &self,
        outcome: Result<Result<(), StateError>, tokio::time::error::Elapsed>,
    ) -> Result<(), WireError> {
        match outcome {
            Ok(done) => done.map_err(|source| self.lost(source)),
            Err(_) => Err(self.silent("take a packet")),
        }
    }
}

/// The interval of probes: whole seconds, at least one, for MQTT knows no less.
pub(crate) fn keep_alive(config: &Config) -> Duration {
    Duration::from_secs(config.keep_alive.as_secs().clamp(1, u64::from(u16::MAX)))
}

fn options(config: &Config) -> MqttOptions {
    let (host, port) = (config.broker.host(), config.broker.port());
    let mut options = MqttOptions::new(&config.client_id, host, port);
    options.set_clean_session(true);
    options.set_keep_alive(keep_alive(config));
    options.set_max_packet_size(config.max_packet_bytes, config.max_packet_bytes);
    if let Some(account) = &config.credentials {
        options.set_credentials(&account.username, &account.password);
    }
    if let Some(will) = &config.will {
        options.set_last_will(LastWill {
            topic: will.topic.clone(),
            message: will.payload.clone(),
            qos: if will.fleeting { QoS::AtMostOnce } else { QoS::AtLeastOnce },
            retain: will.retained,
        });
    }
    options
}
