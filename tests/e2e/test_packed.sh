#!/usr/bin/env bash
# Outputs of codes and scales are models again: what they are worth is what the same weights are worth as floats.
. "$(dirname "$0")/lib.sh"
micro llama_default qwen2 phi3_partial mixtral

# pair NAME MODEL BITS PASSES FORMAT: the same perplexity, digit by digit, on 1 and 3 ranks.
pair() {
    cat >"$1.json" <<TEXT
{"model": "m_$2", "calibration": {"tokens": "cal.h5", "samples": 4, "length": 32}, "bits": {"decoder": {$3}},
 "phases": [{"inputs": "qt", "passes": [$4]}], "outputs": [{"format": "safetensors"}, {"format": "$5"}]}
TEXT
    expect 0 "$blockq" run "$1.json" -o "$1" --no-eval
    for form in safetensors "$5"; do
        for ranks in 1 3; do
            expect 0 mpi $ranks eval --model "$1/$form" --tokens eval.h5 --ctx 48 --windows 4
            grep '^perplexity' out >"$1.$form.$ranks"
        done
        check "$1: 3 ranks read $form otherwise" cmp -s "$1.$form."{1,3}
    done
    check "$1: $(cat "$1.$5.1"), as floats $(cat "$1.safetensors.1")" cmp -s "$1.safetensors.1" "$1.$5.1"
}
rtn='{"pass":"rtn"}' gptq='{"pass":"gptq"}'
pair row llama_default '"bits": 4' "$gptq" compressed-tensors
pair group qwen2 '"bits": 4, "group": 16' "$rtn" compressed-tensors
pair zeros phi3_partial '"bits": 4, "group": 8, "symmetric": false' "$gptq" compressed-tensors
pair eight mixtral '"bits": 8' "$rtn" compressed-tensors
for bits in 4 8; do
    pair "gptq$bits" qwen2 "\"bits\": $bits, \"group\": 16, \"scale\": \"f16\", \"grid\": \"absmax\"" "$gptq" gptq
done

# a packed model is where a run may start from
expect 0 "$blockq" run row.json --set model=eight/compressed-tensors -o again --no-eval
check "weights of 4 bits from those of 8" [ -s again/compressed-tensors/model.safetensors ]

# what is rounded besides weights is not computed, and says so
sed 's/"decoder": {"bits": 8}/"decoder": {"bits": 8}, "activations": 8/' eight.json >w8a8.json
expect 0 "$blockq" run w8a8.json -o w8a8 --no-eval
expect 3 "$blockq" eval --model w8a8/compressed-tensors --tokens eval.h5 --ctx 48
one_error 'quantization_config: format: pack-quantized is read'
finish
