#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Floats through a run: FP8 by row, by tile and by matrix, NVFP4, MX: checkpoints, phases that go on from them, exports and what they are
# worth, on any number of ranks.
. "$(dirname "$0")/lib.sh"
micro llama_bias mixtral
root=$(cd "$here/../.." && pwd)
# run NAME MODEL BITS PHASES FORMAT
run() {
    cat >"$1.json" <<TEXT
{"model": "$2", "calibration": {"tokens": "cal.h5", "samples": 4, "length": 32}, "bits": $3, "phases": [$4],
 "outputs": [{"format": "safetensors"}, {"format": "$5"}], "eval": {"tokens": "eval.h5", "ctx": 32, "windows": 5}}
TEXT
    expect 0 mpi 1 run "$1.json" -o "$1"
    for ranks in 2 3; do
        expect 0 mpi $ranks run "$1.json" -o "$1$ranks"
        same "$1" "$1$ranks"
    done
}
says() { check "$1: config.json has no $2" grep -q "$2" "$1/$3/config.json"; }
rtn='{"passes": [{"pass": "rtn"}]}' gptq='{"inputs": "qt", "passes": [{"pass": "gptq"}]}'
plain='{"inputs": "qt", "passes": [{"pass": "gptq", "order": "none", "clip": "minmax"}]}'
demo=$root/jobs/demo/model ct=compressed-tensors
run rows m_llama_bias '{"decoder": {"bits": "e4m3", "scale": "bf16"}}' "$gptq" $ct
says rows '"float-quantized"' $ct
says rows '"channel"' $ct
run tiles m_llama_bias '{"decoder": {"bits": "e4m3", "group": 8, "rows": 24}}' "$gptq" $ct
says tiles '"block"' $ct
run wide "$demo" '{"decoder": {"bits": "e4m3", "group": 128, "rows": 128}}' "$rtn" $ct # q has rows of 128
check "wide: tiles as long as a row" grep -q '"block_structure":\[128,128\]' <(tr -d ' \n' <wide/$ct/config.json)
run matrix m_mixtral '{"decoder": {"bits": "e4m3", "rows": -1}}' "$rtn" $ct
says matrix '"tensor"' $ct
run nvfp4 "$demo" '{"decoder": {"bits": "e2m1", "group": 16, "scale": "e4m3"}}' "$plain, $rtn" $ct
says nvfp4 '"nvfp4-pack-quantized"' $ct
run mxfp4 "$demo" '{"decoder": {"bits": "e2m1", "group": 32, "scale": "e8m0"}, "linears": {"down_proj": {"bits": "e2m3"}}}' "$gptq" $ct
says mxfp4 '"mixed-precision"' $ct
says mxfp4 '"mxfp6-pack-quantized"' $ct
run modelopt "$demo" '{"decoder": {"bits": "e2m1", "group": 16, "scale": "e4m3"}}' "$rtn" modelopt
says modelopt '"W4A16_NVFP4"' modelopt
for name in rows tiles wide matrix nvfp4 mxfp4; do worth $name; done
expect 0 "$blockq" inspect rows/ckpt/block_001.p0.s0.h5
check "inspect names the float" grep -q e4m3 out

# a run that was stopped between two phases, and in one
expect 75 "$blockq" run nvfp4.json -o stopped --stop-after-blocks 9
expect 0 "$blockq" run nvfp4.json -o stopped
same nvfp4 stopped

# FP8 on both sides: another perplexity, and the same codes
expect 0 "$blockq" run rows.json -o inputs --set bits.activations=e4m3
check "checkpoints do not depend on it" diff -r rows/ckpt inputs/ckpt -x 'state.json' -x 'export_*' -x lock -x model.hash.json
check "evaluation does" [ "$(cat rows/result.json)" != "$(cat inputs/result.json)" ]
says inputs '"token"' $ct
expect 3 "$blockq" run nvfp4.json -o never --set bits.activations=e4m3
one_error "floats are written for the same element on both sides"

# keys that do not go together, passes that count on integers, forms that no format has
refuse() { # CODE TEXT --set...
    local code=$1 text=$2
    shift 2
    expect "$code" "$blockq" run rows.json -o never "$@"
    one_error "$text"
}
refuse 2 "bits.decoder.symmetric: is false, and floats have no zero points" --set bits.decoder.symmetric=false
refuse 2 "bits.decoder.scale: is for floats, and bits is an integer" --set bits.decoder.bits=4 --set bits.decoder.scale=e8m0
refuse 2 "bits.decoder.rows: makes tiles, and group is -1" --set bits.decoder.rows=16
refuse 2 "bits.decoder.rows: must be 1" --set bits.decoder.rows=0
refuse 2 "bits.decoder.rows: is for floats" --set bits.decoder.rows=-1 --set bits.decoder.bits=8
refuse 2 'bits.decoder.bits: is "e9m9", must be an integer from 1 to 8, or' --set bits.decoder.bits=e9m9
refuse 2 "bits.decoder.bits: is 9, must be" --set bits.decoder.bits=9
refuse 2 "adascale works with integers" --set 'phases=[{"passes": [{"pass": "adascale"}]}]'
refuse 2 "hqq works with integers" --set 'phases=[{"passes": [{"pass": "hqq"}]}]'
refuse 2 "seqmse needs a scale for each row" --set bits.decoder.rows=-1 --set 'phases=[{"passes": [{"pass": "seqmse"}]}]'
refuse 3 "is of e5m2 in groups" --set bits.decoder.bits=e5m2
for format in gptq awq gguf; do
    refuse 3 "." --set bits.decoder.scale=f16 --set "outputs=[{\"format\": \"$format\"}]"
done
check "before any work" [ ! -e never ]
finish
