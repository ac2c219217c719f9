#!/usr/bin/env bash
# The tests on a Slurm cluster: tests/slurm/cluster.sh run scripts/test-slurm.sh
set -euo pipefail
cd "$(dirname "$0")/.."
cargo nextest run --locked --test backends --run-ignored only -E 'test(/^slurm::/)'
# One at a time: they stop the controller, and take nodes their power.
cargo nextest run --locked --test service --run-ignored only -E 'test(/^slurm::/)' --test-threads 1
