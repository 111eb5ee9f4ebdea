#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# bits.activations and bits.kv as objects: what is measured has the same bytes on any number of ranks and after a kill; passes that see
# rounded inputs; what stands in the files of engines.
leaks=1
. "$(dirname "$0")/lib.sh"
micro llama_bias mixtral gemma2

# recipe_of FILE MODEL PASS [MORE]
recipe_of() {
    cat >"$1" <<TEXT
{"model": "$2", "calibration": {"tokens": "cal.h5", "samples": 5, "length": 24}, "phases": [{"passes": [$3]}],
 "bits": {"decoder": {"bits": 8}}, "eval": {"tokens": "eval.h5", "ctx": 32, "windows": 5}${4-}}
TEXT
}
value() { sed -n "s/.*\"$2\": \([0-9.]*\).*/\1/p" "$1/result.json"; }
far() { awk -v a="$(value "$1" "$3")" -v b="$(value "$2" "$3")" 'BEGIN { print (a / b - 1) ^ 2 }'; }

rtn='{"pass": "rtn"}'

# more bits are nearer to none
recipe_of r.json m_llama_bias "$rtn" ', "outputs": [{"format": "safetensors"}]'
expect 0 "$blockq" run r.json -o as_is
n=0
for bits in 4 6 8 '"int16"'; do
    expect 0 "$blockq" run r.json --set "bits.activations={\"bits\": $bits, \"symmetric\": false}" -o asymmetric_$((++n))
    check "the same float model" cmp as_is/safetensors/model.safetensors asymmetric_$n/safetensors/model.safetensors
done
for n in 2 3 4; do
    check "more bits are nearer: $n" awk -v a="$(far as_is asymmetric_$((n - 1)) rtn)" -v b="$(far as_is asymmetric_$n rtn)" 'BEGIN { exit !(b < a) }'
done
mx='"bits": "e4m3", "group": 16, "scale": "e8m0"' nvfp4='"bits": "e2m1", "group": 16, "scale": "e4m3"' ao='"rule": "torchao"'
for key in "{$mx}" "{$nvfp4}" '{"bits": 8, "per": "tensor"}' "{$mx, $ao, \"mx_scale\": \"rceil\"}" "{$nvfp4, $ao}"; do
    rm -rf other
    expect 0 "$blockq" run r.json --set "bits.activations=$key" -o other
    check "$key changes the result, a little" awk -v a="$(far as_is other rtn)" 'BEGIN { exit !(a > 0 && a < 0.02) }'
done
expect 0 "$blockq" eval --run other --tokens eval.h5 --ctx 32 --windows 5
check "eval has it, too" grep -q "rtn=$(printf %.4f "$(value other rtn)")" out

# what is measured: the same on any number of ranks, with experts and without
fixed='{"bits": 8, "symmetric": false, "per": "tensor", "dynamic": false'
for model in llama_bias mixtral; do
    recipe_of m.json m_$model '{"pass": "gptq"}' ', "outputs": [{"format": "compressed-tensors"}]'
    for range in minmax percentile mse; do
        set_range=(--set "bits.activations=$fixed, \"range\": \"$range\"}" --set 'bits.kv={"bits": 8, "per": "head"}')
        expect 0 "$blockq" run m.json "${set_range[@]}" -o ${model}_$range
        for ranks in 2 3; do
            expect 0 mpi $ranks run m.json "${set_range[@]}" -o ${model}_${range}_$ranks
            same ${model}_$range ${model}_${range}_$ranks
            check "the same value on $ranks ranks" cmp ${model}_$range/result.json ${model}_${range}_$ranks/result.json
        done
    done
    check "ranges differ" [ "$(value ${model}_minmax gptq)" != "$(value ${model}_mse gptq)" ]
    check "the card" grep -q "inputs of these linears: int8 with zero points, a scale for each linear, measured" \
        ${model}_mse/compressed-tensors/README.md
done
names() { grep -aoE "\"[a-z_.0-9]*$1\":\{[^}]*\}" "$2"; }
file=llama_bias_minmax/compressed-tensors/model.safetensors
check "a scale for each linear" [ "$(names input_scale $file | grep -c '"shape":\[1\]')" = 14 ]
check "and a zero" [ "$(names input_zero_point $file | grep -c '"dtype":"I8"')" = 14 ]
check "a scale for each head" [ "$(names 'self_attn.[kv]_scale' $file | grep -c '"shape":\[[0-9]*,1,1\]')" = 4 ]
check "the configuration" python3 - <<'TEXT'
import json
q = json.load(open("llama_bias_minmax/compressed-tensors/config.json"))["quantization_config"]
a = q["config_groups"]["group_0"]["input_activations"]
assert (a["strategy"], a["dynamic"], a["symmetric"], a["num_bits"]) == ("tensor", False, False, 8), a
assert (q["kv_cache_scheme"]["strategy"], q["kv_cache_scheme"]["num_bits"], q["kv_cache_scheme"]["type"]) == ("attn_head", 8, "int")
TEXT
expect 0 "$blockq" export --run llama_bias_minmax --out later
check "a later export" diff -r later llama_bias_minmax/compressed-tensors

