# shellcheck shell=bash
# etcd, the API server and the controller manager. Sourced by ../cluster.

ETCD_URL=http://127.0.0.1:2379

start_etcd() {
  if running etcd && etcd_answers; then return; fi
  stop etcd
  say 'starting etcd'
  # No fsync: the data need not outlive the machine, and tests write a lot.
  spawn etcd etcd --name "$NAME" --data-dir "$STATE/etcd" --unsafe-no-fsync --logger=zap \
    --listen-client-urls "$ETCD_URL" --advertise-client-urls "$ETCD_URL" \
    --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 \
    --initial-cluster "$NAME=http://127.0.0.1:2380"
}
etcd_answers() { in_netns bash -c 'exec 3<>/dev/tcp/127.0.0.1/2379' 2>/dev/null; }

start_apiserver() {
  if running apiserver && apiserver_ready; then return; fi
  stop apiserver 5
  wait_for 30 etcd etcd etcd_answers
  say 'starting the API server'
  # Who asked for what, without bodies: tests read here whom the API server saw and what was written. All stages, since
  # an exec that is still open has only its first two.
  printf '%s\n' 'apiVersion: audit.k8s.io/v1' 'kind: Policy' 'rules: [{level: Metadata}]' >"$STATE/audit-policy.yaml"
  local pki=$STATE/pki
  # shellcheck disable=SC2054 # the commas are the flags' own
  local flags=(
    --etcd-servers="$ETCD_URL"
    --bind-address=0.0.0.0 --secure-port=6443 --advertise-address="$NODE_IP"
    --service-cluster-ip-range="$SERVICE_CIDR"
    --tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key"
    --client-ca-file="$pki/ca.crt"
    --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --allow-privileged=true
    --service-account-issuer=https://kubernetes.default.svc --api-audiences=https://kubernetes.default.svc
    --service-account-key-file="$pki/sa.pub" --service-account-signing-key-file="$pki/sa.key"
    --kubelet-client-certificate="$pki/apiserver-kubelet.crt" --kubelet-client-key="$pki/apiserver-kubelet.key"
    --kubelet-certificate-authority="$pki/ca.crt" --kubelet-preferred-address-types=InternalIP
    # One file that never rotates (MiB), or a test would lose the beginning of what it reads.
    --audit-policy-file="$STATE/audit-policy.yaml" --audit-log-path="$AUDIT_LOG" --audit-log-maxsize=8192
  )
  spawn apiserver "$BIN/kube-apiserver" "${flags[@]}"
}
apiserver_ready() { [ "$(kube get --raw /readyz 2>/dev/null)" = ok ]; }
wait_apiserver() { wait_for 90 apiserver 'the API server' apiserver_ready; }

start_controller_manager() {
  if running controller-manager && controllers_answer; then return; fi
  stop controller-manager
  say 'starting the controller manager'
  local config=$STATE/controller-manager.kubeconfig
  local flags=(
    --kubeconfig="$config" --authentication-kubeconfig="$config" --authorization-kubeconfig="$config"
    --service-account-private-key-file="$STATE/pki/sa.key" --root-ca-file="$STATE/pki/ca.crt" --use-service-account-credentials=true
    # Everything but clouds, volumes and node addresses.
    --controllers='*,-cloud-node-lifecycle,-route,-service,-nodeipam,-attachdetach,-persistentvolume-binder,-persistentvolume-expander,-pv-protection,-pvc-protection,-ephemeral-volume'
    # There is one: no lease to wait for, none to fill the audit log.
    --leader-elect=false
    # Deleting a namespace asks once for every kind; at the default 20 requests a second that takes many seconds.
    --kube-api-qps=500 --kube-api-burst=1000 --concurrent-namespace-syncs=20
  )
  spawn controller-manager "$BIN/kube-controller-manager" "${flags[@]}"
}
controllers_answer() { in_netns bash -c 'exec 3<>/dev/tcp/127.0.0.1/10257' 2>/dev/null; }

restart_apiserver() {
  preflight_cheap
  [ -f "$(pid_file apiserver)" ] || die 'no cluster is up' "run \`cluster up\`"
  with_kubectl
  local begin=$SECONDS
  # On SIGTERM 1.20 waits up to a minute for the connections of its watchers; a test need not.
  if [ "${1:-}" = --kill ]; then stop apiserver 0; else stop apiserver 10; fi
  start_apiserver
  wait_apiserver
  say "the API server is back after $((SECONDS - begin)) s, PID $(cat "$(pid_file apiserver)")"
}
