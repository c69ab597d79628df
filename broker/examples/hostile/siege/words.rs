//! A grammar of packets: what a client may say, in any order, and what none may.
//!
//! Every wrong thing has its small chance wherever it can stand, so that most of a sequence is in
//! order and its end is reached.

use fastrand::Rng;

use super::wire::{field, length, packet};

/// The version that a CONNECT asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V3,
    V5,
}

/// Who says CONNECT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) user: String,
    pub(crate) password: String,
}

/// One of so many chances.
fn once_in(rng: &mut Rng, chances: u32) -> bool {
    rng.u32(0..chances) == 0
}

/// Says packets of one version, below a prefix of topics.
pub(crate) struct Words<'a> {
    pub(crate) rng: &'a mut Rng,
    pub(crate) version: Version,
    pub(crate) prefix: &'a str,
}

impl Words<'_> {
    /// One packet, of any kind.
    pub(crate) fn packet(&mut self, account: Option<&Account>) -> Vec<u8> {
        let mut bytes = match self.rng.u32(0..100) {
            0..35 => self.publish(),
            35..60 => self.acknowledgement(),
            60..76 => self.subscribe(),
            76..84 => self.unsubscribe(),
            84..92 => packet(0xc0, &[]),
            92..94 => self.connect(account),
            94..96 => self.disconnect(),
            96..97 => packet(0xf0, &self.reason_and_properties()),
            97..98 => {
                let first = *self.rng.choice(&[0x20, 0x90, 0xb0, 0xd0, 0x00]).unwrap_or(&0);
                packet(first, &[0, 1, 0])
            }
            _ => packet(self.rng.u8(..), &self.noise(40)),
        };
        if once_in(self.rng, 60) {
            bytes[0] ^= 1 << self.rng.u8(0..4);
        }
        if once_in(self.rng, 80) {
            self.lie(&mut bytes);
        }
        bytes
    }

    /// CONNECT; `client` bears one of few names, so that sessions are gone on with and taken over.
    pub(crate) fn connect(&mut self, account: Option<&Account>) -> Vec<u8> {
        // Who has no rights may have no will.
        let will = once_in(self.rng, if account.is_some() { 3 } else { 20 });
        let is_clean = self.rng.bool();
        let mut flags = u8::from(is_clean) << 1;
        if will {
            flags |= 4 | self.rng.u8(0..3) << 3 | u8::from(self.rng.bool()) << 5;
        }
        if account.is_some() {
            flags |= 0xc0;
        }
        if once_in(self.rng, 100) {
            flags ^= 1 << self.rng.u8(..8);
        }
        let name: &[u8] = if once_in(self.rng, 200) { b"MQIsdp" } else { b"MQTT" };
        let level = match (once_in(self.rng, 200), self.version) {
            (true, _) => self.rng.u8(0..8),
            (_, Version::V3) => 4,
            (_, Version::V5) => 5,
        };
        let mut body = Vec::new();
        field(name, &mut body);
        body.extend([level, flags]);
        body.extend(self.rng.u16(0..100).to_be_bytes());
        self.properties(&[0x11, 0x21, 0x22, 0x27, 0x17, 0x19, 0x26], &mut body);
        let client = match self.rng.u32(0..20) {
            0 => String::new(),
            1 => "c".repeat(self.rng.usize(1..400)),
            _ => format!("hostile-{}", self.rng.u32(0..80)),
        };
        field(client.as_bytes(), &mut body);
        if will {
            self.properties(&[0x18, 0x01, 0x02, 0x03, 0x08, 0x09, 0x26], &mut body);
            self.topic(&mut body);
            let bytes = self.payload();
            field(&bytes, &mut body);
        }
        if let Some(Account { user, password }) = account {
            field(user.as_bytes(), &mut body);
            field(password.as_bytes(), &mut body);
        }
        packet(0x10, &body)
    }

    fn publish(&mut self) -> Vec<u8> {
        let qos = if once_in(self.rng, 100) { 3 } else { self.rng.u8(0..3) };
        let is_again = qos > 0 && once_in(self.rng, 5) || once_in(self.rng, 200);
        let retain = once_in(self.rng, 6);
        let mut body = Vec::new();
        self.topic(&mut body);
        if qos > 0 {
            self.id(&mut body);
        }
        self.properties(&[0x01, 0x02, 0x03, 0x08, 0x09, 0x23, 0x26], &mut body);
        let payload = self.payload();
        body.extend(payload);
        packet(0x30 | u8::from(is_again) << 3 | qos << 1 | u8::from(retain), &body)
    }

    /// PUBACK and its like, for whatever id.
    fn acknowledgement(&mut self) -> Vec<u8> {
        let first = *self.rng.choice(&[0x40, 0x50, 0x62, 0x62, 0x70]).unwrap_or(&0x40);
        let mut body = Vec::new();
        self.id(&mut body);
        if self.version == Version::V5 && once_in(self.rng, 3) {
            body.extend(self.reason_and_properties());
        }
        packet(first, &body)
    }

    fn subscribe(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        self.id(&mut body);
        self.properties(&[0x0b, 0x26], &mut body);
        for _ in 0..self.count() {
            self.filter(&mut body);
            let options = match self.version {
                Version::V3 => self.rng.u8(0..3),
                Version::V5 => self.rng.u8(0..3) | self.rng.u8(0..4) << 2 | self.rng.u8(0..3) << 4,
            };
            body.push(if once_in(self.rng, 100) { self.rng.u8(..) } else { options });
        }
        packet(0x82, &body)
    }

    fn unsubscribe(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        self.id(&mut body);
        self.properties(&[0x26], &mut body);
        for _ in 0..self.count() {
            self.filter(&mut body);
        }
        packet(0xa2, &body)
    }

    fn disconnect(&mut self) -> Vec<u8> {
        match self.version {
            Version::V5 if self.rng.bool() => packet(0xe0, &self.reason_and_properties()),
            _ => packet(0xe0, &[]),
        }
    }

    fn reason_and_properties(&mut self) -> Vec<u8> {
        let reason = *self.rng.choice(&[0x00, 0x00, 0x04, 0x10, 0x80, 0x92, 0xff]).unwrap_or(&0);
        let mut body = vec![reason];
        self.properties(&[0x1f, 0x26, 0x11], &mut body);
        body
    }

    /// How many filters are in a packet: few, seldom very many, very seldom none.
    fn count(&mut self) -> usize {
        match self.rng.u32(0..400) {
            0 => self.rng.usize(1000..20_000),
            1..4 => self.rng.usize(50..400),
            4..8 => 0,
            _ => self.rng.usize(1..5),
        }
    }

    /// One of few, so that they meet; seldom 0.
    fn id(&mut self, body: &mut Vec<u8>) {
        let id = if once_in(self.rng, 150) { self.rng.u16(..) & 1 } else { self.rng.u16(1..24) };
        body.extend(id.to_be_bytes());
    }

    fn topic(&mut self, body: &mut Vec<u8>) {
        let prefix = self.prefix;
        let topic = match self.rng.u32(0..200) {
            0 => String::new(),
            1 => "$SYS/broker/uptime".into(),
            2 => format!("{prefix}/hostile/+/a"),
            3 => format!("$share/g/{prefix}/hostile/a"),
            4 => format!("{prefix}/bystander/x"),
            5 => self.deep(),
            6 => format!("{prefix}/hostile/{}", "t".repeat(self.rng.usize(1000..60_000))),
            7 => return self.spoilt(body),
            _ => self.own(),
        };
        field(&topic.as_bytes()[..topic.len().min(65_535)], body);
    }

    fn filter(&mut self, body: &mut Vec<u8>) {
        let prefix = self.prefix;
        let filter = match self.rng.u32(0..100) {
            0 => String::new(),
            1 => "#".into(),
            2 => format!("{prefix}/#"),
            3 => "$SYS/#".into(),
            4 => format!("{prefix}/hostile/a#"),
            5 => format!("$share/{prefix}"),
            6 => format!("{prefix}/bystander/#"),
            7 if once_in(self.rng, 4) => self.deep(),
            8 if once_in(self.rng, 4) => return self.spoilt(body),
            9..25 => format!("$share/g{}/{}", self.rng.u32(0..3), self.own()),
            25..40 => format!("{prefix}/hostile/+"),
            40..45 => format!("{prefix}/hostile/#"),
            45..55 => format!("+/hostile/+/{}", self.rng.u32(0..9)),
            _ => self.own(),
        };
        field(&filter.as_bytes()[..filter.len().min(65_535)], body);
    }

    /// A topic that the hostile with an account may write and read.
    fn own(&mut self) -> String {
        let (prefix, a) = (self.prefix, self.rng.u32(0..40));
        match self.rng.bool() {
            true => format!("{prefix}/hostile/{a}"),
            false => format!("{prefix}/hostile/{a}/{}", self.rng.u32(0..9)),
        }
    }

    fn deep(&mut self) -> String {
        let most = if self.rng.bool() { 300 } else { 65_000 };
        let level = *self.rng.choice(&["/", "/a", "/+"]).unwrap_or(&"/");
        format!("{}/hostile{}", self.prefix, level.repeat(self.rng.usize(1..most) / level.len()))
    }

    /// A string that is none: wrong UTF-8, a NUL, a length of its own.
    fn spoilt(&mut self, body: &mut Vec<u8>) {
        let texts: [&[u8]; 6] =
            [b"\xed\xa0\x80", b"\xc0\x80", b"a\0b", b"\xff", b"a\xe2", b"\xf5\x80\x80\x80"];
        let text = *self.rng.choice(&texts).unwrap_or(&texts[0]);
        let length = if self.rng.bool() { text.len() as u16 } else { self.rng.u16(..) };
        body.extend(length.to_be_bytes());
        body.extend(text);
    }

    fn payload(&mut self) -> Vec<u8> {
        let most = match self.rng.u32(0..400) {
            0 => 60_000,
            1..20 => 5000,
            20..100 => 0,
            _ => 60,
        };
        self.noise(most)
    }

    fn noise(&mut self, most: usize) -> Vec<u8> {
        let mut bytes = vec![0; self.rng.usize(0..=most)];
        self.rng.fill(&mut bytes);
        bytes
    }

    /// Properties, most of them of those kinds; nothing in 3.1.1.
    fn properties(&mut self, kinds: &[u8], body: &mut Vec<u8>) {
        if self.version == Version::V3 {
            return;
        }
        let count = match self.rng.u32(0..300) {
            0 => 2000,
            1..150 => 0,
            _ => self.rng.usize(1..4),
        };
        let mut found = Vec::new();
        let mut said = Vec::new();
        for _ in 0..count {
            let kind = match once_in(self.rng, 60) {
                true => self.rng.u8(0..0x2c),
                false => *self.rng.choice(kinds).unwrap_or(&0x26),
            };
            // Most may be there once.
            if kind == 0x26 || !said.contains(&kind) || once_in(self.rng, 60) {
                said.push(kind);
                self.property(kind, &mut found);
            }
        }
        let told = if once_in(self.rng, 120) { self.rng.usize(0..300) } else { found.len() };
        length(told, body);
        body.extend(found);
    }

    fn property(&mut self, kind: u8, out: &mut Vec<u8>) {
        out.push(kind);
        match kind {
            0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28..=0x2a => out.push(self.rng.u8(0..2)),
            0x02 | 0x11 | 0x18 => {
                let most = *self.rng.choice(&[1, 5, 1000, u32::MAX]).unwrap_or(&1);
                out.extend(self.rng.u32(..most).to_be_bytes());
            }
            // The largest packet that it takes.
            0x27 => {
                let least = if once_in(self.rng, 20) { 0 } else { 100 };
                out.extend(self.rng.u32(least..100_000).to_be_bytes());
            }
            0x13 | 0x21 | 0x22 => out.extend(self.rng.u16(0..70).to_be_bytes()),
            // An alias: 64 are taken.
            0x23 => out.extend(self.rng.u16(0..66).to_be_bytes()),
            0x0b => length(self.rng.usize(0..300), out),
            0x08 => self.topic(out),
            0x26 => {
                for _ in 0..2 {
                    let text = "u".repeat(self.rng.usize(0..12));
                    field(text.as_bytes(), out);
                }
            }
            _ => {
                let bytes = self.noise(30);
                let text: Vec<u8> = bytes.iter().map(|byte| byte & 0x3f | 0x40).collect();
                field(&text, out);
            }
        }
    }

    /// Announces another length than the packet has: absurd, a little wrong, or none at all.
    fn lie(&mut self, bytes: &mut Vec<u8>) {
        let header = 1 + bytes.iter().skip(1).take_while(|byte| **byte & 0x80 != 0).count() + 1;
        let body = bytes.split_off(header.min(bytes.len()));
        bytes.truncate(1);
        match self.rng.u32(0..4) {
            0 => length(self.rng.usize(1 << 20..1 << 28), bytes),
            1 => bytes.extend([0xff; 5]),
            2 => length(body.len() + self.rng.usize(1..4), bytes),
            _ => length(body.len().saturating_sub(self.rng.usize(1..4)), bytes),
        }
        bytes.extend(body);
    }
}
