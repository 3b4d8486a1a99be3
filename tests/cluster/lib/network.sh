# shellcheck shell=bash
# A network namespace for the node, joined to the machine by a veth pair. Sourced by ../cluster.

in_netns() { nsenter --net="/run/netns/$NAME" "$@"; }

network_stands() {
  [ "$(stat -fc %T "/run/netns/$NAME" 2>/dev/null)" = nsfs ] &&
    [[ $(ip -4 -o addr show dev "$NAME-h" up 2>/dev/null) == *" $HOST_IP/30 "* ]] &&
    [[ $(in_netns ip -4 -o addr show dev "$NAME-n" up 2>/dev/null) == *" $NODE_IP/30 "* ]]
}

ensure_network() {
  network_stands && return
  preflight_addresses
  # Whatever still runs lives in a namespace that is no more, or half there.
  local component
  for component in kubelet controller-manager apiserver containerd etcd; do stop "$component" 2; done
  remove_network
  say "making network namespace $NAME: node $NODE_IP, host $HOST_IP"
  local why
  why=$(ip netns add "$NAME" 2>&1) || die "cannot make a network namespace: $why" "needs CAP_SYS_ADMIN, and /run/netns on a mount that may be shared"
  why=$(ip link add "$NAME-h" type veth peer name "$NAME-n" netns "$NAME" 2>&1) ||
    die "cannot make a veth pair: $why" "needs CAP_NET_ADMIN and the veth module"
  ip addr add "$HOST_IP/30" dev "$NAME-h"
  ip link set "$NAME-h" up
  in_netns ip link set lo up
  in_netns ip addr add "$NODE_IP/30" dev "$NAME-n"
  in_netns ip link set "$NAME-n" up
  # No default route: the kubelet asks for clouds' metadata when it starts, and is told "unreachable" at once; with a
  # route to a machine that does not forward, it waits 11 seconds for answers.
}

remove_network() {
  # A half-made name (a plain file, without its mount) is removed by the same command.
  if [ -e "/run/netns/$NAME" ]; then ip netns del "$NAME" 2>/dev/null || rm -f "/run/netns/$NAME"; fi
  # The pair goes with the namespace, but only once the kernel has let go of it.
  ip link del "$NAME-h" 2>/dev/null || true
}
