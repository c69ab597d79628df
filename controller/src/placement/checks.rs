//! Every check of admission: one function each, one reason at most.

use std::fmt::Display;

use godwit_proto::container::Mode;
use godwit_proto::device::Device;
use godwit_proto::overlay;

use super::Wish;
use super::facts::{NodeFacts, NodeState, is_same_arch};
use crate::refusal::Reason;

/// One check.
pub(super) type Check = fn(&Wish<'_>, &NodeFacts) -> Option<Reason>;

/// All of them; the first ones explain the later ones.
pub(super) const ALL: &[Check] = &[
    target_is_another,
    target_takes_containers,
    source_is_online,
    target_is_announced,
    image_fits_arch,
    arch_is_equal,
    engine_fits,
    criu_fits,
    source_can_checkpoint,
    target_can_restore,
    kernel_is_not_older,
    networks_reach,
    devices_are_there,
    memory_suffices,
    disk_suffices,
];

fn reason(code: &'static str, message: impl Display, remedy: impl Display) -> Option<Reason> {
    Some(Reason { code, message: message.to_string(), remedy: remedy.to_string() })
}

/// The source of a move that takes memory along.
fn live<'a>(wish: &Wish<'a>) -> Option<&'a NodeFacts> {
    wish.source.filter(|_| wish.mode != Mode::Cold)
}

fn target_is_another(wish: &Wish<'_>, target: &NodeFacts) -> Option<Reason> {
    let source = wish.source?;
    if source.node != target.node {
        return None;
    }
    reason(
        "same-node",
        format_args!("{} is on {} already", wish.name, target.node),
        "name another node with --to",
    )
}

fn target_takes_containers(_: &Wish<'_>, target: &NodeFacts) -> Option<Reason> {
    let node = &target.node;
    match target.state {
        NodeState::Online => None,
        NodeState::Draining => reason(
            "node-draining",
            format_args!("{node} is being drained and takes no more containers"),
            "choose another node, or undrain it",
        ),
        NodeState::Unjoined => reason(
            "node-unjoined",
            format_args!("{node} was seen on the network but has not joined this fabric"),
            format_args!("point its agent at this broker (`godwit-agent --broker …` on {node})"),
        ),
        NodeState::Offline | NodeState::Lost | NodeState::Fenced => reason(
            "node-offline",
            format_args!("{node} is {}", target.state),
            format_args!("start godwit-agent on {node}, or choose another node"),
        ),
    }
}

fn source_is_online(wish: &Wish<'_>, _: &NodeFacts) -> Option<Reason> {
    let source = wish.source?;
    if matches!(source.state, NodeState::Online | NodeState::Draining) {
        return None;
    }
    reason(
        "source-offline",
        format_args!("{}, where {} is, is {}", source.node, wish.name, source.state),
        format_args!("start godwit-agent on {}", source.node),
    )
}

fn target_is_announced(_: &Wish<'_>, target: &NodeFacts) -> Option<Reason> {
    if target.is_announced || target.state == NodeState::Unjoined {
        return None;
    }
    reason(
        "node-unannounced",
        format_args!("{} has not said yet what it is", target.node),
        "wait until its probe is done (`godwit node inspect`), then try again",
    )
}

fn image_fits_arch(wish: &Wish<'_>, target: &NodeFacts) -> Option<Reason> {
    let arch = wish.arch?;
    if !target.is_announced || is_same_arch(arch, &target.arch) {
        return None;
    }
    reason(
        "image-arch",
        format_args!("the image is for {arch}, {} is {}", target.node, target.arch),
        "choose a node of the image's architecture, or load an image for that one",
    )
}

fn arch_is_equal(wish: &Wish<'_>, target: &NodeFacts) -> Option<Reason> {
    let source = wish.source?;
    if !both_announced(source, target) || is_same_arch(&source.arch, &target.arch) {
        return None;
    }
    reason(
        "arch-differs",
        format_args!("{} is {} and {} is {}", source.node, source.arch, target.node, target.arch),
        "move to a node of the same architecture",
    )
}

fn engine_fits(wish: &Wish<'_>, target: &NodeFacts) -> Option<Reason> {
    if !target.is_announced {
        return None;
    }
    let Some((name, version)) = &target.engine else {
        return reason(
            "engine-missing",
            format_args!("{} has no container engine", target.node),
            format_args!("install podman there; `godwit-agent doctor` on {} says how", target.node),
        );
    };
    let (source_name, source_version) = live(wish)?.engine.as_ref()?;
    if source_name == name && source_version.series().0 == version.series().0 {
        return None;
    }
    reason(
        "engine-differs",
        format_args!(
            "a checkpoint of {source_name} {source_version} does not fit {name} {version} on {}",
            target.node
        ),
        "bring both nodes to the same engine, or move with --cold",
    )
}

