# shellcheck shell=bash
# The lab's network: one switch (a bridge in a namespace that a process of its own
# holds), a veth from it into each host, and in the host a bridge br0 that has the
# host's address and will have its containers' links.
#
# Sourced by scripts/lab. All links live in the lab's namespaces and go with them.

# Bridges take the lowest MAC of their ports unless told, and a MAC that changes
# when a container's link arrives stalls the host's own connections: all are set.
link_mac() { # KIND HOST
  local last=${1:?} address
  address=$(host_address "$2")
  printf '02:77:%s:00:00:%02x' "$last" "${address##*.}"
}

switch_is_alive() {
  local pid word
  read -r pid <"$state/switch.pid" || return 1
  read -r word <"/proc/$pid/comm" || return 1
  [[ $word == sleep ]] && grep -qx "$pid" "$cgroup/switch/cgroup.procs" || return 1
  nsenter --target "$pid" --net ip link show lab-switch | grep -q '[<,]UP[,>]'
} 2>/dev/null

# Makes the switch if it is not there. Its links to hosts are ensure_link's.
ensure_switch() {
  switch_is_alive && return
  local pid
  empty_cgroup "$cgroup/switch"
  rm -f "$state/switch.pid"
  mkdir -p "$cgroup/switch"
  (
    echo "$BASHPID" >"$cgroup/switch/cgroup.procs"
    exec 9>&-
    # shellcheck disable=SC2016 # expanded inside
    exec setsid unshare --net bash -c '
      ip link set lo up
      ip link add lab-switch address 02:77:00:00:00:00 type bridge stp_state 0 mcast_snooping 0
      ip link set lab-switch up
      echo $$ >"$1/switch.pid"
      exec sleep infinity' switch "$state"
  ) </dev/null >"$state/switch.log" 2>&1 &
  local tries
  for ((tries = 0; tries < 500; tries++)); do
    switch_is_alive && return
    sleep 0.01
  done
  die "the lab's switch did not come up: $(tail -n 3 "$state/switch.log")"
}

# Has the host its whole network: bridge, address, a link whose other end is up?
link_is_whole() {
  local pid seen
  pid=$(host_pid "$1")
  seen=$(nsenter --target "$pid" --net sh -c 'ip -oneline address show dev br0; ip -oneline link' 2>/dev/null) || return 1
  [[ $seen == *"inet $(host_address "$1")/16 "* && $seen =~ br0:[^$'\n']*state\ UP && $seen =~ eth0@[^$'\n']*master\ br0\ state\ UP ]]
}

# Joins a host to the switch, anew if anything of it is missing.
ensure_link() {
  link_is_whole "$1" && return
  local host=$1 pid switch address tries
  pid=$(host_pid "$host")
  address=$(host_address "$host")
  switch=$(cat "$state/switch.pid")
  nsenter --target "$switch" --net ip link del "$host" 2>/dev/null || true
  nsenter --target "$pid" --net ip link del eth0 2>/dev/null || true
  nsenter --target "$pid" --net ip link add br0 type bridge stp_state 0 mcast_snooping 0 2>/dev/null || true
  # An index far from those inside the hosts: the kernel takes a veth whose two ends
  # chance to have the same index for a common device, and lets a second pass
  # before it says that the link is up.
  nsenter --target "$switch" --net ip -batch - <<BATCH || die "$host cannot be joined to the lab's switch"
link add $host index $((1000 + ${address##*.})) type veth peer name eth0 netns $pid
link set $host master lab-switch up
BATCH
  nsenter --target "$pid" --net ip -batch - <<BATCH || die "the network inside $host cannot be set up"
link set lo up
link set br0 address $(link_mac 01 "$host") up
link set eth0 address $(link_mac 02 "$host") master br0 up
address replace $address/16 brd + dev br0
BATCH
  # Where bridged frames pass iptables, stale conntrack stalls a container that
  # comes back.
  # shellcheck disable=SC2016 # expanded inside
  nsenter --target "$pid" --net sh -c 'for f in /proc/sys/net/bridge/bridge-nf-call-*tables; do [ ! -e "$f" ] || echo 0 >"$f"; done'
  # What is sent before the link is up is lost, and a lost ARP costs a second.
  for ((tries = 0; tries < 100; tries++)); do
    link_is_whole "$host" && return
    sleep 0.05
  done
  die "$host's link to the lab's switch does not come up"
}

# One /etc/hosts for all: a file bound into every host and rewritten in place.
name_hosts() {
  local host
  {
    echo "127.0.0.1 localhost"
    echo "::1 localhost ip6-localhost"
    for host in $(lab_hosts); do echo "$(host_address "$host") $host"; done
  } >"$state/etc-hosts.new"
  cmp -s "$state/etc-hosts.new" "$state/etc-hosts" || cat "$state/etc-hosts.new" >"$state/etc-hosts"
  rm "$state/etc-hosts.new"
}
