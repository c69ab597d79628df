//! Sockets, with what is in them.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};

use std::time::{Duration, SystemTime};

use super::kernel::{self, fd, ok};
use super::pipes::under_way;
use super::{Check, Make, same};

/// Longer than there is between two rounds, shorter than a move's standstill.
const GAP: Duration = Duration::from_millis(100);

pub const ALL: &[(&str, Make)] = &[
    ("unix-stream", unix_stream),
    ("unix-datagram", unix_datagram),
    ("unix-packets", unix_packets),
    ("unix-listener", unix_listener),
    ("unix-abstract", unix_abstract),
    ("unix-waiting", unix_waiting),
    ("unix-descriptor", unix_descriptor),
    ("unix-named-datagram", unix_named_datagram),
    ("unix-outside", unix_outside),
    ("tcp-inside", tcp_inside),
    ("tcp-listener", tcp_listener),
    ("tcp-waiting", tcp_waiting),
    ("tcp-half-closed", tcp_half_closed),
    ("udp", udp),
    ("udp-queue", udp_queue),
    ("netlink", netlink),
    ("netlink-queue", netlink_queue),
    ("packet-socket", packet),
    ("raw-socket", raw),
    ("icmp-socket", icmp),
    ("mptcp", mptcp),
];

fn unix_stream() -> io::Result<Check> {
    let (into, from) = UnixStream::pair()?;
    Ok(under_way(from, into))
}

/// Datagrams of two sizes stay two.
fn datagrams(
    receive: impl Fn(&mut [u8]) -> io::Result<usize> + 'static,
    send: impl Fn(&[u8]) -> io::Result<usize> + 'static,
) -> Check {
    Box::new(move |round| {
        for part in [&b"one"[..], b"second"] {
            let mut found = [0; 100];
            if round > 1 {
                let len = receive(&mut found)?;
                same(&found[..len], part)?;
            }
        }
        send(b"one")?;
        send(b"second").map(drop)
    })
}

fn unix_datagram() -> io::Result<Check> {
    let (into, from) = UnixDatagram::pair()?;
    Ok(datagrams(move |found| from.recv(found), move |text| into.send(text)))
}

fn unix_packets() -> io::Result<Check> {
    let mut raw = [0; 2];
    // SAFETY: the kernel fills what it is given, with descriptors that nobody else owns.
    let (into, from): (File, File) = unsafe {
        ok(kernel::socketpair(1, 5, 0, &mut raw))?;
        (fd(raw[0])?.into(), fd(raw[1])?.into())
    };
    Ok(datagrams(move |found| (&from).read(found), move |text| (&into).write(text)))
}

/// One that is bound to a name and receives from one that is not.
fn unix_named_datagram() -> io::Result<Check> {
    let (from, into) = (UnixDatagram::bind("/named")?, UnixDatagram::unbound()?);
    into.connect("/named")?;
    Ok(datagrams(move |found| from.recv(found), move |text| into.send(text)))
}

/// Checks at first, and after each time that it stood still: a client that has connected and is not
/// accepted yet when it is frozen would have the move refused.
fn after_a_gap(mut check: Check) -> Check {
    let mut last = None;
    Box::new(move |round| {
        let passed = last.map(|last: SystemTime| last.elapsed().unwrap_or_default());
        let done = if passed.is_none_or(|passed| passed > GAP) { check(round) } else { Ok(()) };
        last = Some(SystemTime::now());
        done
    })
}

fn listens(
    listener: UnixListener,
    connect: impl Fn() -> io::Result<UnixStream> + 'static,
) -> Check {
    after_a_gap(connects_anew(listener, connect))
}

/// Each round a client connects anew, and both talk.
fn connects_anew(
    listener: UnixListener,
    connect: impl Fn() -> io::Result<UnixStream> + 'static,
) -> Check {
    Box::new(move |round| {
        let mut client = connect()?;
        let (mut server, _) = listener.accept()?;
        client.write_all(&round.to_ne_bytes())?;
        let mut found = [0; 8];
        server.read_exact(&mut found)?;
        same(u64::from_ne_bytes(found), round)
    })
}

fn unix_listener() -> io::Result<Check> {
    Ok(listens(UnixListener::bind("/listener")?, || UnixStream::connect("/listener")))
}

