//! Frames for a container that cannot take them yet: held, and sent once it can.
//!
//! ```text
//!   bridge ──▶ host's end of the veth ──▶ guard: dropped
//!                     │ a packet socket sees what leaves
//!                     ▼
//!                   held ──▶ replay: into the container      (it was opened here)
//!                        └─▶ send back: into the bridge      (it runs at the source again)
//! ```
//!
//! The peer of a connection is not told that its segments were dropped, and would send them
//! again only when its timer ends, .2 s later and twice that each time. The frames lie in the
//! socket's own queue, so holding costs neither a thread nor a copy, and ends by itself with
//! the agent.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::libc::{self, sock_filter};

use super::NetworkError;
use super::packet::{OFFLOAD_BYTES, PacketSocket, Receive};

/// How much is held at most, in bytes of the kernel's memory, of which even the smallest frame
/// takes some: twice the largest window that Linux gives a connection, several times over.
pub(super) const HOLD_BYTES: usize = 32 << 20;
/// No frame is longer: offloads have 16 bits for its length.
const FRAME_BYTES: usize = OFFLOAD_BYTES + 14 + (64 << 10);

/// Frames that were on their way into a container, held from [`Network::hold`] on.
///
/// [`Network::hold`]: super::Network::hold
#[derive(Debug)]
#[must_use = "frames that are neither replayed nor sent back are lost"]
pub struct Held {
    lines: Vec<Line>,
}

/// What is held of one interface.
#[derive(Debug)]
pub(super) struct Line {
    frames: PacketSocket,
    host_end: String,
    bridge: Bridge,
    lost: AtomicU64,
}

/// The bridge, as far as sending frames into it needs to know it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bridge {
    pub(super) index: u32,
    pub(super) mac: [u8; 6],
}

/// What became of the frames that were held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Released {
    /// How many were sent on.
    pub frames: u64,
    /// What these took on the wire, undivided.
    pub bytes: u64,
    /// How many were lost: there was no room for them, or the kernel did not take them again.
    pub dropped: u64,
}

impl Held {
    pub(super) fn new(lines: Vec<Line>) -> Self {
        Self { lines }
    }

    /// How many frames did not fit so far.
    pub fn dropped(&self) -> u64 {
        self.lines.iter().map(Line::dropped).sum()
    }

    /// Sends what was held into the container, in order, and holds no more.
    ///
    /// To be called at once after the guard was dropped: what comes between the two reaches
    /// the container twice, as any network may let it; nothing is lost. Blocks its thread for
    /// as long as the kernel takes, some microseconds for a frame. Errors: `Io` when the veth
    /// is gone; what was not sent is lost then.
    pub fn replay(self) -> Result<Released, NetworkError> {
        self.release(Line::replay)
    }

    /// Sends what was held into the bridge, in order, and holds no more: the container runs
    /// elsewhere, and has been announced there.
    ///
    /// They come from the bridge's own hardware address: from their senders', every switch on
    /// the way would take the senders to be here, and the container's answers would go astray.
    /// What was meant for everyone is left out: others have had it. Blocks its thread as
    /// [`Held::replay`] does. Errors: `Io` when the bridge is gone; what was not sent is lost
    /// then.
    pub fn send_back(self) -> Result<Released, NetworkError> {
        self.release(Line::send_back)
    }

    /// Every line is released, whatever becomes of the others.
    fn release(
        self,
        release: impl Fn(&Line) -> Result<Released, NetworkError>,
    ) -> Result<Released, NetworkError> {
        let outcomes: Vec<_> = self.lines.iter().map(release).collect();
        outcomes.into_iter().try_fold(Released::default(), |all, one| {
            let one = one?;
            Ok(Released {
                frames: all.frames + one.frames,
                bytes: all.bytes + one.bytes,
                dropped: all.dropped + one.dropped,
            })
        })
    }
}

