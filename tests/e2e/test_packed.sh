#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Outputs of codes and scales are models again: what they are worth is what the same weights are worth as floats.
. "$(dirname "$0")/lib.sh"
micro llama_default qwen2 qwen3 phi3_partial mixtral

# pair NAME MODEL BITS PASSES FORMAT: the same perplexity, digit by digit, on 1 and 3 ranks.
pair() {
    cat >"$1.json" <<TEXT
{"model": "m_$2", "calibration": {"tokens": "cal.h5", "samples": 4, "length": 32}, "bits": {"decoder": {$3}},
 "phases": [{"inputs": "qt", "passes": [$4]}], "outputs": [{"format": "safetensors"}, {"format": "$5"}]}
TEXT
    expect 0 "$blockq" run "$1.json" -o "$1" --no-eval
    for form in safetensors "$5"; do
        expect 0 "$blockq" eval --model "$1/$form" --tokens eval.h5 --ctx 48 --windows 4
        grep '^perplexity' out >"$1.$form"
    done
    check "$1: $(cat "$1.$5"), as floats $(cat "$1.safetensors")" cmp -s "$1.safetensors" "$1.$5"
    expect 0 mpi 3 eval --model "$1/$5" --tokens eval.h5 --ctx 48 --windows 4
    check "$1: 3 ranks read $5 otherwise" cmp -s <(grep '^perplexity' out) "$1.$5"
}
rtn='{"pass":"rtn"}' gptq='{"pass":"gptq"}'
pair row llama_default '"bits": 4' "$gptq" compressed-tensors
pair group qwen2 '"bits": 4, "group": 16' "$rtn" compressed-tensors
pair zeros phi3_partial '"bits": 4, "group": 8, "symmetric": false' "$gptq" compressed-tensors
pair eight mixtral '"bits": 8' "$rtn" compressed-tensors
mkdir m_even && cat >m_even/config.json <<TEXT # rows and columns in multiples of 32
{"architectures": ["LlamaForCausalLM"], "blockq_procedural": 3, "hidden_act": "silu", "hidden_size": 64, "intermediate_size": 96,
 "max_position_embeddings": 512, "model_type": "llama", "num_attention_heads": 4, "num_hidden_layers": 2, "num_key_value_heads": 2,
 "rms_norm_eps": 1e-05, "tie_word_embeddings": false, "vocab_size": 97}
TEXT
for bits in 2 3 4 8; do
    pair "gptq$bits" even "\"bits\": $bits, \"group\": 16, \"scale\": \"f16\", \"grid\": \"absmax\"" "$gptq" gptq
done
pair awq qwen2 '"bits": 4, "group": 16, "scale": "f16", "symmetric": false' "$rtn" awq

# a packed model is where a run may start from
expect 0 "$blockq" run row.json --set model=eight/compressed-tensors -o again --no-eval
check "weights of 4 bits from those of 8" [ -s again/compressed-tensors/model.safetensors ]

# where engines round inputs, too, the weights are read, and a warning says so
pair w8a8 mixtral '"bits": 8}, "activations": 8, "linears": {' "$rtn" compressed-tensors
check "a warning that inputs are not rounded" [ "$(grep -c 'warning: .*w8a8/compressed-tensors: engines round the inputs' err)" = 1 ]

# forms that blockq does not write, from a program of its own
python=$(command -v python3) || true
for form in fp8_tensor fp8_channel fp8_block nvfp4 mxfp4 mxfp6 mxfp8 int3 int7 mixed; do
    [[ $python ]] || break
    "$python" "$here/make_packed.py" m_qwen3 "$form" "$form"
    for side in floats coded; do
        expect 0 "$blockq" eval --model "$form/$side" --tokens eval.h5 --ctx 48 --windows 4
        grep '^perplexity' out >"$form.$side"
    done
    check "$form: $(cat "$form.coded"), as floats $(cat "$form.floats")" cmp -s "$form.floats" "$form.coded"
done

# a scale that is NaN is refused where values are read
[[ ! $python ]] || "$python" - <<'TEXT'
import struct
data = bytearray(open("mxfp4/coded/model.safetensors", "rb").read())
n = struct.unpack("<Q", data[:8])[0]
import json
at = [v["data_offsets"][0] for k, v in json.loads(data[8:8 + n]).items() if k.endswith("weight_scale")][0]
data[8 + n + at] = 255
open("mxfp4/coded/model.safetensors", "wb").write(data)
TEXT
if [[ $python ]]; then
    expect 3 "$blockq" eval --model mxfp4/coded --tokens eval.h5 --ctx 48
    one_error 'has a NaN at row 0, column 0'
fi
finish
