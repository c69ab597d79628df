# shellcheck shell=bash
# Hosts: start, enter, end. A host is what lives in the cgroup $cgroup/HOST.
#
# Sourced by scripts/lab, which sets $lab, $state and $cgroup.

# Prints the address of a host.
host_address() {
  case $1 in
    hub) echo 10.77.0.1 ;;
    client) echo 10.77.0.2 ;;
    edge-?) echo "10.77.0.$((11 + $(printf %d "'${1#edge-}") - $(printf %d "'a")))" ;;
  esac
}

# On machines that also have cgroup v1 hierarchies processes live in the host's
# cgroup itself; where cgroup2 rules alone they live in a leaf, since a cgroup
# that hands controllers on may hold no process.
has_cgroup_v1() { grep -qv '^0:' /proc/self/cgroup; }
host_leaf() {
  if has_cgroup_v1; then echo "$cgroup/$1"; else echo "$cgroup/$1/init"; fi
}

# Lets the hosts' containers have what controllers this machine gives its cgroups.
hand_on_controllers() {
  local level controller
  for level in "${cgroup%/*}" "$cgroup"; do
    for controller in $(cat "$level/cgroup.controllers"); do
      echo "+$controller" >"$level/cgroup.subtree_control" || true
    done
  done
} 2>/dev/null

# Is the host's pid 1 there and past its boot? The pid counts only while the
# host's cgroup has it: numbers are used again.
host_is_alive() {
  local pid word
  read -r pid <"$state/hosts/$1/pid" || return 1
  read -r word <"/proc/$pid/comm" || return 1
  [[ $word == catatonit ]] && grep -qx "$pid" "$(host_leaf "$1")/cgroup.procs"
} 2>/dev/null

host_pid() { cat "$state/hosts/$1/pid"; }

# Starts a host, over the remains of an earlier life if there are any: its files
# stay, its processes do not (like a machine whose power was cut).
start_host() {
  local host=$1 leaf
  leaf=$(host_leaf "$host")
  empty_cgroup "$cgroup/$host"
  rm -f "$state/hosts/$host/pid"
  mkdir -p "$leaf"
  (
    echo "$BASHPID" >"$cgroup/$host/cgroup.procs"
    # Until here the lock was held for this process, which `down` would not have found.
    exec 9>&-
    exec setsid unshare --cgroup bash "$LAB_HERE/lab.d/boot.sh" join "$host" "$state" "$LAB_REPO" "$cgroup/$host" "$leaf"
  ) </dev/null >"$state/hosts/$host/boot.log" 2>&1 &
}

# Waits until a host that was started is up.
await_host() {
  local tries
  for ((tries = 0; tries < 500; tries++)); do
    host_is_alive "$1" && return
    sleep 0.02
  done
  die "$1 did not come up in 10 s; its last words are: $(tail -n 3 "$state/hosts/$1/boot.log")"
}

# Prints the pids in a cgroup and below.
cgroup_pids() {
  [[ -d $1 ]] || return 0
  find "$1" -name cgroup.procs -exec cat {} + 2>/dev/null || true
}

# Prints the pids outside the cgroup $1 that hold a network or mount namespace of
# the processes in it (an nsenter by hand): they would keep links and mounts alive.
namespace_guests() {
  { find /proc/[0-9]*/ns \( -name net -o -name mnt \) -printf '%p %l\n' 2>/dev/null || true; } \
    | awk -v members="$(cgroup_pids "$1" | tr '\n' ' ')" -v ours="$(readlink /proc/self/ns/net /proc/self/ns/mnt | tr '\n' ' ')" '
      BEGIN {
        split(members, list, " "); for (i in list) inside[list[i]] = 1
        split(ours, list, " "); for (i in list) machine[list[i]] = 1
      }
      { split($1, path, "/"); pid = path[3] }
      machine[$2] { next }
      pid in inside { lab[$2] = 1; next }
      { holders[$2] = holders[$2] " " pid }
      END { for (namespace in holders) if (namespace in lab) print holders[namespace] }'
}

# Kills all that lives in a cgroup or holds a namespace of it, waits for the end,
# removes the cgroup.
empty_cgroup() {
  local tries guests below
  for ((tries = 0; tries < 200; tries++)); do
    [[ -d $1 ]] || return 0
    guests=$(namespace_guests "$1")
    # shellcheck disable=SC2086 # one word a pid
    [[ -z $guests ]] || kill -KILL $guests 2>/dev/null || true
    echo 1 2>/dev/null >"$1/cgroup.kill" || true
    while grep -qs 'populated 1' "$1/cgroup.events" && ((tries++ < 200)); do sleep 0.05; done
    while read -r below; do rmdir "$below" 2>/dev/null || true; done < <(find "$1" -depth -type d 2>/dev/null)
  done
  die "these processes of $1 do not die: $(cgroup_pids "$1" | tr '\n' ' ')"
}

# Runs a command in a host: all its namespaces, its cgroup, a clean environment.
# This shell stays outside as the command's stand-in: signals pass on to the
# command, SIGKILL too, and the command's exit code is ours.
enter() {
  local host=${1:?enter wants a host: $(lab_hosts | tr '\n' ' ')} name variables=() join passed=(TERM HUP USR1 USR2)
  shift
  host_is_alive "$host" || die "there is no host $host up in lab $lab (scripts/lab status; scripts/lab up)"
  for name in $(compgen -e); do
    [[ $name == GODWIT_* || $name == RUST_LOG || $name == RUST_BACKTRACE ]] && variables+=("$name=${!name}")
  done
  (($#)) || set -- bash -l
  # CRIU asks that a container and it itself see the v1 hierarchies alike. Whoever
  # enters may stand elsewhere in those than the one who brought the lab up, so
  # with v1 each gets a cgroup namespace of its own, with the same root in cgroup2.
  if has_cgroup_v1; then join=(unshare --cgroup nsenter); else join=(nsenter --cgroup); fi
  # At a terminal ^C and ^\ reach the command by themselves and must spare nsenter;
  # elsewhere what is meant for our process group must not fell nsenter either.
  local apart=(env '--default-signal=INT,QUIT' setsid)
  if [[ -t 0 ]]; then apart=(); else passed+=(INT QUIT); fi
  (
    echo "$BASHPID" >"$(host_leaf "$host")/cgroup.procs" || die "$host is going down"
    trap '' INT QUIT
    exec "${apart[@]}" setpriv --pdeathsig KILL "${join[@]}" --target "$(host_pid "$host")" --mount --uts --ipc --net --pid -- \
      env -i --default-signal=INT,QUIT \
      PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 TERM="${TERM:-dumb}" \
      PODMAN_IGNORE_CGROUPSV1_WARNING=1 "${variables[@]}" setpriv --pdeathsig KILL "$@"
  ) <&0 &
  local outer=$! code signal interrupted
  trap '' INT QUIT
  # shellcheck disable=SC2064 # the pid is the one of now
  for signal in "${passed[@]}"; do trap "interrupted=yes; pass_on $signal $outer" "$signal"; done
  # A signal ends `wait` with a code of its own, whatever becomes of the command.
  while :; do
    interrupted='' code=0
    wait "$outer" 2>/dev/null || code=$? # no "Killed" from bash
    [[ $interrupted ]] || return "$code"
  done
}

# Sends a signal to the only child of $2, once it has one.
pass_on() {
  local child=
  read -r child _ <"/proc/$2/task/$2/children" || true # no newline ends it
  if [[ $child ]]; then kill -s "$1" "$child"; else kill -s KILL "$2"; fi || true
} 2>/dev/null
