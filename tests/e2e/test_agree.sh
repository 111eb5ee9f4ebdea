#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What one rank alone sees, a number that is none, a signal, a device, ends the job for all ranks in the same way.
. "$(dirname "$0")/lib.sh"
export OMP_NUM_THREADS=1
micro llama_default
recipe r.json m_llama_default 4
rtn='phases=[{"passes":[{"pass":"rtn"}]}]'

# spike MODEL: the first weight of each linear becomes 1e30
spike() {
    local file=$1/model.safetensors head at
    head=$(od -An -t u8 -N 8 "$file" | tr -d ' ')
    for at in $(tail -c +9 "$file" | head -c "$head" | grep -o '_proj\.weight":{[^}]*"data_offsets":\[[0-9]*' | grep -o '[0-9]*$'); do
        printf '\312\362\111\161' | dd of="$file" bs=1 seek=$((8 + head + at)) conv=notrunc status=none
    done
}
cp -r m_llama_default huge
spike huge

# weights that overflow: the perplexity of the original is no number, and all ranks leave with one message
for ranks in 1 2 3 4; do
    expect 3 mpi $ranks run r.json --set model=huge --set "$rtn" --set outputs='[]' -o "huge_$ranks"
    one_error 'huge: the perplexity of the model is nan: the loss of window 0 is nan'
    check "no result" [ ! -e "huge_$ranks/result.json" ]
done
expect 3 mpi 3 eval --model huge --tokens eval.h5 --ctx 32 --rtn 4
one_error 'huge: the perplexity of the model is nan'
check "no perplexity: $(cat out)" [ ! -s out ]
expect 0 "$blockq" status huge_2
check "how it ended: $(cat out)" grep -q 'why .*the perplexity of the model is nan' out
expect 0 "$blockq" run r.json --set model=huge --set "$rtn" --result-only -o huge_1
check "the result alone is not finite: $(cat out)" grep -q '^result: rtn=nan ' out
# with samples it is found where it comes up, on each number of ranks
for ranks in 1 2; do
    expect 3 mpi $ranks run r.json --set model=huge -o samples
    check "block, sample and place: $(cat err)" \
        grep -qE 'error: .*/huge: block 1/2: the original stream of sample [0-9] has -?(nan|inf) at token [0-9]+, channel [0-9]+' err
done
expect 3 "$blockq" run r.json --set model=huge --split-reference -o split
one_error 'huge: block 1/2: the original stream of sample 0'

# the result's may be no number: a warning, and files that a program can read; the fault comes to a window of rank 1
for ranks in 1 2; do
    BQ_FAULT=window_nan:$((ranks == 1 ? 7 : 4))@$((ranks > 1)) \
        expect 0 mpi $ranks run r.json --set "$rtn" -o odd_$ranks
    check "$ranks ranks: $(result)" grep -qE '^fp=[0-9.]+ rtn=nan$' <(result)
    check "a warning names the window: $(cat err)" grep -q 'warning: rtn: the perplexity is nan: the loss of window [1-4] is nan' err
    check "JSON: $(cat odd_$ranks/result.json)" grep -qE '^\{"ctx": 32, .*"fp": [0-9.]+, "rtn": null\}$' odd_$ranks/result.json
    expect 0 "$blockq" status odd_$ranks
    check "status: $(cat out)" grep -q 'perplexity of rtn  *not finite' out
    expect 0 "$blockq" status --json odd_$ranks
    check "status for programs" grep -q '"rtn": null' out
done
expect 0 "$blockq" run r.json --set "$rtn" -o odd_1
check "the next run counts again: $(result)" grep -qE '^fp=[0-9.]+ rtn=[0-9.]+$' <(result)
BQ_FAULT=window_nan:4@1 expect 0 mpi 2 eval --model m_llama_default --tokens eval.h5 --ctx 32 --windows 5 --rtn 4
check "eval: $(cat out)" grep -qE '^perplexity: model=[0-9.]+ rtn4=nan ' out
for rank in 0 1; do # that rank alone has the NaN among its windows
    BQ_FAULT=window_nan:1@$rank expect 3 mpi 2 eval --run odd_1 --tokens eval.h5 --ctx 32 --timeout 20
    one_error 'm_llama_default: the perplexity of the model is nan: the loss of window'
