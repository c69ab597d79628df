//! One client, from CONNECT to its last byte.
//!
//! Reading and writing never wait for each other: a client that sends a stream while
//! it receives one would otherwise deadlock with us, both writing, nobody reading.

use std::time::{Duration, Instant};

use bytes::BytesMut;
use rumqttd::Notification;
use rumqttd::local::{LinkRx, LinkTx};
use rumqttd::protocol::{
    ConnAck, Connect, ConnectReturnCode, DisconnectReasonCode, LastWill, Packet, Publish,
};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::Door;
use crate::codec::{ReadError, Reader, Version};
use crate::config::Config;

/// Packets are gathered up to this size before they are written.
const WRITE_BYTES: usize = 256 << 10;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    /// The client said DISCONNECT: its will is void.
    #[error("the client disconnected")]
    Farewell,
    #[error("{0}")]
    Read(#[from] ReadError),
    #[error("cannot write: {0}")]
    Write(#[from] std::io::Error),
    #[error("no packet within 1.5 times its keep-alive")]
    Silent,
    #[error("another connection took its client id over")]
    TakenOver,
    #[error("the router dropped it")]
    Dropped,
}

/// Serves one client until it leaves, is taken over, or `shutdown`.
pub(crate) async fn serve(door: &Door, stream: TcpStream, shutdown: &CancellationToken) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "TCP_NODELAY refused");
    }
    let (reader, mut writer) = stream.into_split();
    let mut reader = Reader::new(reader, door.config.max_packet_bytes);
    let connected = tokio::select! {
        () = shutdown.cancelled() => return,
        connected = greet(&door.config, &mut reader, &mut writer) => connected,
    };
    let Some((version, mut connect, will)) = connected else { return };
    let assigned = connect.client_id.is_empty();
    if assigned {
        connect.client_id = door.assign_id();
    }
    let client = connect.client_id.clone();
    let claim = tokio::select! {
        () = shutdown.cancelled() => return,
        claim = door.clients.claim(&client) => claim,
    };
    let Ok((mut link, connack)) = door.router.join(&client, connect.clean_session).await else {
        return;
    };
    let connack = name(connack, assigned.then(|| client.clone()));
    info!(client.id = %client, ?version, "client connected");

    let ended = tokio::select! {
        () = shutdown.cancelled() => return,
        () = claim.revoked() => Ended::TakenOver,
        ended = read(&mut reader, version, &mut link.tx, patience(&connect)) => ended,
        ended = write(&mut writer, version, connack, &mut link.rx) => ended,
    };
    match &ended {
        Ended::Farewell => info!(client.id = %client, "client disconnected"),
        other => warn!(client.id = %client, reason = %other, "client lost"),
    }
    // What was read before the end still goes to the router, then the will.
    drop(writer);
    door.router.leave(link).await;
    if let Some(will) = will
        && !matches!(ended, Ended::Farewell)
    {
        door.router.publish(Publish::new(will.topic, will.message, will.retain)).await;
    }
    drop(claim);
}

/// Reads CONNECT; `None` if the client is not to be served.
async fn greet(
    config: &Config,
    reader: &mut Reader,
    writer: &mut OwnedWriteHalf,
) -> Option<(Version, Connect, Option<LastWill>)> {
    let limit = Duration::from_millis(config.connect_timeout_ms);
    match timeout(limit, reader.connect()).await {
        Ok(Ok((version, Packet::Connect(connect, _, will, _, _)))) => {
            if connect.client_id.is_empty() && !connect.clean_session {
                let code = ConnectReturnCode::ClientIdentifierNotValid;
                let refusal = ConnAck { session_present: false, code };
                let mut out = BytesMut::new();
                if version.write(Packet::ConnAck(refusal, None), &mut out).is_ok() {
                    // A client that is gone needs no refusal.
                    let _ = writer.write_all(&out).await;
                }
                return None;
            }
            Some((version, connect, will))
        }
        Ok(Ok(_)) => None,
        Ok(Err(error)) => {
            debug!(%error, "no client");
            None
        }
        Err(_) => {
            debug!("no CONNECT in time");
            None
        }
    }
}

/// Tells a client of MQTT 5 the id that it was given.
fn name(connack: Packet, assigned: Option<String>) -> Packet {
    match connack {
        Packet::ConnAck(ack, properties) => {
            let mut properties = properties.unwrap_or_default();
            properties.assigned_client_identifier = assigned;
            Packet::ConnAck(ack, Some(properties))
        }
        packet => packet,
    }
}

/// How long a client may be silent; for ever if it says so.
fn patience(connect: &Connect) -> Option<Duration> {
    match connect.keep_alive {
        0 => None,
        seconds => Some(Duration::from_millis(1500 * u64::from(seconds))),
    }
}

/// Carries packets from the client to the router.
async fn read(
    reader: &mut Reader,
    version: Version,
    link: &mut LinkTx,
    patience: Option<Duration>,
) -> Ended {
    loop {
        let next = reader.next(version);
        let first = match patience {
            Some(patience) => match timeout(patience, next).await {
                Ok(packet) => packet,
                Err(_) => return Ended::Silent,
            },
            None => next.await,
        };
        // Everything that has arrived goes to the router as one event.
        let mut packet = match first {
            Ok(packet) => packet,
            Err(error) => return error.into(),
        };
        loop {
            if let Packet::Disconnect(disconnect, _) = &packet {
                // The router hears of it when reader and writer have ended.
                return match disconnect.reason_code {
                    DisconnectReasonCode::NormalDisconnection => Ended::Farewell,
                    _ => ReadError::Gone.into(),
                };
            }
            match reader.buffered(version) {
                Ok(Some(next)) => {
                    link.buffer().push_back(packet);
                    packet = next;
                }
                Ok(None) => break,
                Err(error) => return error.into(),
            }
        }
        if link.send(packet).await.is_err() {
            return Ended::Dropped;
        }
    }
}

/// Carries packets from the router to the client.
async fn write(
    socket: &mut OwnedWriteHalf,
    version: Version,
    connack: Packet,
    link: &mut LinkRx,
) -> Ended {
    let mut out = BytesMut::with_capacity(4096);
    if version.write(connack, &mut out).is_err() {
        return Ended::Dropped;
    }
    let mut paused = false;
    loop {
        if let Err(error) = socket.write_all(&out).await {
            return error.into();
        }
        // A burst of chunks must not keep megabytes for a client that is idle again.
        if out.capacity() > 4 * WRITE_BYTES {
            out = BytesMut::with_capacity(4096);
        } else {
            out.clear();
        }
        if std::mem::take(&mut paused) && link.wake().await.is_err() {
            return Ended::Dropped;
        }
        let mut next = link.next().await;
        loop {
            match next {
                Ok(Some(Notification::Unschedule)) => paused = true,
                Ok(Some(notification)) => {
                    if let Some(packet) = notification.into() {
                        // A packet that cannot be encoded is the sender's mistake.
                        if let Err(error) = version.write(packet, &mut out) {
                            debug!(%error, "packet dropped");
                        }
                    }
                }
                Ok(None) => {}
                Err(_) => return Ended::Dropped,
            }
            if paused || out.len() >= WRITE_BYTES {
                break;
            }
            match link.recv_deadline(Instant::now()) {
                Ok(more) => next = Ok(more),
                // Nothing more at the moment; a real end shows at the next wait.
                Err(_) => break,
            }
        }
    }
}
