# shellcheck shell=bash
# Paths, messages, and processes by PID file. Sourced by ../cluster.

say() { printf 'cluster: %s\n' "$*" >&2; }
# die WHAT [LINE...]: what is wrong, then what to do about it.
die() {
  printf 'cluster: error: %s\n' "$1" >&2
  shift
  for line; do printf '         %s\n' "$line" >&2; done
  exit 1
}

INDEX=${DRAWBRIDGE_INDEX:-0}
[[ $INDEX =~ ^([0-9]|[1-5][0-9]|6[0-3])$ ]] || die "DRAWBRIDGE_INDEX is '$INDEX'; it must be 0 to 63"
STATE=${DRAWBRIDGE_STATE:-${TMPDIR:-/tmp}/drawbridge-cluster}
CACHE=${DRAWBRIDGE_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/drawbridge}

# One name for the network namespace, the veth pair, the CNI network and the cgroup, so that two clusters never meet.
NAME=drawbridge$INDEX
NODE=node1
# A /30 of a documentation range (RFC 5737) for each index: the host's end and the node's end of the veth pair.
HOST_IP=198.51.100.$((4 * INDEX + 1))
NODE_IP=198.51.100.$((4 * INDEX + 2))
NETWORK=198.51.100.$((4 * INDEX))/30
# Inside the namespace only; the host has no route to them.
SERVICE_CIDR=10.96.0.0/16
SERVICE_IP=10.96.0.1
POD_CIDR=10.88.0.0/16
APISERVER_URL=https://$NODE_IP:6443

ADMIN_KUBECONFIG=$STATE/admin.kubeconfig
AUDIT_LOG=$STATE/logs/audit.log
CONTAINERD_SOCKET=$STATE/containerd/containerd.sock
BUSYBOX_IMAGE=local/busybox:1
PAUSE_IMAGE=local/pause:1

# Start order; `down` goes backwards.
COMPONENTS=(etcd containerd apiserver controller-manager kubelet)

# One `up` or `down` at a time on a state folder. Daemons must not inherit the descriptor (9), or they would hold the lock.
take_lock() {
  mkdir -p "$(dirname "$STATE")"
  # `down` removes the file: a lock on a removed one keeps nobody out, so look again.
  until [ "$STATE.lock" -ef /proc/self/fd/9 ]; do
    exec 9>"$STATE.lock"
    flock -n 9 && continue
    say "waiting for another cluster command on $STATE"
    flock -w 1800 9 || die "another cluster command has held $STATE.lock for 30 minutes"
  done
}

# Marks the folder as ours: `down` removes only what carries the mark.
claim_state() {
  if [ -d "$STATE" ] && [ ! -f "$STATE/.drawbridge-cluster" ] && [ -n "$(ls -A "$STATE")" ]; then
    die "$STATE exists and is not a cluster's state" "set DRAWBRIDGE_STATE to a folder that is empty or does not exist yet"
  fi
  mkdir -p "$STATE"/{logs,run,pki,etcd,containerd,kubelet,cni,images}
  chmod 700 "$STATE"
  touch "$STATE/.drawbridge-cluster"
}

pid_file() { printf '%s/run/%s.pid' "$STATE" "$1"; }

# Whether PID is a process of this cluster: every daemon has the state folder on its command line.
is_ours() {
  local pid=$1
  [[ $(tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline") == *"$STATE/"* ]]
}

# Whether COMPONENT runs, in the namespace that stands now.
running() {
  local pid
  pid=$(cat "$(pid_file "$1")" 2>/dev/null) || return 1
  is_ours "$pid" || return 1
  [ "$(stat -Lc %i "/proc/$pid/ns/net" 2>/dev/null)" = "$(stat -Lc %i "/run/netns/$NAME" 2>/dev/null)" ]
}

# spawn COMPONENT COMMAND...: in the namespace, detached, its PID in a file, its output in a log.
# nsenter rather than `ip netns exec`: the latter remounts /sys and hides the cgroup mounts from the kubelet.
spawn() {
  local name=$1
  shift
  # shellcheck disable=SC2016 # the inner shell expands these
  setsid bash -c 'echo $$ >"$1"; shift; exec "$@"' spawn "$(pid_file "$name")" \
    nsenter --net="/run/netns/$NAME" "$@" >>"$STATE/logs/$name.log" 2>&1 9>&- &
  disown
}

# stop COMPONENT [SECONDS]: SIGTERM, then SIGKILL after that long (0: SIGKILL at once).
stop() {
  local name=$1 grace=${2:-10} pid
  for pid in $(pids_of "$name"); do
    if [ "$grace" -gt 0 ]; then
      kill -TERM "$pid" 2>/dev/null || true
      gone "$pid" "$grace" || say "$name did not stop within $grace s of SIGTERM: killing PID $pid"
    fi
    kill -KILL "$pid" 2>/dev/null || true
    gone "$pid" 10 || die "$name (PID $pid) survives SIGKILL" "it is probably stuck in the kernel: see /proc/$pid/stack"
  done
  rm -f "$(pid_file "$name")"
}

# The PIDs of COMPONENT in this cluster: the one in its file, and any whose file was lost.
pids_of() {
  local name=$1 cmdline pid
  pid=$(cat "$(pid_file "$name")" 2>/dev/null) || pid=
  for cmdline in /proc/"${pid:-none}"/cmdline $(processes_naming "$STATE/"); do
    [[ $(tr '\0' ' ' 2>/dev/null <"$cmdline") =~ ^([^ ]*/)?(kube-)?"$name"\ .*"$STATE/" ]] || continue
    cmdline=${cmdline#/proc/}
    printf '%s\n' "${cmdline%/cmdline}"
  done | sort -u
}

# The cmdline files in /proc of the processes that have TEXT on their command line, grep's own among them.
processes_naming() { grep -lsF -- "$1" /proc/[0-9]*/cmdline || true; }

# gone PID SECONDS: waits until the process no longer exists; a zombie counts as gone.
gone() {
  local pid=$1 tries=$((10 * $2))
  while [ "$tries" -gt 0 ]; do
    [ -d "/proc/$pid" ] || return 0
    grep -q '^State:[[:space:]]*Z' "/proc/$pid/status" 2>/dev/null && return 0
    sleep 0.1
    tries=$((tries - 1))
  done
  return 1
}

# wait_for SECONDS COMPONENT WHAT COMMAND...: polls COMMAND; fails early when the component has died.
wait_for() {
  local deadline=$((SECONDS + $1)) name=$2 what=$3
  shift 3
  say "waiting for $what"
  until "$@" >/dev/null 2>&1; do
    if ! running "$name"; then fail_with_log "$name" "$name ended while we waited for $what"; fi
    if [ "$SECONDS" -ge "$deadline" ]; then fail_with_log "$name" "timed out waiting for $what"; fi
    sleep 0.2
  done
}

fail_with_log() {
  local log=$STATE/logs/$1.log
  tail -n 20 "$log" >&2 2>/dev/null || true
  die "$2" "the whole log is in $log; \`cluster down\` and \`cluster up\` start from nothing"
}

# Sets KUBECTL: the machine's own when it will do, else the one in the cache.
with_kubectl() { KUBECTL=$(find_kubectl) || die "no kubectl 1.30 or newer" "run \`cluster up\` or \`cluster build\` first"; }
kube() { "$KUBECTL" --kubeconfig "$ADMIN_KUBECONFIG" --request-timeout=5s "$@"; }
