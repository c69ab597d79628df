# shellcheck shell=bash
# The demo's workload: static binaries of tests/workload, and some of them as
# container images that no registry is needed for.
#
# Sourced by scripts/lab.

# Builds the programs of tests/workload and the images of some in the folder $1, unless they are
# there and made from the present sources. The same sources and compiler give the same
# bytes, and so the same image id.
workload() {
  local out=${1:-$LAB_REPO/target/workload} source=$LAB_REPO/tests/workload made name
  mkdir -p "$out"
  out=$(cd "$out" && pwd)
  made=$( { rustc -vV && declare -f build_workload pack_image pack_kinds pack_tree && cat "$source"/*.rs "$source"/kinds/*.rs; } | sha256sum)
  exec 7>>"$out/.lock"
  flock 7
  if [[ $made != "$(cat "$out/.made" 2>/dev/null)" ]]; then
    rm -f "$out/.made"
    for name in counter observe dial threads scribe; do build_workload "$source/$name.rs" "$out/$name"; done
    build_workload "$source/kinds/kinds.rs" "$out/kinds"
    pack_kinds "$out"
    for name in counter threads scribe; do pack_image "$name" "$out/$name" "$out/$name.tar"; done
    echo "$made" >"$out/.made"
  fi
  exec 7>&-
}

# Packs the binary $1 as NAME.tar in the folder $2.
pack() {
  local binary=${1:?pack wants a binary} out=${2:-$LAB_REPO/target/workload} name
  name=$(basename "$binary")
  mkdir -p "$out"
  pack_image "$name" "$binary" "$out/$name.tar"
}

# Compiles the single-file program $1 to the static binary $2.
build_workload() {
  (cd "$(dirname "$1")" && rustc --edition 2024 -D warnings -O -C target-feature=+crt-static -C strip=symbols \
    --remap-path-prefix "$PWD=." -o "$2.new" "$(basename "$1")") || die "$1 does not compile"
  mv "$2.new" "$2"
}

# Packs the binary $2 as the docker-archive $3 of the image localhost/$1:1, which runs it.
pack_image() {
  local root
  root=$(mktemp -d "$3.XXXXXX")
  install -m 755 "$2" "$root/$1"
  chmod 755 "$root"
  pack_tree "$1" "$root" "\"/$1\"" "$3"
  rm -rf --one-file-system "$root"
}

# Packs $1/kinds with files of an image's own that it can change.
pack_kinds() {
  local root
  root=$(mktemp -d "$1/kinds.XXXXXX")
  install -m 755 "$1/kinds" "$root/kinds"
  mkdir -p "$root/image/emptied"
  touch "$root/image/changed" "$root/image/removed" "$root/image/emptied/hidden"
  chmod -R a+rX "$root"
  pack_tree kinds "$root" '"/kinds"' "$1/kinds.tar"
  rm -rf --one-file-system "$root"
}

# Packs the folder $2 as the docker-archive $4 of the image localhost/$1:1 with the entrypoint
# $3, quoted as in JSON. Its id is the SHA-256 of its config.
pack_tree() (
  local name=$1 root=$2 entrypoint=$3 archive=$4 work layer config arch
  local plain=(tar --format=ustar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner)
  case $(uname -m) in
    x86_64) arch=amd64 ;;
    aarch64) arch=arm64 ;;
    *) arch=$(uname -m) ;;
  esac
  work=$(mktemp -d "$archive.XXXXXX")
  trap 'rm -rf --one-file-system "$work"' EXIT
  mkdir -m 755 "$work/image"
  "${plain[@]}" -C "$root" -cf "$work/layer.tar" .
  layer=$(sha256sum "$work/layer.tar" | cut -d' ' -f1)
  printf '{"architecture":"%s","config":{"Entrypoint":[%s],"WorkingDir":"/"},"created":"1970-01-01T00:00:00Z","history":[{"created":"1970-01-01T00:00:00Z","created_by":"scripts/lab"}],"os":"linux","rootfs":{"diff_ids":["sha256:%s"],"type":"layers"}}' \
    "$arch" "$entrypoint" "$layer" >"$work/config"
  config=$(sha256sum "$work/config" | cut -d' ' -f1)
  mv "$work/layer.tar" "$work/image/$layer.tar"
  mv "$work/config" "$work/image/$config.json"
  printf '[{"Config":"%s.json","RepoTags":["localhost/%s:1"],"Layers":["%s.tar"]}]' "$config" "$name" "$layer" >"$work/image/manifest.json"
  chmod 644 "$work"/image/*
  "${plain[@]}" -C "$work/image" -cf "$work/archive" manifest.json "$config.json" "$layer.tar"
  mv "$work/archive" "$archive"
)
