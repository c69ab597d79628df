//! The kernel's leave to pass packets on, which a node needs that is an entry or an exit.
//!
//! Where the node's owner had it off, it is ours alone: the rules then pass on nothing but what
//! comes from or goes to containers.

use std::fs;
use std::io;
use std::path::Path;

use super::super::NetworkError;

/// A family's switch.
struct Switch {
    /// As nftables calls it.
    family: &'static str,
    setting: &'static str,
    /// Says that it was off before; gone after a boot, as the setting is.
    mark: &'static str,
}

const SWITCHES: [Switch; 2] = [
    Switch {
        family: "ipv4",
        setting: "/proc/sys/net/ipv4/ip_forward",
        mark: "/run/godwit-forwards-ipv4",
    },
    Switch {
        family: "ipv6",
        setting: "/proc/sys/net/ipv6/conf/all/forwarding",
        mark: "/run/godwit-forwards-ipv6",
    },
];

impl Switch {
    fn is_ours(&self) -> bool {
        Path::new(self.mark).exists()
    }

    /// False also where the kernel has no such family.
    fn is_off(&self) -> bool {
        fs::read_to_string(self.setting).is_ok_and(|value| value.trim() == "0")
    }
}

/// Of which families packets are passed on for our sake alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::network) struct Borrowed([bool; 2]);

impl Borrowed {
    /// As it is once it is [allowed](allow), if that `is_needed`.
    pub(in crate::network) fn seen(is_needed: bool) -> Self {
        Self(SWITCHES.map(|switch| switch.is_ours() || is_needed && switch.is_off()))
    }

    /// The families, as nftables calls them.
    pub(in crate::network) fn families(self) -> impl Iterator<Item = &'static str> {
        let all = SWITCHES.into_iter().zip(self.0);
        all.filter_map(|(switch, is_ours)| is_ours.then_some(switch.family))
    }
}

/// Allows it. To be called when the rules are there.
pub(in crate::network) fn allow() -> Result<(), NetworkError> {
    let allowed = SWITCHES.iter().filter(|switch| switch.is_off()).try_for_each(|switch| {
        fs::write(switch.mark, "")?;
        keep_routers()?;
        fs::write(switch.setting, "1")
    });
    allowed.map_err(|source| NetworkError::Io {
        what: "allowing the node to pass packets on (ip_forward)".into(),
        source,
    })
}

/// Ends what was ours alone.
pub(in crate::network) fn give_back() -> Result<(), NetworkError> {
    let done = SWITCHES.iter().filter(|switch| switch.is_ours()).try_for_each(|switch| {
        fs::write(switch.setting, "0")?;
        fs::remove_file(switch.mark)
    });
    done.map_err(|source| NetworkError::Io {
        what: "no longer passing packets on (ip_forward)".into(),
        source,
    })
}

/// A node that passes IPv6 on would no longer listen to its own routers.
fn keep_routers() -> io::Result<()> {
    for link in fs::read_dir("/proc/sys/net/ipv6/conf").into_iter().flatten().flatten() {
        let setting = link.path().join("accept_ra");
        if fs::read_to_string(&setting).is_ok_and(|value| value.trim() == "1") {
            fs::write(&setting, "2")?;
        }
    }
    Ok(())
}
