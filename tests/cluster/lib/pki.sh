# shellcheck shell=bash
# Keys, certificates and kubeconfigs. Sourced by ../cluster.

DAYS=30

ensure_pki() {
  # Two days of margin: a cluster that is brought up today must last the day.
  if [ -f "$STATE/pki/done" ] && openssl x509 -in "$STATE/pki/ca.crt" -checkend $((2 * 86400)) -noout >/dev/null 2>&1; then return; fi
  say 'making keys and certificates'
  # Everything below was issued by the old CA; tokens and kubeconfigs of the old cluster end with it.
  local component
  for component in kubelet controller-manager apiserver containerd etcd; do stop "$component" 2; done
  remove_containers
  rm -rf "${STATE:?}"/{pki,etcd}
  mkdir -p "$STATE"/{pki,etcd}
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$STATE/pki/ca.key" -out "$STATE/pki/ca.crt" \
    -subj /CN=drawbridge-test-ca -days "$DAYS" 2>/dev/null
  certificate apiserver /CN=kube-apiserver \
    "DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,IP:127.0.0.1,IP:$NODE_IP,IP:$SERVICE_IP"
  certificate kubelet "/O=system:nodes/CN=system:node:$NODE" "DNS:$NODE,IP:$NODE_IP"
  certificate apiserver-kubelet /O=system:masters/CN=kube-apiserver-kubelet-client
  certificate admin /O=system:masters/CN=admin
  certificate controller-manager /CN=system:kube-controller-manager
  openssl genrsa -out "$STATE/pki/sa.key" 2048 2>/dev/null
  openssl rsa -in "$STATE/pki/sa.key" -pubout -out "$STATE/pki/sa.pub" 2>/dev/null
  kubeconfig admin "$ADMIN_KUBECONFIG"
  kubeconfig controller-manager "$STATE/controller-manager.kubeconfig"
  kubeconfig kubelet "$STATE/kubelet.kubeconfig"
  touch "$STATE/pki/done"
}

# certificate NAME SUBJECT [ALTERNATIVE NAMES]: with names it serves as well, without it is a client's.
certificate() {
  local base=$STATE/pki/$1
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$base.key" -out "$base.csr" -subj "$2" 2>/dev/null
  {
    echo 'basicConstraints=critical,CA:FALSE'
    if [ -n "${3:-}" ]; then
      printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth,clientAuth\n' "$3"
    else
      echo 'extendedKeyUsage=clientAuth'
    fi
  } >"$base.ext"
  openssl x509 -req -in "$base.csr" -CA "$STATE/pki/ca.crt" -CAkey "$STATE/pki/ca.key" -CAcreateserial -days "$DAYS" \
    -extfile "$base.ext" -out "$base.crt" 2>/dev/null
  rm "$base.csr" "$base.ext"
}

# kubeconfig NAME FILE: with everything inside, so that it can be copied anywhere.
kubeconfig() {
  local pki=$STATE/pki
  (
    umask 077
    cat >"$2" <<YAML
apiVersion: v1
kind: Config
clusters: [{name: $NAME, cluster: {server: "$APISERVER_URL", certificate-authority-data: $(base64 -w0 "$pki/ca.crt")}}]
users: [{name: $1, user: {client-certificate-data: $(base64 -w0 "$pki/$1.crt"), client-key-data: $(base64 -w0 "$pki/$1.key")}}]
contexts: [{name: $NAME, context: {cluster: $NAME, user: $1, namespace: default}}]
current-context: $NAME
YAML
  )
}
