//! From the first byte to the session: who is it, and may it come in.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::BytesMut;
use bytestring::ByteString;
use rmqtt_codec::error::DecodeError;
use rmqtt_codec::v5::{Connect, ConnectAck, ConnectAckReason, Packet};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::Door;
use super::aliases::ALIASES;
use super::read::Reader;
use super::write::Writer;
use crate::admission::{Claim, Refusal};
use crate::bulk::Traffic;
use crate::core::{Arrival, Facts, is_topic};
use crate::engine::now_ms;
use crate::listener::Peer;
use crate::message::ConnectionId;
use crate::metrics::Refused;
use crate::notice::{Notices, shown};
use crate::packet::{Codec, Greeting, Version, greeting};

/// How much of what a client says behind CONNECT is read while it is judged.
const EARLY_BYTES: usize = 4096;

/// Why nobody came in.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoGuest {
    #[error("no CONNECT in time, or no turn to sign in")]
    Late,
    #[error("it went away before it was let in")]
    Gone,
    #[error("not MQTT")]
    Foreign,
    #[error("{0} is not served: have the client speak 3.1.1 or 5")]
    Version(&'static str),
    #[error("malformed CONNECT: {1}")]
    Malformed(ConnectAckReason, String),
    #[error("refused: {0:?}")]
    Refused(ConnectAckReason),
    #[error("refused: {refusal} (user `{user}`, client `{client}`)")]
    NotAdmitted { refusal: Refusal, client: String, user: String },
}

impl NoGuest {
    /// What it is counted by.
    pub(super) fn cause(&self) -> Refused {
        match self {
            Self::Late => Refused::Timeout,
            Self::Gone => Refused::Gone,
            Self::Foreign => Refused::NotMqtt,
            Self::Version(_) => Refused::Version,
            Self::Malformed(..) => Refused::Malformed,
            Self::Refused(ConnectAckReason::BadAuthenticationMethod) => {
                Refused::AuthenticationMethod
            }
            Self::Refused(ConnectAckReason::ClientIdentifierNotValid) => Refused::ClientId,
            Self::Refused(_) => Refused::Will,
            Self::NotAdmitted { refusal, .. } => refusal.cause(),
        }
    }
}

impl NoGuest {
    /// The client may have been told.
    pub(super) fn is_said(&self) -> bool {
        !matches!(self, Self::Late | Self::Gone | Self::Foreign)
    }

    /// How it is said in CONNACK.
    fn reason(&self) -> ConnectAckReason {
        match self {
            Self::Late | Self::Gone | Self::Foreign => ConnectAckReason::UnspecifiedError,
            Self::Version(_) => ConnectAckReason::UnsupportedProtocolVersion,
            Self::Malformed(reason, _) | Self::Refused(reason) => *reason,
            Self::NotAdmitted { refusal, .. } => refusal.reason(),
        }
    }
}

/// A client that is let in.
pub(super) struct Guest {
    pub(super) arrival: Arrival,
    pub(super) reader: Reader,
    pub(super) writer: Writer,
    /// In seconds; 0 where the client may be silent for ever.
    pub(super) keep_alive: u16,
    pub(super) notices: Arc<Notices>,
}

