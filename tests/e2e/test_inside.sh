#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Stopped or killed inside a block, a run goes on inside that block, on any grid, and ends with the bytes of one that
# nobody disturbed.  SEED=N repeats the moments of an earlier run: they are steps of a rank.
. "$(dirname "$0")/lib.sh"
RANDOM=${SEED:=$(($(date +%s) % 32768))}
echo "SEED=$SEED"
# Which blocks' inputs are kept depends on the grid.
results() { (cd "$1" && find ckpt compressed-tensors -type f ! -name state.json ! -name lock ! -name model.hash.json | LC_ALL=C sort); }
micro llama_default
cat >r.json <<TEXT
{"model": "m_llama_default", "calibration": {"tokens": "cal.h5", "samples": 6, "length": 24}, "segments": 2, "sweeps": 2,
 "phases": [{"inputs": "mix", "passes": [
   {"pass": "adascale", "iterations": 800, "sweep_iterations": 1600, "batch": 3,
    "early_stop": true, "check_interval": 50, "window": 1600, "threshold": 0}]}],
 "outputs": [{"format": "compressed-tensors"}]}
TEXT
# start DIR RANKS OPTION...: in the background, as $job; returns when it is at work and hears signals.
start() {
    local dir=$1 ranks=$2
    shift 2
    : >err
    OMP_NUM_THREADS=1 "$mpiexec" -n "$ranks" "$blockq" run r.json -o "$dir" "$@" >out 2>err </dev/null &
    job=$!
    for ((i = 0; i < 600; i++)); do
        if grep -q 'plan [0-9]* MB' err || ! kill -0 $job 2>/dev/null; then return 0; fi
        sleep 0.05
    done
    bad "no start within 30 s"
}
ended() {
    code=0
    wait $job 2>/dev/null || code=$?
    cat err >>said # run.log has rank 0's words alone
}
# over DIR: until no rank holds it.  On a busy machine some end seconds after their mpiexec.
over() { while "$blockq" status "$1" 2>/dev/null | grep -q '^[^ ]*: running (host'; do sleep 0.2; done; }
# signalled SIGNAL STEP DIR RANKS OPTION...: a run whose rank, any of them, gets that signal at its step of that number
signalled() {
    local signal=$1 step=$2 dir=$3 ranks=$4
    shift 4
    over "$dir"
    code=0
    OMP_NUM_THREADS=1 BQ_FAULT=step_$signal:$step@$((RANDOM % ranks)) timeout $hang \
        "$mpiexec" -n "$ranks" "$blockq" run r.json -o "$dir" "$@" >out 2>err </dev/null || code=$?
    cat err >>said
}
states() { find "$1/ckpt" -name 'inside_*.h5' 2>/dev/null | wc -l; }
went_on() { grep -sc 'going on inside it' said || true; }
done_blocks() { find "$1/ckpt" -name 'block_*.h5' 2>/dev/null | wc -l; }
# RANKS OPTION...
grids=("1" "2" "3 --stages 1" "4" "2 --stages 1" "1 --threads 2")

expect 0 "$mpiexec" -n 1 "$blockq" run r.json -o clean --threads 1
check "nothing is left of the states" [ "$(states clean)" = 0 ]

# wait_state DIR: until there is a state, or no training is left.
wait_state() {
    for ((i = 0; i < 400; i++)); do
        if [[ $(states "$1") -gt 0 || $(done_blocks "$1") -gt 2 ]] || ! kill -0 $job 2>/dev/null; then return 0; fi
        sleep 0.02
    done
}

# SIGUSR1 to one rank: its step is finished, the state written by all, and the next grid goes on there.
kept=0
for grid in "${grids[@]}"; do
    # shellcheck disable=SC2086 # words
    signalled usr1 $((50 + RANDOM % 200)) stopped $grid
    if grep -q 'state after step .* kept' err; then kept=$((kept + 1)); fi
    echo "$grid: stopped with $(done_blocks stopped) blocks, $(states stopped) states, code $code"
    check "a signal ends with 75, not $code" [ $code = 75 ]
done
check "a stop keeps the state: $kept of ${#grids[@]}" [ $kept = ${#grids[@]} ]
check "it went on inside a block, $(went_on) times after $kept stops there" [ "$(went_on)" -ge $((kept - 1)) ]
over stopped
expect 0 "$mpiexec" -n 1 "$blockq" run r.json -o stopped --threads 1
same clean stopped
check "nothing is left of the states" [ "$(states stopped)" = 0 ]

# a torn state does not count, the block is done again
: >said
start torn 1 --save-every 0.01
wait_state torn
kill -USR1 $job
ended
check "stopped, not $code" [ $code = 75 ]
for file in torn/ckpt/inside_*.h5; do truncate -s -1 "$file"; done
expect 0 "$blockq" run r.json -o torn
check "the torn state is named" grep -q 'state A of its training does not count: damaged' err
check "nothing to go on from" [ -z "$(grep 'going on' err)" ]
same clean torn

# kill -9 of a rank, with a state after every step; heartbeats before the training count as steps, too
: >said
for grid in "${grids[@]}"; do
    # shellcheck disable=SC2086 # words
    signalled kill $((200 + RANDOM % 150)) killed $grid --save-every 0.0001
    echo "$grid: killed with $(done_blocks killed) blocks, $(states killed) states, code $code"
    check "a killed rank ends the run with 137, not $code" [ $code = 137 ]
done
over killed
expect 0 "$mpiexec" -n 2 "$blockq" run r.json -o killed --threads 1
same clean killed
check "it went on inside a block, $(went_on) times" [ "$(went_on)" -ge 3 ]
check "nothing is left of the states" [ -z "$(find killed/ckpt -name 'inside_*')" ]
finish
