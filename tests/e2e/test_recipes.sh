#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Every recipe in configs/ runs on a small model; so do other models, widths, groups and types of scale.
. "$(dirname "$0")/lib.sh"
micro llama_default llama_bias llama_llama3 phi3_short phi3_partial qwen2

# A folder with the text that `result:` promises, and both outputs as the recipe says.
complete() {
    check "$1: a result line" [ -n "$(result)" ]
    check "$1: run.csv has a row a block" [ "$(grep -c ',block,' "$1/run.csv")" -ge 2 ]
    check "$1: no temporary file is left" [ -z "$(find "$1" -name '*.tmp')" ]
}

# short training, and groups for a narrow model
cp -r "$configs" configs
sed -Ei 's/"iterations": *[0-9]+/"iterations": 4/; s/"group": *[0-9]+/"group": 8/; s/"budget": *[0-9.]+/"budget": 7/; s/"batch": *[0-9]+/"batch": 2/
    s/"steps": *[0-9]+/"steps": 2/; s/"segments": *[0-9]+/"segments": 2/' configs/*.json
for config in configs/*.json; do
    name=$(basename "$config" .json)
    model=m_llama_default
    if grep -q '"group"' "$config"; then model=m_llama_bias; fi # widths that 8 divides
    if grep -q rotate "$config"; then model=m_llama_llama3; fi  # sizes for which there are Hadamard matrices
    expect 0 "$blockq" run "$config" --set model=$model --set calibration.tokens=cal.h5 \
        --set calibration.samples=4 --set calibration.length=24 --set eval.tokens=eval.h5 --set eval.ctx=32 \
        --set eval.windows=3 -o "$name"
    complete "$name"
    check "$name: an output that loads" [ -n "$(find "$name" -mindepth 2 -maxdepth 2 -name config.json -size +0)" ]
done

# a recipe by name is the file of that name
for name in fast parallel; do
    set -- --set model=m_llama_llama3 --set calibration.tokens=cal.h5 --set calibration.samples=4 --set calibration.length=24
    if [[ $name = parallel ]]; then set -- "$@" --set distill.steps=2 --set segments=2; fi
    expect 0 "$blockq" run --preset $name "$@" -o named_$name
    expect 0 "$blockq" run "$here/../../configs/$name.json" "$@" -o by_file_$name
    check "$name by name" cmp named_$name/compressed-tensors/model.safetensors by_file_$name/compressed-tensors/model.safetensors
done
expect 2 "$blockq" run --preset none
one_error 'preset none: there are best, parallel, fast'

for model in llama_bias llama_llama3 phi3_short phi3_partial qwen2; do
    recipe r.json "m_$model" 4
    expect 0 "$blockq" run r.json -o "r_$model"
    complete "r_$model"
    for form in safetensors compressed-tensors; do
        check "$model: $form" [ -s "r_$model/$form/model.safetensors" ]
        check "$model: $form" [ -s "r_$model/$form/config.json" ]
    done
done

# bits and groups: KEY=VALUE ... on a model whose widths 40, 48 and 112 are multiples of 8
recipe b.json m_llama_bias 4
recipe p.json m_phi3_short 4
with() {
    local name=$1 file=$2
    shift 2
    expect 0 "$blockq" run "$file" "${@/#/--set=}" -o "$name"
    complete "$name"
}
with plain b.json
with v8 b.json bits.linears.v_proj.bits=8
with all8 b.json bits.decoder.bits=8
with group8 b.json bits.decoder.group=8
with group16 p.json bits.decoder.group=16
with bf16 b.json bits.decoder.scale=bf16
with f16 b.json bits.decoder.scale=f16 bits.decoder.group=8
with qkv8 p.json bits.linears.qkv_proj.bits=8 bits.linears.gate_up_proj.group=16
with exact p.json rope=exact
with three p.json bits.decoder.bits=3 'outputs=[{"format":"safetensors"}]'
with batch b.json phases.0.passes.0.batch=3
with fp16x2 b.json phases.0.compute=fp16x2 reference_compute=fp16x2
if grep -q amx fp16x2/run.log; then check "fp16x2 with AMX: floats as f32" grep -q 'in fp16x2, against f32: nmse qkv 0, o 0,' fp16x2/run.log
else check "fp16x2 is f32" cmp fp16x2/safetensors/model.safetensors plain/safetensors/model.safetensors; fi
for name in v8 all8 group8 bf16 batch; do differ plain "$name"; done
with gptq b.json 'phases=[{"inputs":"qt","passes":[{"pass":"gptq"}]}]' bits.decoder.group=8
with tf32 b.json phases.0.compute=tf32
check "tf32 on the cpu: the log says what it is instead" grep -qE 'tf32 is made in (f32|bf16x3) here' tf32/run.log
if ! grep -q amx tf32/run.log; then check "tf32 is f32" cmp tf32/safetensors/model.safetensors plain/safetensors/model.safetensors; fi
gptq='{"pass":"gptq","order":"gar","clip":"mse","sequential":true,"qep":0.5,"damp":0.02}'
with gptq_all b.json 'phases=[{"inputs":"mix","passes":['"$gptq"',{"pass":"adascale","iterations":4}]}]' \
    bits.decoder.group=8
with gptq_f64 b.json 'phases=[{"inputs":"qt","passes":[{"pass":"gptq","gram":"f64","qep":0.5}]}]' bits.decoder.group=8
for name in group8 gptq_all gptq_f64; do differ gptq "$name"; done
expect 2 "$blockq" run b.json --set 'phases=[{"inputs":"fp","passes":['"$gptq"']}]' -o refused
one_error "needs inputs qt or mix"
expect 2 "$blockq" run b.json --set bits.decoder.group=16 -o refused
one_error "group 16 does not divide"
expect 3 "$blockq" run b.json --set bits.decoder.bits=6 --set 'outputs=[{"format":"gptq"}]' -o refused6
one_error "is of int6"

# more forms of a finished run, and what is in everything
expect 0 "$blockq" export --run plain --format safetensors --out dense
check "the same dense export later" cmp dense/model.safetensors plain/safetensors/model.safetensors
expect 0 "$blockq" export --run three --format safetensors --out dense3
expect 2 "$blockq" export --run plain --out plain
one_error "holds other things"
expect 0 "$blockq" eval --run plain --tokens eval.h5 --ctx 32 --windows 5
expect 0 "$blockq" eval --model dense --tokens eval.h5 --ctx 32 --windows 5
for path in m_phi3_short plain plain/ckpt/block_001.p0.s0.h5 cal.h5; do
    expect 0 "$blockq" inspect "$path"
    check "inspect says something about $path" [ -s out ]
done
expect 0 "$blockq" plan b.json
finish
