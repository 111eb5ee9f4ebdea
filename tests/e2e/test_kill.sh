#!/usr/bin/env bash
# Killed (-9) at moments spread over all of its time, in training, export and evaluation, and started again each time, a
# run ends with the bytes of one that nobody disturbed.  SEED=N repeats the moments of an earlier run, as far as the
# machine does.
. "$(dirname "$0")/lib.sh"
RANDOM=${SEED:=$(($(date +%s) % 32768))}
echo "SEED=$SEED"
micro llama_default
recipe r.json m_llama_default 300
run=("$blockq" run r.json --set 'phases=[{"inputs":"mix","passes":[{"pass":"adascale","iterations":1500}]}]')
now() { echo $(($(date +%s%N) / 1000000)); }

since=$(now)
expect 0 "${run[@]}" -o clean
took=$(($(now) - since))

# kill_after MS: start the run in ./killed, kill it then, say what it was doing
declare -A times
kill_after() {
    local pid code=0 stage=training
    "${run[@]}" -o killed >out 2>err </dev/null &
    pid=$!
    sleep "$(($1 / 1000)).$(printf %03d $(($1 % 1000)))"
    kill -9 $pid 2>/dev/null || true
    wait $pid 2>/dev/null || code=$?
    if [[ -e killed/safetensors ]]; then stage="export"; fi
    if [[ -e killed/compressed-tensors/model.safetensors ]]; then stage=evaluation; fi
    if [[ ! -e killed/ckpt ]]; then stage=start; fi
    if ((code != 137)); then stage="after its end"; fi
    times[$stage]=$((${times[$stage]-0} + 1))
    check "killed $stage, code $code" [ "$code" = 137 -o "$code" = 0 ]
}

# On the same directory, over and over: ever less is left to do, so the moments run through what is left.
for _ in 1 2 3 4 5; do kill_after $((took / 20 + took * (RANDOM % 90) / 100)); done
# temporaries of processes that seem to live: a number used again, or one that nobody has waited for
touch killed/ckpt/block_001.p0.s0.h5.1.tmp killed/acts/fp_000.h5.1.tmp killed/recipe.json.1.tmp
expect 0 "${run[@]}" -o killed
same clean killed
check "no temporary file is left" [ -z "$(find killed -name '*.tmp')" ]

# What follows the training: with a larger model, killed some ms after a stage has begun, as its files tell.
"$blockq" tokens --bytes text -o larger.h5 2>err
cat >late.json <<TEXT
{"model": "$here/../../jobs/demo/model", "phases": [{"passes": [{"pass": "rtn"}]}],
 "outputs": [{"format": "safetensors"}, {"format": "compressed-tensors"}],
 "eval": {"tokens": "larger.h5", "ctx": 32, "windows": 60}}
TEXT
run=("$blockq" run late.json)
expect 0 "${run[@]}" -o late_clean
late() { # FILE MS: kill it so long after the file has appeared
    local pid code=0 stage
    rm -rf killed
    cp -r late_clean killed
    rm -r killed/safetensors killed/compressed-tensors killed/result.json killed/ckpt/export_*.done
    "${run[@]}" -o killed >out 2>err </dev/null &
    pid=$!
    while [[ ! -e killed/$1 ]] && kill -0 $pid 2>/dev/null; do :; done
    sleep "$(printf 0.%03d "$2")"
    kill -9 $pid 2>/dev/null || true
    wait $pid 2>/dev/null || code=$?
    stage=evaluation
    if [[ ! -e killed/compressed-tensors/config.json ]]; then stage="export"; fi
    if ((code != 137)); then stage="after its end"; fi
    times[$stage]=$((${times[$stage]-0} + 1))
    expect 0 "${run[@]}" -o killed
    same late_clean killed
    check "no temporary file is left" [ -z "$(find killed -name '*.tmp')" ]
}
for ms in 0 2 5 9 15; do
    late safetensors $ms
    late compressed-tensors $ms
    late compressed-tensors/config.json $((ms * 10))
done
check "some kills met the export, and some the evaluation: ${!times[*]}" [ $((${times[export]-0} > 0 && ${times[evaluation]-0} > 0)) = 1 ]
for stage in "${!times[@]}"; do echo "killed ${times[$stage]} times: $stage"; done
finish
