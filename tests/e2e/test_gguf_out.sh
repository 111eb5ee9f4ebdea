#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Outputs in GGUF, read back: import gives the bytes of the safetensors output, for every architecture, with any number of ranks
# and in several parts; where minima are rounded, the log says so; what is refused.
. "$(dirname "$0")/lib.sh"
micro llama_default

# model NAME TYPE ARCHITECTURE MORE: a made-up model with rows of multiples of 32 columns.
model() {
    mkdir "$1"
    cat >"$1/config.json" <<TEXT
{"model_type": "$2", "architectures": ["$3"], "blockq_procedural": 5, "hidden_size": 64, "intermediate_size": 96,
 "max_position_embeddings": 128, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2, "head_dim": 32,
 "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "vocab_size": 97, $4}
TEXT
}
ramp=$(seq -s, 1 16)
silu='"hidden_act": "silu"'
model llama llama LlamaForCausalLM "$silu, \"tie_word_embeddings\": true, \"attention_bias\": true"
model llama3 llama LlamaForCausalLM "$silu, \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8.0, \"low_freq_factor\": 1.0,
 \"high_freq_factor\": 4.0, \"original_max_position_embeddings\": 64}"
model linear llama LlamaForCausalLM "$silu, \"rope_scaling\": {\"rope_type\": \"linear\", \"factor\": 4.0}"
model mistral mistral MistralForCausalLM "$silu, \"sliding_window\": null"
model mixtral mixtral MixtralForCausalLM "$silu, \"num_local_experts\": 4, \"num_experts_per_tok\": 2, \"sliding_window\": null"
model qwen2 qwen2 Qwen2ForCausalLM "$silu, \"use_sliding_window\": false"
model qwen3 qwen3 Qwen3ForCausalLM "$silu, \"use_sliding_window\": false"
model qwen3_moe qwen3_moe Qwen3MoeForCausalLM "$silu, \"num_experts\": 4, \"num_experts_per_tok\": 2, \"moe_intermediate_size\": 32,
 \"norm_topk_prob\": true"
model phi3 phi3 Phi3ForCausalLM "$silu, \"original_max_position_embeddings\": 64, \"sliding_window\": 32,
 \"rope_scaling\": {\"type\": \"longrope\", \"short_factor\": [$ramp], \"long_factor\": [$ramp]}"
model gemma3 gemma3_text Gemma3ForCausalLM '"hidden_activation": "gelu_pytorch_tanh", "sliding_window": 32,
 "sliding_window_pattern": 2, "query_pre_attn_scalar": 32, "tie_word_embeddings": true'
model gpt_oss gpt_oss GptOssForCausalLM "$silu, \"num_local_experts\": 4, \"num_experts_per_tok\": 2, \"sliding_window\": 16,
 \"swiglu_limit\": 7.0, \"attention_bias\": true, \"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 4.0, \"beta_fast\": 32.0,
 \"beta_slow\": 1.0, \"original_max_position_embeddings\": 64, \"truncate\": false}"
model glm4_moe glm4_moe Glm4MoeForCausalLM "$silu, \"n_routed_experts\": 4, \"num_experts_per_tok\": 2, \"moe_intermediate_size\": 32,
 \"n_shared_experts\": 1, \"first_k_dense_replace\": 1, \"routed_scaling_factor\": 1.5, \"norm_topk_prob\": true, \"n_group\": 1,
 \"topk_group\": 1, \"use_qk_norm\": true, \"attention_bias\": true, \"partial_rotary_factor\": 0.5"
families="llama llama3 linear mistral mixtral qwen2 qwen3 qwen3_moe phi3 gemma3 gpt_oss glm4_moe"

# recipe_of NAME BITS: its recipe, in groups of 32.
recipe_of() {
    cat >"$1.json" <<TEXT
{"model": "$1", "phases": [{"inputs": "fp", "passes": [{"pass": "rtn"}]}], "bits": {"decoder": $2},
 "outputs": [{"format": "safetensors"}, {"format": "gguf"}, {"format": "gguf", "dir": "parts", "shard_bytes": 100000}]}
TEXT
}
# back GGUF RUN: the file has the values of the run's safetensors output, all of them.
back() {
    expect 0 "$blockq" import "$1" back --type f32 --no-tokenizer
    check "$1 has the values of $2" cmp back/model.safetensors "$2/safetensors/model.safetensors"
}

for name in $families; do
    recipe_of $name '{"bits": 4, "group": 32, "scale": "f16"}'
    expect 0 mpi 1 run $name.json -o $name.1
    check "no loss" [ "$(grep -c minima err)" = 0 ]
    [ $name = gpt_oss ] || back $name.1/gguf/model.gguf $name.1
    part=$(compgen -G "$name.1/parts/model*.gguf" | head -n 1)
    [ $name = gpt_oss ] || back "$part" $name.1 # whose safetensors output stacks experts, and import does not
    expect 0 mpi 3 run $name.json -o $name.3
    check "the same bytes of $name by three ranks" diff -r $name.1/gguf $name.3/gguf
    check "the same parts" diff -r $name.1/parts $name.3/parts
    expect 0 "$blockq" eval --model $name.1/safetensors --tokens eval.h5 --ctx 32 --windows 3
    mv out plain
    expect 0 "$blockq" eval --model $name.1/gguf/model.gguf --tokens eval.h5 --ctx 32 --windows 3
    check "perplexity of $name" cmp plain out
done
check "several parts" [ -s mixtral.1/parts/model-00002-of-00002.gguf -a ! -e mixtral.1/parts/model.safetensors.index.json ]

# ---- schemes: the type is the smallest that holds the codes; other groups stand in blocks of 32
for scheme in '"bits": 2, "group": 32' '"bits": 3, "group": 32' '"bits": 5, "group": 32' '"bits": 6' '"bits": 8, "group": 32' '"bits": 8'; do
    rm -rf scheme
    expect 0 mpi 1 run qwen2.json -o scheme --set "bits.decoder={$scheme, \"scale\": \"f16\"}"
    back scheme/gguf/model.gguf scheme
done
for bits in 4 5; do
    rm -rf scheme
    expect 0 mpi 1 run llama.json -o scheme --set "bits.decoder={\"bits\": $bits, \"group\": 32, \"symmetric\": false, \"scale\": \"f16\"}"
    check "what rounding minima costs" grep -qE '^bq: .*gguf: minima of [0-9]+ of [0-9]+ blocks were rounded to F16, by at most 0.0' err
    expect 0 "$blockq" eval --model scheme/gguf/model.gguf --tokens eval.h5 --ctx 32 --windows 3
done

# floats: MXFP4 keeps its codes.  A code -0 is 0 in the file, so values are compared, not bytes.
for name in gpt_oss qwen3; do
    rm -rf scheme
    expect 0 mpi 2 run $name.json -o scheme --set 'bits.decoder={"bits": "e2m1", "group": 32, "scale": "e8m0"}'
    expect 0 "$blockq" eval --model scheme/safetensors --tokens eval.h5 --ctx 32 --windows 3
    mv out plain
    expect 0 "$blockq" eval --model scheme/gguf/model.gguf --tokens eval.h5 --ctx 32 --windows 3
    check "perplexity of $name in MXFP4" cmp plain out
done

# quantized again
for scheme in '"bits": 4, "group": 16' '"bits": 8, "symmetric": false'; do
    rm -rf scheme
    expect 0 mpi 2 run mixtral.json -o scheme --set "bits.decoder={$scheme, \"scale\": \"f32\"}"
    check "what it costs" grep -qE '^bq: .*gguf: [0-9]+ rows were quantized again, by the rule of their type: error 0.[0-9.e-]+ of' err
    expect 0 "$blockq" eval --model scheme/gguf/model.gguf --tokens eval.h5 --ctx 32 --windows 3
done

# ---- norms, biases and matrices that passes and rotations have changed
for name in llama gemma3 qwen2; do
    sed 's/"passes": \[/&{"pass": "smoothquant"}, /; s/"phases"/"calibration": {"tokens": "cal.h5", "samples": 4, "length": 24}, &/' \
        $name.json >smooth.json
    rm -rf smooth
    expect 0 mpi 2 run smooth.json -o smooth
    back smooth/gguf/model.gguf smooth
done
expect 0 mpi 2 run llama3.json -o turned --set 'transforms=[{"transform": "rotate"}]'
back turned/gguf/model.gguf turned

# ---- types of what is not quantized: said in the log, written alike by any number of ranks, read back
sed 's/"hidden_size": 64/"hidden_size": 256/' qwen3/config.json >wide.json
mkdir wide && mv wide.json wide/config.json
recipe_of wide '{"bits": 4, "group": 32, "scale": "f16"}'
expect 0 mpi 1 run wide.json -o wide.1
ppl() { sed -E 's/.*model=([0-9.]+).*/\1/' out; }
expect 0 "$blockq" eval --model wide.1/safetensors --tokens eval.h5 --ctx 32 --windows 3
plain=$(ppl)
for keys in outtype=bf16 token_embedding_type=q8_0,output_tensor_type=q6_K token_embedding_type=q6_K,outtype=f16 \
    outtype=q5_0,output_tensor_type=q4_1; do
    expect 0 mpi 1 export --run wide.1 --format gguf:$keys --out typed
    case $keys in *q*) check "what $keys costs" [ "$(grep -cE '^bq: .*gguf: (token_embd|output).weight is B?[FQ][0-9_K]+: error 0.[0-9.]+ of the values' err)" -ge 1 ] ;; esac
    expect 0 mpi 3 export --run wide.1 --format gguf:$keys --out typed3
    check "the same bytes by three ranks" diff -r typed typed3
    expect 0 "$blockq" import typed/model.gguf back --type f32 --no-tokenizer
    expect 0 "$blockq" eval --model back --tokens eval.h5 --ctx 32 --windows 3
    check "perplexity with $keys: $(ppl), not $plain" awk "BEGIN { exit !($(ppl) / $plain - 1 < 0.02 && 1 - $(ppl) / $plain < 0.02) }"