fn unix_abstract() -> io::Result<Check> {
    let name = SocketAddr::from_abstract_name("kinds")?;
    Ok(listens(UnixListener::bind_addr(&name)?, move || UnixStream::connect_addr(&name)))
}

/// A client that nobody has accepted yet, and what it said.
fn unix_waiting() -> io::Result<Check> {
    let listener = UnixListener::bind("/waiting")?;
    let mut waits = None::<UnixStream>;
    Ok(Box::new(move |round| {
        if let Some(client) = waits.take() {
            let mut server = listener.accept()?.0;
            let mut found = [0; 8];
            server.read_exact(&mut found)?;
            same(u64::from_ne_bytes(found), round - 1)?;
            drop(client);
        }
        let mut client = UnixStream::connect("/waiting")?;
        client.write_all(&round.to_ne_bytes())?;
        waits = Some(client);
        Ok(())
    }))
}

/// A descriptor under way in a socket: a file's, which is read where it was.
fn unix_descriptor() -> io::Result<Check> {
    let (into, from) = UnixStream::pair()?;
    std::fs::write("/passed", "0123456789")?;
    // One byte, and one descriptor: `struct msghdr`, `struct iovec`, `struct cmsghdr`.
    fn message(
        byte: &mut [u8; 1],
        control: &mut [u64; 3],
        call: impl FnOnce(&mut [usize; 7]) -> isize,
    ) -> io::Result<()> {
        let part = [byte.as_mut_ptr() as usize, 1];
        let mut header = [0, 0, part.as_ptr() as usize, 1, control.as_mut_ptr() as usize, 24, 0];
        let done = call(&mut header);
        if done == 1 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
    Ok(Box::new(move |round| {
        if round > 1 {
            let (mut byte, mut control) = ([0], [0; 3]);
            // SAFETY: all that the header names outlives the call.
            message(&mut byte, &mut control, |header| unsafe {
                kernel::recvmsg(from.as_raw_fd(), header.as_mut_ptr().cast(), 0)
            })?;
            let mut file = File::from(fd((control[2] & 0xffff_ffff) as i32)?);
            let mut rest = String::new();
            file.read_to_string(&mut rest)?;
            same(rest.as_str(), "3456789")?;
        }
        let mut file = File::open("/passed")?;
        file.read_exact(&mut [0; 3])?;
        let mut control = [20, 1 | 1 << 32, file.as_raw_fd() as u64];
        // SAFETY: as above.
        message(&mut [7], &mut control, |header| unsafe {
            kernel::sendmsg(into.as_raw_fd(), header.as_ptr().cast(), 0)
        })
    }))
}

/// Connected to somebody outside of the container, through a socket in a volume.
fn unix_outside() -> io::Result<Check> {
    let mut peer = UnixStream::connect("/data/socket")?;
    Ok(Box::new(move |round| {
        let byte = [round as u8];
        peer.write_all(&byte)?;
        let mut found = [0];
        peer.read_exact(&mut found)?;
        same(found, byte)
    }))
}

/// Both ends of a connection, over the loopback.
fn connected() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let client = TcpStream::connect(listener.local_addr()?)?;
    Ok((client, listener.accept()?.0))
}

fn tcp_inside() -> io::Result<Check> {
    let (into, from) = connected()?;
    Ok(under_way(from, into))
}

fn tcp_half_closed() -> io::Result<Check> {
    let (into, mut from) = connected()?;
    into.shutdown(std::net::Shutdown::Write)?;
    let mut back = under_way(into, from.try_clone()?);
    Ok(Box::new(move |round| {
        same(from.read(&mut [0])?, 0)?;
        back(round)
    }))
}

fn tcp_listener() -> io::Result<Check> {
    let listener = TcpListener::bind("0.0.0.0:0")?;
    Ok(after_a_gap(Box::new(move |round| {
        let mut client = TcpStream::connect(("127.0.0.1", listener.local_addr()?.port()))?;
        client.write_all(&round.to_ne_bytes())?;
        let mut found = [0; 8];
        listener.accept()?.0.read_exact(&mut found)?;
        same(u64::from_ne_bytes(found), round)
    })))
}

