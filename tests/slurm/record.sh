#!/usr/bin/env bash
# Records what a real cluster prints into src/domain/slurm/recorded: cluster.sh run record.sh, with accounting. About three minutes.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
to=$here/../../src/domain/slurm/recorded
mkdir -p "$to"
export SLURM_TIME_FORMAT=%s LC_ALL=C
# What is recorded names the directory that a job was submitted from.
cd /
format='JobID:|,State:|,Reason:|,exit_code:|,StartTime:|,EndTime:|,Name:256|'
submit() {
    local name=$1 script=$2
    shift 2
    printf '#!/bin/bash\n%s\n' "$script" | sbatch --parsable --no-requeue --job-name="$name" --output=/dev/null "$@"
}
state() { squeue --noheader --states=all --Format=State:20 --user=0 --job="$1" | tr -d ' '; }
wait_for() { until [ "$(state "$1")" = "$2" ]; do sleep 0.2; done; }

completed=$(submit completed 'true')
failed=$(submit failed 'exit 7')
cancelled=$(submit cancelled 'sleep 600')
timed_out=$(submit timed-out 'sleep 600' --partition=short --time=1)
node_fail=$(submit node-fail 'sleep 600' --nodelist=node2)
wait_for "$cancelled" RUNNING
scancel "$cancelled"
wait_for "$completed" COMPLETED
wait_for "$failed" FAILED
wait_for "$cancelled" CANCELLED
wait_for "$node_fail" RUNNING
"$here/cluster.sh" node stop node2
wait_for "$node_fail" NODE_FAIL
"$here/cluster.sh" node start node2
wait_for "$timed_out" TIMEOUT
preempted=$(submit preempted 'sleep 600' --partition=second --exclusive --time=5)
wait_for "$preempted" RUNNING
running=$(submit 'running | odd name' 'sleep 600' --partition=first --exclusive)
wait_for "$preempted" PREEMPTED
wait_for "$running" RUNNING
pending=$(submit pending 'true' --partition=first)
until [ "$(squeue --noheader --Format=Reason:20 --job="$pending" | tr -d ' ')" = Resources ]; do sleep 0.2; done

squeue --noheader --states=all --user=0 --Format="$format" >"$to/squeue.txt"
scontrol --oneliner show job "$failed" >"$to/scontrol-failed.txt"
scontrol --oneliner show job 999999 >"$to/scontrol-unknown.txt" 2>&1 || true
# Accounting is told a moment later.
until sacct -n -X --name=preempted --format=State | grep -q PREEMPTED; do sleep 0.5; done
sacct --noheader --allocations --parsable2 --starttime=now-1days --format=JobIDRaw,State,ExitCode,Start,End,JobName \
    >"$to/sacct.txt"
submit refused 'true' --partition=nowhere 2>"$to/sbatch-refused.txt" || true
scancel "$running"
"$here/cluster.sh" controller stop
squeue 2>"$to/squeue-controller-down.txt" || true
submit down 'true' 2>"$to/sbatch-controller-down.txt" || true
scontrol show job 1 >"$to/scontrol-controller-down.txt" 2>&1 || true
scancel "$pending" 2>"$to/scancel-controller-down.txt" || true
"$here/cluster.sh" controller start
