#!/usr/bin/env bash
# Everything but the formatting; wants DATABASE_URL (scripts/with-postgres.sh sets it).
set -euo pipefail
cd "$(dirname "$0")/.."
cargo clippy --all-targets --locked -- -D warnings
scripts/sqlx-prepare.sh --check
if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --locked "$@"
else
    echo "test: cargo-nextest is not installed; cargo test does the same, more slowly"
    cargo test --locked "$@"
fi
