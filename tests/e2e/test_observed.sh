#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What is measured on the result after the passes: scales of cached keys and values, which the evaluation uses, too; the squares of
# inputs for llama.cpp.  Python computes them again for block 0.  Bytes are equal on any grid, and a finished run need not be made again.
leaks=1
. "$(dirname "$0")/lib.sh"
micro qwen2 llama_bias phi3_short mixtral
latent latent 24 false

# recipe_of FILE MODEL SAMPLES PASS [MORE]
recipe_of() {
    cat >"$1" <<TEXT
{"model": "$2", "calibration": {"tokens": "cal.h5", "samples": $3, "length": 24}, "phases": [{"passes": [{"pass": "$4"}]}],
 "bits": {"decoder": {"group": 8, "scale": "f16"}}, "eval": {"tokens": "eval.h5", "ctx": 32, "windows": 5}${5-}}
TEXT
}
value() { sed -n "s/.*\"$2\": \([0-9.]*\).*/\1/p" "$1/result.json"; }
ct='outputs=[{"format": "compressed-tensors"}]' plain='outputs=[{"format": "safetensors"}]'
gguf='outputs=[{"format": "gguf", "imatrix": true}]'

for name in qwen2 llama_bias; do
    recipe_of r.json m_$name 5 gptq
    expect 0 "$blockq" run r.json --set "$plain" -o $name
    check "$name: nothing is measured where nothing asks for it" [ ! -e $name/ckpt/observed.f32 ]
    cp -r $name/safetensors floats_$name
    cp $name/ckpt/block_000.p0.s0.h5 before
    fp=$(value $name fp) sixteen=$(value $name gptq)

    # the finished run goes on with quantized keys and values
    expect 0 "$blockq" run r.json --set "$ct" --set bits.kv='"e4m3"' -o $name
    check "$name: the block is as it was" cmp before $name/ckpt/block_000.p0.s0.h5
    check "$name: the scales" python3 "$here/check_observed.py" floats_$name text 5 24 $name/compressed-tensors
    check "$name: the configuration" grep -q '"kv_cache_scheme": {' $name/compressed-tensors/config.json
    check "$name: the card" grep -q "cached keys and values: e4m3" $name/compressed-tensors/README.md
    check "$name: the original has its own" [ "$fp" = "$(value $name fp)" ]
    check "$name: 8 bits change the result, a little" \
        awk -v a="$sixteen" -v b="$(value $name gptq)" 'BEGIN { exit !(a > 1 && a != b && (a / b - 1)^2 < 1e-3) }'
    expect 0 "$blockq" eval --run $name --tokens eval.h5 --ctx 32 --windows 5
    check "$name: eval has them, too" grep -q "gptq=$(printf %.4f "$(value $name gptq)")" out
    expect 0 "$blockq" export --run $name --out later_$name
    check "$name: a later export" diff -r later_$name $name/compressed-tensors

    # and with an imatrix
    expect 0 "$blockq" run r.json --set "$gguf" --set bits.decoder.group=-1 -o whole_$name --set bits.decoder.bits=8
    expect 0 "$blockq" run r.json --set "$plain" --set bits.decoder.group=-1 -o plain_$name --set bits.decoder.bits=8
    check "$name: the squares of inputs" \
        python3 "$here/check_observed.py" plain_$name/safetensors text 5 24 whole_$name/gguf/imatrix.gguf
    check "$name: in the list of files" grep -q imatrix.gguf whole_$name/gguf/SHA256SUMS
done

# any grid, a file that was damaged
recipe_of g.json m_mixtral 3 gptq ', "outputs": [{"format": "gguf", "imatrix": true}]'
sed -i 's/"group": 8/"group": -1, "bits": 8/' g.json
expect 0 "$blockq" run g.json -o one
for ranks in 2 3; do
    expect 0 mpi $ranks run g.json -o ranks_$ranks
    same one ranks_$ranks
