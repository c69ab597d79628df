//! What can be told by looking: privileges, programs and their versions, the kernel's parts.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{Finding, Versions, networks};
use crate::engine::EngineConfig;
use crate::engine::cgroup::Hierarchy;

/// Capabilities that every step of a hand-over needs, by number.
const NEEDED: [(u32, &str); 4] =
    [(12, "CAP_NET_ADMIN"), (13, "CAP_NET_RAW"), (19, "CAP_SYS_PTRACE"), (21, "CAP_SYS_ADMIN")];
/// Without it processes of other users cannot be dumped.
const SYS_RESOURCE: u32 = 24;
/// CRIU that can dump sockets on today's kernels, on a Debian that has not got it yet.
const NEWER_CRIU: &str = "Debian testing has it: add `deb http://deb.debian.org/debian forky main`, \
                          pin it at 100, then `apt install -t forky criu`";

/// Asks every program for its version.
pub(super) fn versions(config: &EngineConfig) -> Versions {
    Versions {
        kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
            .unwrap_or_default()
            .trim()
            .to_owned(),
        criu: version_of(&config.criu),
        engine: named("podman", version_of(&config.podman)),
        runtime: named("runc", version_of(Path::new("runc"))),
    }
}

/// `podman 5.4.2`, or nothing.
fn named(name: &str, version: String) -> String {
    if version.is_empty() { version } else { format!("{name} {version}") }
}

/// Every check but the probe, in the order in which they should be mended.
pub(super) fn all(config: &EngineConfig, versions: &Versions, bridge_name: &str) -> Vec<Finding> {
    let mut findings = vec![
        privileges(),
        program("podman", &versions.engine, &[4, 3], "apt install podman"),
        // Always runc: a restore by crun fails with -52 and litters the host's control groups.
        program("runc", &versions.runtime, &[1, 1], "apt install runc"),
        criu(&versions.criu, &versions.kernel),
        present("conmon", "apt install conmon"),
        present("tar", "apt install tar"),
        freezer(&config.cgroup),
        loopback(),
        bridge(bridge_name),
    ];
    findings.extend(networks::all());
    findings
}

pub(super) fn fit(check: &str, message: impl Into<String>) -> Finding {
    Finding {
        check: check.into(),
        ok: true,
        required: true,
        message: message.into(),
        remedy: String::new(),
    }
}

pub(super) fn unfit(check: &str, message: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding {
        check: check.into(),
        ok: false,
        required: true,
        message: message.into(),
        remedy: remedy.into(),
    }
}

fn privileges() -> Finding {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    judge_privileges(nix::unistd::geteuid().is_root(), effective(&status))
}

fn judge_privileges(is_root: bool, held: u64) -> Finding {
    let missing: Vec<&str> =
        NEEDED.iter().filter(|(bit, _)| held >> bit & 1 == 0).map(|(_, name)| *name).collect();
    if !is_root || !missing.is_empty() {
        let message = format!("not root, or without {}", missing.join(", "));
        return unfit("privileges", message, "run the agent as root, outside of a container");
    }
    if held >> SYS_RESOURCE & 1 == 0 {
        return fit(
            "privileges",
            "root without CAP_SYS_RESOURCE: only containers whose processes are root can move",
        );
    }
    fit("privileges", "root")
}

/// The effective capabilities in a `/proc/<pid>/status`.
fn effective(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or_default()
}

/// The version that a program tells, empty when it is not there.
fn version_of(program: &Path) -> String {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output();
    let text = output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    let numbered = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit());
    text.split_whitespace().find(numbered).unwrap_or_default().trim_end_matches(',').to_owned()
}

/// The numbers of a version: `6.18.44-x` is 6, 18, 44.
fn numbers(version: &str) -> Vec<u32> {
    version
        .split(|c: char| !c.is_ascii_digit() && c != '.')
        .next()
        .unwrap_or_default()
        .split('.')
        .map_while(|part| part.parse().ok())
        .collect()
}

/// `found` is the program's name and version.
fn program(name: &str, found: &str, least: &[u32], remedy: &str) -> Finding {
    let version = found.rsplit(' ').next().unwrap_or_default();
    if version.is_empty() {
        return unfit(name, format!("{name} is not installed"), remedy);
    }
    if numbers(version).as_slice() < least {
        return unfit(
            name,
            format!("{name} {version} is too old: {}.{} is the least", least[0], least[1]),
            remedy,
        );
    }
    fit(name, version)
}

