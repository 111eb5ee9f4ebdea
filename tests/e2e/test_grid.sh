#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The same bytes on any grid: ranks, stages x replicas, threads, sizes of micro-batches; and after kills, on another one.
. "$(dirname "$0")/lib.sh"
# Which blocks' inputs are kept depends on the grid: a stage keeps those of its first block.
results() {
    (cd "$1" && find ckpt compressed-tensors -type f ! -name state.json ! -name lock ! -name model.hash.json | LC_ALL=C sort)
}
root=$(cd "$here/../.." && pwd)
"$blockq" tokens --bytes "$root/jobs/demo/calibration.txt" -o text.h5 2>err
mpi() {
    local ranks=$1
    shift
    OMP_NUM_THREADS=1 timeout $hang "$mpiexec" -n "$ranks" "$blockq" run "$@"
}
# write FILE INPUTS SEGMENTS BATCH
write() {
    cat >"$1" <<TEXT
{"model": "$root/jobs/demo/model", "calibration": {"tokens": "text.h5", "samples": 12, "length": 24}, "segments": $3,
 "phases": [{"inputs": "$2", "passes": [{"pass": "adascale", "iterations": 7, "batch": $4}]}],
 "outputs": [{"format": "compressed-tensors"}], "eval": {"tokens": "text.h5", "ctx": 32, "windows": 5}}
TEXT
}
write fp.json fp 1 1
write mix1.json mix 1 1
write mix4.json mix 4 4
sed 's/"segments": 4/"segments": 4, "sweeps": 3/' mix4.json >sweeps.json
# two phases of three segments, which do not divide by two: a stage ends inside one; the first multiplies bf16, if it can,
# the second codes of f16
sed 's/"segments": 4/"segments": 3, "sweeps": 2/; s/"phases": \[/&{"inputs": "qt", "compute": "bf16", "passes": [{"pass": "rtn", "clip": "mse"}, {"pass": "adascale", "iterations": 3}]}, /
    s/"inputs": "mix"/&, "compute": "fp16x2"/' mix4.json >phases.json
# a transform and every pass there is, but for rtn, which the phases have
pass() { printf '{"pass": "%s"%s}' "$1" "${2-}"; }
cat >every.json <<TEXT
{"model": "$root/jobs/demo/model", "calibration": {"tokens": "text.h5", "samples": 12, "length": 24}, "segments": 3,
 "transforms": [{"transform": "rotate", "r1": "randomized", "r2": "hadamard"}], "bits": {"decoder": {"group": 32}},
 "phases": [{"inputs": "mix", "passes": [$(pass smoothquant), $(pass autosmoothquant), $(pass awq ', "search": "halving"'), $(pass seqmse),
  $(pass hqq ', "solve": "scale"'), $(pass lpbq), $(pass gptq ', "qep": 0.5'), $(pass adascale ', "iterations": 5, "batch": 4')]}],
 "outputs": [{"format": "compressed-tensors"}], "eval": {"tokens": "text.h5", "ctx": 32, "windows": 5}}
TEXT
for recipe in fp mix1 mix4 sweeps phases every; do
    expect 0 mpi 1 $recipe.json -o $recipe.1
    result >want
    for ranks in 2 3 4; do
        expect 0 mpi $ranks $recipe.json -o $recipe.$ranks
        same $recipe.1 $recipe.$ranks
        result >have
        check "$recipe on $ranks ranks: the result line" cmp want have
    done
done

# grid RECIPE RANKS OPTION...
grids=0
grid() {
    local recipe=$1 ranks=$2
    shift 2
    grids=$((grids + 1))
    expect 0 mpi "$ranks" "$recipe.json" -o grid$grids "$@"
    same "$recipe.1" grid$grids
}
grid mix4 4 --stages 2
grid mix4 4 --stages 1 --threads 2
grid mix4 3 --stages 1
grid mix4 2 --stages 2 --micro 5
grid mix4 6 --stages 2 --micro 1
grid sweeps 4 --stages 2
grid phases 4 --stages 2 --micro 1
grid every 4 --stages 2
grid every 3 --stages 1 --threads 2
grid sweeps 3 --stages 3
grid mix1 2 --threads 2
grid fp 4 --stages 4 --micro 2
grid fp 3 --stages 1
mkdir scratch
grid mix4 4 --stages 2 --scratch scratch --memory 75M
for ranks in 2 3 4; do grid phases $ranks --split-reference; done
grid fp 4 --stages 2 --split-reference
# rank 0 alone keeps the activation files
for ranks in 2 3 4; do grid phases $ranks --acts root --scratch scratch; done
grid sweeps 4 --stages 2 --acts root --scratch scratch
grid fp 3 --stages 1 --acts root --scratch scratch
check "nothing stays in the scratch directory" [ -z "$(ls scratch)" ]
expect 2 mpi 2 mix1.json --acts root -o refused
one_error "needs --scratch"
expect 4 mpi 3 mix1.json --stages 2 -o refused
one_error "3 ranks"
expect 4 mpi 13 mix1.json -o refused
one_error "13 replicas for 12 samples"