impl Line {
    /// Begins to hold what leaves for the container through the link of that index.
    pub(super) fn begin(
        host_end: String,
        index: u32,
        mac: [u8; 6],
        bridge: Bridge,
        room: usize,
    ) -> Result<Self, NetworkError> {
        let open = || {
            let frames = PacketSocket::open()?;
            frames.offloads()?;
            frames.room(room)?;
            frames.filter(&leaving_for(mac))?;
            frames.bind(index, Receive::Filtered)?;
            Ok(frames)
        };
        match open() {
            Ok(frames) => Ok(Self { frames, host_end, bridge, lost: AtomicU64::new(0) }),
            Err(source) => {
                Err(NetworkError::Io { what: format!("holding frames at {host_end}"), source })
            }
        }
    }

    /// Opens what keeps frames for a container that is about to be cut off the bridge: those that
    /// come to the bridge itself, whoever they are for. Deaf until [`Line::keep`].
    pub(super) fn before_the_cut(
        host_end: String,
        bridge: Bridge,
        room: usize,
    ) -> Result<Self, NetworkError> {
        let open = || {
            let frames = PacketSocket::open()?;
            frames.offloads()?;
            frames.room(room)?;
            frames.filter(&[statement(RETURN, 0)])?;
            frames.bind(bridge.index, Receive::Filtered)?;
            // Or the bridge sees of what nobody has only what is sent from here.
            frames.hear_all(bridge.index)?;
            Ok(frames)
        };
        match open() {
            Ok(frames) => Ok(Self { frames, host_end, bridge, lost: AtomicU64::new(0) }),
            Err(source) => {
                Err(NetworkError::Io { what: format!("keeping frames for {host_end}"), source })
            }
        }
    }

    /// Keeps what comes for that hardware address from now on.
    pub(super) fn keep(&self, mac: [u8; 6]) -> Result<(), NetworkError> {
        let kept = self.frames.filter(&coming_for(mac));
        kept.map_err(|source| self.failed("keeping frames for", source))
    }

    fn dropped(&self) -> u64 {
        let lost = u64::from(self.frames.lost().unwrap_or(0));
        self.lost.fetch_add(lost, Ordering::Relaxed) + lost
    }

    fn replay(&self) -> Result<Released, NetworkError> {
        self.stop()?;
        let released = self.drain(|frame| self.frames.send(frame).map(|()| true));
        released.map_err(|source| self.failed("replaying frames through", source))
    }

    pub(super) fn send_back(&self) -> Result<Released, NetworkError> {
        self.stop()?;
        let released = self.bridge.sender().and_then(|bridge| {
            self.drain(|frame| {
                let ethernet = &mut frame[OFFLOAD_BYTES..];
                if is_for_many(ethernet) {
                    return Ok(false);
                }
                ethernet[6..12].copy_from_slice(&self.bridge.mac);
                bridge.send(frame).map(|()| true)
            })
        });
        released.map_err(|source| self.failed("sending back frames of", source))
    }

    /// Holds nothing that comes from now on.
    fn stop(&self) -> Result<(), NetworkError> {
        let stopped = self.frames.filter(&[statement(RETURN, 0)]);
        stopped.map_err(|source| self.failed("ceasing to hold frames at", source))
    }

    /// Hands over frame by frame, each behind its offloads, until none is left; `send` says
    /// whether it sent one.
    fn drain(&self, mut send: impl FnMut(&mut [u8]) -> io::Result<bool>) -> io::Result<Released> {
        let mut buffer = vec![0; FRAME_BYTES];
        let mut released = Released::default();
        loop {
            let sent = match self.frames.receive(&mut buffer) {
                Ok(None) => break,
                Ok(Some(length)) if length <= buffer.len() => {
                    send(&mut buffer[..length]).map(|sent| sent.then_some(length))
                }
                // Longer than any offload can say.
                Ok(Some(_)) => Err(io::Error::from_raw_os_error(libc::EMSGSIZE)),
                Err(error) => Err(error),
            };
            match sent {
                Ok(Some(length)) => {
                    released.frames += 1;
                    released.bytes += (length - OFFLOAD_BYTES) as u64;
                }
                Ok(None) => {}
                Err(error) if is_of_one_frame(&error) => released.dropped += 1,
                Err(error) => return Err(error),
            }
        }
        released.dropped += self.dropped();
        Ok(released)
    }

    fn failed(&self, what: &str, source: io::Error) -> NetworkError {
        NetworkError::Io { what: format!("{what} {}", self.host_end), source }
    }
}