done
mv one/ckpt/observed.f32 kept
head -c 1000 kept >one/ckpt/observed.f32
rm -r one/gguf
expect 0 "$blockq" run g.json -o one
check "made again" cmp kept one/ckpt/observed.f32
same one ranks_2
recipe_of p.json m_phi3_short 3 rtn ', "outputs": [{"format": "compressed-tensors"}]'
expect 0 "$blockq" run p.json --set bits.kv='"e4m3"' -o fused
check "round to nearest needs samples then" grep -aq 'self_attn.v_scale' fused/compressed-tensors/model.safetensors
expect 0 mpi 2 run p.json --set bits.kv='"e4m3"' -o fused_2
same fused fused_2

# the same run with other samples: no pass has read them, so the blocks stay, and what was measured is measured again
rev text >other
expect 0 "$blockq" tokens --bytes other -o cal_other.h5
recipe_of c.json m_qwen2 3 rtn ', "outputs": [{"format": "compressed-tensors"}]'
sed -i 's/"group": 8/"group": -1, "bits": 8/' c.json
for key in "$gguf" 'bits.kv="e4m3"'; do
    new=--set\ calibration.tokens=cal_other.h5
    rm -rf moved other_samples # of the first key
    expect 0 "$blockq" run c.json --set "$key" -o moved
    expect 0 "$blockq" run c.json --set "$key" $new -o moved
    expect 0 "$blockq" run c.json --set "$key" $new -o other_samples
    same other_samples moved
done

# a forward with infinite numbers has neither scales nor sums
cp -r m_qwen2 m_large
python3 - <<'TEXT'
import json, struct
with open("m_large/model.safetensors", "r+b") as f:
    size = struct.unpack("<Q", f.read(8))[0]
    first, last = json.loads(f.read(size))["model.layers.1.input_layernorm.weight"]["data_offsets"]
    f.seek(8 + size + first)
    f.write(struct.pack("<f", 3e38) * ((last - first) // 4))
TEXT
sed 's/m_qwen2/m_large/' c.json >large.json
for key in "$gguf" 'bits.kv="e4m3"'; do
    rm -rf large
    expect 3 "$blockq" run large.json --set "$key" --no-eval -o large
    one_error "block 2/2: keys, values or inputs of linears have .*: the weights are damaged, or too large"
    check "no file of it" [ ! -e large/ckpt/observed.f32 ]
done

# modelopt: readers ignore scales that the configuration does not speak of
modelopt=(--set 'outputs=[{"format": "modelopt"}]' --set 'bits.decoder={"bits": "e4m3", "scale": "f32"}' --set 'bits.activations="e4m3"')
expect 0 "$blockq" run p.json "${modelopt[@]}" --set bits.kv='"e4m3"' -o fp8
check "modelopt: the scales" grep -aq 'qkv_proj.v_scale' fp8/modelopt/model.safetensors
check "modelopt: the configuration" grep -q '"kv_cache_scheme": {' fp8/modelopt/config.json
expect 0 "$blockq" run p.json "${modelopt[@]}" -o fp8_alone
check "modelopt: nothing of it where nothing is cached so" grep -q '"kv_cache_scheme": null' fp8_alone/modelopt/config.json

# what cannot be
expect 2 "$blockq" run p.json --set bits.kv='"e4m3"' --set calibration.tokens='""' -o never
one_error "calibration.tokens is missing, and bits.kv is measured on samples"
recipe_of l.json latent 3 rtn ', "outputs": [{"format": "compressed-tensors"}]'
sed -i "s|\"group\": 8, ||" l.json
expect 2 "$blockq" run l.json --set bits.kv='"e4m3"' -o never
one_error "bits.kv: the model has latent attention"
expect 3 "$blockq" run p.json --set "$plain" --set bits.kv='"e4m3"' -o never
one_error "safetensors cannot say how keys and values are cached"
expect 3 "$blockq" run p.json --set bits.kv=8 -o never
one_error "compressed-tensors cannot say how keys and values are cached"
expect 2 "$blockq" run p.json --set bits.kv=9 -o never
one_error 'bits.kv: is 9, must be an integer from 2 to 8, 16, or "e4m3" or "e5m2"'
check "before any work" [ ! -e never ]
expect 0 "$blockq" run p.json -o without
expect 3 "$blockq" export --run without --out never --format gguf:imatrix=true
one_error "observed.f32 is not there or not of this recipe"
finish
