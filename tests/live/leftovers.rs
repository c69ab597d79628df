//! What a host holds once a move is over: all of a container, or nothing.

use godwit_tests::{Fabric, eventually};

/// Everything that a container or a move may put on a host, a line each.
fn held(fabric: &Fabric, host: &str) -> Vec<String> {
    let script = "
        podman ps -aq | sed 's/^/container /'
        ls /run/netns 2>/dev/null | sed 's/^/namespace /'
        ip -o link | grep -o 'gw[0-9a-f]*\\|gp[0-9a-f]*' | sort -u | sed 's/^/link /'
        ls /run/godwit/images | sed 's/^/image /'
        ls /run/godwit/gated /run/godwit/frozen /run/godwit/removals 2>/dev/null | grep -v : | grep . | sed 's/^/mark /'
        for n in $(ls /run/netns 2>/dev/null); do ip netns exec $n nft list tables | sed 's/^/guard /'; done
        ls /var/lib/godwit/spool | sed 's/^/spool /'
        find /var/lib/godwit/work -type f ! -name probe.json ! '(' -name trial -empty ')' | sed 's/^/work /'
        ls /sys/fs/cgroup/libpod_parent 2>/dev/null | grep '^libpod-' | sed 's/^/cgroup /'
        find /run/runc -mindepth 1 -maxdepth 1 2>/dev/null | sed 's/^/runc /'
        find /var/tmp /tmp -mindepth 1 -maxdepth 1 | grep -v storage | sed 's/^/temporary /'
        grep criu /proc/self/mountinfo | sed 's/^/mount /'";
    let said = fabric.lab().run(host, &["sh", "-c", script]);
    said.out.lines().map(str::to_owned).collect()
}

/// Waits until a host holds nothing of any container.
#[track_caller]
pub(crate) fn holds_nothing(fabric: &Fabric, host: &str) {
    eventually(&format!("{host} holds nothing"), || {
        let held = held(fabric, host);
        if held.is_empty() { Ok(()) } else { Err(held) }
    });
}

/// Waits until a host holds one running container, and nothing of any move.
#[track_caller]
pub(crate) fn holds_one(fabric: &Fabric, host: &str) {
    eventually(&format!("{host} holds one container and no more"), || {
        let held = held(fabric, host);
        let of = |what: &str| held.iter().filter(|line| line.starts_with(what)).count();
        let one = ["container", "namespace", "link", "cgroup", "runc"].map(of) == [1; 5];
        let rest = ["image", "mark", "guard", "spool", "work", "temporary", "mount"];
        let rest = rest.map(of) == [0; 7];
        if one && rest { Ok(()) } else { Err(held) }
    });
}
