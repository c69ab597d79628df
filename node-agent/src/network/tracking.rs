//! The table of tracked connections, as CRIU reads it in every dump.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use netlink_packet_netfilter::conntrack::ConntrackMessage;
use netlink_packet_netfilter::{NetfilterHeader, NetfilterMessage, NetfilterProtoFamily};
use rtnetlink::packet_core::NLM_F_DUMP;
use rtnetlink::sys::protocols::NETLINK_NETFILTER;

use super::exchange::{Exchange, acknowledged, encode};
use super::netns;

/// The least of so many readings: whatever else the machine does only adds.
const READINGS: usize = 5;

/// How long it takes to read the table once in the namespace at `path`.
///
/// # Errors
/// Whatever the kernel answers; `NotFound` or the like where it tracks nothing.
pub(crate) async fn time_of_a_reading(path: &Path) -> io::Result<Duration> {
    netns::inside(path, || {
        let socket = Exchange::open(NETLINK_NETFILTER)?;
        let header = NetfilterHeader::new(NetfilterProtoFamily::IPv4, 0, 0);
        let all = NetfilterMessage::new(header, ConntrackMessage::Get(Vec::new()));
        let request = encode([acknowledged(all, NLM_F_DUMP)]);
        let mut least = Duration::MAX;
        for _ in 0..READINGS {
            let begun = Instant::now();
            socket.carry_out(&request)?;
            least = least.min(begun.elapsed());
        }
        Ok(least)
    })
    .await
}
