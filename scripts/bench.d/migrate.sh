# shellcheck shell=bash
# shellcheck disable=SC2016,SC2154 # inner shells expand theirs; scripts/bench sets ours
# Moves of the counter: by godwit, armed and plain, and by hand; and the picture of their gaps.
#
# Sourced by scripts/bench.

# The observer's word on the counter that reports to a port.
ticks() { in_host client "$here/target/workload/observe" --ask "10.77.0.2:$1" | jq -e '.instances[0]'; }
# It ticked more than so many times.
has_ticked() { ticks "$1" | jq -e ".count > $2"; }
# A new observer on a port: the book of one move. (A list of gaps would end at 200.)
observe_anew() {
  in_host client sh -c "read -r pid </lab/observe-$1 && kill \$pid && while kill -0 \$pid; do sleep .01; done" >/dev/null 2>&1 || true
  in_host client sh -c "echo \$\$ >/lab/observe-$1; exec $here/target/workload/observe --listen 0.0.0.0:$1" >/dev/null 2>&1 &
  await "a counter ticks to port $1" has_ticked "$1" 20
}
# Waits until it ticks anew, then notes its longest silence.
note_gap() {
  local port=$1 subject=$2
  await "$subject's counter ticks on" has_ticked "$port" "$(($(ticks "$port" | jq .count) + 40))"
  ticks "$port" | jq -e '.missing == 0 and .doubled == 0 and .corrupt_pages == 0 and .gap_count > 0' >/dev/null ||
    { say "$subject lost or doubled ticks"; ticks "$port" >&2; return 1; }
  sample "${mb}MB" "$subject" gap_ms "$(ticks "$port" | jq .longest_gap_ms)"
}

# A TCP client of the counter, for one move.
dial() {
  in_host client "$here/target/workload/dial" "$(godwit inspect "g$mb" --format '{{ ip }}'):7000" >"$work/dial" 2>>"$work/dial.log" &
  dialer=$!
  await "the TCP client is answered" godwit_is_dialled
}
godwit_is_dialled() { in_host client ss -Htn state established dport = :7000 | grep -q .; }
hang_up() {
  in_host client pkill -TERM -x dial
  wait "$dialer" || { say "the TCP client lost its connection: $(<"$work/dial")"; return 1; }
  sample "${mb}MB" "$1" client_gap_ms "$(jq .longest_gap_ms "$work/dial")"
}

