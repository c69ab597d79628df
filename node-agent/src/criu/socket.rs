//! Packets with descriptors over SEQPACKET sockets: blocking for the proxy, awaited for the agent.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, Shutdown, SockFlag,
    SockType, UnixAddr, accept4, bind, connect, listen, recvmsg, sendmsg, shutdown, socket,
};
use tokio::io::unix::AsyncFd;

/// The longest packet: CRIU's own limit is far below.
const PACKET: usize = 256 * 1024;
/// The most descriptors in one packet.
const DESCRIPTORS: usize = 16;

/// Sends one packet; the descriptors stay the caller's.
pub(crate) fn send(
    socket: BorrowedFd<'_>,
    packet: &[u8],
    descriptors: &[OwnedFd],
) -> io::Result<()> {
    let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &rights[..0] } else { &rights[..] };
    let data = [IoSlice::new(packet)];
    sendmsg::<UnixAddr>(socket.as_raw_fd(), &data, control, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

/// Receives one packet with its descriptors; an empty one means that the peer closed.
pub(crate) fn receive(
    socket: BorrowedFd<'_>,
    flags: MsgFlags,
) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut buffer = vec![0; PACKET];
    let mut control = cmsg_space!([RawFd; DESCRIPTORS]);
    let mut descriptors = Vec::new();
    let length = loop {
        let mut data = [IoSliceMut::new(&mut buffer)];
        let flags = flags | MsgFlags::MSG_CMSG_CLOEXEC;
        match recvmsg::<UnixAddr>(socket.as_raw_fd(), &mut data, Some(&mut control), flags) {
            Ok(message) => {
                for part in message.cmsgs()? {
                    if let ControlMessageOwned::ScmRights(raw) = part {
                        descriptors.extend(raw.into_iter().map(own));
                    }
                }
                break message.bytes;
            }
            Err(Errno::EINTR) => {}
            Err(Errno::ECONNRESET) => break 0,
            Err(error) => return Err(error.into()),
        }
    };
    buffer.truncate(length);
    Ok((buffer, descriptors))
}

#[expect(unsafe_code, reason = "the kernel hands descriptors over as numbers")]
fn own(raw: RawFd) -> OwnedFd {
    use std::os::fd::FromRawFd;
    // SAFETY: the kernel has just installed this descriptor for us in recvmsg; nothing else owns it.
    unsafe { OwnedFd::from_raw_fd(raw) }
}

#[expect(unsafe_code, reason = "tokio cannot know that a descriptor is owned")]
fn watched(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd stays the same open descriptor until it is dropped, and the AsyncFd
    // takes it whole.
    Ok(unsafe { AsyncFd::register(socket) }?)
}

/// Connects to the socket at `path`, blocking.
pub(crate) fn dial(path: &Path) -> io::Result<OwnedFd> {
    let socket = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(socket)
}

/// A listening socket of the agent's.
#[derive(Debug)]
pub(crate) struct Listener(AsyncFd<OwnedFd>);

impl Listener {
    /// Listens at `path`. Must be called inside a runtime.
    pub(crate) fn bind(path: &Path) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
        bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
        listen(&socket, Backlog::new(64)?)?;
        Ok(Self(watched(socket)?))
    }

    /// The next peer. Cancel safe.
    pub(crate) async fn accept(&self) -> io::Result<Connection> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        loop {
            let mut ready = self.0.readable().await?;
            let accepted = ready
                .try_io(|listener| accept4(listener.as_raw_fd(), flags).map_err(io::Error::from));
            if let Ok(raw) = accepted {
                return Ok(Connection(watched(own(raw?))?));
            }
        }
    }
}

/// A connected socket of the agent's.
#[derive(Debug)]
pub(crate) struct Connection(AsyncFd<OwnedFd>);

impl Connection {
    /// The next packet, empty when the peer closed. Cancel safe.
    pub(crate) async fn receive(&self) -> io::Result<Vec<u8>> {
        loop {
            let mut ready = self.0.readable().await?;
            let received = ready.try_io(|socket| receive(socket.as_fd(), MsgFlags::MSG_DONTWAIT));
            if let Ok(received) = received {
                return received.map(|(packet, _unasked)| packet);
            }
        }
    }

    /// Sends a short packet at once; the socket's buffer always has room for one.
    pub(crate) fn send(&self, packet: &[u8]) -> io::Result<()> {
        send(self.0.as_fd(), packet, &[])
    }

    /// Closes it for both sides, whoever else holds it.
    pub(crate) fn hang_up(&self) {
        let _peer_was_first = shutdown(self.0.as_raw_fd(), Shutdown::Both);
    }
}
