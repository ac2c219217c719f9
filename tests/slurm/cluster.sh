#!/usr/bin/env bash
# A throw-away Slurm cluster on this machine: a controller, two nodes, a third one where jobs make room
# for others, and accounting if it is asked for. Needs root.
#
#   cluster.sh run COMMAND...        make one, run the command with it, and take it down
#   cluster.sh up|down               in ESTIMATORD_TEST_SLURM, for work by hand
#   cluster.sh controller stop|start
#   cluster.sh node stop|start NAME  stop kills the node's daemon and everything that it runs, as a power failure would
#   cluster.sh install               the packages alone
#
# A command finds SLURM_CONF and ESTIMATORD_TEST_SLURM (the directory of the cluster) in its environment.
# ESTIMATORD_TEST_SLURM_ACCOUNTING=1 brings a database and slurmdbd, so that sacct works.
set -euo pipefail

accounting=${ESTIMATORD_TEST_SLURM_ACCOUNTING:-0}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

fail() { echo "slurm: $*" >&2; exit 1; }

# until_true SECONDS WHAT COMMAND...
until_true() {
    local end=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$end" ] || fail "$what: not within time; the logs are in $dir/log"
        sleep 0.1
    done
}

install_packages() {
    local wanted=(munge slurmctld slurmd slurm-client libpmix2) missing=() package
    [ "$accounting" != 1 ] || wanted+=(slurmdbd slurm-wlm-mysql-plugin mariadb-server)
    for package in "${wanted[@]}"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    if [ ${#missing[@]} -gt 0 ]; then
        command -v apt-get >/dev/null || fail "please install: ${missing[*]}"
        # The packages start daemons of their own, which nobody wants here.
        local policy=/usr/sbin/policy-rc.d made=
        [ -e $policy ] || { printf '#!/bin/sh\nexit 101\n' >$policy && chmod 755 $policy && made=1; }
        local options=(-qq -o DPkg::Lock::Timeout=600 -o Dpkg::Use-Pty=0)
        export DEBIAN_FRONTEND=noninteractive
        { apt-get "${options[@]}" install -y --no-install-recommends "${missing[@]}" ||
            { apt-get "${options[@]}" update &&
                apt-get "${options[@]}" install -y --no-install-recommends "${missing[@]}"; }; } >/dev/null ||
            { [ -z "$made" ] || rm -f $policy; fail "apt-get cannot install ${missing[*]}"; }
        [ -z "$made" ] || rm -f $policy
    fi
    # Slurm's plugin opens the library by a name that only the development package has.
    local libraries
    for libraries in /usr/lib/*/pmix2/lib; do
        [ -e "$libraries/libpmix.so" ] || ln -s libpmix.so.2 "$libraries/libpmix.so"
    done
}

# Every node is a host of its own as far as MPI can tell: a name, shared memory, and a name for the loopback address.
# Where namespaces are not allowed the nodes share the machine's.
can_isolate() { unshare --mount --uts --ipc true 2>/dev/null; }
as_host() {
    local name=$1
    shift
    if can_isolate; then
        unshare --mount --uts --ipc --propagation slave -- sh -ec '
            hostname "$1"
            mount -t tmpfs -o mode=1777 none /dev/shm
            mount --bind "$2" /etc/hosts
            shift 2
            exec "$@"' sh "$name" "$dir/etc/hosts" "$@"
    else
        "$@"
    fi
}

is_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Six ports in a row that nobody listens on.
choose_ports() {
    local base offset
    while :; do
        base=$((20000 + RANDOM % 10000))
        for offset in 0 1 2 3 4 5; do is_free $((base + offset)) || continue 2; done
        echo "$base"
        return
    done
}

configure() {
    local port controller=control listening
    port=$(choose_ports)
    listening='CommunicationParameters=NoCtldInAddrAny,NoInAddrAny'
    can_isolate || { controller=$(hostname) listening=; }
    install -d -m 755 "$dir" "$dir/etc" "$dir/log" "$dir/run"
    install -d -m 700 -o slurm -g slurm "$dir/state"
    install -d -m 711 -o munge -g munge "$dir/munge"
    install -d -m 1777 "$dir/tmp-node1" "$dir/tmp-node2" "$dir/tmp-node3"
    chown slurm "$dir/log" "$dir/run"
    head -c 1024 /dev/urandom | install -m 600 -o munge -g munge /dev/stdin "$dir/munge/key"
    { cat /etc/hosts; printf '127.0.0.1 %s\n' control node1 node2 node3; } >"$dir/etc/hosts"
    # Asked for by slurmd even where nothing uses it; this version asks nothing of the system.
    echo CgroupPlugin=cgroup/v1 >"$dir/etc/cgroup.conf"
    # As real clusters have it, where this machine lets it: what leaves its session is of the job all the same.
    local track=linuxproc
    if [ -w /sys/fs/cgroup/freezer ] && grep -q ' /sys/fs/cgroup/freezer cgroup rw' /proc/mounts; then track=cgroup; fi
    cat >"$SLURM_CONF" <<CONF
ClusterName=estimatord
SlurmctldHost=$controller(127.0.0.1)
SlurmctldPort=$port
SlurmUser=slurm
AuthType=auth/munge
AuthInfo=socket=$dir/munge/socket
StateSaveLocation=$dir/state
SlurmctldPidFile=$dir/run/slurmctld.pid
SlurmctldLogFile=$dir/log/slurmctld.log
SlurmdPidFile=$dir/run/%n.pid
SlurmdLogFile=$dir/log/%n.log
SlurmdSpoolDir=$dir/spool-%n
# PMIx names a directory in there by the step alone.
TmpFS=$dir/tmp-%n
ProctrackType=proctrack/$track
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,bf_interval=1
SlurmdTimeout=10
KillWait=5
MinJobAge=${ESTIMATORD_TEST_SLURM_MIN_JOB_AGE:-300}
MaxJobCount=20000
PreemptType=preempt/partition_prio
PreemptMode=CANCEL
NodeName=node1 NodeAddr=127.0.0.1 Port=$((port + 1)) CPUs=8 RealMemory=8000 Feature=plain State=UNKNOWN
NodeName=node2 NodeAddr=127.0.0.1 Port=$((port + 2)) CPUs=8 RealMemory=8000 Feature=plain,fast State=UNKNOWN
NodeName=node3 NodeAddr=127.0.0.1 Port=$((port + 5)) CPUs=8 RealMemory=8000 State=UNKNOWN
PartitionName=main Nodes=node[1-2] Default=YES MaxTime=INFINITE State=UP PriorityTier=1
# Jobs of the one make room for those of the other.
PartitionName=second Nodes=node3 MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=first Nodes=node3 MaxTime=INFINITE State=UP PriorityTier=10
PartitionName=short Nodes=node[1-2] MaxTime=1 State=UP PriorityTier=1
CONF
    if [ "$accounting" = 1 ]; then
        cat >>"$SLURM_CONF" <<CONF
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=$((port + 3))
AccountingStoragePass=$dir/munge/socket
CONF
        install -m 600 -o slurm -g slurm /dev/stdin "$dir/etc/slurmdbd.conf" <<CONF
DbdHost=$controller
DbdAddr=127.0.0.1
DbdPort=$((port + 3))
SlurmUser=slurm
AuthType=auth/munge
AuthInfo=socket=$dir/munge/socket
PidFile=$dir/run/slurmdbd.pid
LogFile=$dir/log/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=$((port + 4))
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct_db
$listening
CONF
    fi
    # What holds for the daemons only: commands run under the machine's own name.
    printf 'Include %s\n%s\n' "$SLURM_CONF" "$listening" >"$dir/etc/daemon.conf"
}

start_accounting() {
    local database=$dir/database port
    port=$(sed -n 's/^StoragePort=//p' "$dir/etc/slurmdbd.conf")
    install -d -m 700 -o mysql -g mysql "$database"
    mariadb-install-db --no-defaults --user=mysql --datadir="$database" --skip-test-db >"$dir/log/database.log" 2>&1
    setsid mariadbd --no-defaults --user=mysql --datadir="$database" --socket="$database/socket" \
        --pid-file="$database/pid" --bind-address=127.0.0.1 --port="$port" --innodb-lock-wait-timeout=900 \
        </dev/null >>"$dir/log/database.log" 2>&1 &
    until_true 30 'the database' mariadb --no-defaults -S "$database/socket" -e 'SELECT 1'
    mariadb --no-defaults -S "$database/socket" -e "CREATE DATABASE slurm_acct_db;
        CREATE USER slurm@127.0.0.1 IDENTIFIED BY 'slurm'; GRANT ALL ON slurm_acct_db.* TO slurm@127.0.0.1"
    as_host control slurmdbd
    until_true 30 slurmdbd sacctmgr -n show cluster
    sacctmgr -Q -i add cluster estimatord >/dev/null
    sacctmgr -Q -i add qos scavenger >/dev/null
}

start_controller() {
    as_host control slurmctld -f "$dir/etc/daemon.conf"
    until_true 30 slurmctld scontrol ping
}

start_node() { as_host "$1" slurmd -f "$dir/etc/daemon.conf" -N "$1"; }

both_up() { [ "$(sinfo -h -N -p main -t idle,mix,alloc,comp -o %N | grep -c .)" -eq 2 ]; }

up() {
    [ "$(id -u)" -eq 0 ] || fail "only root can start a cluster"
    install_packages
    configure
    runuser -u munge -- munged --key-file="$dir/munge/key" --socket="$dir/munge/socket" --num-threads=2 \
        --pid-file="$dir/munge/pid" --log-file="$dir/munge/log" --seed-file="$dir/munge/seed"
    until_true 10 munged munge -S "$dir/munge/socket" -n
    [ "$accounting" != 1 ] || start_accounting
    start_controller
    start_node node1
    start_node node2
    start_node node3
    until_true 30 'the nodes' both_up
}

# Processes of this cluster's daemons and of their jobs, told by the configuration in their environment.
ours() {
    local process
    for process in /proc/[0-9]*; do
        if tr '\0' '\n' <"$process/environ" 2>/dev/null | grep -qxE "SLURM_CONF=$dir/etc/(slurm|daemon).conf"; then
            [ "${process#/proc/}" = $$ ] || [ "${process#/proc/}" = "$BASHPID" ] || echo "${process#/proc/}"
        fi
    done 2>/dev/null
}

stop_by_pid() {
    local pid
    pid=$(cat "$1" 2>/dev/null) || return 0
    kill -s "${2:-TERM}" "$pid" 2>/dev/null || return 0
    until_true 20 "the end of $1" eval "! kill -0 $pid"
}

stop_node() {
    local name=$1 pid jobs job
    pid=$(cat "$dir/run/$name.pid" 2>/dev/null) || return 0
    kill -KILL "$pid" 2>/dev/null || true
    # A node that loses its power runs nothing any more: neither the steps' daemons nor what they run.
    for job in $(pgrep -f "^slurmstepd: " || true); do
        if tr '\0' '\n' <"/proc/$job/environ" 2>/dev/null | grep -qx "SLURM_CONF=$SLURM_CONF" &&
            [ "$(nsenter -t "$job" -u hostname 2>/dev/null)" = "$name" ]; then
            jobs=$(pgrep -P "$job" || true)
            kill -KILL "$job" 2>/dev/null || true
            for pid in $jobs; do kill -KILL -- "-$pid" 2>/dev/null || kill -KILL "$pid" 2>/dev/null || true; done
        fi
    done
}

down() {
    [ -d "$dir" ] || return 0
    timeout 5 scancel --user=root 2>/dev/null || true
    local name
    for name in slurmctld node1 node2 node3 slurmdbd; do stop_by_pid "$dir/run/$name.pid" || true; done
    for name in $(pgrep -f "^slurmstepd: " || true); do
        if tr '\0' '\n' <"/proc/$name/environ" 2>/dev/null | grep -qx "SLURM_CONF=$SLURM_CONF"; then
            pkill -KILL -P "$name" || true
            kill -KILL "$name" 2>/dev/null || true
        fi
    done
    stop_by_pid "$dir/database/pid" || true
    stop_by_pid "$dir/munge/pid" || true
    rm -rf "$dir"
}

case "${1:-}" in
run)
    shift
    # Short, because sockets are in there.
    dir=$(mktemp -d /tmp/estd-slurm.XXXXXX)
    export ESTIMATORD_TEST_SLURM=$dir SLURM_CONF=$dir/etc/slurm.conf
    trap down EXIT
    up
    "$@"
    ;;
install) install_packages ;;
up | down | controller | node)
    dir=${ESTIMATORD_TEST_SLURM:?the directory of the cluster}
    export SLURM_CONF=$dir/etc/slurm.conf
    case "$1 ${2:-}" in
    'up '*) up ;;
    'down '*) down ;;
    'controller stop') stop_by_pid "$dir/run/slurmctld.pid" ;;
    'controller start') start_controller ;;
    'node stop') stop_node "$3" ;;
    'node start') start_node "$3" && until_true 60 "node $3" both_up ;;
    *) fail "unknown: $*" ;;
    esac
    ;;
*) sed -n '2,12s/^# \{0,1\}//p' "$here/cluster.sh" >&2; exit 2 ;;
esac