fn criu_fits(wish: &Wish<'_>, target: &NodeFacts) -> Option<Reason> {
    let source = live(wish)?;
    if !both_announced(source, target) {
        return None;
    }
    let missing = |node: &NodeFacts| {
        reason(
            "criu-missing",
            format_args!("{} has no CRIU", node.node),
            format_args!(
                "install criu 4.2 or later there (`godwit-agent doctor` on {} says how), or move with --cold",
                node.node
            ),
        )
    };
    let (Some(from), Some(to)) = (&source.criu, &target.criu) else {
        return missing(if source.criu.is_none() { source } else { target });
    };
    if to.series() >= from.series() {
        return None;
    }
    reason(
        "criu-older",
        format_args!(
            "CRIU {to} on {} may not read what CRIU {from} on {} writes",
            target.node, source.node
        ),
        format_args!("update criu on {}, or move with --cold", target.node),
    )
}

fn source_can_checkpoint(wish: &Wish<'_>, _: &NodeFacts) -> Option<Reason> {
    probe(live(wish)?)
}

fn target_can_restore(wish: &Wish<'_>, target: &NodeFacts) -> Option<Reason> {
    live(wish).and_then(|_| probe(target))
}

fn probe(node: &NodeFacts) -> Option<Reason> {
    let why = node.probe_failure.as_ref()?;
    reason(
        "probe-failed",
        format_args!("{} cannot checkpoint and restore: {why}", node.node),
        format_args!("run `godwit-agent doctor` on {}, or move with --cold", node.node),
    )
}

fn kernel_is_not_older(wish: &Wish<'_>, target: &NodeFacts) -> Option<Reason> {
    let source = live(wish)?;
    let (from, to) = (source.kernel.as_ref()?, target.kernel.as_ref()?);
    if to.series() >= from.series() {
        return None;
    }
    reason(
        "kernel-older",
        format_args!(
            "processes from kernel {from} on {} may use what kernel {to} on {} lacks",
            source.node, target.node
        ),
        format_args!("update the kernel of {}, or move with --cold", target.node),
    )
}

fn memory_suffices(wish: &Wish<'_>, target: &NodeFacts) -> Option<Reason> {
    let free = target.memory_free_bytes?;
    if wish.memory_bytes <= free {
        return None;
    }
    reason(
        "memory-short",
        format_args!(
            "{} needs {} of memory, {} has {} left",
            wish.name,
            mebibytes(wish.memory_bytes),
            target.node,
            mebibytes(free)
        ),
        "free memory there, or choose another node",
    )
}

/// What of volumes has arrived and is not in place yet.
const VOLUMES_ON_THEIR_WAY: u64 = 64 << 20;

fn disk_suffices(wish: &Wish<'_>, target: &NodeFacts) -> Option<Reason> {
    let free = target.disk_free_bytes?;
    // An image is there twice for a moment, as an archive and unpacked; a checkpoint once.
    let checkpoint = if live(wish).is_some() { wish.memory_bytes } else { 0 };
    let volumes = match wish.volume_bytes {
        0 => 0,
        bytes => bytes.saturating_add(VOLUMES_ON_THEIR_WAY),
    };
    let needed = wish.image_bytes.saturating_mul(2).saturating_add(checkpoint);
    let needed = needed.saturating_add(volumes);
    if needed <= free {
        return None;
    }
    reason(
        "disk-short",
        format_args!(
            "{} needs {} of disk at {}, which has {} left",
            wish.name,
            mebibytes(needed),
            target.node,
            mebibytes(free)
        ),
        "free disk there, or choose another node",
    )
}

fn networks_reach(wish: &Wish<'_>, target: &NodeFacts) -> Option<Reason> {
    let needed = wish.overlay_mtu?;
    if !target.is_announced {
        return None;
    }
    let node = &target.node;
    let Some(end) = target.underlay else {
        return reason(
            "no-underlay",
            format_args!("{} is in a tenant's network, and {node} has no end of it", wish.name),
            format_args!("give {node}'s agent an address for that with --underlay"),
        );
    };
    let with_headers = u32::from(needed) + u32::from(overlay::overhead(end.address));
    if with_headers <= end.mtu.into() {
        return None;
    }
    reason(
        "mtu-short",
        format_args!(
            "packets of {}'s network have up to {needed} bytes, {with_headers} with VXLAN's \
             headers, and {node}'s link at {} takes {}",
            wish.name, end.address, end.mtu
        ),
        format_args!(
            "raise the link's MTU there, or make the container in a network that is made now"
        ),
    )
}

fn devices_are_there(wish: &Wish<'_>, target: &NodeFacts) -> Option<Reason> {
    let is_there = |device: &&Device| target.devices.contains(&device.name);
    let missing = wish.devices.iter().find(|device| !is_there(device))?;
    if !target.is_announced {
        return None;
    }
    let (node, label) = (&target.node, &missing.name);
    reason(
        "device-missing",
        format_args!("{} uses the device `{label}`, and {node} has none of that label", wish.name),
        format_args!(
            "declare it there (`godwit-agent run --device {label}=/dev/…`), or choose another node"
        ),
    )
}

fn both_announced(one: &NodeFacts, other: &NodeFacts) -> bool {
    one.is_announced && other.is_announced
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}
