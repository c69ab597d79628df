//! The kernel's leave to pass packets on, which a node needs that is an entry or an exit.
//!
//! Where the node's owner had it off, it is ours alone: the rules then pass on nothing but what
//! comes from or goes to a tenant's network.

use std::fs;
use std::io;
use std::path::Path;

use super::super::NetworkError;

const SWITCHES: [&str; 2] =
    ["/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"];
/// That it was off before; gone after a boot, as the setting is.
const MARK: &str = "/run/godwit-forwarding";

/// Allows it, and says whether it is [ours](is_ours).
pub(super) fn allow() -> Result<bool, NetworkError> {
    let allowed = switch_on();
    allowed.map(|()| is_ours()).map_err(|source| NetworkError::Io {
        what: "allowing the node to pass packets on (ip_forward)".into(),
        source,
    })
}

/// True where this agent, or one before it, allowed it.
pub(super) fn is_ours() -> bool {
    Path::new(MARK).exists()
}

/// Ends what was ours alone.
pub(super) fn give_back() -> Result<(), NetworkError> {
    if !is_ours() {
        return Ok(());
    }
    let switched = SWITCHES.iter().try_for_each(|switch| match fs::write(switch, "0") {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    });
    let done = switched.and_then(|()| fs::remove_file(MARK));
    done.map_err(|source| NetworkError::Io {
        what: "no longer passing packets on (ip_forward)".into(),
        source,
    })
}

fn switch_on() -> io::Result<()> {
    for switch in SWITCHES {
        match fs::read_to_string(switch) {
            Ok(value) if value.trim() == "0" => {
                fs::write(MARK, "")?;
                keep_routers()?;
                fs::write(switch, "1")?;
            }
            // No IPv6 here.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            read => drop(read?),
        }
    }
    Ok(())
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
