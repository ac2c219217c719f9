#!/usr/bin/env bash
# The tests on a Slurm cluster: tests/slurm/cluster.sh run scripts/test-slurm.sh
set -euo pipefail
cd "$(dirname "$0")/.."
cargo nextest run --locked --test backends --run-ignored only -E 'test(/^slurm::/)'
# The short form of `make chaos`, with the binary that the tests were built with.
scripts/chaos.py --kills "${ESTIMATORD_TEST_CHAOS_KILLS:-25}" --seed 1 --binary "${CARGO_TARGET_DIR:-target}/debug/estimatord"
# One at a time: they stop the controller, and take nodes their power.
cargo nextest run --locked --test service --run-ignored only -E 'test(/^slurm::/)' --test-threads 1
