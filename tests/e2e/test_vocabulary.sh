#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Embedding and head rounded: the evaluation of a run is that of what it exports, in every format that can hold it; tied models are
# untied where the two differ; the passes do not see it, so a finished run only writes its outputs anew; what is refused.
leaks=1
. "$(dirname "$0")/lib.sh"
micro llama_llama3 llama_bias gemma2

# model NAME TIED: made up, with rows of multiples of 32 columns
model() {
    mkdir "$1"
    cat >"$1/config.json" <<TEXT
{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "blockq_procedural": 5, "hidden_size": 64, "intermediate_size": 96,
 "max_position_embeddings": 128, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2, "head_dim": 32,
 "hidden_act": "silu", "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "vocab_size": 128, "tie_word_embeddings": $2}
TEXT
}
model tied true
model apart false

# recipe_of FILE MODEL [MORE]
recipe_of() {
    cat >"$1" <<TEXT
{"model": "$2", "phases": [{"passes": [{"pass": "rtn"}]}], "bits": {"decoder": {"group": 8, "scale": "f16"}},
 "outputs": [{"format": "safetensors"}], "eval": {"tokens": "eval.h5", "ctx": 32, "windows": 5}${3-}}
TEXT
}
recipe_of t.json tied
recipe_of a.json apart
recipe_of l.json m_llama_llama3
recipe_of b.json m_llama_bias
recipe_of g.json m_gemma2
sed -i 's/"group": 8/"group": -1/' l.json g.json
rotate='transforms=[{"transform": "rotate", "r1": "orthogonal", "r2": "orthogonal"}]'

value() { sed -E "s/.*\"$2\": ([^,}]*).*/\1/" "$1/result.json"; }
# loads DIR RUN: what a run exported to DIR has the perplexity of the run, in all digits that both print
loads() {
    expect 0 "$blockq" eval --model "$1" --tokens eval.h5 --ctx 32 --windows 5
    check "$1 has the perplexity of $2" awk -v a="$(sed -n 's/.*model=\([0-9.]*\).*/\1/p' out)" -v b="$(value "$2" rtn)" \
        'BEGIN { d = a - b; exit !(a > 1 && d < 1e-8 * b && d > -1e-8 * b) }'
}
# has DIR WORD TIMES: so often is the word in the header
has() { check "$1: $3 tensors $2" [ "$(strings -n 200 "$1"/model.* | head -n 1 | grep -o "\"$2" | wc -l)" = "$3" ]; }
# says DIR true|false: of a tied head
says() { check "$1 says tied: $2" grep -q "\"tie_word_embeddings\": $2" "$1/config.json"; }

for name in t a l b g; do
    tied=$([[ $name = [tlg] ]] && echo true || echo false)
    expect 0 "$blockq" run $name.json -o ${name}_16
    loads ${name}_16/safetensors ${name}_16
    # embedding, head: bits, and whether both are one tensor where the model ties them
    for pair in "16 8 0" "8 16 0" "4 8 0" "4 4 1"; do
        read -r embedding head one <<<"$pair"
        out=${name}_${embedding}_$head
        expect 0 "$blockq" run $name.json --set bits.embedding.bits=$embedding --set bits.lm_head.bits=$head -o $out
        loads $out/safetensors $out
        check "$out: the original is as it was" [ "$(value $out fp)" = "$(value ${name}_16 fp)" ]
        check "$out: the result is not" [ "$(value $out rtn)" != "$(value ${name}_16 rtn)" ]
        check "$out: the same checkpoints" cmp $out/ckpt/block_001.p0.s0.h5 ${name}_16/ckpt/block_001.p0.s0.h5
        if [[ $tied = true ]]; then
            has $out/safetensors lm_head.weight $((1 - one))
            says $out/safetensors "$([[ $one = 1 ]] && echo true || echo false)"
        fi
    done
done
check "gemma2 scales its embedding" grep -q '"model_type": "gemma2"' m_gemma2/config.json

# other schemes, after rotations, which untie by themselves; one rank and three
set=(--set 'bits.embedding={"bits": 5, "group": 16, "symmetric": false, "scale": "bf16"}'
    --set 'bits.lm_head={"bits": 3, "group": 8, "grid": "absmax", "scale": "f16"}')
for name in t b; do
    if [[ $name = b ]]; then set[1]=${set[1]/16/8}; fi
    for turn in 'transforms=[]' "$rotate"; do
        rm -rf one three
        expect 0 "$blockq" run $name.json "${set[@]}" --set "$turn" --set outputs.0.shard_bytes=100000 -o one
        expect 0 mpi 3 run $name.json "${set[@]}" --set "$turn" --set outputs.0.shard_bytes=100000 -o three --threads 1
        same one three
        loads one/safetensors one
    done
    expect 0 "$blockq" run $name.json --set bits.embedding.bits=8 --set bits.lm_head.bits=8 --set "$rotate" -o turned_$name
    loads turned_$name/safetensors turned_$name
    has turned_$name/safetensors lm_head.weight 1
    says turned_$name/safetensors false
done

# a file that has a head, and a config.json that ties it: the embedding is the head, and an output with another says so
cp -r t_16_8/safetensors both
sed -i 's/"tie_word_embeddings": false/"tie_word_embeddings": true/' both/config.json
recipe_of both.json both
for head in 4 16; do
    expect 0 "$blockq" run both.json --set bits.embedding.bits=8 --set bits.lm_head.bits=$head -o both_$head
    loads both_$head/safetensors both_$head
    says both_$head/safetensors false
done
expect 0 "$blockq" run both.json --set bits.embedding.bits=8 --set bits.lm_head.bits=8 -o both_8
loads both_8/safetensors both_8
says both_8/safetensors true

# a finished run: only outputs and evaluation are made again, there and back; evaluated and exported later
cp -r t_16 again
for bits in 8 4; do
    expect 0 "$blockq" run t.json --set bits.lm_head.bits=$bits -o again
    check "no block is made again" grep -q '2 of 2 blocks are done' err
    expect 0 "$blockq" run t.json --set bits.lm_head.bits=$bits -o fresh_$bits
    same fresh_$bits again
done
expect 0 "$blockq" run t.json --set bits.lm_head.bits=4 -o again
check "an output that is there stays" [ "$(grep -c 'wrote' err)" = 0 ]
expect 0 "$blockq" eval --run again --tokens eval.h5 --ctx 32 --windows 5
check "evaluated later" grep -q "rtn=$(printf %.4f "$(value again rtn)")" out
expect 0 "$blockq" export --run again --format safetensors --out later
check "exported later" diff -r later again/safetensors
expect 0 mpi 2 run t.json -o again
same t_16 again

# compressed-tensors and gptq: the head is a linear as others
for name in t a; do
    for head in '8, "group": 32' '4, "group": 8'; do
        rm -rf lin
        expect 0 "$blockq" run $name.json --set "bits.lm_head={\"bits\": $head, \"scale\": \"f16\"}" \
            --set 'outputs=[{"format": "compressed-tensors"}, {"format": "gptq"}]' -o lin
        loads lin/compressed-tensors lin
        if [[ $head = 4* ]]; then # blockq reads GPTQ of one width
            loads lin/gptq lin
        else
            check "an exception" grep -q '"+:^lm_head$"' lin/gptq/config.json
        fi
        for format in compressed-tensors gptq; do says lin/$format false; done
        check "named once, so not ignored" [ "$(grep -c '"lm_head"' lin/compressed-tensors/config.json)" = 1 ]
        check "it is a target" grep -q '"lm_head"' <(sed -n '/"targets"/,/\]/p' lin/compressed-tensors/config.json)
        check "gptq says so" grep -q '"lm_head": true' lin/gptq/config.json
    done
done
expect 0 "$blockq" run t.json --set bits.activations=8 --set bits.decoder.group=-1 --set bits.decoder.bits=8 --set bits.lm_head.bits=8 \
    --set 'outputs=[{"format": "compressed-tensors"}]' -o w8a8
check "its inputs are not rounded" grep -q '"format": "mixed-precision"' w8a8/compressed-tensors/config.json

# gguf: both, in one tensor where they are equal
gguf() { # EMBEDDING HEAD TENSORS
    local out=gguf_$1_$2 set=() key
    for key in decoder=4 "embedding=$1" "lm_head=$2"; do
        set+=(--set "bits.${key%=*}={\"bits\": ${key#*=}, \"group\": 32, \"scale\": \"f16\"}")
    done
    expect 0 "$blockq" run t.json --set 'outputs=[{"format": "gguf"}]' "${set[@]}" -o "$out"
    loads "$out/gguf/model.gguf" "$out"
    check "$out: a head" [ "$(strings "$out/gguf/model.gguf" | grep -cE '^output\.weight')" = $(($3 - 1)) ]
}
gguf 16 8 2
gguf 8 4 2
gguf 8 8 1
gguf 4 4 1

# refused, before any work
never() { # CODE TEXT SETTING...
    local code=$1 text=$2 args=()
    shift 2
    for set; do args+=(--set "$set"); done
    expect "$code" "$blockq" run t.json "${args[@]}" -o never
    one_error "$text"
}
never 2 'bits.lm_head.bits: is 12, must be an integer from 2 to 8, or 16' bits.lm_head.bits=12
never 2 'bits.embedding: group 24 does not divide the hidden size 64' 'bits.embedding={"bits": 4, "group": 24}'
for format in compressed-tensors gptq awq; do
    never 3 "embed_tokens.weight' is not the weight .*or set bits.embedding.bits=16" bits.embedding.bits=8 "outputs=[{\"format\": \"$format\"}]"
done
never 3 "lm_head.weight' is the head.*bits.lm_head.bits=16" bits.lm_head.bits=4 'outputs=[{"format": "awq"}]'
never 3 "set bits.lm_head.scale=f16" bits.lm_head.bits=4 'outputs=[{"format": "gptq"}]'
never 3 "embed_tokens.weight' cannot be in gguf: .*; set scale=f16 where the recipe's bits has it" 'bits.embedding={"bits": 8, "group": 32}' \
    'outputs=[{"format": "gguf"}]'
check "no run" [ ! -e never ]
expect 0 "$blockq" plan t.json --set bits.embedding.bits=8
finish
