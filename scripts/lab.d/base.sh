# shellcheck shell=bash
# The root file system that every lab host lies over: Debian 13 with podman and
# runc, and CRIU from Debian testing, because 13's own cannot dump a TCP socket
# on kernels from 6.16 on. Built once per recipe, kept in $LAB_CACHE.
#
# Sourced by scripts/lab.

base_suite=trixie
base_criu_suite=forky
base_mirror=${GODWIT_DEBIAN_MIRROR:-http://deb.debian.org/debian}
base_packages=(
  podman runc conmon netavark aardvark-dns catatonit
  nftables iptables iproute2 iputils-ping procps psmisc libcap2-bin util-linux
  busybox-static ca-certificates tar zstd jq less tcpdump mosquitto mosquitto-clients
)

# Sets $base to the folder of the base for the present recipe; builds it if it is
# missing. Keeps the lock of all bases as fd 8: see lie_over_base.
ensure_base() {
  local recipe
  recipe=$( { declare -f build_base; echo "${base_packages[*]} $base_suite $base_criu_suite $base_mirror"; } | sha256sum)
  base=$LAB_CACHE/base-${recipe:0:12}
  mkdir -p "$LAB_CACHE"
  exec 8>>"$LAB_CACHE/lock"
  flock 8
  [[ ! -d $base ]] || return 0
  say "building the hosts' root in $base (Debian $base_suite, CRIU from $base_criu_suite; once, about two minutes; log: $LAB_CACHE/build.log)"
  prune_bases
  # In namespaces of its own, which die with this script: whatever the build
  # mounts or starts is gone however it ends, and the lock not before.
  setpriv --pdeathsig KILL unshare --mount-proc --pid --fork --kill-child \
    bash -c "set -euo pipefail; $(declare -p base_packages base_suite base_criu_suite base_mirror); $(declare -f build_base); build_base \"\$1\"" \
    build "$base.new" </dev/null >"$LAB_CACHE/build.log" 2>&1 \
    || die "the base could not be built; its last words are: $(tail -n 3 "$LAB_CACHE/build.log")"
  mv -T "$base.new" "$base"
}

# Notes in the lab's state which base it lies over, and lets go of the bases' lock:
# from then on that base is not removed. A lab keeps its base until it goes down.
lie_over_base() {
  if [[ ! -e $state/base ]]; then
    ln -sfn "$base" "$state/base"
  elif [[ ! $state/base -ef $base ]]; then
    say "lab $lab lies over an older root than this checkout's; for the new one: scripts/lab --lab $lab down, then up"
  fi
  exec 8>&-
}

# Removes half-built bases and those that no lab lies over. Call with the lock.
prune_bases() {
  local old link
  for old in "$LAB_CACHE"/base-*; do
    [[ -d $old ]] || continue
    for link in "$LAB_STATE"/*/base; do
      [[ $link -ef $old ]] && continue 2
    done
    rm -rf --one-file-system "$old"
  done
}

# Builds a base in the folder $1. Runs in its own mount and pid namespaces.
build_base() {
  local root=$1 packages
  mount --make-rprivate /
  packages=$(IFS=,; echo "${base_packages[*]}")
  debootstrap --variant=minbase --include="$packages" "$base_suite" "$root" "$base_mirror" \
    /usr/share/debootstrap/scripts/sid

  # What apt needs here to reach its mirror (a proxy, say) serves the build only.
  apt-config dump | grep '^Acquire::' >"$root/etc/apt/apt.conf.d/90build" || true
  cp /etc/resolv.conf "$root/etc/resolv.conf"
  printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
  chmod +x "$root/usr/sbin/policy-rc.d"
  cat >"$root/etc/apt/sources.list" <<LIST
deb $base_mirror $base_suite main
deb [check-valid-until=no] $base_mirror $base_criu_suite main
LIST
  printf 'Package: *\nPin: release n=%s\nPin-Priority: 100\n' "$base_criu_suite" \
    >"$root/etc/apt/preferences.d/$base_criu_suite"
  mount -t proc proc "$root/proc"
  export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
  chroot "$root" apt-get update -qq
  chroot "$root" apt-get install -qq --no-install-recommends -t "$base_criu_suite" criu libcriu2
  chroot "$root" apt-get clean
  umount "$root/proc"
  rm -rf "$root"/var/lib/apt/lists/* "$root/etc/apt/apt.conf.d/90build" "$root/usr/sbin/policy-rc.d"

  # runc: crun's restore fails. Files for events and no limit on pids: there is
  # neither journald nor, on every machine, a pids controller.
  mkdir -p "$root/etc/containers/networks" "$root/var/lib/containers" "$root/var/lib/godwit" "$root/lab" "$root/godwit"
  cat >"$root/etc/containers/containers.conf" <<'CONF'
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[containers]
pids_limit = 0
log_driver = "k8s-file"
CONF
  : >"$root/etc/resolv.conf"
  : >"$root/etc/machine-id"
}
