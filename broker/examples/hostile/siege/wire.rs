//! The frames of MQTT: how packets are put together, and where each ends in a stream.

/// A packet of that first byte.
pub(crate) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    length(body.len(), &mut bytes);
    bytes.extend_from_slice(body);
    bytes
}

/// A field with two bytes of length before it.
pub(crate) fn field(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend((bytes.len() as u16).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// A length of one to four bytes.
pub(crate) fn length(mut length: usize, out: &mut Vec<u8>) {
    while length >= 128 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}

/// So much of a packet is shown: what an acknowledgement or a CONNACK says is in it.
const SHOWN: usize = 8;

/// Where packets begin and end in a stream, whatever is in them.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    /// The beginning of the packet that is arriving.
    head: Vec<u8>,
    /// How much of that packet is missing, once its length is known.
    missing: Option<usize>,
    /// A length of more than four bytes: nobody can tell what follows.
    is_broken: bool,
}

impl Frames {
    /// Goes on with the stream; `found` is shown the first bytes of every packet that is whole.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], mut found: impl FnMut(&[u8])) {
        while let Some((&byte, rest)) = bytes.split_first()
            && !self.is_broken
        {
            let Some(missing) = self.missing else {
                self.head.push(byte);
                bytes = rest;
                self.measure();
                if self.missing == Some(0) {
                    self.finish(&mut found);
                }
                continue;
            };
            let (here, rest) = bytes.split_at(missing.min(bytes.len()));
            let shown = SHOWN.saturating_sub(self.head.len()).min(here.len());
            self.head.extend_from_slice(&here[..shown]);
            self.missing = Some(missing - here.len());
            bytes = rest;
            if self.missing == Some(0) {
                self.finish(&mut found);
            }
        }
    }

    /// Nothing is missing, or nothing that comes can be read: there is something to answer.
    pub(crate) fn is_due(&self) -> bool {
        self.is_broken || self.head.is_empty()
    }

    fn measure(&mut self) {
        let lengths = &self.head[1..];
        match lengths.last() {
            Some(last) if last & 0x80 == 0 => {
                let add =
                    |sum, (at, byte): (usize, &u8)| sum | usize::from(byte & 0x7f) << (7 * at);
                self.missing = Some(lengths.iter().enumerate().fold(0, add));
            }
            _ => self.is_broken = lengths.len() == 4,
        }
    }

    fn finish(&mut self, found: &mut impl FnMut(&[u8])) {
        found(&self.head);
        self.head.clear();
        self.missing = None;
    }
}
