#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Mixed precision: the errors of bits.auto and the choice are the same on any number of ranks and after kills; the file of schemes can be
# edited and used; files that do not fit are refused.
leaks=1
. "$(dirname "$0")/lib.sh"
micro qwen2 phi3_short mixtral

# recipe_of FILE MODEL PASS BITS
recipe_of() {
    cat >"$1" <<TEXT
{"model": "$2", "calibration": {"tokens": "cal.h5", "samples": 4, "length": 24}, "phases": [{"inputs": "qt", "passes": [{"pass": "$3"}]}],
 "bits": $4, "outputs": [{"format": "safetensors"}, {"format": "compressed-tensors"}], "eval": {"tokens": "eval.h5", "ctx": 32, "windows": 5}}
TEXT
}
auto='{"auto": {"schemes": [{"bits": 3}, {"bits": 4, "group": 8}, {"bits": 8, "symmetric": false}], "samples": 3, "budget": 7}}'
chosen() { grep -o '"scheme":[0-9]' "$1/schemes.json" | sort | uniq -c | tr -s ' \n' ' '; }

for name in qwen2 phi3_short mixtral; do
    recipe_of r.json m_$name gptq "$auto"
    expect 0 "$blockq" run r.json -o $name
    check "$name: several schemes" [ "$(chosen $name | grep -o '"' | wc -l)" -ge 4 ]
    check "$name: the log" grep -q 'bits.auto: [0-9.]* bits of 7; of the weights scheme 0: ' err
    for ranks in 2 3; do
        expect 0 mpi $ranks run r.json -o ${name}_$ranks
        same $name ${name}_$ranks
    done
    worth $name
    expect 0 "$blockq" eval --run $name --tokens eval.h5 --ctx 32 --windows 5
    check "$name: eval has these schemes" grep -q "gptq=$(sed -n 's/.*"gptq": \([0-9]*\.[0-9]\).*/\1/p' $name/result.json)" out
    expect 0 "$blockq" export --run $name --format compressed-tensors --out later_$name
    check "$name: a later export" cmp later_$name/model.safetensors $name/compressed-tensors/model.safetensors

    # the same file by hand, on other ranks; then edited
    cp $name/schemes.json given.json
    recipe_of g.json m_$name gptq '{"schemes": "given.json"}'
    expect 0 mpi 2 run g.json -o given_$name
    check "$name: the same by the file" cmp given_$name/safetensors/model.safetensors $name/safetensors/model.safetensors
    sed -i 's/"scheme":[0-9]/"scheme":2/' given.json
    expect 2 "$blockq" run g.json -o given_$name
    one_error 'differs in: schemes'
    expect 0 "$blockq" run g.json -o edited_$name
    check "$name: bits of the edited file" grep -q '"num_bits": 8' edited_$name/compressed-tensors/config.json
    check "$name: no others" [ "$(grep -c '"num_bits"' edited_$name/compressed-tensors/config.json)" = 1 ]
    rm given.json # the run keeps its own
    expect 0 "$blockq" eval --run edited_$name --tokens eval.h5 --ctx 32 --windows 5
done

# kills while errors are measured, and a file that was damaged
recipe_of r.json m_qwen2 gptq "$auto"
for hit in 1 2; do
    rm -rf killed
    BQ_FAULT=sensitivity:$hit expect 137 "$blockq" run r.json -o killed
    expect 0 mpi $hit run r.json -o killed
    same qwen2 killed
done
head -c 300 qwen2/ckpt/sensitivity.json >damaged
cp damaged killed/ckpt/sensitivity.json
expect 3 "$blockq" eval --run killed --tokens eval.h5 --ctx 32 --windows 5
one_error 'sensitivity.json is gone or damaged'
expect 0 "$blockq" run r.json -o killed
same qwen2 killed

# budgets in other units; too small; other passes
expect 0 "$blockq" run r.json --set bits.auto.unit=bytes --set bits.auto.budget=30000 -o bytes
check "bytes" grep -q 'bytes of 30000' err
expect 0 "$blockq" run r.json --set bits.auto.unit=microseconds --set bits.auto.budget=1 -o time
check "time enough: the best at each site" [ "$(chosen time)" = ' 8 "scheme":2 ' ]
expect 2 "$blockq" run r.json --set bits.auto.budget=3 -o never
one_error 'bits.auto.budget: is 3, and the cheapest schemes take '
recipe_of a.json m_qwen2 adascale "$auto"
expect 2 "$blockq" run a.json -o never
one_error 'adascale needs symmetric grids'
expect 2 "$blockq" run r.json --set bits.linears.q_proj.bits=8 -o never
one_error 'bits.auto chooses for all linears'
expect 2 "$blockq" run r.json --set bits.schemes=x.json -o never
one_error 'bits.auto chooses some'
expect 2 "$blockq" run r.json --set calibration.tokens='""' -o never
one_error 'bits.auto measures errors on samples'
expect 3 "$blockq" run r.json --set outputs='[{"format": "awq"}]' -o never
one_error 'awq'
expect 0 "$blockq" plan r.json
check "plan" grep -q 'errors of schemes (bits.auto)' out

# files that are none, or of another model
recipe_of f.json m_qwen2 gptq '{"schemes": "f"}'
refused() { # TEXT MESSAGE CODE
    printf '%s' "$1" >f
    expect "${3-3}" "$blockq" run f.json -o never
    one_error "$2"
}
refused '[]' 'f'
refused '{"schemes": [{}], "sites": 3}' 'sites: must be a list'
refused '{"schemes": 1, "sites": []}' 'schemes: must be a list'
refused '{"schemes": [{"bits": 99}], "sites": []}' 'schemes.0.bits: is 99' 2
refused '{"schemes": [{"bits": 4, "scale": "e8m0"}], "sites": []}' 'schemes.0.scale' 2
refused '{"schemes": [{}], "sites": [{"block": 9, "linears": ["mlp.down_proj"], "scheme": 0}]}' 'sites.0: the model has no block'
refused '{"schemes": [{}], "sites": [{"block": 0, "linears": ["self_attn.q_proj"], "scheme": 0}]}' 'sites.0: the model has no block'
refused '{"schemes": [{}], "sites": [{"block": 0, "linears": ["mlp.down_proj"], "scheme": 1}]}' 'sites.0: scheme: must be the number'
refused '{"schemes": [{"group": 1048576}], "sites": [{"block": 0, "linears": ["mlp.down_proj"], "scheme": 0}]}' 'does not divide' 2
check "nothing was made" [ ! -e never ]
finish
