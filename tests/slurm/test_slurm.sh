#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Job scripts on a Slurm of four nodes on this machine: stopped, queued again, cancelled, drained, robbed of a node, a job
# ends with the bytes of a plain run.
# shellcheck source=../e2e/lib.sh
. "$(dirname "$0")/../e2e/lib.sh"
root=$(cd "$here/../.." && pwd)
for name in munged slurmctld slurmd sbatch; do
    command -v $name >/dev/null || { echo "skipped: no $name" && exit 77; }
done
results() { (cd "$1" && find ckpt safetensors compressed-tensors -type f ! -name state.json ! -name lock ! -name model.hash.json | LC_ALL=C sort); }
cluster() { bash "$root/jobs/local_cluster.sh" "$temp/cluster" "$@"; }
trap 'cluster down >/dev/null; rm -rf "$temp"' EXIT
micro llama_default
recipe r.json m_llama_default 600
expect 0 mpi 1 run r.json -o plain
# a daemon that does not start: its words are shown, and nothing stays
mkdir bin
printf '#!/bin/sh\necho "no such device" >>"%s/cluster/log/n1"\nexit 1\n' "$temp" >bin/slurmd
chmod +x bin/slurmd
PATH=$PWD/bin:$PATH expect 1 cluster up 2
check "why slurmd does not start: $(cat err)" grep -q 'no such device' err
expect 1 cluster status
CORES=2 PATIENCE=$hang expect 0 cluster up 4
grep 'nodes;' out
export SLURM_CONF=$temp/cluster/slurm.conf BQ_HOME=$root BQ_RECIPE=r.json BQ_MODEL=m_llama_default BQ_TOKENS=cal.h5 BQ_EVAL=eval.h5
export BQ_BLOCKQ=./wrapped BQ_OPTIONS="--save-every 0.3 --timeout 15" OMP_NUM_THREADS=1 BQ_PATIENCE=60
# The program, and a note of each rank's exit code.
cat >wrapped <<TEXT
#!/bin/bash
trap : USR1 TERM
code=0
"$blockq" "\$@" || code=\$?
[[ \$1 != run ]] || echo "\$SLURM_JOB_ID rank \$SLURM_PROCID of \$SLURM_NTASKS code \$code" >>codes
exit \$code
TEXT
chmod +x wrapped

# submit DIR OPTIONS...: the job of a script, as $job; its words are in DIR.log
submit() {
    export BQ_OUT=$1
    job=$(sbatch --parsable --output="$1.log" --time=10 "${@:2}" "$root/jobs/adascale_8b.sh")
}
# await TEXT COMMAND...
await() {
    local text=$1 end=$((SECONDS + hang))
    shift
    until "$@"; do
        if ((SECONDS >= end)); then
            bad "waited in vain: $text"
            squeue
            tail -n 20 "$BQ_OUT.log"
            return 0
        fi
        sleep 0.2
    done
    good
}
said() { [[ $(grep -sc "$1" "$BQ_OUT.log") -ge ${2:-1} ]]; }
state() { [[ $(squeue -h -j "$job" -o %T 2>/dev/null) == "$1" ]]; }
over() { [[ ! $(squeue -h -n adascale-8b) ]]; }
# at_work N: round N has begun and keeps states
at_work() { said ' plan [0-9]* MB' "$1" && compgen -G "$BQ_OUT/ckpt/inside_*.h5" >/dev/null; }
codes() { sed -n "s/^$job rank .* code //p" codes | sort | uniq -c | xargs; }

# A signal as the time limit sends it: every rank ends with 75, the job is queued again, and after another one goes on
# with two nodes.
submit stopped --nodes=4
await "work" at_work 1
expect 0 "$blockq" status stopped
check "status says running: $(head -n 1 out)" grep -q "^stopped: running (host .*, pid [0-9]*)" out
scancel --signal=USR1 "$job"
await "a requeue" said "queued again"
check "all four ranks end with 75: $(codes)" [ "$(codes)" = "4 75" ]
expect 0 "$blockq" status stopped
check "status says stopped: $(head -n 1 out)" grep -q '^stopped: stopped$' out
check "status knows the state: $(cat out)" grep -q 'step [0-9]* is kept' out
echo 2 >stopped/job.nodes
await "the second round" at_work 2
scancel --signal=USR1 "$job"
await "a job on two nodes" said "goes on, on 2 nodes"
await "the end" over
check "it ended: $(tail -n 3 stopped.log)" said "ended with code 0"
check "it went on inside a block" said "going on inside it"
check "the last round had two nodes" said "2 ranks"
same plain stopped

# scancel: the state is kept, the job does not come back; the same command goes on.
submit cancelled --nodes=3
await "work" at_work 1
scancel "$job"
await "the end" over
check "the state is kept" grep -q "stopped with the state written" cancelled/run.log
check "it was not queued again" [ "$(grep -c 'queued again' cancelled.log)" = 0 ]
submit cancelled --nodes=1
await "the end" over
check "it went on" said "going on from there\|going on inside it"
same plain cancelled

# A node is drained and the job requeued: it goes on elsewhere.  Then a node's slurmd is killed under it.
sed -i 's/"iterations": 600/"iterations": 8000/' r.json
expect 0 mpi 1 run r.json -o long
submit moved --nodes=2
await "work" at_work 1
node=$(squeue -h -j "$job" -o %N | sed -E 's/n\[?([0-9]).*/n\1/')
scontrol update NodeName="$node" State=DRAIN Reason=test
scontrol requeue "$job"
await "the second round" at_work 2
check "not on $node: $(squeue -h -j "$job" -o %N)" [ "$(scontrol show hostnames "$(squeue -h -j "$job" -o %N)" | grep -c "$node")" = 0 ]
second=$(scontrol show hostnames "$(squeue -h -j "$job" -o %N)" | tail -n 1)
scontrol update NodeName="$node" State=RESUME
pkill -9 -f "^slurmd -f $SLURM_CONF -N $second"
scontrol update NodeName="$second" State=DOWN Reason=test
await "the third round" said ' plan [0-9]* MB' 3
await "the end" over
check "it ended: $(tail -n 3 moved.log)" said "ended with code 0"
same long moved

# Rounds that gain nothing come to an end.
cat >idler <<TEXT
#!/bin/bash
[[ \$1 != run ]] && exec "$blockq" "\$@"
exit 75
TEXT
chmod +x idler
BQ_BLOCKQ=./idler BQ_ROUNDS=2 submit idle --nodes=1
await "its end" over
check "it gave up: $(cat idle.log)" said "no progress in 2 rounds"
expect 0 cluster down
check "nothing is left running" [ -z "$(pgrep -f "$temp/cluster")" ]
finish
