//! Names in tenants' networks, answered on every node by aardvark-dns, which podman brings along.
//!
//! Each network's resolver has an address that is the same on every node, so a container asks the
//! node where it is, wherever that is. aardvark-dns tells networks apart by who asks: a container
//! hears the names of the networks that it is in, and what the node itself can look up.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use godwit_proto::overlay::{self, Overlay, Overlays};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Command;

use super::NetworkError;
use super::overlay::bridge_name;

/// Where Debian, Fedora and podman's own packages have it.
const PROGRAMS: [&str; 2] = ["/usr/lib/podman/aardvark-dns", "/usr/libexec/podman/aardvark-dns"];
/// The domain of every fabric; a tenant's containers are below its tenant's name.
const DOMAIN: &str = ".godwit";
const PID: &str = "aardvark.pid";

/// The program, if this node has it.
pub(crate) fn program() -> Option<&'static Path> {
    PROGRAMS.into_iter().map(Path::new).find(|program| program.exists())
}

/// Has names answered for the networks that the node takes part in; none end the answering.
///
/// `dir` is for its files alone. Without the program nothing is answered, which the doctor says.
pub(super) async fn answer(dir: &Path, overlays: &Overlays) -> Result<(), NetworkError> {
    let Some(program) = program() else { return Ok(()) };
    let failed = |what: &str| {
        let what = format!("{what} {}", dir.display());
        move |source| NetworkError::Io { what, source }
    };
    let wanted: BTreeMap<_, _> =
        overlays.networks.iter().map(|it| (bridge_name(it.vni), zone(it))).collect();
    let has_changed = write(dir, &wanted).map_err(failed("writing names to"))?;
    match (running(dir), wanted.is_empty()) {
        (Some(server), true) => end(server).map_err(failed("ending the resolver of")),
        (Some(server), false) if has_changed => {
            kill(server, Signal::SIGHUP).map_err(io::Error::from).map_err(failed("reloading"))
        }
        (None, false) => start(program, dir).await.map_err(failed("starting aardvark-dns in")),
        (Some(_), false) | (None, true) => Ok(()),
    }
}

/// A network as aardvark-dns reads it: where it listens, then a line for each container.
fn zone(network: &Overlay) -> String {
    let listed = |ips: &mut dyn Iterator<Item = IpAddr>| {
        ips.map(|ip| ip.to_string()).collect::<Vec<_>>().join(",")
    };
    let resolvers = &mut network.subnets.iter().map(|subnet| overlay::resolver(*subnet));
    let mut zone = format!("{}\n", listed(resolvers));
    for member in &network.members {
        let four = listed(&mut member.addresses.iter().copied().filter(IpAddr::is_ipv4));
        let six = listed(&mut member.addresses.iter().copied().filter(IpAddr::is_ipv6));
        let (name, tenant) = (&member.name, &network.tenant);
        // Its id has only to be one of a kind.
        zone += &format!("{name} {four} {six} {name},{name}.{tenant}\n");
    }
    zone
}

/// Makes the directory hold these files and no others; says whether anything changed.
fn write(dir: &Path, wanted: &BTreeMap<String, String>) -> io::Result<bool> {
    fs::create_dir_all(dir)?;
    let mut has_changed = false;
    for file in fs::read_dir(dir)? {
        let file = file?;
        let name = file.file_name();
        if name != PID && !wanted.contains_key(&*name.to_string_lossy()) {
            fs::remove_file(file.path())?;
            has_changed = true;
        }
    }
    for (name, zone) in wanted {
        let path = dir.join(name);
        if fs::read_to_string(&path).is_ok_and(|there| there == *zone) {
            continue;
        }
        // Not beside it: every file there is a network.
        let new = dir.with_extension("new");
        fs::write(&new, zone)?;
        fs::rename(new, path)?;
        has_changed = true;
    }
    Ok(has_changed)
}

/// The server over that directory, of this agent's life or one before it.
fn running(dir: &Path) -> Option<Pid> {
    let pid: i32 = fs::read_to_string(dir.join(PID)).ok()?.trim().parse().ok()?;
    // A number may be another's by now.
    let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let dir = dir.as_os_str().as_encoded_bytes();
    command.split(|byte| *byte == 0).any(|word| word == dir).then(|| Pid::from_raw(pid))
}

fn end(server: Pid) -> io::Result<()> {
    match kill(server, Signal::SIGTERM) {
        Err(nix::errno::Errno::ESRCH) | Ok(()) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Starts it; it goes on by itself once it listens.
async fn start(program: &Path, dir: &Path) -> io::Result<()> {
    let log: PathBuf = dir.with_extension("log");
    let said = fs::File::create(&log)?;
    let started = Command::new(program)
        .arg("--config")
        .arg(dir)
        .args(["--port", "53", "--filter-search-domain", DOMAIN, "run"])
        .stdin(Stdio::null())
        .stdout(said.try_clone()?)
        .stderr(said)
        .status()
        .await?;
    if started.success() {
        return Ok(());
    }
    let said = fs::read_to_string(log).unwrap_or_default();
    Err(io::Error::other(format!("{started}: {}", said.trim())))
}

#[cfg(test)]
mod tests {
    use godwit_proto::overlay::{Member, Vni};

    use super::*;

    #[test]
    fn a_zone_names_its_resolvers_and_each_container_twice() {
        let network = Overlay {
            vni: Vni::FIRST,
            tenant: "alice".parse().expect("a tenant"),
            mtu: 1450,
            subnets: ["10.128.0.0/20", "fd00::/64"].map(|it| it.parse().expect("a net")).into(),
            is_exit: false,
            peers: Vec::new(),
            members: vec![Member {
                name: "counter".parse().expect("a name"),
                mac: [0; 6],
                addresses: ["10.128.0.3", "fd00::3"].map(|it| it.parse().expect("ip")).into(),
                at: None,
                is_moving: false,
            }],
        };
        let zone = zone(&network);
        assert_eq!(zone, "10.128.0.1,fd00::1\ncounter 10.128.0.3 fd00::3 counter,counter.alice\n");
    }

    #[test]
    fn files_are_written_when_they_differ_and_go_with_their_networks() {
        let dir = tempfile::tempdir().expect("a directory");
        let dir = dir.path().join("names");
        let zones = |all: &[(&str, &str)]| {
            all.iter().map(|(name, zone)| ((*name).into(), (*zone).into())).collect()
        };
        assert!(write(&dir, &zones(&[("a", "1"), ("b", "1")])).expect("written"));
        fs::write(dir.join(PID), "1").expect("written");
        assert!(!write(&dir, &zones(&[("a", "1"), ("b", "1")])).expect("written"));
        assert!(write(&dir, &zones(&[("a", "2")])).expect("written"));
        let mut names: Vec<_> =
            fs::read_dir(&dir).expect("read").map(|file| file.expect("read").file_name()).collect();
        names.sort();
        assert_eq!(names, ["a", PID], "the server's own stays");
        assert_eq!(fs::read_to_string(dir.join("a")).expect("read"), "2");
        assert_eq!(running(&dir), None, "1 is init");
    }
}
