//! Packet sockets: whole Ethernet frames, in and out of one link.

#![expect(unsafe_code, reason = "AF_PACKET's address and options have no safe form")]

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, recv, send, setsockopt, socket, sockopt,
};
use tokio::io::unix::AsyncFd;

use super::closing::ClosedLater;

/// The header that goes before each frame of a socket [with offloads](PacketSocket::offloads):
/// `struct virtio_net_hdr`.
pub(super) const OFFLOAD_BYTES: usize = 10;

/// Which frames a bound socket receives.
#[derive(Clone, Copy)]
pub(super) enum Receive {
    /// None: the socket only sends.
    Nothing,
    /// All that its filter lets pass, those that leave through the link among them.
    Filtered,
}

/// A packet socket.
#[derive(Debug)]
pub(super) struct PacketSocket {
    fd: ClosedLater<OwnedFd>,
}

impl PacketSocket {
    /// Opens a socket in the namespace of the calling thread. It is deaf until it is bound.
    pub(super) fn open() -> io::Result<Self> {
        let fd = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
        Ok(Self { fd: ClosedLater::new(fd) })
    }

    /// Has every frame carry what the hardware would still have to do: its checksum, its
    /// division into segments. Without it such frames cannot be sent again as they were.
    pub(super) fn offloads(&self) -> io::Result<()> {
        self.set(libc::SOL_PACKET, libc::PACKET_VNET_HDR, &1_i32)
    }

    /// Keeps up to so many bytes of frames that nobody has read, as the kernel counts: the
    /// memory that a frame takes. What does not fit is counted as [lost](Self::lost).
    pub(super) fn room(&self, bytes: usize) -> io::Result<()> {
        // The kernel doubles what it is told.
        Ok(setsockopt(&*self.fd, sockopt::RcvBufForce, &(bytes / 2))?)
    }

    /// Has the kernel drop what the filter does not let pass.
    pub(super) fn filter(&self, program: &[libc::sock_filter]) -> io::Result<()> {
        let program = libc::sock_fprog {
            len: u16::try_from(program.len()).map_err(io::Error::other)?,
            // The kernel copies the program and writes nothing.
            filter: program.as_ptr().cast_mut(),
        };
        self.set(libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
    }

    /// Binds the socket to the link of that index.
    pub(super) fn bind(&self, index: u32, receive: Receive) -> io::Result<()> {
        // SAFETY: all bytes zero is a valid sockaddr_ll: it holds numbers only.
        let mut link: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        link.sll_family = libc::AF_PACKET as u16;
        link.sll_ifindex = index.cast_signed();
        link.sll_protocol = match receive {
            Receive::Nothing => 0,
            Receive::Filtered => (libc::ETH_P_ALL as u16).to_be(),
        };
        // SAFETY: the address lives through the call and its length is given; the kernel
        // copies from it.
        let bound = unsafe {
            libc::bind(
                self.fd.as_raw_fd(),
                std::ptr::from_ref(&link).cast(),
                size_of_val(&link) as libc::socklen_t,
            )
        };
        Ok(Errno::result(bound).map(drop)?)
    }

    /// Has the link of that index take what is for others too, as long as the socket is open.
    pub(super) fn hear_all(&self, index: u32) -> io::Result<()> {
        let request = libc::packet_mreq {
            mr_ifindex: index.cast_signed(),
            mr_type: libc::PACKET_MR_PROMISC as u16,
            mr_alen: 0,
            mr_address: [0; 8],
        };
        self.set(libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &request)
    }

    /// Sends a frame, behind its offloads if the socket has them.
    pub(super) fn send(&self, frame: &[u8]) -> io::Result<()> {
        send(self.fd.as_raw_fd(), frame, MsgFlags::empty())?;
        Ok(())
    }

    /// Reads the next frame into `buffer`, never waiting for one. The length may be more than
    /// `buffer` holds: then the frame is cut off.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match recv(self.fd.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC) {
            Err(Errno::EAGAIN) => Ok(None),
            received => Ok(Some(received?)),
        }
    }

    /// The same socket, which can be awaited. Must be called inside a runtime.
    pub(super) fn awaited(self) -> io::Result<AsyncFd<Self>> {
        // SAFETY: the descriptor is the socket's own, the same as long as it lives, and closed only
        // when the socket is dropped, which is after its registration.
        Ok(unsafe { AsyncFd::register(self) }?)
    }

    /// How many frames found no room since this was last asked.
    pub(super) fn lost(&self) -> io::Result<u32> {
        // SAFETY: all bytes zero is a valid tpacket_stats: it holds numbers only.
        let mut counted: libc::tpacket_stats = unsafe { std::mem::zeroed() };
        let mut length = size_of_val(&counted) as libc::socklen_t;
        // SAFETY: both pointers come from references that live through the call, and the
        // length is that of what the first one points to.
        let got = unsafe {
            libc::getsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                std::ptr::from_mut(&mut counted).cast(),
                &raw mut length,
            )
        };
        Errno::result(got)?;
        Ok(counted.tp_drops)
    }

    fn set<T>(&self, level: libc::c_int, option: libc::c_int, value: &T) -> io::Result<()> {
        // SAFETY: `value` lives through the call and its length is given; the kernel copies
        // from it, and from what a filter's program points to, which its caller keeps alive.
        let set = unsafe {
            libc::setsockopt(
                self.fd.as_raw_fd(),
                level,
                option,
                std::ptr::from_ref(value).cast::<c_void>(),
                size_of::<T>() as libc::socklen_t,
            )
        };
        Ok(Errno::result(set).map(drop)?)
    }
}

impl AsRawFd for PacketSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}