/// Reads CONNECT and judges it. A client that is refused has been told why.
pub(super) async fn greet(
    door: &Arc<Door>,
    connection: ConnectionId,
    socket_in: &mut (impl AsyncRead + Unpin),
    socket_out: &mut (impl AsyncWrite + Unpin),
    peer: &Peer,
    traffic: &Arc<Traffic>,
) -> Result<Guest, NoGuest> {
    let limit = Duration::from_millis(door.config.connect_timeout_ms);
    let deadline = Instant::now() + limit;
    let mut buffer = BytesMut::with_capacity(1024);
    let hello = hello(door, &mut buffer, socket_in, socket_out);
    let (mut codec, connect) = timeout_at(deadline, hello).await.map_err(|_| NoGuest::Late)??;
    let judged = tokio::select! {
        biased;
        judged = judge(door, connection, codec.version(), *connect, peer) => judged,
        () = gone(&mut buffer, socket_in) => return Err(NoGuest::Gone),
        () = sleep_until(deadline) => return Err(NoGuest::Late),
    };
    match judged {
        Ok((mut arrival, answer)) => {
            let (aliases, max_packet) = (answer.aliases, answer.max_packet);
            let keep_alive = answer.ack.server_keepalive_sec.unwrap_or(answer.keep_alive);
            let version = codec.version();
            arrival.receive_max = arrival.receive_max.max(1);
            let notices = Arc::new(Notices::new((arrival.user.clone(), arrival.client.clone())));
            let (mine, yours) = (notices.clone(), notices.clone());
            let told = traffic.clone();
            let reader = Reader::new(door.clone(), &arrival, codec, buffer, keep_alive, mine, told);
            let writer =
                Writer::new(door.clone(), connection, version, *answer.ack, yours, traffic.clone())
                    .with_limits(aliases, max_packet);
            Ok(Guest { arrival, reader, writer, keep_alive, notices })
        }
        Err(reason) => {
            // A client that is gone needs no refusal.
            let _ = tokio::time::timeout(limit, refuse(&mut codec, &reason, socket_out)).await;
            Err(reason)
        }
    }
}

/// CONNACK where the version has a word for it, and the end.
async fn refuse(
    codec: &mut Codec,
    reason: &NoGuest,
    socket_out: &mut (impl AsyncWrite + Unpin),
) -> std::io::Result<()> {
    let reason_code = reason.reason();
    // What the code does not say by itself.
    let reason_string = match reason {
        NoGuest::NotAdmitted { refusal, .. } => Some(refusal.to_string().into()),
        _ => None,
    };
    let ack = ConnectAck { reason_code, reason_string, ..ConnectAck::default() };
    let mut out = BytesMut::new();
    if codec.write(Packet::ConnectAck(Box::new(ack)), &mut out).is_ok() {
        socket_out.write_all(&out).await?;
    }
    socket_out.shutdown().await
}

async fn hello(
    door: &Door,
    buffer: &mut BytesMut,
    socket_in: &mut (impl AsyncRead + Unpin),
    socket_out: &mut (impl AsyncWrite + Unpin),
) -> Result<(Codec, Box<Connect>), NoGuest> {
    let mut fill = async |buffer: &mut BytesMut| match socket_in.read_buf(buffer).await {
        Ok(0) | Err(_) => Err(NoGuest::Gone),
        Ok(_) => Ok(()),
    };
    let version = loop {
        match greeting(buffer) {
            None => fill(buffer).await?,
            Some(Greeting::Foreign) => return Err(NoGuest::Foreign),
            Some(Greeting::Refused { version, words }) => {
                let _ = socket_out.write_all(words).await;
                let _ = socket_out.shutdown().await;
                return Err(NoGuest::Version(version));
            }
            Some(Greeting::Known(version)) => break version,
        }
    };
    let mut codec = Codec::new(version, door.config.max_packet_bytes);
    loop {
        match codec.read(buffer) {
            Ok(Some(Packet::Connect(connect))) => return Ok((codec, connect)),
            // The greeting was a CONNECT's.
            Ok(Some(_)) => return Err(NoGuest::Foreign),
            Ok(None) => fill(buffer).await?,
            Err(error) => {
                let reason = NoGuest::Malformed(malformed(&error), error.to_string());
                // It may be gone.
                let _ = refuse(&mut codec, &reason, socket_out).await;
                return Err(reason);
            }
        }
    }
}