/// A client that nobody has accepted yet.
fn tcp_waiting() -> io::Result<Check> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut waits = None::<TcpStream>;
    Ok(Box::new(move |round| {
        if let Some(client) = waits.take() {
            listener.set_nonblocking(true)?;
            let mut server = listener.accept()?.0;
            server.set_nonblocking(false)?;
            let mut found = [0; 8];
            server.read_exact(&mut found)?;
            same(u64::from_ne_bytes(found), round - 1)?;
            drop(client);
        }
        let mut client = TcpStream::connect(listener.local_addr()?)?;
        client.write_all(&round.to_ne_bytes())?;
        waits = Some(client);
        Ok(())
    }))
}

/// The same port, each round a datagram that arrives in it.
fn udp() -> io::Result<Check> {
    let (from, into) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
    into.connect(from.local_addr()?)?;
    Ok(Box::new(move |round| {
        let mut found = [0; 8];
        into.send(&round.to_ne_bytes())?;
        from.recv(&mut found)?;
        same(u64::from_ne_bytes(found), round)
    }))
}

/// Datagrams that have arrived and were not read yet.
fn udp_queue() -> io::Result<Check> {
    let (from, into) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
    into.connect(from.local_addr()?)?;
    from.set_nonblocking(true)?;
    Ok(datagrams(move |found| from.recv(found), move |text| into.send(text)))
}

/// Asks for the links, and reads the answer in the same round, or leaves it for the next.
fn netlink_with(is_left: bool) -> io::Result<Check> {
    // SAFETY: an address and numbers.
    let mut file: File = unsafe {
        let file = fd(kernel::socket(16, 3, 0))?;
        ok(kernel::bind(file.as_raw_fd(), [16_u16, 0, 0, 0, 0, 0].as_ptr().cast(), 12))?;
        file.into()
    };
    Ok(Box::new(move |round| {
        // In parts, of which the last says so in 20 bytes.
        let take = |mut file: &File| {
            let mut part = [0; 65536];
            while file.read(&mut part)? != 20 {}
            Ok::<_, io::Error>(())
        };
        if is_left && round > 1 {
            take(&file)?;
        }
        // `struct nlmsghdr` and `struct ifinfomsg`: RTM_GETLINK, a dump.
        let words = [32_u32, 18 | (0x301 << 16), round as u32, 0, 0, 0, 0, 0];
        file.write_all(&words.map(u32::to_ne_bytes).concat())?;
        if is_left { Ok(()) } else { take(&file) }
    }))
}

fn netlink() -> io::Result<Check> {
    netlink_with(false)
}

fn netlink_queue() -> io::Result<Check> {
    netlink_with(true)
}

/// A socket that is there, from which one can read.
fn is_still(file: OwnedFd) -> Check {
    let file = UdpSocket::from(file);
    Box::new(move |_| {
        file.set_nonblocking(true)?;
        match file.recv(&mut [0; 100]) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(()),
        }
    })
}

fn packet() -> io::Result<Check> {
    // SAFETY: numbers only.
    Ok(is_still(unsafe { fd(kernel::socket(17, 3, 0x0300))? }))
}

fn raw() -> io::Result<Check> {
    // SAFETY: numbers only.
    Ok(is_still(unsafe { fd(kernel::socket(2, 3, 1))? }))
}

fn icmp() -> io::Result<Check> {
    // SAFETY: numbers only.
    Ok(is_still(unsafe { fd(kernel::socket(2, 2, 1))? }))
}

/// What listens by MPTCP, as Go's programs do unless told otherwise.
fn mptcp() -> io::Result<Check> {
    // SAFETY: an address and numbers.
    let file = unsafe {
        let file = fd(kernel::socket(2, 1, 262))?;
        ok(kernel::bind(file.as_raw_fd(), [2_u16, 0, 0, 0, 0, 0, 0, 0].as_ptr().cast(), 16))?;
        ok(kernel::listen(file.as_raw_fd(), 5))?;
        file
    };
    let listener = TcpListener::from(file);
    Ok(Box::new(move |_| {
        let _client = TcpStream::connect(("127.0.0.1", listener.local_addr()?.port()))?;
        listener.accept().map(drop)
    }))
}
