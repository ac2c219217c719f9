#!/usr/bin/env bash
# Reads the alert rules as Prometheus does, and runs their tests. Needs promtool, which comes with Prometheus.
set -euo pipefail
cd "$(dirname "$0")/../deploy/monitoring"
promtool=${PROMTOOL:-promtool}
command -v "$promtool" >/dev/null || { echo "check-alerts: no promtool: apt-get install -y prometheus, or set PROMTOOL" >&2; exit 1; }
"$promtool" check rules rules.yaml
"$promtool" test rules rules_test.yaml
