//! Netlink without a connection behind it: a socket opened beforehand, a request encoded
//! beforehand, one write and one read when it counts.
//!
//! The kernel carries a netlink request out while it is being sent, and its answers lie in
//! the socket when `send` returns. So nothing here waits, and no runtime is needed.

use std::io;
use std::sync::{Mutex, PoisonError};

use nix::libc;
use rtnetlink::packet_core::{
    ErrorBuffer, NLM_F_ACK, NLM_F_REQUEST, NLMSG_ERROR, NetlinkBuffer, NetlinkHeader,
    NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use rtnetlink::sys::{Socket, SocketAddr};

use super::closing::ClosedLater;

/// More than an answer without the request in it can take.
const ANSWER_BYTES: usize = 4096;

/// A netlink socket of one namespace.
pub(super) struct Exchange {
    /// Locked from the request to its last answer.
    socket: ClosedLater<Mutex<Socket>>,
}

impl Exchange {
    /// Opens the socket in the namespace of the calling thread; it acts there for good.
    pub(super) fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_non_blocking(true)?;
        // Answers come without the request that they answer.
        socket.set_cap_ack(true)?;
        Ok(Self { socket: ClosedLater::new(Mutex::new(socket)) })
    }

    /// Has the request carried out, and returns the first refusal among the answers.
    ///
    /// Takes as long as the kernel takes.
    pub(super) fn carry_out(&self, request: &[u8]) -> io::Result<()> {
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        socket.send(request, 0)?;
        let (mut answered, mut refused) = (false, None);
        let mut answer = Vec::with_capacity(ANSWER_BYTES);
        loop {
            answer.clear();
            match socket.recv(&mut answer, 0) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
                Ok(_) => answered = true,
            }
            if let Some(code) = refusal(&answer)? {
                refused.get_or_insert(code);
            }
        }
        match refused {
            Some(code) => Err(io::Error::from_raw_os_error(code)),
            None if answered => Ok(()),
            None => Err(io::Error::other("the kernel did not answer a netlink request")),
        }
    }
}

/// The request's header: to be carried out and acknowledged. `flags` come on top.
pub(super) fn acknowledged<T: NetlinkSerializable>(message: T, flags: u16) -> NetlinkMessage<T> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message))
}

/// The messages as they go over the socket, numbered, one behind the other.
pub(super) fn encode<T: NetlinkSerializable>(
    messages: impl IntoIterator<Item = NetlinkMessage<T>>,
) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (number, mut message) in (0..).zip(messages) {
        message.header.sequence_number = number;
        message.finalize();
        let start = bytes.len();
        bytes.resize(start + message.buffer_len(), 0);
        message.serialize(&mut bytes[start..]);
    }
    bytes
}

/// The error that an answer carries, if it is not a plain acknowledgement.
fn refusal(answer: &[u8]) -> io::Result<Option<i32>> {
    let garbled = |error| io::Error::new(io::ErrorKind::InvalidData, error);
    let message = NetlinkBuffer::new_checked(answer).map_err(garbled)?;
    if message.message_type() != NLMSG_ERROR {
        return Ok(None);
    }
    let error = ErrorBuffer::new_checked(message.payload()).map_err(garbled)?;
    Ok(error.code().map(|code| code.get().abs()))
}

/// True when `error` is this one of the kernel's.
pub(super) fn is(error: &io::Error, code: libc::c_int) -> bool {
    error.raw_os_error() == Some(code)
}
