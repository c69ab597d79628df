//! A node that lasts for a test, and what can be asked of it.

use std::future::Future;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;
use std::{fs, io};

use godwit_proto::container::Interface;
use godwit_proto::id::ContainerId;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::super::{Network, NetworkConfig, netns};

/// How long anything that is awaited may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Where servers listen.
pub(super) const PORT: u16 = 7000;

/// Runs a test on a node of its own.
pub(super) fn on_a_node<T: Future<Output = ()>>(test: impl FnOnce(Network) -> T + Send + 'static) {
    let node = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
            .expect("these tests make namespaces: run them as root");
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("private mounts");
        let tmpfs = Some("tmpfs");
        mount(tmpfs, "/run", tmpfs, MsFlags::empty(), None::<&str>).expect("a /run of its own");
        quieten().expect("settings of the node");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("runtime").block_on(async {
            let network = Network::start(NetworkConfig::default()).await.expect("bridge");
            tokio::time::timeout(PATIENCE, test(network)).await.expect("the test hangs");
        });
    });
    if let Err(panic) = node.join() {
        std::panic::resume_unwind(panic);
    }
}

/// No frames but those that a test sends, and no segment sent again by a timer: what arrives
/// was delivered the first time.
fn quieten() -> io::Result<()> {
    fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1")?;
    fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1")?;
    fs::write("/proc/sys/net/ipv4/tcp_early_retrans", "0")?;
    // Since Linux 6.11.
    fs::write("/proc/sys/net/ipv4/tcp_rto_min_us", "60000000")
}

/// A namespace on the node's bridge: a container, or a client of one.
pub(super) struct Guest {
    pub(super) id: ContainerId,
    pub(super) ip: Ipv4Addr,
    pub(super) interfaces: Vec<Interface>,
    pub(super) path: PathBuf,
}

impl Guest {
    /// Makes the guest that has this address, off the bridge.
    pub(super) async fn new(network: &Network, last: u8) -> Self {
        let ip = Ipv4Addr::new(10, 77, 0, last);
        let interface = Interface {
            mac: [2, 0, 0, 0, 0, last],
            addresses: vec![format!("{ip}/24").parse().expect("an address")],
            gateways: Vec::new(),
            overlay: None,
        };
        Self::with(network, ip, vec![interface]).await
    }

    /// The same with interfaces of its own.
    pub(super) async fn with(network: &Network, ip: Ipv4Addr, interfaces: Vec<Interface>) -> Self {
        let id: ContainerId = uuid::Uuid::new_v4().to_string().parse().expect("id");
        netns::ensure(&Network::path(id)).await.expect("namespace");
        let guest = Self { id, ip, interfaces, path: Network::path(id) };
        guest.inside(quieten).await;
        // Its own addresses are reached through it.
        guest.inside(|| fs::write("/proc/sys/net/ipv6/conf/lo/disable_ipv6", "0")).await;
        network.ensure(id, &guest.interfaces).await.expect("veth");
        guest
    }

    /// [`Guest::new`], attached.
    pub(super) async fn attached(network: &Network, last: u8) -> Self {
        let guest = Self::new(network, last).await;
        network.attach(guest.id, &guest.interfaces).await.expect("attach");
        guest
    }

    /// Does something inside.
    pub(super) async fn inside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> T {
        netns::inside(&self.path, work).await.expect("work in the namespace")
    }

    /// Where the guest's server listens.
    pub(super) fn server(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.ip, PORT)
    }

    /// One of the guest's counters of TCP, IP or UDP.
    pub(super) async fn count(&self, group: &'static str, name: &'static str) -> u64 {
        self.inside(move || counter(Path::new("/proc/thread-self/net/snmp"), group, name)).await
    }

    /// One of the guest's counters of IPv6.
    pub(super) async fn count6(&self, name: &'static str) -> u64 {
        let table = || fs::read_to_string("/proc/thread-self/net/snmp6");
        let table = self.inside(table).await;
        let mut lines = table.lines().filter_map(|line| line.split_once(char::is_whitespace));
        let (_, value) = lines.find(|(known, _)| *known == name).expect("a counter");
        value.trim().parse().expect("a number")
    }

    /// Waits until the connection over the client's `port` has no bytes on the way: what
    /// acknowledges them may come late, and would be counted among what comes after.
    async fn until_acknowledged(&self, port: u16) {
        let end = format!(":{port:04X}");
        loop {
            let table = || fs::read_to_string("/proc/thread-self/net/tcp");
            let table = self.inside(table).await;
            // A socket's line: number, both addresses, state, queues.
            let mut sockets =
                table.lines().map(|line| line.split_whitespace().collect::<Vec<&str>>());
            let idle = |socket: &[&str]| {
                (socket[1].ends_with(&end) || socket[2].ends_with(&end))
                    && socket[4].starts_with("00000000:")
            };
            if sockets.any(|socket| idle(&socket)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Waits until so many IP packets have come to the guest, whatever became of them.
    pub(super) async fn until_received(&self, packets: u64) {
        while self.count("Ip", "InReceives").await < packets {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Connects a client to a server; the first bytes went both ways, so that each knows the way.
pub(super) async fn connect(client: &Guest, server: &Guest) -> (TcpStream, TcpStream) {
    let at = server.server();
    let listener = server.inside(move || TcpListener::bind(at)).await;
    let mut near = client.inside(move || TcpStream::connect(at)).await;
    let (mut far, _) = listener.accept().expect("accept");
    for stream in [&near, &far] {
        stream.set_nodelay(true).expect("nodelay");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    }
    send(&mut near, b"ping");
    assert_eq!(receive(&mut far, 4), b"ping");
    send(&mut far, b"pong");
    assert_eq!(receive(&mut near, 4), b"pong");
    let port = near.local_addr().expect("address").port();
    for guest in [client, server] {
        guest.until_acknowledged(port).await;
    }
    (near, far)
}

pub(super) fn send(stream: &mut TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).expect("send");
}

pub(super) fn receive(stream: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).expect("receive");
    bytes
}

/// The table has a line of names and one of values for each group.
fn counter(table: &Path, group: &str, name: &str) -> io::Result<u64> {
    let text = fs::read_to_string(table)?;
    let prefix = format!("{group}: ");
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(&prefix));
    let mut columns = || lines.next().into_iter().flat_map(str::split_whitespace);
    let names: Vec<_> = columns().collect();
    let value = names.iter().zip(columns()).find(|(known, _)| **known == name);
    let value = value.and_then(|(_, value)| value.parse().ok());
    value.ok_or_else(|| io::Error::other(format!("no {group} {name} in {}", table.display())))
}
