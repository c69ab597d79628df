//! MQTT 3.1.1 by hand: what a load needs of it, and no more.

use std::io::IoSlice;
use std::sync::Arc;

/// The first byte of packets, flags included.
pub(crate) const PUBACK: u8 = 0x40;
pub(crate) const PUBREC: u8 = 0x50;
pub(crate) const PUBREL: u8 = 0x62;
pub(crate) const PUBCOMP: u8 = 0x70;
pub(crate) const DISCONNECT: [u8; 2] = [0xe0, 0];

/// Payloads from here on are not copied.
const WHOLE_FROM: usize = 4096;
/// So much is gathered before it is written.
const GATHERED: usize = 64 << 10;
/// Heads are shorter.
const HEAD: usize = 256;

/// CONNECT with a keep-alive that is longer than any measurement; rumqttd takes none of 0.
pub(crate) fn connect(client: &str, is_clean: bool, account: Option<(&str, &str)>) -> Vec<u8> {
    let flags = u8::from(is_clean) << 1 | if account.is_some() { 0xc0 } else { 0 };
    let mut body = b"\0\x04MQTT\x04".to_vec();
    body.extend([flags, 2, 0]);
    text(client, &mut body);
    if let Some((user, password)) = account {
        text(user, &mut body);
        text(password, &mut body);
    }
    whole(0x10, &body)
}

/// SUBSCRIBE to one filter.
pub(crate) fn subscribe(filter: &str, qos: u8) -> Vec<u8> {
    let mut body = vec![0, 1];
    text(filter, &mut body);
    body.push(qos);
    whole(0x82, &body)
}

fn whole(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    length(body.len(), &mut packet);
    packet.extend_from_slice(body);
    packet
}

fn text(text: &str, out: &mut Vec<u8>) {
    out.extend((text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn length(mut length: usize, out: &mut Vec<u8>) {
    while length >= 128 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}

/// What is to be written to one socket: small things gathered, then perhaps a large payload.
pub(crate) struct Out {
    small: Vec<u8>,
    large: Option<Arc<[u8]>>,
    written: usize,
}

impl Out {
    pub(crate) fn new() -> Self {
        Self { small: Vec::with_capacity(GATHERED + HEAD), large: None, written: 0 }
    }

    pub(crate) fn has_room(&self) -> bool {
        self.large.is_none() && self.small.len() < GATHERED
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.small.is_empty()
    }

    /// PUBACK and its like.
    pub(crate) fn answer(&mut self, kind: u8, id: u16) {
        debug_assert!(self.large.is_none(), "who publishes large payloads answers nothing");
        let [high, low] = id.to_be_bytes();
        self.small.extend([kind, 2, high, low]);
    }

    /// PUBLISH; the payload begins with `stamp`, where it is copied.
    pub(crate) fn publish(&mut self, qos: u8, topic: &str, id: u16, stamp: u64, rest: &Arc<[u8]>) {
        self.small.push(0x30 | qos << 1);
        let ids = if qos > 0 { 2 } else { 0 };
        length(2 + topic.len() + ids + rest.len(), &mut self.small);
        text(topic, &mut self.small);
        if qos > 0 {
            self.small.extend(id.to_be_bytes());
        }
        if rest.len() < WHOLE_FROM {
            self.small.extend(stamp.to_be_bytes());
            self.small.extend_from_slice(&rest[8..]);
        } else {
            self.large = Some(rest.clone());
        }
    }

    pub(crate) fn slices(&self) -> [IoSlice<'_>; 2] {
        let large = self.large.as_deref().unwrap_or_default();
        let small = self.small.len();
        match self.written < small {
            true => [IoSlice::new(&self.small[self.written..]), IoSlice::new(large)],
            false => [IoSlice::new(&large[self.written - small..]), IoSlice::new(&[])],
        }
    }

    pub(crate) fn advance(&mut self, count: usize) {
        self.written += count;
        if self.written == self.small.len() + self.large.as_ref().map_or(0, |large| large.len()) {
            self.small.clear();
            self.large = None;
            self.written = 0;
        }
    }
}

/// A packet that arrived whole: its first byte, its id, and the stamp of a PUBLISH.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrived {
    pub(crate) first: u8,
    pub(crate) id: u16,
    pub(crate) stamp: u64,
}

impl Arrived {
    pub(crate) fn is_publish(self) -> bool {
        self.first >> 4 == 3
    }
    pub(crate) fn qos(self) -> u8 {
        self.first >> 1 & 3
    }
}

/// Takes a stream apart; payloads are passed over.
pub(crate) struct In {
    buffer: Box<[u8]>,
    filled: usize,
    /// Of the packet that is arriving.
    missing: usize,
    arriving: Option<Arrived>,
}

impl In {
    pub(crate) fn new(bytes: usize) -> Self {
        let buffer = vec![0; bytes].into_boxed_slice();
        Self { buffer, filled: 0, missing: 0, arriving: None }
    }

    /// Where the next bytes go.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        &mut self.buffer[self.filled..]
    }

    /// So many bytes were put there: tells of every packet that is complete now.
    pub(crate) fn arrived(&mut self, count: usize, mut found: impl FnMut(Arrived)) {
        self.filled += count;
        let mut at = 0;
        loop {
            let here = self.missing.min(self.filled - at);
            at += here;
            self.missing -= here;
            if self.missing > 0 {
                break;
            }
            if let Some(packet) = self.arriving.take() {
                found(packet);
            }
            let Some((packet, bytes)) = head(&self.buffer[at..self.filled]) else { break };
            self.missing = bytes;
            self.arriving = Some(packet);
        }
        self.buffer.copy_within(at..self.filled, 0);
        self.filled -= at;
    }
}

/// The packet that begins here and its length, once enough of it is there.
fn head(bytes: &[u8]) -> Option<(Arrived, usize)> {
    let first = *bytes.first()?;
    let (mut rest, mut lengths) = (0, 0);
    loop {
        let byte = *bytes.get(1 + lengths)?;
        rest |= usize::from(byte & 0x7f) << (7 * lengths);
        lengths += 1;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let all = 1 + lengths + rest;
    let body = bytes.get(1 + lengths..all.min(HEAD))?;
    let short = |at: usize| match body.get(at..at + 2) {
        Some(&[high, low]) => u16::from_be_bytes([high, low]),
        _ => 0,
    };
    let mut packet = Arrived { first, id: 0, stamp: 0 };
    if packet.is_publish() {
        let mut at = 2 + usize::from(short(0));
        if packet.qos() > 0 {
            packet.id = short(at);
            at += 2;
        }
        let stamp = body.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
        packet.stamp = stamp.map_or(0, u64::from_be_bytes);
    } else {
        packet.id = short(0);
    }
    Some((packet, all))
}
