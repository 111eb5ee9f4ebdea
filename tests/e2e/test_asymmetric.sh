#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Zero points, and steps of max |w| / 7.5, through a run: checkpoints, a second phase that starts from them, both exports, and what the dense one is worth.
. "$(dirname "$0")/lib.sh"
micro llama_bias phi3_short
one='{"passes": [{"pass": "rtn"}]}'
# run NAME MODEL PHASES BITS
run() {
    cat >"$1.json" <<TEXT
{"model": "$2", "bits": $4, "phases": [$3], "outputs": [{"format": "safetensors"}, {"format": "compressed-tensors"}],
 "eval": {"tokens": "eval.h5", "ctx": 32, "windows": 5}}
TEXT
    expect 0 "$blockq" run "$1.json" -o "$1"
}
four='{"decoder": {"bits": 4, "group": 8, "symmetric": false}}'
run group m_llama_bias "$one" "$four"
run plain m_llama_bias "$one" '{"decoder": {"bits": 4, "group": 8}}'
run half m_llama_bias "$one" '{"decoder": {"bits": 4, "group": 8, "grid": "absmax"}}'
run mixed m_phi3_short "$one" '{"decoder": {"bits": 8}, "linears": {"down_proj": {"symmetric": false, "bits": 4}}}'
run twice m_llama_bias "$one, $one" "$four"
differ group plain
differ half plain
for name in group half mixed twice; do worth "$name"; done
tensors() { head -c 200000 "$1/compressed-tensors/model.safetensors" | grep -ac weight_zero_point || true; }
check "zero points are exported" [ "$(tensors group)" -gt 0 ]
check "and only where there are some" [ "$(tensors plain)" = 0 ]
check "the configuration says so" grep -q '"symmetric": *false' group/compressed-tensors/config.json
for name in group plain; do
    expect 0 "$blockq" inspect "$name/ckpt/block_001.p0.s0.h5"
    check "$name: inspect on zero points" [ "$(grep -c 'zero points' out)" = "$([ "$name" = group ] && echo 7 || echo 0)" ]
done

# any number of ranks, and a run that was stopped
for ranks in 2 3; do
    expect 0 mpi $ranks run twice.json -o "twice$ranks"
    same twice "twice$ranks"
done
expect 75 "$blockq" run twice.json -o stopped --stop-after-blocks 1
expect 0 "$blockq" run twice.json -o stopped
same twice stopped

# passes that train have symmetric grids
recipe a.json m_llama_bias 4
expect 2 "$blockq" run a.json --set bits.decoder.symmetric=false -o never
one_error "adascale needs symmetric grids"
expect 2 "$blockq" run a.json --set bits.decoder.grid=absmax -o never
one_error "adascale trains the ends of aimet's grids"
expect 2 "$blockq" run mixed.json --set bits.linears.gate_proj.symmetric=false -o never
one_error "bits.linears.gate_proj: the model has no such linear"
finish
