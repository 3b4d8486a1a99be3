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
    shellcheck -a tests/cluster/cluster tests/cluster/verify tests/clients/setup tests/clients/run tests/browser/run

# The tests that need nothing but Rust.
test:
    cargo test --workspace

# Licences, sources and duplicates of the dependencies.
deny:
    cargo deny --all-features check bans licenses sources

# Write the generated YAML and JSON Schema anew.
generate:
    cargo run --quiet --package drawbridge-audit --features schemagen --bin schemagen > audit/schema/event.v1.schema.json
    cargo run --quiet --package drawbridge-crds --features crdgen --bin crdgen > crds/yaml/consolesession.yaml

# Build every fuzz target and run each for some seconds. Needs a nightly toolchain and cargo-fuzz.
fuzz seconds=fuzz_seconds:
    #!/usr/bin/env bash
    set -euo pipefail
    cd protocol/fuzz
    cargo +nightly fuzz build
    for target in $(cargo +nightly fuzz list); do
        echo "fuzz: $target for {{ seconds }} s"
        cargo +nightly fuzz run "$target" -- -max_total_time={{ seconds }} -rss_limit_mb=1024 -malloc_limit_mb=64 -verbosity=0 -print_funcs=0
    done

# The terminal page alone, types checked, into gateway/web/dist; cargo builds its own. Needs Node.js with npm.
web:
    cd gateway/web && npm ci --ignore-scripts --no-audit --no-fund && npm run build

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

# The end-to-end tests and the facts about the API, on $KUBECONFIG or the local cluster (`just cluster-up`).
e2e *filter:
    tests/clients/setup
    DRAWBRIDGE_CLUSTER=real DRAWBRIDGE_SKIP="${DRAWBRIDGE_SKIP:-faults}" cargo test --package drawbridge-tests --features kubectl,foreign-clients --no-fail-fast -- {{ filter }} --nocapture

# What `just test` cannot prove on the sandbox, for want of them: kubectl, and the Python and JavaScript clients.
clients *filter:
    tests/clients/setup
    DRAWBRIDGE_CLUSTER=sandbox cargo test --package drawbridge-tests --features kubectl,foreign-clients --test kubectl --test foreign_clients --no-fail-fast -- {{ filter }} --nocapture

# The audit log's sinks against real servers: nats-server (Debian) and tansu, which speaks Kafka (`cargo install tansu`).
audit-sinks *filter:
    cargo test --package drawbridge-audit --features nats,kafka --test nats --test kafka -- {{ filter }} --nocapture

# Five minutes at 1,000 audit events a second with the sink down and a restart in between.
audit-soak:
    cargo test --package drawbridge-audit --features log --test soak -- --ignored --nocapture

# A recording of a gigabyte of output: verified, searched, exported and replayed in 16 MiB.
large:
    cargo test --release --package drawbridge-cli --test large -- --ignored --nocapture

# What a Kubernetes API does, fact by fact, on $KUBECONFIG or the local cluster; `just test` checks the sandbox.
conformance:
    DRAWBRIDGE_CLUSTER=real cargo test --package drawbridge-tests --test conformance -- --nocapture

# The terminal page in Chromium, on the sandbox or (`real`) on $KUBECONFIG or the local cluster. Needs kubectl, npm and Chromium.
browser cluster=env("DRAWBRIDGE_CLUSTER", "sandbox"):
    DRAWBRIDGE_CLUSTER={{ cluster }} DRAWBRIDGE_WEB=required cargo test --package drawbridge-tests --features browser --test browser -- --nocapture

# The product on the sandbox, and a shell in the browser; `--check` tries it and ends.
demo *args:
    cargo demo {{ args }}

_bench-programs:
    cargo build --release --package drawbridge-gateway --package drawbridge-bench

# The gateway beside haproxy and kubectl proxy, and with recordings beside itself; writes the tables of docs/performance.md.
# Up to half an hour; `just bench --only recorded` is the second table alone.
bench *args: _bench-programs
    cargo run --quiet --release --package drawbridge-bench -- run --docs docs/performance.md {{ args }}

# The same with small numbers: shows that it works, measures nothing.
bench-smoke: _bench-programs
    cargo run --quiet --release --package drawbridge-bench -- run --quick

# A real cluster, straight, through the gateway, and recorded by it: kubeconfigs for each way, and a pod.
bench-real direct session recorded pod: _bench-programs
    cargo run --quiet --release --package drawbridge-bench -- real --direct {{ direct }} --session {{ session }} --recorded {{ recorded }} --pod {{ pod }} --docs docs/performance.md