# killed anywhere, gone on with another grid: a rank, or the whole job
RANDOM=${SEED:=$$}
echo "SEED=$SEED repeats this, as far as the machine does"
# killed RECIPE TIMES
killed() {
    local recipe=$1 finished=0 kills=0 ranks code job victim acts
    while ((kills < $2)); do
        ranks=$((1 + RANDOM % 4)) code=0 acts=()
        case $((RANDOM % 4)) in
        0) acts=(--acts root --scratch scratch) ;;
        1) acts=(--split-reference) ;;
        esac
        "$mpiexec" -n $ranks "$blockq" run "$recipe.json" --threads 1 -o killed "${acts[@]}" >out 2>err &
        job=$!
        sleep "$((RANDOM % 2)).$((RANDOM % 10))"
        victim=$(pgrep -f "$blockq run $recipe.json" | shuf -n 1 --random-source=<(yes $RANDOM) || true)
        if ((RANDOM % 2)); then victim=$job; fi
        kill -9 "$victim" 2>/dev/null || true
        wait $job 2>/dev/null || code=$?
        pkill -9 -f "$blockq run $recipe.json" || true
        kills=$((kills + 1))
        if ((code == 0)); then # it was done before the kill: the next one starts from nothing
            same "$recipe.1" killed
            rm -rf killed
            finished=$((finished + 1))
        fi
    done
    expect 0 mpi 2 "$recipe.json" -o killed
    same "$recipe.1" killed
    rm -rf killed
    echo "$recipe: $kills kills, $((finished + 1)) runs came to their end"
}
killed sweeps "$(more 4 100)"
killed every "$(more 3 50)"

# as many sweeps as segments is the chain: the last sweep trains only the last segment
for block in 0 1; do check "block $block is frozen" [ ! -e sweeps.1/ckpt/block_00$block.p0.s1.h5 ]; done
check "block 2 is made in two sweeps" [ -e sweeps.1/ckpt/block_002.p0.s1.h5 ]
check "block 2 is frozen then" [ ! -e sweeps.1/ckpt/block_002.p0.s2.h5 ]
check "block 7 is made in three" [ -e sweeps.1/ckpt/block_007.p0.s2.h5 ]
expect 0 mpi 1 sweeps.json --set tolerance=1 -o tolerant
check "a wide tolerance ends after two" [ ! -e tolerant/ckpt/block_007.p0.s2.h5 ]
expect 2 mpi 2 fp.json --set sweeps=2 -o refused
one_error "sweeps is 2"

# SIGUSR1 stops all ranks at the next step with one code; the same command goes on
"$mpiexec" -n 2 "$blockq" run mix4.json --set phases.0.passes.0.iterations=4000 --threads 1 -o signalled >out 2>err &
job=$!
for ((i = 0; i < 600; i++)); do # until they hear signals
    if grep -q 'plan [0-9]* MB' err || ! kill -0 $job 2>/dev/null; then break; fi
    sleep 0.05
done
pkill -USR1 -f "$blockq run mix4.json" || true
code=0
wait $job || code=$?
check "a signal ends with 75, not $code" [ "$code" = 75 ]
check "it says so" grep -q "stopped with the state written" err

# a rank that is stopped: the others end within the timeout, with one message that names it; slow ranks are waited for
for victim in $(more 1 "0 1 2"); do
    "$mpiexec" -n 3 "$blockq" run mix4.json --set phases.0.passes.0.iterations=40000 --threads 1 --timeout 3 -o stuck$victim >out 2>err &
    job=$!
    sleep 2
    kill -STOP "$(pgrep -f "$blockq run mix4.json" | sort -n | sed -n "$((victim + 2))p")"
    code=0
    wait $job || code=$?
    check "rank $victim stopped: code $code" [ "$code" = 1 ]
    one_error "rank . has not been heard of"
    pkill -9 -f "$blockq run mix4.json" || true
done
finish