done

# sweeps: a rank that sees a checkpoint late goes on from the same one as the others
recipe sweeps.json m_llama_default 4 ', "segments": 2, "sweeps": 2'
expect 0 "$blockq" run sweeps.json -o sweeps
said=$(result)
for hit in 1 3; do
    BQ_FAULT=sweep_late:$hit@1 expect 0 mpi 2 run sweeps.json --stages 1 -o late_$hit
    same sweeps late_$hit
    check "late by hit $hit: $(result), not $said" [ "$(result)" = "$said" ]
done
BQ_FAULT=sweep_late:6@1 expect 0 mpi 2 eval --run sweeps --tokens eval.h5 --ctx 32 --windows 5
check "eval by a rank that is late: $(result), not $said" [ "$(result)" = "$said" ]

# a stop between two sweeps; how many blocks there are
expect 75 "$blockq" run sweeps.json --stop-after-blocks 2 -o half
check "the second sweep has not begun" [ ! -e half/ckpt/block_001.p0.s1.h5 ]
expect 0 "$blockq" status half
check "status of sweeps: $(cat out)" grep -q 'adascale  *0 of 2 blocks, sweep 1, where it is wanted' out
expect 0 mpi 2 run sweeps.json --stages 1 -o half
check "two are done: $(head -n 1 err)" grep -q 'half: 2 of at most 4 blocks are done' err
same sweeps half
expect 0 "$blockq" run sweeps.json -o half
check "three are done: $(head -n 1 err)" grep -q 'half: 3 of at most 4 blocks are done' err
expect 0 "$blockq" status half
check "nothing is left: $(cat out)" [ "$(grep -c 'left of this phase' out)" = 0 ]

# Ctrl-C: the first one stops and keeps the state, the second one kills
set -m # its own process group, in which SIGINT is not ignored
caught() { [[ $((0x$(awk '/^SigCgt/ { print $2 }' /proc/$job/status) & 2)) != 0 ]]; }
await() { # COMMAND...: until it holds
    for ((i = 0; i < 3000; i++)); do
        if "$@" 2>/dev/null; then return 0; fi
        sleep 0.02
    done
    bad "never: $*"
}
"$blockq" run r.json --set phases.0.passes.0.iterations=200000 --save-every 0.01 -o stopped >out 2>err </dev/null &
job=$!
await compgen -G 'stopped/ckpt/inside_*.h5' >/dev/null
kill -INT -- -$job
code=0
wait $job || code=$?
check "SIGINT ends with 75, not $code: $(tail -n 2 err)" [ $code = 75 ]
check "the state is kept" grep -q 'state after step .* kept' err
for ((i = 0; i < 100; i++)); do cat text; done >large
"$blockq" tokens --bytes large -o large.h5 2>/dev/null
: >err
"$blockq" run r.json --set "$rtn" --set outputs='[]' --set eval.tokens=large.h5 --set eval.windows=0 -o killed >out 2>err </dev/null &
job=$!
await grep -q 'block 2/2' err # a long evaluation has begun
kill -INT -- -$job
await eval '! caught'
kill -INT -- -$job
code=0
wait $job || code=$?
check "a second SIGINT kills, code $code" [ $code = 130 ]
: >err
(
    trap '' INT
    exec "$blockq" run r.json --set "$rtn" --set outputs='[]' --set eval.tokens=large.h5 --set eval.windows=0 -o ignored >out 2>err </dev/null
) &
job=$!
await grep -q 'block 2/2' err
check "where it is ignored it stays ignored" eval '! caught'
kill -KILL $job
wait $job 2>/dev/null || true
set +m
finish
