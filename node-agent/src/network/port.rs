//! A container's port on the bridge, with all that the gap needs of it at hand.
//!
//! Sockets are open, indexes known, requests encoded: what is left for the gap is one write
//! and one read.

use std::io;
use std::path::Path;

use godwit_proto::container::Interface;
use nix::libc;
use nix::net::if_::if_nametoindex;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use rtnetlink::{LinkMessageBuilder, LinkUnspec};

use super::exchange::{self, Exchange, acknowledged, encode};
use super::packet::{PacketSocket, Receive};
use super::{NetworkError, announce, guard, naming, netns};

/// The announcement is sent this often, for a frame may be lost.
const ANNOUNCEMENTS: usize = 2;

/// A container's port on the bridge, all of its interfaces, ready to be used in the gap.
///
/// Every call is idempotent, needs no runtime, and blocks its thread only for as long as the
/// kernel takes, which is well under a millisecond. The port is that of the namespace as it
/// was: after [`Network::remove`](super::Network::remove) a new one is needed.
pub struct Port {
    host_end: String,
    /// In the host.
    routes: Exchange,
    attach: Vec<u8>,
    cut: Vec<u8>,
    /// In the container.
    filters: Exchange,
    /// A socket for each interface, with what it is to send.
    announcers: Vec<(PacketSocket, Vec<Vec<u8>>)>,
}

/// The host's end of an interface, and the bridge that it is attached to, by their indexes.
pub(super) struct End {
    pub(super) index: u32,
    pub(super) bridge: u32,
}

impl Port {
    /// Opens all that the port needs: the host's ends by their indexes, the rest in the namespace.
    pub(super) async fn open(
        path: &Path,
        host_end: String,
        ends: &[End],
        interfaces: &[Interface],
    ) -> Result<Self, NetworkError> {
        let failed = |source| NetworkError::Io {
            what: format!("opening sockets for {host_end} and in {}", path.display()),
            source,
        };
        let frames: Vec<_> = interfaces.iter().map(announce::announcements).collect();
        let inside = netns::inside(path, || {
            let announcer = |(ordinal, frames)| {
                let socket = PacketSocket::open()?;
                socket.bind(if_nametoindex(&*naming::inside(ordinal))?, Receive::Nothing)?;
                Ok((socket, frames))
            };
            let announcers: io::Result<Vec<_>> =
                frames.into_iter().enumerate().map(announcer).collect();
            Ok((Exchange::open(NETLINK_NETFILTER)?, announcers?))
        });
        let (filters, announcers) = inside.await.map_err(failed)?;
        let routes = Exchange::open(NETLINK_ROUTE).map_err(failed)?;
        let link = |end: &End| LinkUnspec::new_with_index(end.index);
        Ok(Self {
            routes,
            attach: changes(ends.iter().map(|end| link(end).controller(end.bridge).up())),
            cut: changes(ends.iter().map(|end| link(end).nocontroller())),
            filters,
            announcers,
            host_end,
        })
    }

    /// Lets no IP packet into the container or out of it; ARP passes.
    ///
    /// What the container sends meanwhile it is told was not permitted (EPERM).
    /// Errors: `Io` where the kernel has no nf_tables.
    pub fn guard(&self) -> Result<(), NetworkError> {
        raise(&self.filters).map_err(|source| self.failed("guarding", source))
    }

    /// Ends what [`Port::guard`] began. Errors: `Io`.
    pub fn unguard(&self) -> Result<(), NetworkError> {
        lower(&self.filters).map_err(|source| self.failed("unguarding", source))
    }

    /// Puts the port on the bridge, and announces nothing. Errors: `Io` when either is gone.
    pub fn attach(&self) -> Result<(), NetworkError> {
        self.routes.carry_out(&self.attach).map_err(|source| self.failed("attaching", source))
    }

    /// Takes the port off the bridge; a port that is gone is off it. Errors: `Io`.
    pub fn cut(&self) -> Result<(), NetworkError> {
        match self.routes.carry_out(&self.cut) {
            Err(error) if exchange::is(&error, libc::ENODEV) => Ok(()),
            other => other.map_err(|source| self.failed("cutting", source)),
        }
    }

    /// Tells everyone on the bridge that the addresses are here. Passes the guard.
    ///
    /// Errors: `Io` when the link inside is gone or down.
    pub fn announce(&self) -> Result<(), NetworkError> {
        for _ in 0..ANNOUNCEMENTS {
            for (announcer, frames) in &self.announcers {
                let sent = frames.iter().try_for_each(|frame| announcer.send(frame));
                sent.map_err(|source| self.failed("announcing", source))?;
            }
        }
        Ok(())
    }

    fn failed(&self, what: &str, source: io::Error) -> NetworkError {
        NetworkError::Io { what: format!("{what} the port {}", self.host_end), source }
    }
}

/// Opens a socket for [`raise`] and [`lower`] in the namespace at `path`.
pub(super) async fn filters(path: &Path) -> io::Result<Exchange> {
    netns::inside(path, || Exchange::open(NETLINK_NETFILTER)).await
}

/// Raises the guard of the socket's namespace; raised already is success.
pub(super) fn raise(filters: &Exchange) -> io::Result<()> {
    filters.carry_out(&guard::raise())
}

/// Drops the guard of the socket's namespace; without one is success.
pub(super) fn lower(filters: &Exchange) -> io::Result<()> {
    filters.carry_out(&guard::lower())
}

fn changes(links: impl Iterator<Item = LinkMessageBuilder<LinkUnspec>>) -> Vec<u8> {
    encode(links.map(|link| acknowledged(RouteNetlinkMessage::NewLink(link.build()), 0)))
}