# a run that was killed while it measured, or whose file was damaged, and one whose range is another now
recipe_of m.json m_llama_bias '{"pass": "gptq"}' ', "outputs": [{"format": "compressed-tensors"}]'
cp -r llama_bias_mse killed
rm -r killed/ckpt/observed.f32 killed/compressed-tensors killed/result.json killed/ckpt/export_*
"$blockq" run m.json "${set_range[@]}" -o killed >out 2>err </dev/null &
sleep 0.02
kill -9 $! 2>/dev/null || true
wait $! 2>/dev/null || true
expect 0 "$blockq" run m.json "${set_range[@]}" -o killed
same llama_bias_mse killed
expect 0 "$blockq" run m.json --set "bits.activations=$fixed}" --set 'bits.kv={"bits": 8, "per": "head"}' -o killed
same llama_bias_minmax killed

# FP8 and NVFP4 as engines have them
recipe_of f.json m_llama_bias "$rtn" ', "outputs": [{"format": "modelopt"}, {"format": "compressed-tensors"}]'
e4m3='{"bits": "e4m3", "per": "tensor", "dynamic": false}'
expect 0 "$blockq" run f.json --set 'bits.decoder={"bits": "e4m3", "rows": -1}' --set "bits.activations=$e4m3" --set bits.kv='"e4m3"' -o fp8
check "modelopt" grep -q '"quant_algo": "FP8"' fp8/modelopt/config.json
check "scales are scalars" [ "$(names '(input|weight)_scale' fp8/modelopt/model.safetensors | grep -c '"shape":\[\]')" = 28 ]
check "a scale of inputs" [ "$(names input_scale fp8/compressed-tensors/model.safetensors | wc -l)" = 14 ]

# passes that see rounded inputs: another result, the same on any number of ranks; targets stay the original's
for pass in gptq 'adascale", "iterations": "6' 'awq"}, {"pass": "rtn'; do
    for model in llama_bias mixtral gemma2; do
        recipe_of p.json m_$model "{\"pass\": \"$pass\"}"
        sed -i 's/"6"/6/' p.json
        if [[ $pass == awq* ]]; then sed -i 's/"passes"/"inputs": "qt", "passes"/' p.json; fi
        seen=(--set bits.decoder.bits=4 --set bits.activations=4 --set 'phases.0.activations=true')
        rm -rf seen seen_3 blind
        expect 0 "$blockq" run p.json "${seen[@]}" -o seen
        expect 0 mpi 3 run p.json "${seen[@]}" -o seen_3
        same seen seen_3
        expect 0 "$blockq" run p.json "${seen[@]}" --set phases.0.activations=false -o blind
        differ seen blind
        check "the original is as it is" [ "$(value seen fp)" = "$(value blind fp)" ]
    done
done
expect 2 "$blockq" run p.json "${seen[@]}" --set bits.activations=6 -o seen
one_error "phases"
expect 0 "$blockq" run p.json "${seen[@]}" --set bits.activations=6 --set phases.0.activations=false -o blind

# what cannot be
refused() { # WHY KEY=VALUE...
    local why=$1 sets=() key
    shift
    for key; do sets+=(--set "$key"); done
    expect 2 "$blockq" run r.json "${sets[@]}" -o never
    one_error "$why"
}
refused "bits.activations.symmetric: is false, and floats" 'bits.activations={"bits": "e4m3", "symmetric": false}'
refused "bits.activations.scale: is for floats" 'bits.activations={"bits": 8, "scale": "e8m0"}'
refused "bits.activations.group: is -1" 'bits.activations={"bits": "e4m3", "scale": "e8m0"}'
refused "bits.activations.group: divides tokens" 'bits.activations={"bits": 8, "group": 8, "per": "tensor"}'
refused "bits.activations.rule: is for integers" 'bits.activations={"bits": "e4m3", "rule": "torchao"}'
refused "bits.activations.rule: torchao-0.10 is symmetric" 'bits.activations={"bits": 8, "rule": "torchao-0.10", "symmetric": false}'
refused "bits.activations.range: is for scales that are measured" 'bits.activations={"bits": 8, "range": "mse"}'
refused "bits.activations.dynamic: is false, and what is measured" 'bits.activations={"bits": 8, "dynamic": false}'
refused "calibration.tokens is missing, and bits.activations" "bits.activations=$e4m3" 'calibration.tokens=""'
refused "phases.0.activations: is true, and bits.activations is 16" phases.0.activations=true
refused "phases.0.activations: is true, and bits.activations is measured" phases.0.activations=true "bits.activations=$e4m3"
refused "bits.kv.per: is \"row\", must be \"auto\"" 'bits.kv={"bits": 8, "per": "row"}'
check "before any work" [ ! -e never ]
finish
