//! One connection of a hostile client.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::script::Ending;
use super::wire::{Frames, field, packet};
use super::words::Version;

/// A broker that has something to answer has answered within this.
const PATIENCE: Duration = Duration::from_secs(20);
/// One that waits for the rest of a packet is waited for so long.
const GLANCE: Duration = Duration::from_millis(5);

/// What became of a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It was taken to its end.
    Answered,
    /// The broker ended the connection.
    Cut,
    /// The rest of a packet is waited for, or nobody reads the answer.
    Unknown,
    /// There was an answer due, and none came.
    Ignored,
}

/// A connection, and what has passed on it.
#[derive(Debug)]
pub(crate) struct Line {
    socket: TcpStream,
    version: Version,
    sent: Frames,
    got: Frames,
    /// CONNACK said yes.
    pub(crate) is_in: bool,
    /// CONNACK said no.
    pub(crate) is_refused: bool,
    /// The id of the last question, and whether its answer has come.
    asked: u16,
    is_answered: bool,
    room: Box<[u8]>,
}

/// Connects; on loopback each from an address of its own, as far as there are some.
pub(crate) async fn connect(address: SocketAddr, number: u64) -> io::Result<TcpStream> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if address.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST) {
        let [.., high, middle, low] = number.to_be_bytes();
        socket.bind((Ipv4Addr::new(127, 1 + (high & 0x3f), middle, low), 0).into())?;
    }
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Closes a connection so that the other end is told of an error.
pub(crate) fn reset(socket: &TcpStream) {
    // One that is closed already is gone as well.
    let _ = socket.set_zero_linger();
}

impl Line {
    pub(crate) fn new(socket: TcpStream, version: Version) -> Self {
        Self {
            socket,
            version,
            sent: Frames::default(),
            got: Frames::default(),
            is_in: false,
            is_refused: false,
            asked: 0xf000,
            is_answered: false,
            room: vec![0; 16 << 10].into(),
        }
    }

    /// Sends what comes first, and waits for CONNACK, or an end.
    pub(crate) async fn open(&mut self, bytes: &[u8]) -> Fate {
        self.sent.feed(bytes, |_| {});
        let is_asked = self.sent.is_due();
        self.exchange(bytes, true, is_asked, |line| line.is_in || line.is_refused).await
    }

    /// Sends a sequence, and waits for the answer to what comes behind it, or an end.
    pub(crate) async fn send(&mut self, mut bytes: Vec<u8>, is_reading: bool) -> Fate {
        self.asked = self.asked.wrapping_add(1) | 0xf000;
        self.is_answered = false;
        self.sent.feed(&bytes, |_| {});
        // Else the question is the rest of a packet, which it may just fill.
        let is_asked = self.sent.is_due();
        let question = self.question();
        self.sent.feed(&question, |_| {});
        bytes.extend(question);
        self.exchange(&bytes, is_reading, is_asked, |line| line.is_answered).await
    }

    /// Sends and reads until it is done, or cannot be; an answer is due where something was asked.
    async fn exchange(
        &mut self,
        mut rest: &[u8],
        is_reading: bool,
        is_asked: bool,
        is_done: impl Fn(&Self) -> bool,
    ) -> Fate {
        loop {
            if is_done(self) {
                return Fate::Answered;
            }
            if rest.is_empty() && !is_reading {
                return Fate::Unknown;
            }
            let is_waited_for = rest.is_empty() && !is_asked;
            let wait = if is_waited_for { GLANCE } else { PATIENCE };
            let (mut input, mut output) = self.socket.split();
            let step = async {
                tokio::select! {
                    wrote = output.write(rest), if !rest.is_empty() => wrote.map(|n| (n, 0)),
                    read = input.read(&mut self.room), if is_reading => read.map(|n| (0, n)),
                }
            };
            match timeout(wait, step).await {
                Err(_) if is_waited_for || !is_reading => return Fate::Unknown,
                Err(_) => return Fate::Ignored,
                Ok(Err(_) | Ok((0, 0))) => return Fate::Cut,
                Ok(Ok((written, read))) => {
                    rest = &rest[written..];
                    self.hear(read);
                }
            }
        }
    }

    /// Takes in so many bytes of the room.
    fn hear(&mut self, count: usize) {
        let Self { got, is_in, is_refused, is_answered, asked, .. } = self;
        got.feed(&self.room[..count], |head| match *head {
            [0x20, _, _, code, ..] => {
                *is_in |= code == 0;
                *is_refused |= code != 0;
            }
            [0xb0, _, high, low, ..] => *is_answered |= u16::from_be_bytes([high, low]) == *asked,
            _ => {}
        });
    }

    /// What is answered with its id, if it comes to that: an UNSUBSCRIBE.
    fn question(&self) -> Vec<u8> {
        let mut body = self.asked.to_be_bytes().to_vec();
        if self.version == Version::V5 {
            body.push(0);
        }
        field(b"question", &mut body);
        packet(0xa2, &body)
    }

    /// Leaves in that manner; what is answered is the connection if it stays.
    pub(crate) async fn end(mut self, ending: Ending) -> Option<Self> {
        match ending {
            Ending::Stay => return Some(self),
            Ending::Close => {}
            Ending::Reset => reset(&self.socket),
            Ending::HalfClose => {
                // It may be closed at the other end.
                let _ = self.socket.shutdown().await;
                let drain = async {
                    while self.socket.read(&mut self.room).await.is_ok_and(|count| count > 0) {}
                };
                let _ = timeout(PATIENCE, drain).await;
            }
        }
        None
    }
}
