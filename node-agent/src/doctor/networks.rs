//! What the node's kernel can do for networks, and what falls away where it cannot.

use super::Finding;
use super::checks::{fit, unfit};
use crate::hands::told;
use crate::network::{NetworkError, names, trial};

/// What nft comes with.
const NFT: &str = "apt install nftables; the kernel needs nf_tables (CONFIG_NF_TABLES_INET, \
                   CONFIG_NF_TABLES_NETDEV)";

/// Every check of networks, in the order in which they should be mended. Blocks.
pub(super) fn all() -> Vec<Finding> {
    let tried = match trial() {
        Ok(tried) => tried,
        Err(error) => {
            let message = format!("no network namespace can be made: {error}");
            return vec![unfit("networks", message, "CONFIG_NET_NS; run the agent as root")];
        }
    };
    vec![
        judge("packets", tried.packets, "frames are announced and held in moves", PACKETS),
        judge("guard", tried.guard, "connections survive moves", NFT),
        judge("ports", tried.ports, "containers send under no addresses but their own", NFT),
        wish(judge("overlays", tried.overlay, "tenants' networks reach this node", VXLAN)),
        wish(judge("nat", tried.nat, "names, published ports and ways out are here", NAT)),
        wish(resolver(names::program().is_some())),
        wish(ipv6(tried.ipv6)),
    ]
}

const PACKETS: &str = "CONFIG_PACKET, and CAP_NET_RAW for the agent";
const VXLAN: &str = "CONFIG_VXLAN and CONFIG_BRIDGE; \
                     containers of `--network direct` need none of them";
const NAT: &str =
    "CONFIG_NETFILTER_EGRESS (Linux 5.16), CONFIG_NFT_NAT, CONFIG_NFT_MASQ and CONFIG_NFT_FIB_INET";

/// `so_that` is what it is good for, and what is not so without it.
fn judge(check: &str, tried: Result<(), NetworkError>, so_that: &str, remedy: &str) -> Finding {
    match tried {
        Ok(()) => fit(check, so_that),
        Err(error) => unfit(check, format!("not so: {so_that} ({})", told(&error)), remedy),
    }
}

fn resolver(is_there: bool) -> Finding {
    if is_there {
        return fit("names", "aardvark-dns answers containers in tenants' networks");
    }
    let message = "containers in tenants' networks find each other by address only on this node: \
                   aardvark-dns is not installed";
    unfit("names", message, "apt install aardvark-dns")
}

fn ipv6(is_there: bool) -> Finding {
    if is_there {
        return fit("ipv6", "in the kernel");
    }
    let message = "containers with IPv6 addresses cannot be here: this kernel has no IPv6";
    unfit("ipv6", message, "boot without ipv6.disable=1, or start the controller with --no-ipv6")
}

/// The node is fit without it.
fn wish(finding: Finding) -> Finding {
    Finding { required: false, ..finding }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_falls_away_is_said_with_what_to_do() {
        let missing = || Err(NetworkError::NoLink("gx".into()));
        let findings = [
            judge("overlays", missing(), "tenants' networks reach this node", VXLAN),
            resolver(false),
            ipv6(false),
        ];
        for finding in findings {
            assert!(!finding.ok && !finding.remedy.is_empty(), "{finding:?}");
        }
        assert!(judge("overlays", Ok(()), "all is well", VXLAN).ok);
    }
}