fn criu(version: &str, kernel: &str) -> Finding {
    if version.is_empty() {
        return unfit("criu", "criu is not installed", NEWER_CRIU);
    }
    // (the last broken CRIU, the first kernel that it is broken on, why)
    let broken: [(&[u32], &[u32], &str); 2] = [
        (&[3, 17, 1], &[6, 13], "it does not know the kernel's vDSO"),
        (&[4, 1, 1], &[6, 16], "it cannot dump a socket there"),
    ];
    for (last, first, why) in broken {
        if numbers(version).as_slice() <= last && numbers(kernel).as_slice() >= first {
            let message = format!("criu {version} does not work on kernel {kernel}: {why}");
            return unfit("criu", message, NEWER_CRIU);
        }
    }
    fit("criu", version)
}

fn present(name: &str, remedy: &str) -> Finding {
    let places = [
        "/usr/local/sbin",
        "/usr/local/bin",
        "/usr/sbin",
        "/usr/bin",
        "/sbin",
        "/bin",
        "/usr/libexec/podman",
    ];
    if places.iter().any(|place| Path::new(place).join(name).exists()) {
        fit(name, "installed")
    } else {
        unfit(name, format!("{name} is not installed"), remedy)
    }
}

fn freezer(group: &str) -> Finding {
    let mount =
        "boot with cgroup v2 (`systemd.unified_cgroup_hierarchy=1`), or mount it at /sys/fs/cgroup";
    let hierarchy = match Hierarchy::find() {
        Ok(hierarchy) => hierarchy,
        Err(error) => return unfit("freezer", error.to_string(), mount),
    };
    let trial = hierarchy.group(&format!("{group}-trial"));
    let frozen = trial.create().and_then(|()| trial.set_frozen(true));
    let _nothing_in_it = trial.remove();
    match (frozen, hierarchy) {
        (Ok(()), Hierarchy::Unified(_)) => fit("freezer", "cgroup v2"),
        (Ok(()), Hierarchy::Freezer(_)) => fit("freezer", "cgroup v1"),
        (Err(error), _) => {
            unfit("freezer", format!("control groups cannot be frozen: {error}"), mount)
        }
    }
}

fn loopback() -> Finding {
    let flags = fs::read_to_string("/sys/class/net/lo/flags").unwrap_or_default();
    let flags = u32::from_str_radix(flags.trim().trim_start_matches("0x"), 16).unwrap_or_default();
    if flags & 1 == 1 {
        fit("loopback", "up")
    } else {
        unfit(
            "loopback",
            "the interface lo is down, CRIU cannot work without it",
            "ip link set lo up",
        )
    }
}

fn bridge(name: &str) -> Finding {
    let link = Path::new("/sys/class/net").join(name);
    if !link.exists() {
        return fit("bridge", format!("{name} is not there, the agent makes it"));
    }
    if link.join("bridge").is_dir() {
        fit("bridge", name)
    } else {
        unfit("bridge", format!("{name} is a link, but no bridge"), "name another with `--bridge`")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_bad_pairs_of_criu_and_kernel_are_named() {
        for (version, kernel, ok) in [
            ("3.17.1", "6.12.9-amd64", true),
            ("3.17.1", "6.13.0", false),
            ("4.1.1", "6.15.2", true),
            ("4.1.1", "6.16", false),
            ("4.2.1", "6.18.44-fc", true),
            ("", "6.1.0", false),
        ] {
            assert_eq!(criu(version, kernel).ok, ok, "criu {version} on {kernel}");
        }
    }

    #[test]
    fn versions_compare_as_numbers() {
        assert!(program("podman", "podman 4.10.0", &[4, 3], "").ok);
        assert!(!program("podman", "podman 4.2.9", &[4, 3], "").ok);
        assert!(!program("podman", "", &[4, 3], "apt install podman").ok);
        assert_eq!(numbers("1.1.15+ds1-2+b4"), [1, 1, 15]);
    }

    #[test]
    fn a_root_without_a_needed_capability_is_told_which() {
        let all = effective("Name:\tx\nCapEff:\t000001ffffffffff\n");
        assert!(judge_privileges(true, all).ok);
        assert!(
            judge_privileges(true, all & !(1 << SYS_RESOURCE)).message.contains("only containers")
        );
        let without = judge_privileges(true, all & !(1 << 21));
        assert!(!without.ok && without.message.contains("CAP_SYS_ADMIN"));
        assert!(!judge_privileges(false, all).ok);
    }
}
