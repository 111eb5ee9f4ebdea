#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Schemes by name, zero points that are floats, torchao's grids and the searches of float blocks through a run: checkpoints, exports and
# what they are worth, on any number of ranks; outputs that cannot hold a scheme say so.
. "$(dirname "$0")/lib.sh"
micro llama_bias
root=$(cd "$here/../.." && pwd)
demo=$root/jobs/demo/model ct=compressed-tensors
# run NAME MODEL BITS PHASES [FORMAT]
run() {
    cat >"$1.json" <<TEXT
{"model": "$2", "calibration": {"tokens": "cal.h5", "samples": 4, "length": 32}, "bits": $3, "phases": [$4],
 "outputs": [{"format": "safetensors"}${5:+, {\"format\": \"$5\"\}}], "eval": {"tokens": "eval.h5", "ctx": 32, "windows": 5}}
TEXT
    expect 0 "$blockq" run "$1.json" -o "$1"
    expect 0 mpi 3 run "$1.json" -o "${1}3"
    same "$1" "${1}3"
    expect 75 "$blockq" run "$1.json" -o "${1}_again" --stop-after-blocks 1
    expect 0 "$blockq" run "$1.json" -o "${1}_again"
    same "$1" "${1}_again"
    worth "$1"
}
rtn='{"passes": [{"pass": "rtn"}]}' gptq='{"inputs": "qt", "passes": [{"pass": "gptq"}]}'

# zero points that are floats: in files, and where a later phase starts from them
run floats "$demo" '{"preset": "w4g32", "decoder": {"scale": "f16"}}' '{"passes": [{"pass": "hqq", "stop": "matrix", "round_start": true}]}' gguf
run phases "$demo" '{"preset": "w4g64"}' '{"passes": [{"pass": "hqq"}]}, {"inputs": "qt", "passes": [{"pass": "hqq"}, {"pass": "gptq"}]}'
expect 0 "$blockq" eval --model floats/gguf/*.gguf --tokens eval.h5 --ctx 32 --windows 5
check "GGUF keeps the zero points" awk -v a="$(sed -n 's/.*, "[a-z0-9_+]*": \([0-9.]*\)}.*/\1/p' floats/result.json)" \
    -v b="$(sed -n 's/.*model=\([0-9.]*\).*/\1/p' out)" 'BEGIN { exit !(a > 1 && (a - b)^2 < 1e-6 * a * a) }'
expect 0 "$blockq" compare floats floats3
check "two runs have the same codes" grep -q ' 0 ' out
for format in $ct gptq awq modelopt aimet; do
    expect 3 "$blockq" export --run floats --out never --format $format
    one_error "has zero points that are floats: $format holds none"
done

# integers by torchao's rule; one scale for a matrix; one bit
run torchao m_llama_bias '{"preset": "w8"}' "$gptq" $ct
run one m_llama_bias '{"preset": "w1g64", "decoder": {"group": 8}}' "$rtn"
run matrix m_llama_bias '{"preset": "w8", "decoder": {"rows": -1}}' "$gptq"

# NVFP4 and MX: torchao's form, one level, wider grids, blocks of 4 or 6, before GPTQ, too
run nvfp4 "$demo" '{"preset": "nvfp4", "activations": 16}' '{"passes": [{"pass": "rtn", "clip": "four_over_six"}]}' modelopt
run level "$demo" '{"preset": "NVFP4A16", "decoder": {"outer": "none"}}' "$rtn" $ct
run mx "$demo" '{"preset": "mxfp4", "activations": 16}' '{"inputs": "qt", "passes": [{"pass": "rtn", "clip": "expanded"}, {"pass": "gptq"}]}' $ct

refuse() { # TEXT --set...
    local text=$1
    shift
    expect 2 "$blockq" run one.json -o never "$@"
    one_error "$text"
}
refuse "bits.decoder.zero: is float, and symmetric grids have none" --set bits.preset=W4A16 --set bits.decoder.zero=float
refuse "bits.decoder.bits: is 1, which needs zero points" --set bits.preset=W4A16 --set bits.decoder.bits=1 --set bits.decoder.grid=aimet
refuse "bits.activations.dynamic: is false, and files hold the factor of the rule compressed-tensors" --set bits.preset=nvfp4 \
    --set bits.activations.dynamic=false
refuse "bits.activations.rule: is for integers, and bits is a float" --set bits.preset=FP8_DYNAMIC --set bits.activations.rule=torchao
refuse "there is no scheme 'W3A3'" --set bits.preset=W3A3
finish
