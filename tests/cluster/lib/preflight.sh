# shellcheck shell=bash
# What the machine must allow, each with its own message. Sourced by ../cluster.

ELSEWHERE='or use any other cluster (kind, k3d, a real one): the tests run against the one KUBECONFIG names'

need_root() { [ "$(id -u)" -eq 0 ] || die "needs root: it makes network namespaces, mounts and cgroups" "$ELSEWHERE"; }

# Reads only; takes a few milliseconds, so that `up` on a healthy cluster stays quick.
preflight_cheap() {
  [[ $STATE == /* ]] || die "DRAWBRIDGE_STATE is '$STATE'; it must be an absolute path"
  [[ $CACHE == /* ]] || die "DRAWBRIDGE_CACHE is '$CACHE'; it must be an absolute path"
  # 107 bytes is the longest Unix socket path (unix(7)); containerd makes longer ones below the state folder.
  [ ${#STATE} -le 60 ] || die "DRAWBRIDGE_STATE is ${#STATE} bytes long; sockets below it allow 60 at most" "set DRAWBRIDGE_STATE to a shorter path"
  local system
  system=$(sed -n -e 's/^ID=//p' -e 's/^VERSION_ID=//p' /etc/os-release 2>/dev/null | tr -d '"' | sort | tr '\n' ' ') || true
  [ "$system" = '12 debian ' ] || die "this machine is not Debian 12 (bookworm), whose packages this is built from: /etc/os-release says '$system'" "$ELSEWHERE"
  preflight_cgroups
  preflight_addresses
}

CGROUPS=(cpu cpuacct cpuset memory devices freezer blkio pids systemd)
preflight_cgroups() {
  local missing=() controller
  for controller in "${CGROUPS[@]}"; do
    # A joint mount (cpu,cpuacct) is reached by links of the single names.
    [ "$(stat -fLc %T "/sys/fs/cgroup/$controller" 2>/dev/null)" = cgroupfs ] || missing+=("$controller")
  done
  [ ${#missing[@]} -eq 0 ] || die "cgroup (version 1) hierarchies are not mounted below /sys/fs/cgroup: ${missing[*]}" \
    "Kubernetes 1.20 is run on version 1 here; under systemd, boot with systemd.unified_cgroup_hierarchy=0," "$ELSEWHERE"
}

# The range must be ours alone: no route of the machine (but the default one, and our own veth's) may lead into it.
preflight_addresses() {
  command -v ip >/dev/null || return 0 # comes with the packages; looked at again by ensure_network
  local taken
  taken=$({
    ip -4 route show table all root "$NETWORK"
    ip -4 route show table all match "$NETWORK"
  } | grep -v -e '^default' -e "dev $NAME-h" | sort -u) || true
  [ -z "$taken" ] || die "$NETWORK is in use on this machine: $taken" "set DRAWBRIDGE_INDEX to another number from 0 to 63"
}

# Tries what the container runtime will do, in the folder where it will do it.
preflight_mounts() {
  need_space "$STATE" 1 "the cluster's state"
  running containerd && return
  local trial=$STATE/trial
  mkdir -p "$trial"/{lower,upper,work,merged}
  touch "$trial/lower/file"
  if ! mount -t overlay overlay -o "lowerdir=$trial/lower,upperdir=$trial/upper,workdir=$trial/work" "$trial/merged" 2>"$trial/why"; then
    die "cannot mount an overlay in $STATE: $(cat "$trial/why")" \
      "needs CAP_SYS_ADMIN, the overlay module, and a state folder that is not itself on an overlay (set DRAWBRIDGE_STATE)"
  fi
  # Deleting a lower file makes a whiteout: a character device, which a nodev or user-namespaced mount refuses.
  rm "$trial/merged/file" 2>"$trial/why" || {
    umount "$trial/merged"
    die "the overlay in $STATE cannot delete files: $(cat "$trial/why")" "set DRAWBRIDGE_STATE to a folder on a local disk"
  }
  umount "$trial/merged"
  rm -rf "$trial"
}

# need_space FOLDER GIB WHAT
need_space() {
  local folder=$1 free
  while [ ! -d "$folder" ]; do folder=$(dirname "$folder"); done
  free=$(df --output=avail -k "$folder" | tail -n 1)
  [ "$free" -ge $(($2 * 1024 * 1024)) ] || die "$3 needs $2 GiB free in $1; there are $((free / 1024)) MiB"
}
