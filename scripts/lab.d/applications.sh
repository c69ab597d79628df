# shellcheck shell=bash
# The applications that the live tests move, as one container image: a Debian tree
# with servers, and the clients that tests/live/applications talks to them with.
# Built once per recipe and kept in $LAB_CACHE, as the hosts' root is.
#
# Sourced by scripts/lab.

# The servers; then the clients, which run in the same tree.
applications_packages=(
  redis-server mariadb-server-core mariadb-client-core nginx mosquitto nodejs node-ws python3
  python3-redis python3-pymysql python3-paho-mqtt python3-websockets
)

# Builds tree and image.tar (a docker-archive of localhost/applications:1, without an
# entrypoint) unless they are there, and has target/workload/applications lead to them.
applications() {
  local out=${1:-$LAB_REPO/target/workload} recipe made
  need_tools
  recipe=$( { declare -f build_applications pack_tree; echo "${applications_packages[*]} $base_suite $base_mirror"; } | sha256sum)
  made=$LAB_CACHE/applications-${recipe:0:12}
  mkdir -p "$out" "$LAB_CACHE"
  exec 8>>"$LAB_CACHE/applications.lock"
  flock 8
  if [[ ! -d $made ]]; then
    say "building the applications in $made (Debian $base_suite; once, about a minute; log: $LAB_CACHE/applications.log)"
    # Others may still be in use by other checkouts: only what nobody asked for in a week goes.
    find "$LAB_CACHE" -maxdepth 1 -name 'applications-*' -mtime +7 -exec rm -rf --one-file-system {} +
    rm -rf --one-file-system "$made.new"
    setpriv --pdeathsig KILL unshare --mount-proc --pid --fork --kill-child \
      bash -c "set -euo pipefail; $(declare -p applications_packages base_suite base_mirror); $(declare -f build_applications); build_applications \"\$1\"" \
      build "$made.new/tree" </dev/null >"$LAB_CACHE/applications.log" 2>&1 \
      || die "the applications could not be built; the last words are: $(tail -n 3 "$LAB_CACHE/applications.log")"
    pack_tree applications "$made.new/tree" '' "$made.new/image.tar"
    mv -T "$made.new" "$made"
  fi
  touch "$made"
  ln -sfn "$made" "$out/applications"
  exec 8>&-
}

# Builds the tree in the folder $1. Runs in its own mount and pid namespaces.
build_applications() {
  local tree=$1 packages
  mount --make-rprivate /
  mkdir -p "${tree%/*}"
  packages=$(IFS=,; echo "${applications_packages[*]}")
  debootstrap --variant=minbase --include="$packages" "$base_suite" "$tree" "$base_mirror" \
    /usr/share/debootstrap/scripts/sid
  # What a database of no size needs, and no more: what it changes travels with every move.
  mount -t proc proc "$tree/proc"
  chroot "$tree" mariadb-install-db --user=root --datadir=/srv/mariadb --skip-test-db \
    --auth-root-authentication-method=normal --innodb-undo-tablespaces=0 \
    --innodb-data-file-path=ibdata1:4M:autoextend --innodb-autoextend-increment=1 --innodb-log-file-size=4M
  umount "$tree/proc"
  # 4 MB that a client can know beforehand.
  mkdir -p "$tree/srv/www"
  seq -f %07g 0 524287 >"$tree/srv/www/numbers"
  rm -rf "${tree:?}"/{dev,run,tmp}/* "$tree"/var/{cache,lib}/apt/* "$tree"/var/log/* "$tree"/usr/share/{doc,man,info,locale} \
    "$tree"/var/lib/dpkg/info
}
