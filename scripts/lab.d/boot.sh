#!/usr/bin/env bash
# What a host runs from nothing to its pid 1. Two stages in one file, for the
# namespaces must be made in this order:
#   boot.sh join HOST…   in the host's cgroup, outside any namespace of its own
#   boot.sh pid1 HOST…   pid 1 of the new host: mounts, pivot, reaper
# Arguments: stage, host, lab's state folder, checkout, host's cgroup, leaf.
#
# Run by start_host of host.sh, never by hand.
set -euo pipefail
stage=$1 host=$2 state=$3 repo=$4 cgroup=$5 leaf=$6
home=$state/hosts/$host

if [[ $stage == join ]]; then
  # The cgroup namespace's root is where its maker stands: first the namespace at
  # the host's cgroup, then down into the leaf, where processes may live while
  # the cgroup's controllers are handed on to containers.
  [[ $leaf == "$cgroup" ]] || echo $$ >"$leaf/cgroup.procs"
  exec unshare --mount --uts --ipc --net --pid --fork bash "$0" pid1 "${@:2}"
fi

read -r pid _ </proc/self/stat # as the machine counts: /proc is still the machine's
mount --make-rprivate /
mkdir -p "$home"/{upper,work,root,containers,networks,godwit}
mount -t overlay overlay -o "lowerdir=$(readlink -f "$state/base"),upperdir=$home/upper,workdir=$home/work" "$home/root"
cd "$home/root"

mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev
mkdir dev/{pts,shm,mqueue,net}
mount -t tmpfs -o mode=1777 tmpfs dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620,gid=5 devpts dev/pts
mount -t mqueue mqueue dev/mqueue
while read -r node major minor; do
  mknod -m 666 "dev/$node" c "$major" "$minor"
done <<'NODES'
null 1 3
zero 1 5
full 1 7
random 1 8
urandom 1 9
tty 5 0
fuse 10 229
net/tun 10 200
NODES
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s /proc/self/fd/0 dev/stdin
ln -s /proc/self/fd/1 dev/stdout
ln -s /proc/self/fd/2 dev/stderr

# Storage lies on the machine's own file system: podman's overlays do not stand
# on an overlay.
mount --bind "$home/containers" var/lib/containers
mount --bind "$home/networks" etc/containers/networks
mount --bind "$home/godwit" var/lib/godwit
mount --bind "$state/share" lab
mount --bind "$state/etc-hosts" etc/hosts
see() { # bind the folder $1 read-only at $2
  mkdir -p "./$2"
  mount --bind "$1" "./$2"
  mount -o remount,bind,ro "./$2"
}
see "$repo" godwit
see "$repo" "$repo"
# Where the applications of scripts/lab applications are, beside the hosts' root.
cache=$(dirname "$(readlink -f "$state/base")")
see "$cache" "$cache"
if [[ -n ${CARGO_TARGET_DIR:-} && -d $CARGO_TARGET_DIR && $CARGO_TARGET_DIR != "$repo"/* ]]; then
  see "$CARGO_TARGET_DIR" "$CARGO_TARGET_DIR"
fi
md5sum <<<"$home" | cut -c1-32 >etc/machine-id
echo "$host" >etc/hostname
hostname "$host"

mkdir -p run/machine
pivot_root . run/machine
cd /
# The mark of a host that is up, and the last thing done with the machine's files.
echo "$pid" >"/run/machine$home/pid.new"
mv "/run/machine$home/pid.new" "/run/machine$home/pid"
umount -l /run/machine
rmdir /run/machine
exec env -i PATH=/usr/sbin:/usr/bin catatonit -P </dev/null >/dev/null 2>&1
