//! What links and namespaces are called.

use godwit_proto::id::ContainerId;

/// What every namespace of ours is named with.
const PREFIX: &str = "godwit-";

fn short(id: ContainerId) -> String {
    id.0.simple().to_string()[..8].to_owned()
}

pub(super) fn namespace(id: ContainerId) -> String {
    format!("{PREFIX}{}", short(id))
}

/// An interface's name inside.
pub(super) fn inside(ordinal: usize) -> String {
    format!("eth{ordinal}")
}

/// The veth's end in the host.
pub(super) fn host_end(id: ContainerId, ordinal: usize) -> String {
    link("gw", id, ordinal)
}

/// The other end's name before it is moved inside.
pub(super) fn peer(id: ContainerId, ordinal: usize) -> String {
    link("gp", id, ordinal)
}

fn link(kind: &str, id: ContainerId, ordinal: usize) -> String {
    match ordinal {
        0 => format!("{kind}{}", short(id)),
        _ => format!("{kind}{}-{ordinal}", short(id)),
    }
}

/// The host end's index: one of its own, far above those that the kernel gives.
///
/// When both ends of a veth happen to have the same index, each in its namespace, the
/// kernel takes the change of carrier for one that is not urgent, and the link works up to
/// a second late (measured in the lab; `linkwatch` compares the two).
pub(super) fn index(id: ContainerId, ordinal: usize) -> u32 {
    let all = id.0.as_bytes();
    let four = std::array::from_fn(|at| all[(ordinal + at) % all.len()]);
    u32::from_be_bytes(four) >> 2 | 1 << 30
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use godwit_proto::container::MAX_INTERFACES;

    use super::*;

    #[test]
    fn names_fit_the_kernel_and_name_the_container() {
        let id: ContainerId = "6f1d1c1e-1111-4222-8333-444455556666".parse().expect("id");
        assert_eq!(namespace(id), "godwit-6f1d1c1e");
        assert_eq!(host_end(id, 0), "gw6f1d1c1e");
        let last = MAX_INTERFACES - 1;
        assert_eq!(host_end(id, last), "gw6f1d1c1e-7");
        assert!(peer(id, last).len() <= 15);
        let indexes: BTreeSet<_> = (0..MAX_INTERFACES).map(|ordinal| index(id, ordinal)).collect();
        assert_eq!(indexes.len(), MAX_INTERFACES);
    }
}
