#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Passes that change norms and biases: checkpoints hold them, a second phase and other sweeps go on from them, exports have
# them.
. "$(dirname "$0")/lib.sh"
micro llama_bias phi3_short
smooth='{"passes": [{"pass": "smoothquant"}, {"pass": "rtn"}]}'
# run NAME MODEL PHASES [MORE KEYS, each with a comma in front]
run() {
    cat >"$1.json" <<TEXT
{"model": "$2", "calibration": {"tokens": "cal.h5", "samples": 6, "length": 24}, "phases": [$3],
 "outputs": [{"format": "safetensors"}, {"format": "compressed-tensors"}],
 "eval": {"tokens": "eval.h5", "ctx": 32, "windows": 5}${4-}}
TEXT
    expect 0 "$blockq" run "$1.json" -o "$1"
}
run plain m_llama_bias '{"passes": [{"pass": "rtn"}]}'
run bias m_llama_bias "$smooth"
run phi m_phi3_short "$smooth"
run twice m_llama_bias "$smooth, {\"passes\": [{\"pass\": \"adascale\", \"iterations\": 4}]}"
run sweeps m_llama_bias '{"passes": [{"pass": "smoothquant"}, {"pass": "adascale", "iterations": 4}]}' ', "sweeps": 2, "segments": 2'
for name in bias phi twice sweeps; do worth "$name"; done
differ plain bias
for name in plain bias; do
    expect 0 "$blockq" inspect "$name/ckpt/block_001.p0.s0.h5"
    check "$name: inspect on norms" [ "$(grep -c 'norms of its own' out)" = "$([ "$name" = bias ] && echo 1 || echo 0)" ]
done
expect 0 "$blockq" inspect twice/ckpt/block_001.p1.s0.h5
check "the second phase keeps the first one's norms" grep -q 'norms of its own' out

expect 0 "$blockq" export --run bias --out later
check "the same later" diff -r later bias/compressed-tensors

# any number of ranks, and runs that were stopped
for name in bias twice sweeps; do
    expect 0 mpi 2 run "$name.json" --stages 1 -o "$name.2"
    same "$name" "$name.2"
    expect 75 "$blockq" run "$name.json" -o "$name.s" --stop-after-blocks 1
    expect 0 "$blockq" run "$name.json" -o "$name.s"
    same "$name" "$name.s"
done
finish