done
expect 0 mpi 1 export --run qwen2.1 --format gguf:token_embedding_type=q6_K --out typed
check "rows of 64" grep -q 'token_embd.weight is Q8_0, since its rows are no whole blocks of Q6_K: error' err
expect 3 "$blockq" export --run llama.1 --format gguf:output_tensor_type=q8_0 --out never
one_error 'output_tensor_type: the model.s output layer is its embedding'
expect 0 mpi 2 run wide.json -o typed.run --set 'outputs=[{"format": "gguf", "outtype": "f16"}]'
expect 0 mpi 2 run wide.json -o typed.run --set 'outputs=[{"format": "gguf", "outtype": "q8_0"}]'
check "another type is another output" grep -q 'token_embd.weight is Q8_0' err
expect 0 mpi 1 export --run wide.1 --format gguf:outtype=q8_0 --out typed
check "the same as by export" cmp typed/model.gguf typed.run/gguf/model.gguf

# ---- the tokenizer of a model
make_gguf=$(dirname "$make_micro")/make_gguf
"$make_gguf" llama3.1/safetensors words.gguf f32 smollm
expect 0 "$blockq" import words.gguf words
sed 's/"llama3"/"words"/' llama3.json >words.json
expect 0 mpi 1 run words.json -o words.1
expect 0 "$blockq" import words.1/gguf/model.gguf words_back
check "the tokenizer comes back" cmp words/tokenizer.json words_back/tokenizer.json
echo '{"model": {"type": "WordPiece", "vocab": {}}}' >words/tokenizer.json
expect 0 mpi 1 run words.json -o words.2
check "another one is left out" grep -q 'the tokenizer is left out: it is not of a kind' err

