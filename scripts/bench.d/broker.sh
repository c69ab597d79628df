# shellcheck shell=bash
# shellcheck disable=SC2016,SC2154 # inner shells expand theirs; scripts/bench sets ours
# Brokers side by side: which cases there are, and how one figure of one subject is taken.
#
# Sourced by scripts/bench.

# The case's name, its metrics, who takes part, and what load runs.
broker_cases() {
  local q fan
  local all='godwit mosquitto rumqttd'
  echo "64KiB mb_per_s godwit,mosquitto,rumqttd,relay flow --bytes 65536 --most 64"
  echo "256KiB mb_per_s godwit,mosquitto,rumqttd,relay flow --bytes 262144 --most 16"
  for q in 0 1 2; do
    for fan in 1:1 1:100 100:1; do
      local to=${all// /,} most=1000
      # All that it can do is to copy; rumqttd does not keep QoS 2's promise.
      [[ $q$fan != 01:1 ]] || to=$to,relay
      ((q < 2)) || to=godwit,mosquitto
      [[ $fan != 1:100 ]] || most=100
      echo "64B-q$q-$fan msgs_per_s $to flow --qos $q --publishers ${fan%:*} --subscribers ${fan#*:} --most $most"
    done
  done
  echo "64B-q1-1:1-persistent msgs_per_s godwit,mosquitto flow --persistent"
  echo "64B-q1-offline kept_per_s,msgs_per_s godwit,mosquitto offline --messages 50000"
  echo "64B-q1-beside-64KiB p50_ms,p99_ms,mb_per_s ${all// /,} beside --bytes 65536 --most 64"
  echo "2000-idle kb_per_connection ${all// /,} idle --connections 2000"
  # A descriptor each, on either side.
  (($(ulimit -n) < 10200)) || echo "10000-idle kb_per_connection ${all// /,} idle --connections 10000"
}

# Starts a subject anew, with nothing kept, on a port that nobody has.
start_subject() {
  local dir=$work/subject
  rm -rf "$dir"
  mkdir "$dir"
  port=$((20000 + RANDOM % 10000))
  while ss -Htln "sport = :$port" | grep -q .; do port=$((port + 1)); done
  case $1 in
    godwit)
      {
        printf '%s\n' "password-file = '$work/passwords'" "acl-file = '$work/acl'"
        printf '%s\n' 'max-connections = 20000' '[limits]' 'max-queued = 100000'
      } >"$dir/godwit.toml"
      GODWIT_LOG=warn "$bin/godwit-broker" --config "$dir/godwit.toml" --listen "127.0.0.1:$port" --store "$dir/store" >>"$work/godwit.log" 2>&1 &
      ;;
    mosquitto)
      cat >"$dir/mosquitto.conf" <<CONF
listener $port 127.0.0.1
password_file $work/passwords
acl_file $work/acl
persistence true
persistence_location $dir/
max_inflight_messages 256
max_queued_messages 100000
set_tcp_nodelay true
log_type error
user root
CONF
      mosquitto -c "$dir/mosquitto.conf" >>"$work/mosquitto.log" 2>&1 &
      ;;
    *) "$bin/examples/load" "$1" --listen "127.0.0.1:$port" >>"$work/$1.log" 2>&1 & ;;
  esac
  subject_pid=$!
  until ss -Htln "sport = :$port" | grep -q .; do
    kill -0 "$subject_pid" 2>/dev/null || { say "$1 does not start"; return 1; }
    sleep .02
  done
}
stop_subject() {
  kill "$subject_pid"
  wait "$subject_pid" 2>/dev/null || true
  subject_pid=''
}

# One figure of one subject.
load_subject() {
  local case=$1 metrics=$2 subject=$3 found metric value
  shift 3
  start_subject "$subject"
  local more=(--to "127.0.0.1:$port" --user bench --password bench)
  [[ $1 != idle ]] || more+=(--pid "$subject_pid")
  [[ $subject != relay ]] || more+=(--raw)
  if found=$(RUST_BACKTRACE=0 timeout 150 "$bin/examples/load" "$@" "${more[@]}" 2>>"$work/load.log"); then
    while IFS=$'\t' read -r metric value; do
      [[ ,$metrics, != *,$metric,* ]] || sample "$case" "$subject" "$metric" "$value"
      [[ $metric != lost || $value == 0 ]] || say "$subject lost $value messages ($case)"
    done <<<"$found"
  elif [[ $subject == rumqttd ]]; then
    say "rumqttd does not get through $case: $(tail -n1 "$work/load.log")"
  else
    say "$subject does not get through $case: $(tail -n1 "$work/load.log")"
    return 1
  fi
  stop_subject
}

broker() {
  scripts/setup mosquitto:mosquitto
  [[ ${GODWIT_BIN:-} ]] || cargo build --release -p godwit-broker --bin godwit-broker --example load --locked
  ulimit -n "$(ulimit -Hn)"
  touch "$work/passwords" "$work/acl"
  chmod 600 "$work/passwords" "$work/acl"
  mosquitto_passwd -b "$work/passwords" bench bench
  printf '%s\n' 'user bench' 'topic readwrite bench/#' 'pattern readwrite users/%u/#' >"$work/acl"
  local case metrics subjects load subject
  for ((run = 1; run <= runs; run++)); do
    while read -r case metrics subjects load; do
      is_wanted "$case" || continue
      say "run $run of $runs: $case"
      for subject in ${subjects//,/ }; do
        # Its words are separate.
        # shellcheck disable=SC2086
        load_subject "$case" "$metrics" "$subject" $load
      done
    done < <(broker_cases)
  done
}