impl Bridge {
    /// Opens a socket that sends frames into the bridge, each behind its offloads.
    fn sender(&self) -> io::Result<PacketSocket> {
        let socket = PacketSocket::open()?;
        socket.offloads()?;
        socket.bind(self.index, Receive::Nothing)?;
        Ok(socket)
    }
}

/// A frame that the kernel does not take again, for its size, its offloads or a full queue; the
/// next may be another matter.
fn is_of_one_frame(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMSGSIZE | libc::EINVAL | libc::ENOBUFS))
}

/// True for a broadcast and a multicast.
fn is_for_many(ethernet: &[u8]) -> bool {
    ethernet.first().is_none_or(|byte| byte & 1 == 1)
}

pub(super) const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
pub(super) const LOAD_BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
pub(super) const LOAD_HALF: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_ABS;
const LOAD_WORD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
pub(super) const IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const IF_SET: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;

/// Passes what comes to a bridge for that hardware address, but nothing by which neighbours ask and
/// answer.
fn coming_for(mac: [u8; 6]) -> Vec<sock_filter> {
    // Whichever way it goes; what is for everyone is not this one's.
    let mut program = leaving_for(mac)[2..].to_vec();
    let for_everyone = program.len() - 4;
    program[for_everyone] = statement(RETURN, 0);
    program
}

/// Passes what that hardware address says to everyone.
pub(super) fn announced_by(mac: [u8; 6]) -> [sock_filter; 8] {
    let [a, b, c, d, e, f] = mac;
    [
        statement(LOAD_WORD, 6),
        jump(IF_EQUAL, u32::from_be_bytes([a, b, c, d]), 0, 5),
        statement(LOAD_HALF, 10),
        jump(IF_EQUAL, u32::from(u16::from_be_bytes([e, f])), 0, 3),
        statement(LOAD_BYTE, 0),
        jump(IF_SET, 1, 0, 1),
        statement(RETURN, u32::MAX),
        statement(RETURN, 0),
    ]
}

/// Passes what leaves through the link for that hardware address or for everyone, but nothing by
/// which neighbours ask and answer, ARP or its like of IPv6: that is for the moment, and the kernel
/// gives it through the guard.
fn leaving_for(mac: [u8; 6]) -> [sock_filter; 18] {
    let [a, b, c, d, e, f] = mac;
    let about_frame = |what: libc::c_int| (libc::SKF_AD_OFF + what).cast_unsigned();
    [
        statement(LOAD_BYTE, about_frame(libc::SKF_AD_PKTTYPE)),
        jump(IF_EQUAL, u32::from(libc::PACKET_OUTGOING), 0, 15),
        statement(LOAD_HALF, about_frame(libc::SKF_AD_PROTOCOL)),
        jump(IF_EQUAL, libc::ETH_P_ARP.cast_unsigned(), 13, 0),
        jump(IF_EQUAL, libc::ETH_P_IPV6.cast_unsigned(), 0, 5),
        // The next header, and the type of the message behind it.
        statement(LOAD_BYTE, 14 + 6),
        jump(IF_EQUAL, ICMPV6, 0, 3),
        statement(LOAD_BYTE, 14 + 40),
        jump(IF_EQUAL, SOLICITATION, 8, 0),
        jump(IF_EQUAL, ADVERTISEMENT, 7, 0),
        statement(LOAD_WORD, 0),
        jump(IF_EQUAL, u32::from_be_bytes([a, b, c, d]), 0, 2),
        statement(LOAD_HALF, 4),
        jump(IF_EQUAL, u32::from(u16::from_be_bytes([e, f])), 2, 0),
        statement(LOAD_BYTE, 0),
        jump(IF_SET, 1, 0, 1),
        statement(RETURN, u32::MAX),
        statement(RETURN, 0),
    ]
}

const ICMPV6: u32 = 58;
const SOLICITATION: u32 = 135;
pub(super) const ADVERTISEMENT: u32 = 136;

pub(super) fn statement(code: u32, k: u32) -> sock_filter {
    jump(code, k, 0, 0)
}

/// `yes` and `no` are how many instructions are left out.
pub(super) fn jump(code: u32, k: u32, yes: u8, no: u8) -> sock_filter {
    sock_filter { code: code as u16, jt: yes, jf: no, k }
}