# ---- damage and refusals
for fault in writer_close:1@0 writer_write:5@0; do
    rm -rf broken
    BQ_FAULT=$fault expect 1 mpi 2 run llama.json -o broken
    check "a broken output does not load" [ ! -e broken/gguf/config.json ]
    expect 0 mpi 2 run llama.json -o broken
    check "made again" diff -r llama.1/gguf broken/gguf
done
mkdir foreign && cp words.gguf foreign/model.gguf && echo {} >foreign/config.json
expect 3 "$blockq" export --run llama.1 --format gguf --out foreign
one_error "foreign/model.gguf' is not from blockq"
expect 0 "$blockq" export --run llama.1 --format gguf --out later
expect 0 "$blockq" export --run llama.1 --format gguf --out later
check "over an earlier one" diff -r llama.1/gguf later

refused() { # TEXT RECIPE SET...
    local text=$1 recipe=$2
    shift 2
    expect 3 mpi 1 run "$recipe" -o never "$@"
    one_error "$text"
}
refused 'set scale=f16' llama.json --set bits.decoder.scale=f32 --set 'outputs=[{"format":"gguf"}]'
refused 'floats other than e2m1' llama.json --set 'bits.decoder={"bits": "e4m3"}' --set 'outputs=[{"format":"gguf"}]'
refused 'rounded inputs' llama.json --set bits.decoder.bits=8 --set bits.activations=8
model window mistral MistralForCausalLM "$silu, \"sliding_window\": 16"
model olmo2 olmo2 Olmo2ForCausalLM "$silu"
mkdir limit tail
sed 's/"swiglu_limit": 7.0/"swiglu_limit": 5.0/' gpt_oss/config.json >limit/config.json
sed 's/"num_experts": 4/&, "mlp_only_layers": [1]/' qwen3_moe/config.json >tail/config.json
for name in window olmo2 limit tail; do recipe_of $name '{"bits": 4, "group": 32, "scale": "f16"}'; done
refused 'gguf cannot say a sliding window' window.json
refused 'gguf is not written for model_type olmo2' olmo2.json
refused 'gguf cannot say a swiglu_limit other than 7' limit.json --set 'outputs=[{"format": "gguf"}]'
refused 'gguf cannot say blocks without experts beside others' tail.json
check "nothing was made" [ ! -e never ]
finish
