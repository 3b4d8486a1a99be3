# shellcheck shell=bash
# Whether the cluster works, and where its parts are. Sourced by ../cluster.

healthy() {
  local component
  [ -f "$STATE/pki/done" ] || return 1
  network_stands || return 1
  for component in "${COMPONENTS[@]}"; do running "$component" || return 1; done
  KUBECTL=$(find_kubectl) || return 1
  openssl x509 -in "$STATE/pki/ca.crt" -checkend $((2 * 86400)) -noout >/dev/null 2>&1 || return 1
  apiserver_ready && kubelet_answers && node_ready && containerd_answers && controllers_answer || return 1
  [ "$(ctr_k8s images ls -q | grep -cxF -e "docker.io/$BUSYBOX_IMAGE" -e "docker.io/$PAUSE_IMAGE")" -eq 2 ]
}

status() {
  local component
  if [ ! -f "$STATE/.drawbridge-cluster" ]; then
    echo "down (no state in $STATE)"
    return 1
  fi
  if network_stands; then echo "network             $NETWORK in namespace $NAME"; else echo 'network             missing'; fi
  for component in "${COMPONENTS[@]}"; do
    if running "$component"; then
      printf '%-19s running, PID %s\n' "$component" "$(cat "$(pid_file "$component")")"
    else
      printf '%-19s not running, see %s\n' "$component" "$STATE/logs/$component.log"
    fi
  done
  if healthy; then
    echo "healthy             $ADMIN_KUBECONFIG"
  else
    echo "not healthy         \`cluster up\` repairs it"
    return 1
  fi
}

need_state() { [ -f "$STATE/pki/done" ] || die "no cluster in $STATE" "run \`cluster up\` first"; }

print_kubeconfig() {
  need_state
  printf '%s\n' "$ADMIN_KUBECONFIG"
}

print_env() {
  need_state
  with_kubectl
  cat <<TEXT
KUBECONFIG=$ADMIN_KUBECONFIG
CLUSTER_KUBECTL=$KUBECTL
CLUSTER_APISERVER=$APISERVER_URL
CLUSTER_APISERVER_PID_FILE=$(pid_file apiserver)
CLUSTER_CA=$STATE/pki/ca.crt
CLUSTER_AUDIT_LOG=$AUDIT_LOG
CLUSTER_NODE=$NODE
CLUSTER_KUBELET=$NODE_IP:10250
CLUSTER_KUBELET_CA=$STATE/pki/ca.crt
CLUSTER_IMAGE=$BUSYBOX_IMAGE
CLUSTER_NETNS=/run/netns/$NAME
CLUSTER_HOST_IP=$HOST_IP
CLUSTER_LOGS=$STATE/logs
TEXT
}