# A move by godwit, armed or (--plain) not.
godwit_move() {
  local subject=$1 from=$2 to=$3 last
  shift 3
  observe_anew "$ours"
  dial
  godwit migrate "g$mb" --to "$to" "$@" >>"$work/godwit.log" 2>&1
  note_gap "$ours" "$subject"
  hang_up "$subject"
  last=$(godwit migration ls --format json | jq '.[0]')
  jq -e '.outcome == "moved"' <<<"$last" >/dev/null || { say "$last"; return 1; }
  sample "${mb}MB" "$subject" total_ms "$(jq '
    def ms: capture("(?<s>[^.]*)(?<f>[.][0-9]+)?Z") | ("\(.s)Z" | fromdate) * 1000 + ((.f // "0") | "0\(.)" | tonumber) * 1000;
    (.ended | ms) - (.started | ms)' <<<"$last")"
  sample "${mb}MB" "$subject" bytes "$(jq .wire_bytes <<<"$last")"
  # What of the gap is CRIU: dump and restore; what is the wire: from the end of the dump to the last byte.
  jq -e '(.timeline | map({(.moment): .us}) | add) as $at
    | [$at.dumping, $at.dumped, $at["last-byte"], $at.restoring, $at.staged, $at.running] | all' <<<"$last" >/dev/null ||
    { say "its time line has holes: $(jq -c .timeline <<<"$last")"; return 1; }
  local part
  for part in 'dump_ms:$at.dumped - $at.dumping' 'wire_ms:$at["last-byte"] - $at.dumped' \
    'restore_ms:$at.staged - $at.restoring' 'open_ms:$at.running - $at.opening' \
    'fabric_ms:$at.running - ($at.dumped - $at.dumping) - ([$at["last-byte"] - $at.dumped, 0] | max) - ($at.staged - $at.restoring)'; do
    sample "${mb}MB" "$subject" "${part%%:*}" \
      "$(jq "(.timeline | map({(.moment): .us}) | add) as \$at | (${part#*:}) / 1000" <<<"$last")"
  done
  for edge in "$from" "$to"; do
    sample "${mb}MB" "$subject" agent_rss_mb "$(resident "$edge" VmHWM)"
  done
}
# Of an edge's agent, in MB: now (VmRSS) or at most so far (VmHWM).
resident() {
  in_host "$1" sh -c 'awk "/'"$2"'/ {print \$2 / 1024}" "/proc/$(pgrep -ox godwit-agent)/status"'
}

# One more armed move, while the podman of both nodes is asked what runs, over and over: how long
# it kept them waiting at most.
ask_meanwhile() {
  local from=$1 to=$2 edge asking=()
  rm -f "$share"/asked*
  for edge in "$from" "$to"; do
    in_host "$edge" sh -c 'worst=0
      until [ -e /lab/asked ]; do
        begun=$(date +%s%3N); podman ps -q >/dev/null; took=$(($(date +%s%3N) - begun))
        [ $took -le $worst ] || worst=$took
      done
      echo $worst >"/lab/asked-'"$edge"'"' &
    asking+=($!)
  done
  godwit migrate "g$mb" --to "$to" >>"$work/godwit.log" 2>&1
  : >"$share/asked"
  wait "${asking[@]}"
  sample "${mb}MB" godwit ps_source_ms "$(<"$share/asked-$from")"
  sample "${mb}MB" godwit ps_target_ms "$(<"$share/asked-$to")"
}

# By hand, as fast as hands can be: the target waits for the file, nothing is compressed.
podman_move() {
  local from=$1 to=$2 since end
  rm -f "$share"/peer.tar*
  observe_anew "$theirs"
  in_host "$to" sh -ec 'until [ -e /lab/peer.tar ]; do sleep .005; done
    ip link set vpeer master br0
    podman container restore --import /lab/peer.tar >/dev/null; date +%s%3N >/lab/peer.end' >>"$work/podman.log" 2>&1 &
  local target=$!
  since=$(in_host "$from" sh -ec 'date +%s%3N
    podman container checkpoint --export /var/tmp/peer.tar -c none peer >/dev/null
    ip link set vpeer nomaster
    cp /var/tmp/peer.tar /lab/peer.part; mv /lab/peer.part /lab/peer.tar' 2>>"$work/podman.log")
  wait "$target"
  end=$(<"$share/peer.end")
  sample "${mb}MB" podman total_ms "$((end - since))"
  in_host "$from" podman rm -f peer >>"$work/podman.log" 2>&1
  note_gap "$theirs" podman
}

migrate() {
  start_fabric 2 --network direct
  for edge in edge-a edge-b; do sample 0MB godwit agent_rss_mb "$(resident "$edge" VmRSS)"; done
  for mb in ${GODWIT_BENCH_CASES:-16 64 256 1024}; do
    ours=$((7000 + mb)) theirs=$((8000 + mb))
    godwit run --name "g$mb" --node edge-a counter:1 --memory-mb "$mb" --tick-ms 5 --echo 7000 --report "10.77.0.2:$ours" >/dev/null
    start_peer edge-a --memory-mb "$mb" --tick-ms 5 --report "10.77.0.2:$theirs"
    for ((run = 1; run <= runs; run++)); do
      say "$mb MB, run $run of $runs: there and back, armed, plain and by hand"
      godwit_move godwit edge-a edge-b
      godwit_move godwit-plain edge-b edge-a --plain
      podman_move edge-a edge-b
      godwit_move godwit-plain edge-a edge-b --plain
      godwit_move godwit edge-b edge-a
      podman_move edge-b edge-a
      ask_meanwhile edge-a edge-b
      ask_meanwhile edge-b edge-a
    done
    godwit rm --force "g$mb" >/dev/null
    in_host edge-a sh -ec 'podman rm -f -t0 peer; ip link set vpeer nomaster' >>"$work/podman.log" 2>&1
  done
}

# The median gaps as bars, a group for each size; by hand is as long in every group.
draw() {
  jq -r '
    def colour: {"godwit": "#1a7f64", "godwit-plain": "#8cc5b4", "podman": "#b0b0b0"}[.];
    [.rows[] | select(.metric == "gap_ms")] | group_by(.case) |
    sort_by(.[0].case | rtrimstr("MB") | tonumber) as $cases |
    ($cases | length * 84 + 40) as $height |
    "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"720\" height=\"\($height)\" font-family=\"sans-serif\" font-size=\"13\">",
    "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>",
    "<text x=\"16\" y=\"22\" font-weight=\"bold\">How long a container stands still while it moves (median, ms; podman by hand = 1)</text>",
    ($cases | to_entries[] | (.key * 84 + 40) as $y |
      ((.value[] | select(.subject == "podman")).median / 230) as $unit |
      "<text x=\"16\" y=\"\($y + 34)\">\(.value[0].case)</text>",
      (.value | sort_by(.subject) | to_entries[] | ($y + .key * 22) as $row |
        "<rect x=\"80\" y=\"\($row + 6)\" width=\"\(.value.median / $unit | round)\" height=\"18\" fill=\"\(.value.subject | colour)\"/>",
        "<text x=\"\(88 + (.value.median / $unit | round))\" y=\"\($row + 20)\">\(.value.subject) \(.value.median | round)</text>")),
    "</svg>"' "$work/report"
}
