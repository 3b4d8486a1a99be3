# Every command that CI runs, under the same name. `just --list` shows them.

set shell := ["bash", "-euo", "pipefail", "-c"]

# What a fuzz target may take, in seconds.
fuzz_seconds := "20"

_list:
    @just --list --unsorted

# Everything that needs only Rust: formatting, lints, tests, dependencies.
check: fmt lint test deny

# Formatting.
fmt:
    cargo fmt --all --check

# Lints, with every feature and target, and the shell scripts.
lint:
    cargo clippy --workspace --all-targets --all-features -- -D warnings
    shellcheck -x .ci/run
    shellcheck -a tests/cluster/cluster tests/cluster/verify tests/clients/setup tests/clients/run

# The tests that need nothing but Rust.
test:
    cargo test --workspace

# Licences, sources and duplicates of the dependencies.
deny:
    cargo deny --all-features check bans licenses sources

# Write the generated YAML anew.
generate:
    cargo run --quiet --package drawbridge-crds --bin crdgen > crds/yaml/consolesession.yaml

# Build every fuzz target and run each for some seconds. Needs a nightly toolchain and cargo-fuzz.
fuzz seconds=fuzz_seconds:
    #!/usr/bin/env bash
    set -euo pipefail
    cd protocol
    cargo +nightly fuzz build
    for target in $(cargo +nightly fuzz list); do
        echo "fuzz: $target for {{ seconds }} s"
        cargo +nightly fuzz run "$target" -- -max_total_time={{ seconds }} -verbosity=0 -print_final_stats=1
    done

# A real Kubernetes on this machine (root, Debian 12); see tests/cluster/README.md.
cluster-up:
    tests/cluster/cluster up

# The same, and prove that it can do what the tests lean on.
cluster-verify:
    tests/cluster/cluster up --verify

# Stop it and remove every trace but the cache.
cluster-down:
    tests/cluster/cluster down

# Path of its kubeconfig.
cluster-kubeconfig:
    @tests/cluster/cluster kubeconfig

# The end-to-end tests, against $KUBECONFIG or the local cluster (`just cluster-up`).
e2e *filter:
    tests/clients/setup
    cargo build --release --package drawbridge-operator --package drawbridge-gateway
    cargo test --package drawbridge-tests --features cluster --no-fail-fast -- {{ filter }} --nocapture

# A shell in a pod through the gateway; brings the local cluster up unless KUBECONFIG is set.
demo *args:
    cargo demo {{ args }}
