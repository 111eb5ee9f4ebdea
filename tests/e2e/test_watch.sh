#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Whatever set of ranks stops, short of all, and wherever: the others end the job with 1 and name a rank that stopped.  Ranks
# end with their launcher, too, however it goes, and when one of them is lost while they start.  BQ_FULL=1: many more sets.
. "$(dirname "$0")/lib.sh"
export OMP_NUM_THREADS=1
micro llama_default
cat >rtn.json <<TEXT
{"model": "m_llama_default", "phases": [{"passes": [{"pass": "rtn"}]}], "outputs": [{"format": "compressed-tensors"}]}
TEXT
recipe long.json m_llama_default 1000000
expect 0 "$blockq" run rtn.json -o rtn
evaluate=(eval --model m_llama_default --tokens eval.h5 --ctx 32)
export_=(export --run rtn --format compressed-tensors)

mpi() {
    local ranks=$1
    shift
    timeout $hang "$mpiexec" -n "$ranks" "$blockq" "$@"
}

# The timeout is more than all of an evaluation takes here and now: ranks that are alive speak all the time.
since=$(date +%s%N)
expect 0 mpi 4 "${evaluate[@]}"
timeout=$((4 + ($(date +%s%N) - since) / 1000000000))
echo "timeout $timeout s"

# ours NAME: the numbers of its ranks' processes; case NAME has the name in its environment.
ours() {
    local file pid
    for file in $(grep -lzsxF "BQ_CASE=$temp/$1" /proc/[0-9]*/environ); do
        pid=${file#/proc/} pid=${pid%/environ}
        if [[ $(cat "/proc/$pid/comm" 2>/dev/null) == blockq ]] && ! grep -qs '^State:.Z' "/proc/$pid/status"; then echo "$pid"; fi
    done
}
rank_of() { tr '\0' '\n' <"/proc/$1/environ" 2>/dev/null | sed -n 's/^OMPI_COMM_WORLD_RANK=//p'; }
# until COMMAND...: true, within a minute
until_() {
    for ((n = 0; n < 1200; n++)); do
        if "$@"; then return 0; fi
        sleep 0.05
    done
    return 1
}
some() { [[ $(ours "$1") ]]; }
none() { ! some "$1"; }

# start NAME FAULT COMMAND...: on 4 ranks, in the background; its words are in NAME.err, its code in NAME.code
start() {
    local name=$1 fault=$2 code=0
    shift 2
    (
        BQ_CASE=$temp/$name BQ_FAULT=$fault mpi 4 "$@" --timeout $timeout >"$name.out" 2>"$name.err" </dev/null || code=$?
        echo $code >"$name.code"
    ) &
}
# stopped NAME RANKS: what NAME should have come to, RANKS a set of digits
stopped() {
    check "$1 ended with $(cat "$1.code")" [ "$(cat "$1.code")" = 1 ]
    check "$1: no rank of $2 is named: $(grep bq: "$1.err")" grep -q "error: .*rank [$2] has not been heard of" "$1.err"
    check "$1: a rank that is alive is named: $(grep bq: "$1.err")" [ -z "$(grep -E "rank [^$2] has not" "$1.err")" ]
    check "$1: processes are left: $(ours "$1")" until_ none "$1"
}
# in_mpi NAME CALL: the same for ranks that stopped where MPI itself waits
in_mpi() {
    check "$1 ended with $(cat "$1.code")" [ "$(cat "$1.code")" = 1 ]
    check "$1: $(grep bq: "$1.err")" grep -q "error: .*$2 has not come back" "$1.err"
    check "$1: processes are left: $(ours "$1")" until_ none "$1"
}

# These take two minutes, waiting.
if [[ ${BQ_FULL-} ]]; then
    start open open_stop:1@2 "${evaluate[@]}"
    start close close_stop:1@0,1 "${evaluate[@]}"
fi

waves=0
sets="0,1 0,1,2 3"
if [[ ${BQ_FULL-} ]]; then sets="0 1 2 3 0,1 0,2 0,3 1,2 1,3 2,3 0,1,2 0,1,3 0,2,3 1,2,3"; fi
for set in $sets; do
    start "eval_$set" "step_stop:3@$set" "${evaluate[@]}"
    if ((++waves % 3 == 0)); then wait; fi
done
start export step_stop:2 "${export_[@]}" -o exported

# Ranks stopped from outside, while they train together.
stop() { # NAME RANKS
    local pid
    until_ grep -qs 'phase adascale' "$1.err" || bad "$1 does not train"
    for pid in $(ours "$1"); do
        if [[ ,$2, == *,$(rank_of "$pid"),* ]]; then kill -STOP "$pid"; fi
    done
}
start train "" run long.json -o train
stop train 0,1

# lost NAME WHOM: a rank or mpirun is killed as soon as it is there: no rank stays
lost() {
    local name=$1 pid code=0
    BQ_CASE=$temp/$name setsid "$mpiexec" -n 4 "$blockq" run long.json -o "$name" --timeout $timeout >out 2>err </dev/null &
    pid=$!
    until_ some "$name" || bad "$name does not start"
    sleep "${3-0}"
    if [[ $2 == mpirun ]]; then kill -KILL $pid; else kill -KILL "$(ours "$name" | head -n 1)" || true; fi
    check "$name: processes are left" until_ none "$name"
    # Open MPI 4.1 may lock itself up when a rank dies while it says hello (PMIx): its ranks are gone by then.
    for ((i = 0; i < 100; i++)); do if kill -0 $pid 2>/dev/null; then sleep 0.1; fi; done
    if kill -KILL $pid 2>/dev/null; then echo "$name: mpirun itself hung"; fi
    wait $pid || code=$?
    check "$name: mpirun said 0" [ $code != 0 ]
}
lost rank_lost rank
lost mpirun_lost mpirun
if [[ ${BQ_FULL-} ]]; then
    for ms in $(seq -f %03g 20 20 600); do
        lost "rank_$ms" rank "0.$ms"
        lost "mpirun_$ms" mpirun "0.$ms"
    done
fi

wait
for set in $sets; do stopped "eval_$set" "${set//,/}"; done
stopped export 0
stopped train 01
if [[ ${BQ_FULL-} ]]; then
    in_mpi open MPI_Init
    in_mpi close MPI_Finalize
fi
finish
