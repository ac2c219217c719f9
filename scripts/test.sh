#!/usr/bin/env bash
# Everything but the formatting; wants DATABASE_URL (scripts/with-postgres.sh sets it).
set -euo pipefail
cd "$(dirname "$0")/.."
cargo clippy --all-targets --locked -- -D warnings
scripts/sqlx-prepare.sh --check
# What the service is made of. Two of the tools are compiled the first time, in some minutes.
if [ -n "${CI:-}" ]; then
    scripts/check-supply-chain.sh
else
    echo "test: the packages that the service is made of are not looked at: make check-supply-chain does"
fi
if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --locked "$@"
    # What others see of the API: before the next build, which replaces the binary by one with a broken fence.
    if [ -n "${CI:-}" ] || [ -x tests/contract/node_modules/.bin/spectral ]; then
        env -u DATABASE_URL scripts/check-contract.sh
    else
        echo "test: the checks of the contract are left out: make check-contract installs what they need, and makes them"
    fi
    # With the fence broken on purpose the simulation must find that it is.
    cargo nextest run --locked --features sabotage --test simulation
    # A Slurm cluster of its own, where one can be started.
    if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
        tests/slurm/cluster.sh run scripts/test-slurm.sh
    elif [ -n "${CI:-}" ]; then
        echo "test: the Slurm tests need root and Debian's packages" >&2
        exit 1
    else
        echo "test: not root on a Debian, so the Slurm tests are left out"
    fi
else
    echo "test: cargo-nextest is not installed; cargo test does the same, more slowly"
    cargo test --locked "$@"
    cargo test --locked --features sabotage --test simulation
    echo "test: the Slurm tests want cargo-nextest, and are left out"
fi
