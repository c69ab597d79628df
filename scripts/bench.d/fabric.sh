# shellcheck shell=bash
# shellcheck disable=SC2016,SC2034,SC2154 # inner shells expand theirs; scripts/bench sets ours
# A lab of the bench's own with a fabric in it, and what podman by hand stands in.
#
# Sourced by scripts/bench, which sets $here, $bin and $work.

# Brings up a lab with so many edge hosts, a controller with the options that follow, an agent
# on each edge; ready when all are fit to migrate.
start_fabric() {
  local count=$1 letters=({a..z}) edge
  shift
  scripts/setup
  [[ ${GODWIT_BIN:-} ]] || cargo build --release --workspace --bins --locked
  scripts/lab workload >/dev/null
  scripts/lab down >/dev/null 2>&1 || true
  say "a lab of its own: $GODWIT_LAB"
  scripts/lab up "$count"
  share=/var/lib/godwit-lab/$GODWIT_LAB/share
  in_host hub "$bin/godwit-controller" --data-dir /var/lib/godwit/controller \
    "$@" --broker-listen 0.0.0.0:1883 --anonymous anyone >"$work/controller.log" 2>&1 &
  for letter in "${letters[@]:0:count}"; do
    edge=edge-$letter
    in_host "$edge" "$bin/godwit-agent" run --node "$edge" >"$work/$edge.log" 2>&1 &
  done
  for edge in edge-a edge-b; do
    peer_network "$edge"
    in_host "$edge" podman load -qi "$here/target/workload/counter.tar" >>"$work/podman.log" 2>&1
  done
  await "all nodes are online and found fit" is_fit "$count"
  godwit image load "$here/target/workload/counter.tar" >/dev/null 2>&1
}
is_fit() {
  godwit node ls --format json |
    jq -e "map(select(.state == \"online\" and .info.probe.can_migrate)) | length == $1"
}

# A namespace with the peer's address, as the agent makes them; up, not attached.
peer_network() {
  in_host "$1" sh -ec 'ip netns del peer 2>/dev/null || true; ip netns add peer
    ip link add vpeer index 7000 type veth peer name eth0 netns peer
    ip -n peer link set lo up; ip -n peer link set eth0 address 02:77:03:00:00:c8 up
    ip -n peer addr add 10.77.200.1/16 dev eth0; ip link set vpeer up'
}
# Starts the peer there, at once attached; its options follow.
start_peer() {
  local edge=$1
  shift
  in_host "$edge" sh -ec 'ip link set vpeer master br0
    podman run -d --name peer --network ns:/run/netns/peer localhost/counter:1 "$@"' peer "$@" >>"$work/podman.log" 2>&1
}
