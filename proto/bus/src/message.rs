//! What goes out and what comes in: [`Publication`] and [`Delivery`].

use bytes::Bytes;
use godwit_proto::topic::Topic;

/// A message to publish.
///
/// By default it is QoS 1 and not retained: kept until the broker acknowledges it,
/// across reconnects, hence delivered to the broker at least once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    pub(crate) topic: String,
    pub(crate) payload: Bytes,
    pub(crate) retained: bool,
    pub(crate) fleeting: bool,
    pub(crate) lane: Lane,
}

/// Which of the two outbound queues a message waits in. A vote must not queue
/// behind megabytes of checkpoint, so chunks have a lane of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    Control,
    Bulk,
}

impl Publication {
    /// `payload` on `topic`. Topics that end in `bulk` travel in a lane of their own:
    /// order holds within a lane, and control overtakes bulk.
    pub fn new(topic: &Topic, payload: impl Into<Bytes>) -> Self {
        let lane = match topic {
            Topic::PeerBulk { .. } => Lane::Bulk,
            _ => Lane::Control,
        };
        Self {
            topic: topic.to_string(),
            payload: payload.into(),
            retained: false,
            fleeting: false,
            lane,
        }
    }

    /// Kept by the broker for those who subscribe later. An empty payload clears it.
    #[must_use]
    pub fn retained(mut self) -> Self {
        self.retained = true;
        self
    }

    /// QoS 0: refused while there is no connection, lost when one breaks.
    #[must_use]
    pub fn fleeting(mut self) -> Self {
        self.fleeting = true;
        self
    }

    /// The size of the MQTT packet that carries it, at most.
    pub(crate) fn packet_bytes(&self) -> usize {
        // Type and flags, remaining length, topic length, packet id.
        const HEADER: usize = 1 + 4 + 2 + 2;
        HEADER + self.topic.len() + self.payload.len()
    }
}

/// A message that arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The topic, if it is one of the fabric's.
    pub topic: Option<Topic>,
    /// The topic as it stood in the packet.
    pub raw_topic: String,
    /// The payload, not copied since it was read from the socket.
    pub payload: Bytes,
    /// Kept by the broker from before this subscription, not new.
    pub retained: bool,
    /// The broker may have delivered it before.
    pub redelivered: bool,
}
