# shellcheck shell=bash
# containerd, the images and the kubelet. Sourced by ../cluster.

ctr_k8s() { timeout 60 ctr --address "$CONTAINERD_SOCKET" --namespace k8s.io "$@"; }

start_containerd() {
  if running containerd && containerd_answers; then return; fi
  # The kubelet would take a while to look for the new one.
  stop kubelet
  stop containerd
  say 'starting containerd'
  cat >"$STATE/containerd.toml" <<TOML
version = 2
root = "$STATE/containerd/root"
state = "$STATE/containerd/state"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs"]
[grpc]
  address = "$CONTAINERD_SOCKET"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "$PAUSE_IMAGE"
  # Without CAP_SYS_RESOURCE a lower oom_score_adj is refused, and runc dies with "can't get final child's PID from pipe: EOF".
  restrict_oom_score_adj = true
  # Pods' namespaces below the state folder, where \`down\` finds them.
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$STATE/cni"
TOML
  cat >"$STATE/cni/10-bridge.conflist" <<JSON
{"cniVersion": "0.4.0", "name": "$NAME", "plugins": [{
  "type": "bridge", "bridge": "pods", "isGateway": true, "ipMasq": false,
  "ipam": {"type": "host-local", "dataDir": "$STATE/cni/addresses", "subnet": "$POD_CIDR", "routes": [{"dst": "0.0.0.0/0"}]}
}]}
JSON
  spawn containerd containerd --config "$STATE/containerd.toml"
}
containerd_answers() { timeout 5 ctr --address "$CONTAINERD_SOCKET" version >/dev/null 2>&1; }

# Pods use these with imagePullPolicy: Never; no registry is ever asked.
ensure_images() {
  wait_for 30 containerd containerd containerd_answers
  local have image
  have=$(ctr_k8s images ls -q)
  for image in "$PAUSE_IMAGE" "$BUSYBOX_IMAGE"; do
    grep -qxF "docker.io/$image" <<<"$have" && continue
    say "loading image $image"
    if [ "$image" = "$PAUSE_IMAGE" ]; then
      busybox_archive "$image" '["sleep", "999999999"]'
    else
      busybox_archive "$image" '["sh"]'
    fi
    ctr_k8s images import "$STATE/images/archive.tar" >/dev/null || die "containerd does not take image $image" "see $STATE/logs/containerd.log"
    rm "$STATE/images/archive.tar"
  done
}

# busybox_archive IMAGE CMD: writes images/archive.tar, in the format of `docker save`, with one layer of static busybox.
busybox_archive() {
  local work=$STATE/images root=$STATE/images/root layer config applet
  if [ ! -f "$work/layer.tar" ]; then
    mkdir -p "$root"/{bin,etc,root,tmp}
    chmod 1777 "$root/tmp"
    cp /bin/busybox "$root/bin/"
    for applet in $(/bin/busybox --list); do
      [ "$applet" = busybox ] || ln -sf busybox "$root/bin/$applet"
    done
    for applet in sh vi stty tar sha256sum sleep cat dd head yes; do
      [ -e "$root/bin/$applet" ] || die "/bin/busybox has no $applet" "install Debian's busybox-static"
    done
    echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
    echo 'root:x:0:' >"$root/etc/group"
    tar -C "$root" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -cf "$work/layer.tar" .
    rm -r "$root"
  fi
  layer=$(sha256sum "$work/layer.tar" | cut -d' ' -f1)
  printf '{"architecture": "%s", "os": "linux", "config": {"Cmd": %s, "Env": ["PATH=/bin"], "WorkingDir": "/root"}, "rootfs": {"type": "layers", "diff_ids": ["sha256:%s"]}}' \
    "$(dpkg --print-architecture)" "$2" "$layer" >"$work/config.json"
  config=$(sha256sum "$work/config.json" | cut -d' ' -f1)
  mv "$work/config.json" "$work/$config.json"
  printf '[{"Config": "%s.json", "RepoTags": ["docker.io/%s"], "Layers": ["layer.tar"]}]' "$config" "$1" >"$work/manifest.json"
  tar -C "$work" -cf "$work/archive.tar" "$config.json" layer.tar manifest.json
  rm "$work/$config.json" "$work/manifest.json"
}

