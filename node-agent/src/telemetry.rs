//! What the node is, has and does, as it tells everyone.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Instant;

use godwit_proto::id::ImageId;
use godwit_proto::node::{ContainerMetrics, NodeInfo, NodeMetrics, Probe, Underlay};
use godwit_proto::overlay::is_bridge;
use nix::sys::utsname::uname;
use procfs::{Current, CurrentSI};

use crate::config::Config;

/// Versions of what moves containers.
#[derive(Debug, Clone, Default)]
pub struct Versions {
    /// `podman 5.4.2`.
    pub engine: String,
    /// `runc 1.1.15`.
    pub runtime: String,
    /// `4.2.1`.
    pub criu: String,
}

/// What the node is and has.
pub fn info(
    config: &Config,
    versions: &Versions,
    underlay: Option<Underlay>,
    images: Vec<ImageId>,
) -> NodeInfo {
    let (kernel, arch) = match uname() {
        Ok(names) => (text(names.release()), text(names.machine())),
        Err(_) => Default::default(),
    };
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    NodeInfo {
        agent_version: env!("CARGO_PKG_VERSION").into(),
        arch,
        os: os_name(),
        kernel,
        cpus: u32::try_from(cpus).unwrap_or(u32::MAX),
        cpu_features: cpu_features(),
        memory_bytes: procfs::Meminfo::current().map_or(0, |memory| memory.mem_total),
        disk_bytes: disk_space(&config.data_dir).1,
        engine: versions.engine.clone(),
        runtime: versions.runtime.clone(),
        criu: versions.criu.clone(),
        addresses: addresses(),
        underlay,
        labels: config.labels.clone(),
        devices: config
            .devices
            .iter()
            .map(|(name, path)| (name.clone(), path.display().to_string()))
            .collect(),
        images,
        probe: Probe::default(),
    }
}

/// Counters of the host, read again and again; rates are since the reading before.
pub struct Telemetry {
    disk: PathBuf,
    last: Counters,
}

struct Counters {
    at: Instant,
    busy: u64,
    ticks: u64,
    received: u64,
    sent: u64,
}

impl Counters {
    /// What cannot be read counts as zero: metrics are no reason to fail.
    fn read() -> Self {
        let cpu = procfs::KernelStats::current().map(|stats| stats.total);
        let (busy, ticks) = cpu.map_or((0, 0), |cpu| {
            let idle = cpu.idle + cpu.iowait.unwrap_or(0);
            let busy =
                cpu.user + cpu.nice + cpu.system + cpu.irq.unwrap_or(0) + cpu.softirq.unwrap_or(0);
            (busy, busy + idle)
        });
        let links = procfs::net::dev_status().unwrap_or_default();
        let links = || links.iter().filter(|(name, _)| *name != "lo").map(|(_, link)| link);
        Self {
            at: Instant::now(),
            busy,
            ticks,
            received: links().map(|link| link.recv_bytes).sum(),
            sent: links().map(|link| link.sent_bytes).sum(),
        }
    }
}

impl Telemetry {
    /// Starts reading; `disk` is where containers live.
    pub fn new(disk: &Path) -> Self {
        Self { disk: disk.to_path_buf(), last: Counters::read() }
    }

    /// What the node does now.
    ///
    /// Reads of /proc and /sys that never wait for a disk: .3 to .8 ms in all, measured on two
    /// cores with ten runnable tasks. That is too little to be worth a thread.
    pub fn metrics(&mut self, containers: Vec<ContainerMetrics>) -> NodeMetrics {
        let now = Counters::read();
        let last = std::mem::replace(&mut self.last, now);
        let now = &self.last;
        let milliseconds = now.at.duration_since(last.at).as_millis().max(1);
        let per_second = |now: u64, last: u64| {
            let rate = u128::from(now.saturating_sub(last)) * 1000 / milliseconds;
            u64::try_from(rate).unwrap_or(u64::MAX)
        };
        #[expect(clippy::cast_precision_loss, reason = "a percentage for people")]
        let share = |part: u64, whole: u64| 100.0 * part as f32 / whole.max(1) as f32;
        NodeMetrics {
            cpu_percent: share(
                now.busy.saturating_sub(last.busy),
                now.ticks.saturating_sub(last.ticks),
            ),
            memory_free_bytes: procfs::Meminfo::current()
                .map_or(0, |memory| memory.mem_available.unwrap_or(memory.mem_free)),
            disk_free_bytes: disk_space(&self.disk).0,
            network_rx_bytes_per_s: per_second(now.received, last.received),
            network_tx_bytes_per_s: per_second(now.sent, last.sent),
            temperature_celsius: temperature(),
            containers,
        }
    }
}

/// Free and total bytes of the disk that holds `path`.
fn disk_space(path: &Path) -> (u64, u64) {
    nix::sys::statvfs::statvfs(path).map_or((0, 0), |at| {
        let block = at.fragment_size();
        (at.blocks_available() * block, at.blocks() * block)
    })
}

/// The hottest of the kernel's thermal zones.
fn temperature() -> Option<f32> {
    let zones = std::fs::read_dir("/sys/class/thermal").ok()?;
    let milli = |zone: std::io::Result<std::fs::DirEntry>| -> Option<f32> {
        std::fs::read_to_string(zone.ok()?.path().join("temp")).ok()?.trim().parse().ok()
    };
    zones.filter_map(milli).map(|milli| milli / 1000.0).reduce(f32::max)
}

/// The extensions that a process may have found and relied on when it started.
fn cpu_features() -> Vec<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|l| l.starts_with("flags") || l.starts_with("Features"));
    let list = line.and_then(|line| line.split_once(':')).map(|(_, list)| list);
    let mut features: Vec<String> =
        list.unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    features.sort_unstable();
    features
}

fn addresses() -> Vec<IpAddr> {
    let all = nix::ifaddrs::getifaddrs().into_iter().flatten();
    let all = all.filter(|found| !is_bridge(&found.interface_name));
    let of = |found: nix::ifaddrs::InterfaceAddress| -> Option<IpAddr> {
        let address = found.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    };
    let mut addresses: Vec<IpAddr> = all.filter_map(of).filter(|ip| !ip.is_loopback()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

fn os_name() -> String {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.unwrap_or("Linux").trim_matches('"').to_owned()
}

fn text(name: &std::ffi::OsStr) -> String {
    name.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_moment_shows_in_the_share_of_the_processors() {
        let mut telemetry = Telemetry::new(Path::new("/"));
        let begin = Instant::now();
        // The kernel counts in ticks of 10 ms.
        while begin.elapsed().as_millis() < 120 {
            std::hint::black_box(begin);
        }
        let metrics = telemetry.metrics(Vec::new());
        assert!(metrics.cpu_percent > 1.0, "{metrics:?}");
        assert!(metrics.memory_free_bytes > 0 && metrics.disk_free_bytes > 0, "{metrics:?}");
    }
}
