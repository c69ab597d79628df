//! Messages that were written and not yet acknowledged, in the order of writing.

use std::collections::VecDeque;

use crate::message::Lane;
use crate::session::Parcel;

/// How many messages may be unacknowledged. Chunks may take half, so that a control
/// message never waits for their acknowledgement.
const LIMIT: usize = 256;
const BULK_LIMIT: usize = LIMIT / 2;

/// Unacknowledged messages by packet id. Never gives out an id that is in use.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    parcels: VecDeque<(u16, Parcel)>,
    bulk: usize,
    last_id: u16,
}

impl InFlight {
    /// True when another message of `lane` may be written.
    pub(crate) fn has_room(&self, lane: Lane) -> bool {
        match lane {
            Lane::Control => self.parcels.len() < LIMIT,
            Lane::Bulk => self.parcels.len() < LIMIT && self.bulk < BULK_LIMIT,
        }
    }

    /// Keeps `parcel` until it is acknowledged, under the packet id that is returned.
    pub(crate) fn insert(&mut self, mut parcel: Parcel) -> u16 {
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            if !self.parcels.iter().any(|(id, _)| *id == self.last_id) {
                break;
            }
        }
        parcel.publish.pkid = self.last_id;
        self.bulk += usize::from(parcel.lane == Lane::Bulk);
        self.parcels.push_back((self.last_id, parcel));
        self.last_id
    }

    /// The message that `id` acknowledges, if it is in flight.
    pub(crate) fn remove(&mut self, id: u16) -> Option<Parcel> {
        // Brokers acknowledge nearly always in order: the search ends at the front.
        let at = self.parcels.iter().position(|(known, _)| *known == id)?;
        let (_, parcel) = self.parcels.remove(at)?;
        self.bulk -= usize::from(parcel.lane == Lane::Bulk);
        Some(parcel)
    }

    /// Gives up the connection: everything unacknowledged, oldest first.
    pub(crate) fn take(&mut self) -> VecDeque<Parcel> {
        self.bulk = 0;
        self.parcels.drain(..).map(|(_, parcel)| parcel).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Publication;
    use godwit_proto::topic::{Peer, Topic};

    fn parcel(text: &'static str) -> Parcel {
        Parcel::new(Publication::new(&Topic::ControllerHello, text.as_bytes()))
    }

    #[test]
    fn an_id_in_use_is_skipped_when_ids_come_round() {
        let mut flight = InFlight::default();
        let first = flight.insert(parcel("slow"));
        for _ in 0..u16::MAX {
            let id = flight.insert(parcel("quick"));
            assert_ne!(id, first);
            assert_ne!(id, 0);
            flight.remove(id).unwrap();
        }
    }

    #[test]
    fn an_unknown_acknowledgement_acknowledges_nothing() {
        let mut flight = InFlight::default();
        let id = flight.insert(parcel("a"));
        assert!(flight.remove(id + 1).is_none());
        assert!(flight.remove(id).is_some());
        assert!(flight.remove(id).is_none());
    }

    #[test]
    fn what_is_resent_keeps_its_order_whatever_was_acknowledged() {
        let mut flight = InFlight::default();
        let ids = ["a", "b", "c", "d"].map(|text| flight.insert(parcel(text)));
        flight.remove(ids[1]);
        let left: Vec<_> = flight.take().into_iter().map(|p| p.publish.payload).collect();
        assert_eq!(left, ["a", "c", "d"].map(bytes::Bytes::from));
    }

    #[test]
    fn chunks_leave_room_for_control() {
        let mut flight = InFlight::default();
        let bulk = Topic::PeerBulk { to: Peer::Controller, from: Peer::Controller };
        while flight.has_room(Lane::Bulk) {
            flight.insert(Parcel::new(Publication::new(&bulk, "chunk")));
        }
        assert!(flight.has_room(Lane::Control));
        assert_eq!(flight.parcels.len(), BULK_LIMIT);
    }
}
