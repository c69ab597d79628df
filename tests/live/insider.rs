//! Somebody inside a container's network namespace: asks, listens and lies from there.

use std::cell::Cell;
use std::path::Path;
use std::process::Child;

use godwit_tests::{Dial, Fabric, Said, eventually};
use serde_json::Value;

/// Where is listened.
const PORT: &str = "9999";

/// A container's network, from inside, on the node where the container is.
pub(crate) struct Insider<'a> {
    fabric: &'a Fabric,
    name: String,
    container: Value,
}

impl<'a> Insider<'a> {
    /// Of the container of that name, where it is now.
    pub(crate) fn of(fabric: &'a Fabric, name: &str) -> Self {
        let container = eventually("the container runs", || {
            let container = fabric.container(name);
            if container["state"] == "running" { Ok(container) } else { Err(container) }
        });
        Self { fabric, name: name.into(), container }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    fn text(&self, at: &str) -> String {
        let found = self.container.pointer(at).and_then(Value::as_str);
        found.unwrap_or_else(|| panic!("no {at} in {}", self.container)).to_owned()
    }

    /// The addresses of its first interface, IPv4 first.
    pub(crate) fn addresses(&self) -> Vec<String> {
        let all = self.container["interfaces"][0]["addresses"].as_array().expect("addresses");
        let net = all.iter().filter_map(Value::as_str);
        net.filter_map(|net| net.split('/').next()).map(str::to_owned).collect()
    }

    /// Its first interface's hardware address.
    pub(crate) fn mac(&self) -> String {
        self.text("/interfaces/0/mac")
    }

    pub(crate) fn runs_on(&self, node: &str) -> bool {
        self.container["node"] == node
    }

    fn netns(&self) -> String {
        format!("--net=/run/netns/godwit-{}", &self.text("/id")[..8])
    }

    /// Runs a program of the node's there.
    pub(crate) fn run(&self, command: &[&str]) -> Said {
        let netns = self.netns();
        let entered = [&["nsenter", &netns][..], command].concat();
        self.fabric.lab().run(&self.text("/node"), &entered)
    }

    /// Connects a TCP client from there.
    pub(crate) fn dial(&self, address: &str, log: std::path::PathBuf) -> Dial<'a> {
        Dial::start_at(
            self.fabric.lab(),
            &self.text("/node"),
            &["nsenter", &self.netns()],
            address,
            log,
        )
    }

    /// Where its network's packets leave for elsewhere.
    pub(crate) fn exit(&self) -> String {
        self.text("/interfaces/0/gateways/0")
    }

    /// Where its network's names are answered.
    pub(crate) fn resolver(&self) -> String {
        let exit = self.exit();
        let network = exit.strip_suffix(".2").expect("an exit is its network's second address");
        format!("{network}.1")
    }

    /// Asks its resolver for a name.
    pub(crate) fn lookup(&self, name: &str) -> Said {
        self.run(&["busybox", "nslookup", "-type=a", name, &self.resolver()])
    }

    /// Sends a datagram with that text.
    pub(crate) fn send(&self, ip: &str, text: &str) -> Said {
        self.run(&["bash", "-c", &format!("printf {text} > /dev/udp/{ip}/{PORT}")])
    }

    /// Listens from now on.
    pub(crate) fn listen(&self, log: &Path) -> Ear {
        let netns = self.netns();
        let dump = ["tcpdump", "-l", "-n", "-A", "-i", "eth0", "udp", "port", PORT];
        let command = [&["nsenter", &netns][..], &dump].concat();
        let child = self.fabric.lab().spawn(&self.text("/node"), &command, log);
        let ear = Ear { child, log: log.to_owned(), texts: Cell::new(0) };
        eventually("tcpdump listens", || ear.has("listening on").then_some(()).ok_or("not yet"));
        ear
    }

    /// A frame from `from` to it with that text, in VXLAN of its network.
    pub(crate) fn vxlan(&self, from: &Self, text: &str) -> Vec<u8> {
        let vni = self.container["interfaces"][0]["vni"].as_u64().expect("a network") as u32;
        let mac = |text: String| -> Vec<u8> {
            text.split(':').map(|hex| u8::from_str_radix(hex, 16).expect("hex")).collect()
        };
        let ip = |insider: &Self| -> [u8; 4] {
            let ip: std::net::Ipv4Addr = insider.addresses()[0].parse().expect("IPv4");
            ip.octets()
        };
        let port: u16 = PORT.parse().expect("a port");
        let udp = [
            &[0, 9][..],
            &port.to_be_bytes(),
            &(8 + text.len() as u16).to_be_bytes(),
            &[0, 0],
            text.as_bytes(),
        ]
        .concat();
        let length = (20 + udp.len() as u16).to_be_bytes();
        let mut header =
            [&[0x45, 0][..], &length, &[0, 0, 0, 0, 64, 17, 0, 0], &ip(from), &ip(self)].concat();
        let sum: u32 =
            header.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
        let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        let vxlan = [&[8, 0, 0, 0][..], &vni.to_be_bytes()[1..], &[0]].concat();
        [vxlan, mac(self.mac()), mac(from.mac()), vec![8, 0], header, udp].concat()
    }
}

/// What arrives at a container's interface.
pub(crate) struct Ear {
    child: Child,
    log: std::path::PathBuf,
    texts: Cell<u32>,
}

impl Ear {
    fn has(&self, text: &str) -> bool {
        std::fs::read_to_string(&self.log).is_ok_and(|heard| heard.contains(text))
    }

    /// True when what `send` sends, a text that it is given, arrives before what `friend` sends
    /// afterwards, who is always heard.
    pub(crate) fn hears(&self, send: &dyn Fn(&str), friend: &dyn Fn(&str)) -> bool {
        self.texts.set(self.texts.get() + 1);
        let (text, after) =
            (format!("text-{}-", self.texts.get()), format!("after-{}-", self.texts.get()));
        send(&text);
        eventually("a friend is heard", || {
            friend(&after);
            self.has(&after).then_some(()).ok_or_else(|| std::fs::read_to_string(&self.log))
        });
        self.has(&text)
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}
