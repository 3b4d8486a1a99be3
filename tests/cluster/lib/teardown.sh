# shellcheck shell=bash
# Takes everything away again, whatever state it is in. Sourced by ../cluster.

down() {
  local begin=$SECONDS
  if [ -d "$STATE" ] && [ ! -f "$STATE/.drawbridge-cluster" ]; then die "$STATE is not a cluster's state: leaving it alone"; fi
  if [ ! -d "$STATE" ] && [ ! -e "/run/netns/$NAME" ] && [ ! -e "/sys/class/net/$NAME-h" ]; then
    rm -f "$STATE.lock"
    say 'already down'
    return
  fi
  say 'stopping the kubelet and the control plane'
  stop kubelet 5
  stop controller-manager 2
  # Its data goes too, so there is nothing to wait for.
  stop apiserver 0
  remove_containers
  stop containerd 5
  stop etcd 2
  say 'removing mounts, cgroups, the network and the state'
  restore_sysctls
  remove_pod_logs
  remove_mounts
  remove_cgroups
  remove_network
  rm -f /var/lib/cni/results/"$NAME"-*
  rm -rf --one-file-system "$STATE"
  rm -f "$STATE.lock"
  say "down after $((SECONDS - begin)) s"
}

# Containers first through containerd, which removes their mounts and sockets; then, by their own PIDs, whatever is left.
remove_containers() {
  local ids=() id pid
  if running containerd && containerd_answers; then
    mapfile -t ids < <(ctr_k8s containers ls -q)
    if [ ${#ids[@]} -gt 0 ]; then
      say "removing ${#ids[@]} containers"
      for id in "${ids[@]}"; do
        ctr_k8s tasks rm --force "$id" >/dev/null 2>&1 || true
        ctr_k8s containers rm "$id" >/dev/null 2>&1 || true
      done
    fi
  fi
  for pid in $(shims) $(cgroup_processes); do kill -KILL "$pid" 2>/dev/null || true; done
  for pid in $(shims) $(cgroup_processes); do gone "$pid" 10 || die "PID $pid of a pod survives SIGKILL" "see /proc/$pid/stack"; done
}

# Shims name the socket of the containerd that started them.
shims() {
  local cmdline
  for cmdline in $(processes_naming "$CONTAINERD_SOCKET"); do
    if [[ $(tr '\0' ' ' 2>/dev/null <"$cmdline") == *containerd-shim*" -address $CONTAINERD_SOCKET "* ]]; then
      cmdline=${cmdline#/proc/}
      printf '%s\n' "${cmdline%/cmdline}"
    fi
  done
}

cgroup_processes() {
  local cgroup
  for cgroup in /sys/fs/cgroup/*/"$NAME"; do
    [ ! -d "$cgroup" ] || find "$cgroup" -name cgroup.procs -exec cat {} + 2>/dev/null
  done | sort -u
}

restore_sysctls() {
  local key value
  [ -f "$STATE/sysctls" ] || return 0
  while IFS='=' read -r key value; do
    if [ -n "$value" ] && ! echo "$value" 2>/dev/null >"/proc/sys/${key//.//}"; then say "could not restore $key=$value"; fi
  done <"$STATE/sysctls"
}

# The kubelet of 1.20 writes pods' logs to a fixed folder; ours are those of the pods it knows.
remove_pod_logs() {
  local pod log
  for pod in "$STATE"/kubelet/pods/*/; do
    [ -d "$pod" ] || continue
    pod=$(basename "$pod")
    for log in /var/log/pods/*_"$pod"; do
      [ -d "$log" ] || continue
      find /var/log/containers -maxdepth 1 -lname "$log/*" -delete 2>/dev/null || true
      rm -rf "$log"
    done
  done
}

remove_mounts() {
  local point
  # Deepest first. Lazy only when a plain one fails: something of ours is then still open, and goes with its process.
  while read -r point; do
    umount "$point" 2>/dev/null || umount --lazy "$point" 2>/dev/null || true
  done < <(state_mounts | sort -r)
  [ -z "$(state_mounts)" ] || die "still mounted: $(state_mounts | tr '\n' ' ')" "see who uses them with \`fuser -m\`, then run \`cluster down\` again"
}
state_mounts() { awk -v prefix="$STATE/" 'index($5, prefix) == 1 { print $5 }' /proc/self/mountinfo; }

# In every hierarchy, also those that only containerd makes use of.
remove_cgroups() {
  local cgroup
  for cgroup in /sys/fs/cgroup/*/"$NAME"; do
    [ -d "$cgroup" ] || continue
    find "$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null || say "left behind: $cgroup"
  done
}
