# shellcheck shell=bash
# The Kubernetes servers from Debian's source package, and a kubectl that speaks WebSocket; both cached. Sourced by ../cluster.

KUBERNETES=1.20.2
BIN=$CACHE/kubernetes-$KUBERNETES
SERVERS=(kube-apiserver kube-controller-manager kubelet)
# 1.30 is the first kubectl that tries WebSocket before SPDY.
KUBECTL_MINOR=30

ensure_binaries() {
  local server built=yes
  for server in "${SERVERS[@]}"; do [ -x "$BIN/$server" ] || built=no; done
  if [ "$built" = no ]; then build_kubernetes; fi
  find_kubectl >/dev/null || fetch_kubectl
  with_kubectl
}

build_kubernetes() {
  local scratch=$CACHE/build begin=$SECONDS
  need_space "$CACHE" 6 'building Kubernetes'
  say "building Kubernetes $KUBERNETES from Debian's source package, once: about 8 minutes on 2 cores, into $BIN"
  apt_install dpkg-dev make rsync golang-go golang-github-modern-go-reflect2-dev
  mkdir -p "$scratch"
  say 'building: fetching the source'
  quietly build-update private_apt "$scratch/apt" bookworm deb-src update
  if [ ! -f "$scratch/unpacked" ]; then
    rm -rf "$scratch"/kubernetes-*
    (cd "$scratch" && quietly build-source private_apt "$scratch/apt" bookworm deb-src source kubernetes)
    touch "$scratch/unpacked"
  fi
  say 'building: compiling'
  quietly build-compile compile_kubernetes "$scratch"
  local server
  mkdir -p "$BIN.new"
  for server in "${SERVERS[@]}"; do cp -L "$scratch"/kubernetes-*/_output/bin/"$server" "$BIN.new/"; done
  [ "$("$BIN.new/kubelet" --version)" = "Kubernetes v$KUBERNETES" ] || die "the source package built $("$BIN.new/kubelet" --version), not $KUBERNETES"
  rm -rf "$BIN"
  mv "$BIN.new" "$BIN"
  rm -rf "$scratch"
  say "built Kubernetes $KUBERNETES in $((SECONDS - begin)) s"
}

# In a subshell: it changes folder and environment.
compile_kubernetes() (
  set -e
  cd "$1"/kubernetes-*/ || exit
  # The vendored reflect2 1.0.1 breaks when compiled by Go 1.18 or later: the API server then panics on every map that
  # its audit log marshals, and a TokenReview gets no answer. Debian's 1.0.2 has the fix.
  rm -rf vendor/github.com/modern-go/reflect2
  cp -r /usr/share/gocode/src/github.com/modern-go/reflect2 vendor/github.com/modern-go/
  rm -f vendor/github.com/modern-go/reflect2/go.mod
  # The tree must be seen as k8s.io/kubernetes of a GOPATH, and be the working folder under that name.
  export GOPATH=$PWD/.gopath GO111MODULE=off CGO_ENABLED=0 GOFLAGS='' GOTOOLCHAIN=local PATH=/usr/lib/go/bin:$PATH
  mkdir -p "$GOPATH/src/k8s.io"
  ln -sfn "$PWD" "$GOPATH/src/k8s.io/kubernetes"
  cd "$GOPATH/src/k8s.io/kubernetes" || exit
  make WHAT="${SERVERS[*]/#/cmd/}"
)

# Prints the path of a kubectl that will do: the caller's choice, the one on PATH, or the cached one.
find_kubectl() {
  local candidate
  for candidate in "${KUBECTL:-}" "$(command -v kubectl || true)" "$CACHE/kubectl/kubectl"; do
    if [ -n "$candidate" ] && usable_kubectl "$candidate"; then
      printf '%s\n' "$candidate"
      return
    fi
  done
  return 1
}

# A dispatcher, as the Google Cloud SDK ships, runs another kubectl according to the server's version: not what we test with.
usable_kubectl() {
  local version
  version=$("$1" version --client -o json 2>/dev/null | sed -n 's/.*"gitVersion": "v1\.\([0-9]*\.[^"]*\)".*/\1/p' | head -n 1)
  [[ $version =~ ^([0-9]+)\. && $version != *dispatcher* ]] && [ "${BASH_REMATCH[1]}" -ge "$KUBECTL_MINOR" ]
}

fetch_kubectl() {
  local scratch=$CACHE/kubectl.new
  say "fetching kubectl from Debian 13's package kubectl"
  rm -rf "$scratch"
  mkdir -p "$scratch"
  quietly kubectl-update private_apt "$scratch/apt" trixie deb update
  (cd "$scratch" && quietly kubectl-download private_apt "$scratch/apt" trixie deb download kubectl)
  dpkg-deb --fsys-tarfile "$scratch"/kubectl_*.deb | tar -xf - -C "$scratch" ./usr/bin/kubectl
  usable_kubectl "$scratch/usr/bin/kubectl" || die "Debian's package is not a kubectl 1.$KUBECTL_MINOR or newer that runs here"
  rm -rf "$CACHE/kubectl"
  mkdir -p "$CACHE/kubectl"
  mv "$scratch/usr/bin/kubectl" "$CACHE/kubectl/"
  rm -rf "$scratch"
}
