#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A GGUF file as a model, and imported: the same bytes from the file, from the directory and from the original; what is refused.
. "$(dirname "$0")/lib.sh"
make_gguf=$(dirname "$make_micro")/make_gguf
micro llama_default
# 64 and 96 are multiples of 32, as the blocks of Q8_0 need it; weights and norms are of BF16
mkdir shape
cat >shape/config.json <<TEXT
{"architectures": ["LlamaForCausalLM"], "blockq_procedural": 3, "hidden_act": "silu", "hidden_size": 64, "intermediate_size": 96,
 "max_position_embeddings": 128, "model_type": "llama", "num_attention_heads": 4, "num_hidden_layers": 3, "num_key_value_heads": 2,
 "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "vocab_size": 97}
TEXT
recipe shape.json shape 1
expect 0 "$blockq" run shape.json --set 'phases=[{"passes":[{"pass":"rtn"}]}]' -o made
model=made/safetensors
# outputs A B: the models that two runs wrote are the same files, but for those that one alone has
outputs() {
    local file
    for file in safetensors/model.safetensors compressed-tensors/model.safetensors "${@:3}"; do
        check "$1/$file and $2/$file differ" cmp "$1/$file" "$2/$file"
    done
}

# ---- the values of the original: rows of q and k in its order, in one file as in the other
check "a file of f32" "$make_gguf" $model plain.gguf f32
expect 0 "$blockq" import plain.gguf plain --no-tokenizer
check "import has the original's bytes" cmp plain/model.safetensors $model/model.safetensors
"$make_gguf" m_llama_default golden.gguf f32
expect 0 "$blockq" import golden.gguf golden --no-tokenizer
check "import has the original's bytes (golden)" cmp golden/model.safetensors m_llama_default/model.safetensors
recipe original.json $model 4
recipe plain.json plain.gguf 4
expect 0 mpi 1 run original.json -o original.run
expect 0 mpi 1 run plain.json -o plain.run
outputs original.run plain.run

# ---- F16, BF16 and Q8_0: from the file and from the directory, on one rank and on three
"$make_gguf" $model mixed.gguf mixed smollm
expect 0 mpi 1 import mixed.gguf mixed
expect 0 mpi 3 import mixed.gguf mixed3 --shard 100000
check "several shards" [ -s mixed3/model-00002-of-00003.safetensors ]
for type in F16 BF16 F32; do check "$type is kept" grep -aq "\"dtype\":\"$type\"" mixed/model.safetensors; done
check "tokenizer, generation" [ -s mixed/tokenizer_config.json -a -s mixed/generation_config.json ]
# tokens of the model's own tokenizer
hash=$(sha256sum mixed/tokenizer.json | cut -c1-64)
for tokens in cal eval; do "$make_micro" tokens $tokens.h5 own_$tokens.h5 "$hash"; done
for source in mixed.gguf mixed mixed3; do
    for ranks in 1 3; do
        recipe r.json $source 4 ', "segments": 3'
        sed -i 's/cal.h5/own_cal.h5/; s/eval.h5/own_eval.h5/' r.json
        run=run_$source.$ranks
        expect 0 mpi $ranks run r.json -o "$run"
        result >"$run.result"
        outputs run_mixed.gguf.1 "$run" {safetensors,compressed-tensors}/{config,tokenizer,tokenizer_config,generation_config}.json
        check "result of $run" cmp run_mixed.gguf.1.result "$run.result"
    done
done
worth run_mixed.gguf.3
expect 0 "$blockq" eval --run run_mixed.gguf.1 --tokens own_eval.h5 --ctx 32 --windows 5
for source in mixed.gguf mixed; do
    expect 0 "$blockq" eval --model $source --tokens own_eval.h5 --ctx 32 --windows 5 --rtn 4
    mv out eval_$source
done
check "perplexities" cmp eval_mixed.gguf eval_mixed
recipe r.json mixed.gguf 4
expect 0 "$blockq" plan r.json
expect 0 "$blockq" inspect mixed.gguf
check "inspect tells what it is" grep -q '30 tensors in 1 files' out
# a run is of this file: another one is refused
cp mixed.gguf copy.gguf
printf x >>copy.gguf
sed 's/mixed.gguf/copy.gguf/' r.json >copy.json
expect 0 mpi 2 run r.json -o continued
expect 2 "$blockq" run copy.json -o continued
one_error 'differs in: model'

# ---- types
expect 0 "$blockq" import mixed.gguf all --type bf16
check "all BF16" [ "$(grep -ao '"dtype":"[A-Z0-9]*"' all/model.safetensors | sort -u)" = '"dtype":"BF16"' ]
check "config.json says so" grep -q '"dtype": "bfloat16"' all/config.json
expect 0 "$blockq" eval --model all --tokens eval.h5 --ctx 32 --windows 2
expect 0 "$blockq" import mixed.gguf all --type f32
check "replaced" [ "$(grep -ao '"dtype":"[A-Z0-9]*"' all/model.safetensors | sort -u)" = '"dtype":"F32"' ]

# ---- refused, in one line, and nothing is touched
expect 3 "$blockq" eval --model mixed.gguf --tokens cal.h5.none --ctx 32
"$make_micro" tokens eval.h5 other.h5 "$(printf %064d 1)"
expect 3 "$blockq" eval --model mixed.gguf --tokens other.h5 --ctx 32
one_error 'made by a tokenizer.json with SHA-256 000000000000.*--tokenizer DIR, after .blockq import'
expect 3 "$blockq" import plain.gguf none
one_error 'plain.gguf: tokenizer.ggml.model, tokenizer.ggml.pre: blockq does not know this tokenizer'
"$make_gguf" $model spm.gguf f32 other
expect 3 mpi 3 import spm.gguf none
one_error 'tokenizer.ggml.pre'
expect 2 "$blockq" import mixed none
one_error "'mixed' is no GGUF file"
cp -r m_llama_default foreign
sed -i 's/blockq/others/' foreign/model.safetensors
expect 3 "$blockq" import mixed.gguf foreign
one_error "foreign/model.safetensors' is not from blockq"
expect 3 "$blockq" import mixed.gguf .
one_error 'is the source model itself'
head -c 60000 mixed.gguf >cut.gguf
expect 3 "$blockq" import cut.gguf none
one_error 'cut.gguf: '
sed 's/blk.1.attn_q.weight/blk.1.attn_x.weight/' mixed.gguf >name.gguf
expect 3 mpi 2 import name.gguf none
one_error "name.gguf: tensor 'blk.1.attn_x.weight' is not known"
sed 's/llama.block_count/llama.block_xount/' mixed.gguf >key.gguf
expect 3 "$blockq" import key.gguf none
one_error 'key.gguf: llama.block_count: is missing'
check "nothing was made" [ ! -e none ]
BQ_FAULT=writer_write:2 expect 1 "$blockq" import mixed.gguf torn
check "what is torn does not load" [ ! -e torn/config.json ]
expect 0 "$blockq" import mixed.gguf torn
check "made again" cmp torn/model.safetensors mixed/model.safetensors
expect 0 "$blockq" import plain.gguf torn --no-tokenizer
check "no tokenizer of an earlier import" [ ! -e torn/tokenizer.json ]
finish
