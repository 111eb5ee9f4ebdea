#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# local_cluster.sh - a real Slurm on this one machine: munge, slurmctld and N slurmd, to try job scripts with.
set -euo pipefail

usage() {
    cat <<'TEXT'
Usage: bash jobs/local_cluster.sh DIR up N | down | status

Starts a Slurm cluster whose N nodes (n1, n2, ...) are all this machine.  Configuration, key, spools and logs are in
DIR, which must be new, empty or an earlier cluster's.  `down` ends its jobs and daemons and leaves the logs.

  export SLURM_CONF=DIR/slurm.conf    for sbatch, srun, squeue, ... to find it
  CORES=2                             of a node, as Slurm counts (those of the machine)
  PATIENCE=120                        seconds that the nodes get to come up

Needs the Debian packages slurmctld, slurmd, slurm-client and munge; root is not needed.
TEXT
}

refuse() {
    echo "local_cluster.sh: $1" >&2
    exit 2
}

# What works for DIR, as "pid name" lines: daemons (they stand in DIR/log, or name DIR on their command line), and
# processes of jobs (Slurm gives them this configuration and a node's name).
daemons() {
    local pid name job
    job=$(grep -lzxF "SLURM_CONF=$dir/slurm.conf" /proc/[0-9]*/environ 2>/dev/null | xargs -r grep -lz '^SLURMD_NODENAME=' 2>/dev/null) || true
    for pid in $(pgrep 'munged|slurm.*d') $(grep -oE '[0-9]+' <<<"$job"); do
        name=$(cat "/proc/$pid/comm" 2>/dev/null) || continue
        if [[ $(readlink "/proc/$pid/cwd") == "$dir/log" || $job == *"/$pid/"* ]] ||
            tr '\0' '\n' <"/proc/$pid/cmdline" | grep -qE "(^|=)$dir/"; then
            echo "$pid $name"
        fi
    done 2>/dev/null
}

# await SECONDS COMMAND...: until it succeeds.
await() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        ((SECONDS < end)) || return 1
        sleep 0.2
    done
}
none_left() { [[ ! $(daemons) ]]; }
all_idle() { [[ $(sinfo -h -t idle -o %D 2>/dev/null) == "$nodes" ]]; }
no_jobs() { [[ ! $(squeue -h 2>/dev/null) ]]; }

# The first of as many neighbouring ports as there are daemons, none of them in use.
free_ports() {
    local base port
    for ((base = 17000; base < 30000; base += 100)); do
        for ((port = base; port <= base + nodes; port++)); do
            if (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then continue 2; fi
        done
        echo $base && return 0
    done
    refuse "no free ports"
}

configure() {
    local base user cores=${CORES:-$(nproc)}
    base=$(free_ports)
    user=$(id -un)
    mkdir -p "$dir"/{ctld,log}
    for ((i = 1; i <= nodes; i++)); do mkdir -p "$dir/n$i/tmp"; done
    # A named plugin is not looked for: slurmd then starts where no cgroups are mounted, too.
    printf 'CgroupAutomount=no\nCgroupPlugin=cgroup/v1\n' >"$dir/cgroup.conf"
    [[ -e $dir/munge.key ]] || (umask 077 && head -c 1024 /dev/urandom >"$dir/munge.key")
    cat >"$dir/slurm.conf" <<TEXT
ClusterName=local
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=$base
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
AuthInfo=socket=$dir/munge.socket,cred_expire=5
StateSaveLocation=$dir/ctld
SlurmctldPidFile=$dir/ctld/pid
SlurmctldLogFile=$dir/log/slurmctld
SlurmdSpoolDir=$dir/%n
SlurmdPidFile=$dir/%n/pid
SlurmdLogFile=$dir/log/%n
TmpFS=$dir/%n/tmp
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=pmix
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=2,sched_min_interval=0,batch_sched_delay=0
SlurmdParameters=config_overrides
ReturnToService=2
SlurmdTimeout=10
KillWait=15
MinJobAge=60
PropagateResourceLimitsExcept=ALL
NodeName=n[1-$nodes] NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=[$((base + 1))-$((base + nodes))] CPUs=$cores
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
TEXT
}

# failed WHAT LOG: end what has started, show the end of the daemon's log, and go.
failed() {
    (down) || true
    echo "local_cluster.sh: $1; the end of $dir/log/$2:" >&2
    tail -n 15 "$dir/log/$2" >&2
    exit 1
}

up() {
    local name
    for name in munged slurmctld slurmd sinfo; do
        command -v $name >/dev/null || refuse "$name is missing; on Debian: apt-get install slurmctld slurmd slurm-client munge"
    done
    none_left || refuse "a cluster is at work in $dir; \`$0 $dir down\` ends it"
    [[ -e $dir/slurm.conf || ! $(ls -A "$dir" 2>/dev/null) ]] || refuse "$dir holds other things than a cluster: name a new directory"
    configure
    munged --force --key-file="$dir/munge.key" --socket="$dir/munge.socket" --pid-file="$dir/munge.pid" \
        --log-file="$dir/log/munged" --seed-file="$dir/munge.seed" 2>"$dir/log/munged.start" ||
        failed "munged does not start" munged.start
    slurmctld -f "$dir/slurm.conf" -c || failed "slurmctld does not start" slurmctld
    for ((i = 1; i <= nodes; i++)); do
        slurmd -f "$dir/slurm.conf" -N "n$i" || failed "slurmd does not start on n$i" "n$i"
    done
    await "${PATIENCE:-120}" all_idle || failed "not all nodes are idle: $(sinfo -h -N -o '%N %T' 2>&1 | xargs)" slurmctld
    echo "$nodes nodes; export SLURM_CONF=$dir/slurm.conf"
}

down() {
    [[ -e $dir/slurm.conf ]] || refuse "there is no cluster in $dir"
    local left signal
    if [[ $(daemons) == *slurmctld* ]]; then
        timeout 10 scancel --user="$(id -un)" 2>/dev/null || true
        await 20 no_jobs || true
    fi
    for signal in TERM KILL; do
        left=$(daemons | cut -d' ' -f1)
        # shellcheck disable=SC2086 # words
        kill -$signal $left 2>/dev/null || true
        await 10 none_left && return 0
    done
    refuse "still there: $(daemons | xargs)"
}

status() {
    [[ -e $dir/slurm.conf ]] || refuse "there is no cluster in $dir"
    if none_left; then
        echo "down"
        return 1
    fi
    daemons
    sinfo -N
    squeue
}

if [[ ${1--h} == -h || $1 == --help ]]; then
    usage
    exit
fi
dir=$(realpath -m "$1") command=${2-}
export SLURM_CONF=$dir/slurm.conf
case $command:$# in
up:3)
    nodes=$3
    [[ $nodes =~ ^[1-9][0-9]?$ ]] || refuse "up $nodes: a number of nodes from 1 to 99 is needed"
    up
    ;;
down:2) down ;;
status:2) status ;;
*) refuse "$*: no such command; try --help" ;;
esac