# Settings of the whole machine that the kubelet changes; `down` puts them back.
KUBELET_SYSCTLS=(vm.overcommit_memory vm.panic_on_oom kernel.panic kernel.panic_on_oops kernel.keys.root_maxkeys kernel.keys.root_maxbytes)

start_kubelet() {
  if running kubelet && kubelet_answers; then return; fi
  stop kubelet
  say 'starting the kubelet'
  make_cgroups
  local key
  if [ ! -f "$STATE/sysctls" ]; then
    for key in "${KUBELET_SYSCTLS[@]}"; do printf '%s=%s\n' "$key" "$(cat "/proc/sys/${key//.//}" 2>/dev/null)"; done >"$STATE/sysctls"
  fi
  # Pods have no name server: nothing they could ask stands in the namespace.
  : >"$STATE/resolv.conf"
  cat >"$STATE/kubelet.yaml" <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: 0.0.0.0
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $STATE/pki/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: $STATE/pki/kubelet.crt
tlsPrivateKeyFile: $STATE/pki/kubelet.key
cgroupDriver: cgroupfs
# Of our own: a kubelet kills every pod it does not know below its root.
cgroupRoot: /$NAME
enforceNodeAllocatable: []
failSwapOn: false
maxPods: 250
# A new node says that it is ready only with its next status, by default 10 s later.
nodeStatusUpdateFrequency: 1s
resolvConf: $STATE/resolv.conf
clusterDomain: cluster.local
clusterDNS: [10.96.0.10]
# A full disk or memory is the machine's affair, not a reason to evict a test's pod or to collect its image.
evictionHard: {memory.available: 1Mi, nodefs.available: "0%", nodefs.inodesFree: "0%", imagefs.available: "0%"}
imageGCHighThresholdPercent: 100
kubeAPIQPS: 100
kubeAPIBurst: 200
YAML
  spawn kubelet "$BIN/kubelet" --config="$STATE/kubelet.yaml" --kubeconfig="$STATE/kubelet.kubeconfig" \
    --hostname-override="$NODE" --node-ip="$NODE_IP" --root-dir="$STATE/kubelet" \
    --container-runtime=remote --container-runtime-endpoint="unix://$CONTAINERD_SOCKET" \
    --network-plugin=cni --cni-conf-dir="$STATE/cni" --cni-bin-dir=/usr/lib/cni
}
# Through the API server, as exec goes: proves the certificates and both directions.
kubelet_answers() { [ "$(kube get --raw "/api/v1/nodes/$NODE/proxy/healthz" 2>/dev/null)" = ok ]; }

make_cgroups() {
  local controller file
  for controller in "${CGROUPS[@]}"; do
    mkdir -p "/sys/fs/cgroup/$controller/$NAME" || die "cannot make a cgroup in /sys/fs/cgroup/$controller" "needs a writable cgroup mount"
  done
  # A new cpuset is empty, and takes no process until it names CPUs and memory nodes.
  for file in cpuset.cpus cpuset.mems; do cat "/sys/fs/cgroup/cpuset/$file" >"/sys/fs/cgroup/cpuset/$NAME/$file"; done
}

node_ready() {
  [ "$(kube get node "$NODE" -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}' 2>/dev/null)" = True ]
}
# A pod is refused until its namespace has an account, which the controller manager makes.
default_account() { kube -n default get serviceaccount default; }

wait_node() {
  wait_for 90 kubelet "node $NODE" node_ready
  wait_for 30 kubelet 'the kubelet to answer the API server' kubelet_answers
  wait_for 30 controller-manager 'the default ServiceAccount' default_account
}
