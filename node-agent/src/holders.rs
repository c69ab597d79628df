//! Who holds a port of this node.

use std::collections::BTreeMap;

use godwit_proto::overlay::Protocol;
use procfs::net::TcpState;
use procfs::process::FDTarget;

/// Those of `ports` that a program of this node holds for all of its addresses or some, each with
/// the program's name.
///
/// Looks through every process's files where one is held: blocks.
pub(crate) fn of(ports: &[(Protocol, u16)]) -> Vec<(Protocol, u16, String)> {
    let held: Vec<_> = sockets().into_iter().filter(|(socket, _)| ports.contains(socket)).collect();
    if held.is_empty() {
        return Vec::new();
    }
    let programs = programs();
    let mut named: Vec<_> = held
        .into_iter()
        .map(|((protocol, port), inode)| {
            let unknown = || "a program of another container or of the kernel".to_owned();
            (protocol, port, programs.get(&inode).cloned().unwrap_or_else(unknown))
        })
        .collect();
    named.sort();
    named.dedup_by(|one, other| (one.0, one.1) == (other.0, other.1));
    named
}

/// The sockets that wait for whoever comes, with their inodes.
fn sockets() -> Vec<((Protocol, u16), u64)> {
    let tcp = [procfs::net::tcp(), procfs::net::tcp6()].into_iter().flatten().flatten();
    let tcp = tcp.filter(|socket| socket.state == TcpState::Listen);
    let tcp = tcp.map(|socket| ((Protocol::Tcp, socket.local_address.port()), socket.inode));
    let udp = [procfs::net::udp(), procfs::net::udp6()].into_iter().flatten().flatten();
    let udp = udp.filter(|socket| socket.remote_address.port() == 0);
    let udp = udp.map(|socket| ((Protocol::Udp, socket.local_address.port()), socket.inode));
    tcp.chain(udp).collect()
}

/// The programs' names by their sockets' inodes.
fn programs() -> BTreeMap<u64, String> {
    let mut programs = BTreeMap::new();
    for process in procfs::process::all_processes().into_iter().flatten().flatten() {
        let Ok(name) = process.stat().map(|stat| stat.comm) else { continue };
        for file in process.fd().into_iter().flatten().flatten() {
            if let FDTarget::Socket(inode) = file.target {
                programs.insert(inode, name.clone());
            }
        }
    }
    programs
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;

    #[test]
    fn who_listens_is_named_and_who_only_talks_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let there = listener.local_addr().unwrap();
        let talker = TcpStream::connect(there).unwrap();
        let here = talker.local_addr().unwrap().port();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let udp = socket.local_addr().unwrap().port();
        let asked = [(Protocol::Tcp, there.port()), (Protocol::Tcp, here), (Protocol::Udp, udp)];
        let own = procfs::process::Process::myself().unwrap().stat().unwrap().comm;
        let held = [(Protocol::Tcp, there.port(), own.clone()), (Protocol::Udp, udp, own)];
        assert_eq!(of(&asked), held);
    }
}