/// Ends when the client goes while it is judged. What it says meanwhile is heard later: one that has
/// said all it has to say may close behind it.
async fn gone(buffer: &mut BytesMut, socket_in: &mut (impl AsyncRead + Unpin)) {
    while buffer.len() < EARLY_BYTES {
        match socket_in.read_buf(buffer).await {
            Ok(0) if !buffer.is_empty() => break,
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
    std::future::pending().await
}

fn malformed(error: &DecodeError) -> ConnectAckReason {
    match error {
        DecodeError::MaxSizeExceeded { .. } => ConnectAckReason::PacketTooLarge,
        DecodeError::InvalidClientId => ConnectAckReason::ClientIdentifierNotValid,
        _ => ConnectAckReason::MalformedPacket,
    }
}

/// What is said to a client that comes in.
struct Welcome {
    ack: Box<ConnectAck>,
    keep_alive: u16,
    /// How many aliases may be used towards it.
    aliases: u16,
    /// The largest packet that it takes.
    max_packet: usize,
}

async fn judge(
    door: &Door,
    connection: ConnectionId,
    version: Version,
    connect: Connect,
    peer: &Peer,
) -> Result<(Arrival, Welcome), NoGuest> {
    let refused = |reason| Err(NoGuest::Refused(reason));
    let limits = door.config.limits;
    let is_v5 = version == Version::V5;
    if connect.auth_method.is_some() {
        return refused(ConnectAckReason::BadAuthenticationMethod);
    }
    if connect.auth_data.is_some() {
        return refused(ConnectAckReason::ProtocolError);
    }
    if connect.client_id.len() > limits.max_client_id_bytes {
        return refused(ConnectAckReason::ClientIdentifierNotValid);
    }
    let is_unnamed = connect.client_id.is_empty();
    let client = match is_unnamed {
        true => ByteString::from(format!("assigned-{}", uuid::Uuid::new_v4().simple())),
        false => connect.client_id.to_string().into(),
    };
    let claim = Claim {
        client: &client,
        user: connect.username.as_deref(),
        password: connect.password.as_deref(),
        peer,
    };
    let (user, rights) =
        door.admission.admit(claim).await.map_err(|refusal| NoGuest::NotAdmitted {
            refusal,
            client: shown(&client).into_owned(),
            user: shown(connect.username.as_deref().unwrap_or_default()).into_owned(),
        })?;
    if let Some(will) = &connect.last_will {
        if !is_topic(&will.topic) {
            return refused(ConnectAckReason::TopicNameInvalid);
        }
        let may = !will.topic.starts_with('$')
            && rights.may_publish_message(&will.topic, will.retain, &will.message);
        if !may {
            return refused(ConnectAckReason::NotAuthorized);
        }
    }
    let most = limits.max_session_expiry_seconds;
    let expiry_seconds = connect.session_expiry_interval_secs.min(most);
    let max_keep_alive = door.config.max_keep_alive_seconds;
    let is_too_long = max_keep_alive > 0
        && is_v5
        && (connect.keep_alive == 0 || connect.keep_alive > max_keep_alive);
    let was_cut = expiry_seconds != connect.session_expiry_interval_secs;
    let ack = ConnectAck {
        session_expiry_interval_secs: was_cut.then_some(expiry_seconds),
        receive_max: NonZeroU16::new(limits.receive_max).unwrap_or(NonZeroU16::MIN),
        max_packet_size: Some(door.config.max_packet_bytes),
        assigned_client_id: is_unnamed.then(|| client.clone()),
        topic_alias_max: ALIASES,
        server_keepalive_sec: is_too_long.then_some(max_keep_alive),
        ..ConnectAck::default()
    };
    let welcome = Welcome {
        ack: Box::new(ack),
        keep_alive: connect.keep_alive,
        aliases: connect.topic_alias_max.min(ALIASES),
        max_packet: connect.max_packet_size.map_or(usize::MAX, |size| size.get() as usize),
    };
    let facts = Facts {
        address: peer.address,
        transport: peer.transport,
        version: if is_v5 { 5 } else { 3 },
        keep_alive_seconds: welcome.ack.server_keepalive_sec.unwrap_or(welcome.keep_alive),
        since_ms: now_ms(),
    };
    let arrival = Arrival {
        connection,
        user,
        client,
        is_clean: connect.clean_start,
        expiry_seconds,
        receive_max: connect.receive_max.map_or(u16::MAX, NonZeroU16::get),
        // A client of 3.1.1 cannot be told of a limit.
        quota: if is_v5 { limits.receive_max.max(1) } else { u16::MAX },
        will: connect.last_will,
        rights: Arc::new(ArcSwap::from_pointee(rights)),
        facts: Arc::new(facts),
    };
    Ok((arrival, welcome))
}
