#!/usr/bin/env bash
# Everything but the formatting; wants DATABASE_URL (scripts/with-postgres.sh sets it).
set -euo pipefail
cd "$(dirname "$0")/.."
cargo clippy --all-targets --locked -- -D warnings
scripts/sqlx-prepare.sh --check
if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --locked "$@"
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
    echo "test: the Slurm tests want cargo-nextest, and are left out"
fi
