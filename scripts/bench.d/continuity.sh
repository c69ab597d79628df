# shellcheck shell=bash
# shellcheck disable=SC2016,SC2154 # inner shells expand theirs; scripts/bench sets ours
# What clients notice of moves: of a container in its tenant's network, published, through a
# node where it is not (edge-c). Its moves are between edge-a and edge-b.
#
# Sourced by scripts/bench.

entry=10.77.0.13

# TCP clients in the host client, until they are hung up: the name of their report, how many
# are to be connected, and what dial is told.
call() {
  local as=$1 count=$2 port
  shift 2
  port=${1##*:}
  in_host client "$here/target/workload/dial" "$@" >"$work/$as.dial" 2>>"$work/dial.log" &
  calls+=("$!")
  await "$count clients are connected to $1" are_connected "$count" "$port"
}
are_connected() { (($(in_host client ss -Htn state established dport = ":$2" | wc -l) >= $1)); }
# Ends all clients; their reports are whole then. What they lost is said there.
end_calls() {
  local call
  in_host client pkill -TERM -x dial
  for call in "${calls[@]}"; do wait "$call" || true; done
  calls=()
}
# A figure of a report.
told() { jq -e ".$2" "$work/$1.dial"; }
# Notes what became of connections that must not be lost.
note_kept() {
  local as=$1 case=$2 subject=$3
  [[ $(told "$as" wrong_bytes) == 0 ]] || { say "$case, $subject: $(<"$work/$as.dial")"; return 1; }
  [[ $subject != godwit || $(told "$as" connections_lost) == 0 ]] || say "$case, a connection was lost: $(<"$work/$as.dial")"
  sample "$case" "$subject" client_gap_ms "$(told "$as" longest_gap_ms)"
  sample "$case" "$subject" connections_lost "$(told "$as" connections_lost)"
  sample "$case" "$subject" connections_moved "$(told "$as" 'connections - .connections_lost')"
}

# Starts a counter on a node and waits until it is answered through the entry.
publish() {
  local container=$1 node=$2 port=$3 mb=$4
  shift 4
  godwit run --name "$container" --node "$node" -p "$port:7000" "$@" \
    counter:1 --memory-mb "$mb" --echo 7000 --drain 7001 >/dev/null
  await "$container answers" is_answered "$entry:$port"
}
is_answered() { [[ $(in_host client timeout 1 "$here/target/workload/dial" "$1" | jq '.replies > 0 and .lost == null') == true ]]; }
move() { godwit migrate "$1" --to "$2" >>"$work/godwit.log" 2>&1; }
remove() { godwit rm --force "$@" >/dev/null; }

# The peer's client, that has to come again.
call_peer() { call peer 1 10.77.200.1:7000 --pause-ms 5 --reconnect 100; }

peer_is_moved() {
  local from=$1 to=$2
  rm -f "$share"/peer.tar*
  peer_network "$to"
  call_peer
  in_host "$to" sh -ec 'until [ -e /lab/peer.tar ]; do sleep .005; done
    ip link set vpeer master br0
    podman container restore --tcp-established --import /lab/peer.tar' >>"$work/podman.log" 2>&1 &
  local target=$!
  in_host "$from" sh -ec 'podman container checkpoint --tcp-established --export /var/tmp/peer.tar -c none peer
    ip link set vpeer nomaster
    cp /var/tmp/peer.tar /lab/peer.part; mv /lab/peer.part /lab/peer.tar' >>"$work/podman.log" 2>&1
  wait "$target"
  end_calls
  in_host "$from" podman rm -f peer >>"$work/podman.log" 2>&1
  note_kept peer "$case" podman
}

peer_is_restarted() {
  local from=$1 to=$2 mb=$3
  peer_network "$to"
  call_peer
  in_host "$from" sh -ec 'podman rm -f -t0 peer; ip link set vpeer nomaster' >>"$work/podman.log" 2>&1
  start_peer "$to" --memory-mb "$mb" --echo 7000
  end_calls
  note_kept peer "$case" restart
}

# The client's gap, beside the hand-over's own.
gaps() {
  local mb=$1 port=$((7000 + $1)) run to
  publish "c$mb" edge-a "$port" "$mb"
  start_peer edge-a --memory-mb "$mb" --echo 7000
  for ((run = 1; run <= runs; run++)); do
    say "$case, run $run of $runs"
    for to in edge-b edge-a; do
      call godwit 1 "$entry:$port" --pause-ms 5
      move "c$mb" "$to"
      end_calls
      note_kept godwit "$case" godwit
      sample "$case" godwit handover_ms "$(godwit migration ls --format json | jq -e '
        .[0].timeline | map({(.moment): .us}) | add | (.running - .freezing) / 1000')"
      if [[ $to == edge-b ]]; then peer_is_moved edge-a edge-b; else peer_is_restarted edge-b edge-a "$mb"; fi
    done
  done
  in_host edge-a sh -ec 'podman rm -f -t0 peer; ip link set vpeer nomaster' >>"$work/podman.log" 2>&1
  remove "c$mb"
}

# So many moves of 16 MB under so many clients.
moves_under() {
  local moves=$1 count=$2 n
  shift 2
  publish held edge-a 7900 16
  call held "$count" "$entry:7900" --connections "$count" "$@"
  for ((n = 1; n <= moves; n++)); do
    if ((n % 2)); then move held edge-b; else move held edge-a; fi
  done
  end_calls
  note_kept held "$case" godwit
  sample "$case" godwit moves "$moves"
  remove held
}

bulk() {
  publish bulk edge-a 7901 64
  call bulk 1 "$entry:7901" --bulk
  sleep 2
  move bulk edge-b
  sleep 2
  end_calls
  sample bulk godwit wrong_bytes "$(told bulk wrong_bytes || true)"
  note_kept bulk bulk godwit
  sample bulk godwit mb_per_s "$(told bulk mb_per_s)"
  remove bulk
}

# The report of a client that is hung up after some seconds.
call_for() {
  local as=$1 seconds=$2
  shift 2
  in_host client timeout --preserve-status "$seconds" "$here/target/workload/dial" "$@" >"$work/$as.dial"
}

published() {
  local run direct
  publish served edge-a 7902 16 -p 7903:7001
  in_host edge-a "$here/target/workload/counter" --memory-mb 1 --echo 7904 --drain 7905 >"$work/direct.log" 2>&1 &
  direct=$!
  await "the process is answered" is_answered 10.77.0.11:7904
  for ((run = 1; run <= runs; run++)); do against_direct godwit-bridged; done
  take_off_bridge edge-a
  take_off_bridge edge-c
  for ((run = 1; run <= runs; run++)); do against_direct godwit; done
  put_on_bridge edge-a
  put_on_bridge edge-c
  kill "$direct"
  wait "$direct" || true
  remove served
}
# The published port and the process, one after the other.
against_direct() {
  call_for through 2 "$entry:7902" --pause-ms 1
  call_for straight 2 10.77.0.11:7904 --pause-ms 1
  sample published "$1" p50_ms "$(told through p50_ms)"
  sample published "${1/godwit/direct}" p50_ms "$(told straight p50_ms)"
  sample published "$1" extra_ms "$(jq -s '.[0].p50_ms - .[1].p50_ms' "$work"/{through,straight}.dial)"
  call_for through 2 "$entry:7903" --pour
  call_for straight 2 10.77.0.11:7905 --pour
  sample published "$1" mb_per_s "$(told through mb_per_s)"
  sample published "${1/godwit/direct}" mb_per_s "$(told straight mb_per_s)"
  sample published "$1" throughput_ratio "$(jq -s '.[0].mb_per_s / .[1].mb_per_s' "$work"/{through,straight}.dial)"
}
# Gives a node's address to its link itself, or back to the bridge.
take_off_bridge() {
  in_host "$1" sh -ec 'address=$(ip -br -4 address show br0 | tr -s " " | cut -d" " -f3)
    ip link set eth0 nomaster; ip address del "$address" dev br0; ip address add "$address" brd + dev eth0'
}
put_on_bridge() {
  in_host "$1" sh -ec 'address=$(ip -br -4 address show eth0 | tr -s " " | cut -d" " -f3)
    ip address del "$address" dev eth0; ip link set eth0 master br0; ip address add "$address" brd + dev br0'
}

# Gives the links of both nodes a rate, both ways, with a queue of 100 ms at each end; or takes it away.
shape() {
  local edge switch
  switch=$(<"/var/lib/godwit-lab/$GODWIT_LAB/switch.pid")
  local qdisc=(root tbf rate "$1" burst 16kb latency 100ms)
  for edge in edge-a edge-b; do
    if [[ $1 == no ]]; then
      in_host "$edge" tc qdisc del dev eth0 root
      nsenter --target "$switch" --net tc qdisc del dev "$edge" root
    else
      in_host "$edge" tc qdisc replace dev eth0 "${qdisc[@]}"
      nsenter --target "$switch" --net tc qdisc replace dev "$edge" "${qdisc[@]}"
    fi
  done
}

# Other containers' small messages on narrow links, quiet and beside a move.
narrow() {
  local run to from begun end
  publish near edge-a 7906 1
  publish far edge-b 7907 1
  publish mover edge-a 7908 64
  shape "$case"
  for ((run = 1; run <= runs; run++)); do
    for to in edge-b edge-a; do
      say "$case, run $run of $runs, to $to"
      if [[ $to == edge-b ]]; then from='edge-a'; else from='edge-b'; fi
      call_beside
      sleep 4
      end_calls
      note_beside quiet
      call_beside
      begun=$(now_ms)
      move mover "$to"
      sample "$case" godwit move_ms $(($(now_ms) - begun))
      end_calls
      note_beside moving
    done
  done
  shape no
  remove near far mover
}
call_beside() {
  call edge-a 1 10.77.0.11:7906 --pause-ms 5
  call edge-b 1 10.77.0.12:7907 --pause-ms 5
}
note_beside() {
  for end in "source $from" "target $to"; do
    sample "$case" godwit "${end% *}_$1_p99_ms" "$(told "${end#* }" p99_ms)"
    sample "$case" godwit "${end% *}_$1_p50_ms" "$(told "${end#* }" p50_ms)"
  done
}

continuity() {
  calls=()
  start_fabric 3
  for case in 16MB 64MB 256MB 1024MB 100-moves 200-connections bulk published 100mbit 10mbit; do
    is_wanted "$case" || continue
    say "$case"
    case $case in
      *MB) gaps "${case%MB}" ;;
      100-moves) moves_under 100 1 --pause-ms 5 ;;
      200-connections) for ((run = 1; run <= runs; run++)); do moves_under 2 200 --pause-ms 100; done ;;
      bulk) for ((run = 1; run <= runs; run++)); do bulk; done ;;
      published) published ;;
      *mbit) narrow ;;
    esac
  done
}
