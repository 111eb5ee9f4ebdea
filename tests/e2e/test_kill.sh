#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
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

rounds=5
if [[ ${BQ_FULL-} ]]; then rounds=40; fi
# On the same directory, over and over: ever less is left to do, so the moments run through what is left.
for ((round = 0; round < rounds; round++)); do kill_after $((took / 20 + took * (RANDOM % 90) / 100)); done
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
fresh() { # everything but the outputs and their worth
    rm -rf killed
    cp -r late_clean killed
    rm -r killed/safetensors killed/compressed-tensors killed/result.json killed/ckpt/export_*.done
}
met() { # CODE: count what a kill met
    local stage=evaluation
    if [[ ! -e killed/compressed-tensors/config.json ]]; then stage="export"; fi
    if (($1 != 137)); then stage="after its end"; fi
    times[$stage]=$((${times[$stage]-0} + 1))
}
late() { # FILE MS: kill it so long after the file has appeared
    local pid code=0
    fresh
    "${run[@]}" -o killed >out 2>err </dev/null &
    pid=$!
    while [[ ! -e killed/$1 ]] && kill -0 $pid 2>/dev/null; do :; done
    sleep "$(printf 0.%03d "$2")"
    kill -9 $pid 2>/dev/null || true
    wait $pid 2>/dev/null || code=$?
    met $code
    expect 0 "${run[@]}" -o killed
    same late_clean killed
    check "no temporary file is left" [ -z "$(find killed -name '*.tmp')" ]
}
moments="0 7"
if [[ ${BQ_FULL-} ]]; then moments=$(seq 0 20); fi
for ms in $moments; do
    late safetensors "$ms"
    late compressed-tensors "$ms"
    late compressed-tensors/config.json $((ms * 10))
done
# At steps that are counted, ever later, until the run gets to its end: where these fall does not depend on the machine.
fresh
times=() code=137
for ((step = 2; code == 137; step = step * 3 / 2 + 1)); do
    code=0
    BQ_FAULT=step_kill:$step "${run[@]}" -o killed >out 2>err </dev/null || code=$?
    met $code
done
check "the last code is $code" [ $code = 0 ]
same late_clean killed
check "no temporary file is left" [ -z "$(find killed -name '*.tmp')" ]
check "some kills met the export, and some the evaluation: ${!times[*]}" [ $((${times[export]-0} > 0 && ${times[evaluation]-0} > 0)) = 1 ]
for stage in "${!times[@]}"; do echo "killed ${times[$stage]} times at a step: $stage"; done
finish
