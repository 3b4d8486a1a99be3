# shellcheck shell=bash
# Debian packages: only what is missing, and never a change to the machine's own list of sources. Sourced by ../cluster.

# command or file, and the package that brings it
NEEDS='
etcd etcd-server
containerd containerd
ctr containerd
containerd-shim-runc-v2 containerd
runc runc
iptables iptables
ip iproute2
conntrack conntrack
openssl openssl
script bsdutils
/usr/lib/cni/bridge containernetworking-plugins
/usr/lib/cni/host-local containernetworking-plugins
/usr/lib/cni/loopback containernetworking-plugins
'

ensure_packages() {
  local missing=() what package
  while read -r what package; do
    [ -n "$what" ] || continue
    command -v "$what" >/dev/null || missing+=("$package")
  done <<<"$NEEDS"
  # The image holds nothing but busybox, so it must not need a loader.
  if ! static_busybox; then missing+=(busybox-static); fi
  [ ${#missing[@]} -gt 0 ] || return 0
  apt_install "${missing[@]}"
  while read -r what package; do
    [ -z "$what" ] || command -v "$what" >/dev/null || die "$what is still missing after installing $package"
  done <<<"$NEEDS"
  static_busybox || die "/bin/busybox is still not a static binary after installing busybox-static"
}

static_busybox() { [ -x /bin/busybox ] && ! ldd /bin/busybox >/dev/null 2>&1; }

APT_UPDATED=
apt_install() {
  local packages=()
  mapfile -t packages < <(printf '%s\n' "$@" | sort -u)
  say "installing Debian packages: ${packages[*]}"
  export DEBIAN_FRONTEND=noninteractive
  if [ -z "$APT_UPDATED" ]; then
    quietly apt-update apt-get -o DPkg::Lock::Timeout=300 update -q
    APT_UPDATED=yes
  fi
  quietly apt-install apt-get -o DPkg::Lock::Timeout=300 install -yq --no-install-recommends "${packages[@]}"
}

# quietly NAME COMMAND...: output into the cache's log of that name; shown only on failure.
quietly() {
  local log=$CACHE/logs/$1.log
  mkdir -p "$CACHE/logs"
  shift
  "$@" >"$log" 2>&1 9>&- && return
  tail -n 30 "$log" >&2
  die "failed: $*" "the whole output is in $log"
}

# private_apt FOLDER SUITE TYPE COMMAND...: apt-get on its own list of sources and its own indexes, all inside FOLDER,
# from the mirrors that this machine already uses for bookworm. TYPE is deb or deb-src.
private_apt() {
  local folder=$1 suite=$2 type=$3 mirror security
  shift 3
  if [ ! -f "$folder/sources.list" ]; then
    mkdir -p "$folder"/{lists/partial,archives/partial}
    mirror=$(mirror_of bookworm)
    [ -n "$mirror" ] || die "apt has no source for bookworm main" "add one to /etc/apt/sources.list.d and run apt-get update"
    printf '%s %s %s main\n' "$type" "$mirror" "$suite" >"$folder/sources.list.new"
    security=$(mirror_of bookworm-security)
    if [ -n "$security" ]; then printf '%s %s %s-security main\n' "$type" "$security" "$suite" >>"$folder/sources.list.new"; fi
    mv "$folder/sources.list.new" "$folder/sources.list"
  fi
  apt-get -q -o Dir::Etc::sourcelist="$folder/sources.list" -o Dir::Etc::sourceparts=/dev/null -o Dir::Etc::preferencesparts=/dev/null \
    -o Dir::State::status=/dev/null -o Dir::State::lists="$folder/lists" -o Dir::Cache::archives="$folder/archives" \
    -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o APT::Sandbox::User=root "$@"
}

# Index targets name the archive as it calls itself: the suite changes with each release of Debian, the codename does not.
mirror_of() {
  # shellcheck disable=SC2016 # apt's own notation
  apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' "Codename: $1" 'Component: main' 2>/dev/null | head -n 1
}
