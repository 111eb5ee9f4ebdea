#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# End-to-end distillation: equal bytes on any grid and after kills and stops; the loss falls; what it cannot do is refused.
leaks=1
. "$(dirname "$0")/lib.sh"
micro qwen2 phi3_short llama_bias mixtral olmo2
latent latent 24 false

# recipe_of FILE MODEL BITS [KEYS OF DISTILL [FORMAT]]
recipe_of() {
    cat >"$1" <<TEXT
{"model": "$2", "calibration": {"tokens": "cal.h5", "samples": 8, "length": 24}, "bits": {"decoder": $3},
 "phases": [{"inputs": "fp", "passes": [{"pass": "gptq"}]}], "distill": {"steps": 5, "lr": 0.01${4-, "batch": 4}},
 "outputs": [{"format": "safetensors"}, {"format": "${5-compressed-tensors}", "dir": "second"}], "eval": {"tokens": "eval.h5", "ctx": 32, "windows": 5}}
TEXT
}

# Blocks and outputs; the activation files of other grids are others.
equal() {
    local file
    for file in "$1"/ckpt/block_* "$1"/{safetensors,second}/*.safetensors; do
        cmp "$file" "$2/${file#"$1"/}" || { bad "$1 and $2 differ in $file" && return 0; }
    done
    good
}

# some tokens of each sample, products in bf16, biases; zero points that are floats; norms behind o and down
for name in qwen2 phi3_short latent llama_bias olmo2; do
    model=m_$name bits='{"bits": 3, "group": 8, "scale": "f16"}' keys=', "batch": 4' formats=compressed-tensors
    if [[ $name != qwen2 ]]; then bits='{"bits": 2, "symmetric": false}'; fi
    if [[ $name = latent ]]; then model=latent; fi
    if [[ $name = qwen2 ]]; then keys=', "positions": 7, "warmup": 2, "compute": "bf16", "batch": 2, "held_out": 2'; fi
    if [[ $name = llama_bias ]]; then bits='{"bits": 3, "group": 8, "symmetric": false, "zero": "float"}' formats=safetensors keys=', "batch": 8, "held_out": 3'; fi
    recipe_of r.json $model "$bits" "$keys" $formats
    expect 0 "$blockq" run r.json -o r_$name
    check "$name: the loss falls" \
        awk '/distillation: KL/ { good = $4 > $6 && $6 > 0 } END { exit !good }' err
    check "$name: peak above the plan: $(grep 'memory planned' err)" awk '/memory planned/ { good = $(NF - 1) <= $(NF - 4) } END { exit !good }' err
    if [[ $name = qwen2 ]]; then check "held-out samples: $(grep KL err)" grep -Eq 'in 5 steps, held out 0\.[0-9]+ -> 0\.[0-9]+,' err; fi
    worth r_$name
    expect 0 "$blockq" eval --run r_$name --tokens eval.h5 --ctx 32 --windows 5
    check "$name: eval takes these results" grep -q "gptq=$(sed -n 's/.*"gptq": \([0-9]*\.[0-9]\).*/\1/p' r_$name/result.json)" out
    expect 0 "$blockq" export --run r_$name --format $formats --out later_$name
    check "$name: a later export" cmp later_$name/model.safetensors r_$name/second/model.safetensors
    # stages x replicas, micro-batches
    for grid in '2 1 1' '2 2 1' '2 2 3' '4 2 1' '3 1 1'; do
        read -r ranks stages micro <<<"$grid"
        rm -rf other
        expect 0 mpi "$ranks" run r.json --stages "$stages" --micro "$micro" -o other
        equal r_$name other
    done
done

# the codes are those of the phases, the scales are not
expect 0 "$blockq" run r.json --set distill.steps=0 -o without
check "a run without it is another one" [ ! -e without/ckpt/block_000.p1.s0.h5 ]
check "another result" [ "$(cmp -l without/safetensors/model.safetensors r_olmo2/safetensors/model.safetensors | wc -l)" -gt 100 ]

# kills, stops, scratch files; states that are damaged
recipe_of r.json m_qwen2 '{"bits": 3, "group": 8, "scale": "f16"}' ', "positions": 7, "warmup": 2, "compute": "bf16", "batch": 2, "held_out": 2'
for hit in 30 60 90 120 150; do
    rm -rf killed
    for more in 1 2; do
        code=0
        BQ_FAULT=step_kill:$((hit * more)) "$blockq" run r.json --save-every 0.001 -o killed >out 2>err </dev/null || code=$?
        check "a kill or the end: $code" [ $((code == 137 || code == 0)) = 1 ]
    done
    expect 0 mpi $((1 + hit % 4 / 2)) run r.json -o killed
    equal r_qwen2 killed
done
rm -rf stopped
BQ_FAULT=step_usr1:100 expect 75 "$blockq" run r.json -o stopped
expect 0 mpi 2 run r.json --stages 2 --scratch . -o stopped
equal r_qwen2 stopped
rm -rf damaged
BQ_FAULT=step_usr1:140 expect 75 "$blockq" run r.json --save-every 0.001 -o damaged
for file in damaged/ckpt/inside_001.*.h5; do head -c 200 "$file" >part && cp part "$file"; done
expect 0 "$blockq" run r.json -o damaged
equal r_qwen2 damaged
rm r_qwen2/ckpt/block_001.p1.s0.h5
expect 3 "$blockq" eval --run r_qwen2 --tokens eval.h5 --ctx 32 --windows 5
one_error 'is not finished'
expect 0 "$blockq" run r.json -o r_qwen2
equal r_qwen2 damaged

# another distillation starts from the same phases, and gives what a new run gives; none gives the result of the phases
expect 0 "$blockq" run r.json --set distill.steps=3 -o fresh
expect 0 "$blockq" run r.json --set distill.steps=3 -o damaged
check "phases are not repeated" sh -c '! grep -q "block 1/" err'
equal fresh damaged
expect 0 "$blockq" run r.json --set distill.steps=0 -o fresh
check "evaluated without" sh -c '! grep -q "distillation: KL" err'
expect 0 "$blockq" eval --run fresh --tokens eval.h5 --ctx 32 --windows 5
expect 0 "$blockq" run r.json -o damaged
equal r_qwen2 damaged

# a result that is damaged is made again; behind round to nearest alone the result is still another one than that
damage r_qwen2/ckpt/block_001.p1.s0.h5 3000
expect 3 "$blockq" eval --run r_qwen2 --tokens eval.h5 --ctx 32 --windows 5
expect 0 "$blockq" run r.json -o r_qwen2
check "it says so" grep -q 'distillation is done again' err
equal r_qwen2 damaged
expect 0 "$blockq" run r.json --set 'phases=[{"inputs": "fp", "passes": [{"pass": "rtn"}]}]' -o nearest
check "both have a number: $(result)" grep -Eq 'rtn=[0-9.]+ result=[0-9.]+ ' out
worth nearest

# what cannot be
expect 2 "$blockq" run r.json --set 'bits={"auto": {"schemes": [{"bits": "e2m1", "group": 8, "scale": "e8m0"}], "budget": 9}}' -o never
one_error 'bits.auto.schemes.0: distill trains scales that are numbers of their own'
expect 2 "$blockq" run r.json --set 'bits={"auto": {"schemes": [{"bits": 4, "group": 4096}], "budget": 9}}' -o never
one_error 'bits.auto.schemes: none has groups that divide the columns'
expect 2 "$blockq" run r.json --set distill.batch=5 -o never
one_error 'distill.batch: is 5, must divide calibration.samples, which is 8'
expect 3 "$blockq" run r.json --set distill.held_out=1000 -o never
one_error 'tokens, but'

expect 2 "$blockq" run r.json --set model=m_mixtral --set bits.decoder.group=-1 -o never
one_error 'distill: the model has experts'
expect 2 "$blockq" run r.json --set 'bits.decoder={"bits": "e2m1", "group": 8, "scale": "e8m0"}' --set 'outputs=[]' -o never
one_error 'distill: scales of one byte'
expect 2 "$blockq" run r.json --set calibration.tokens='""' --set 'phases=[{"passes": [{"pass": "rtn"}]}]' -o never
one_error 'calibration.tokens is missing, and distill reads samples'
expect 0 "$blockq" run r.json --set distill.lr=1 --set distill.steps=40 -o wild
check "worse, and it says so" grep -q 'distillation has made the model worse: take a smaller distill.lr than 1' err
BQ_FAULT=loss_nan:3@0 expect 3 "$blockq" run r.json -o nan
one_error 'distillation: the loss of step 2 is nan: take a smaller distill.lr than 0.01'
expect 0 "$blockq" plan r.json
check "plan" grep -Eq '^ *distillation ' out
check "nothing was made" [ ! -e never ]
finish
