#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A model without files: same bytes on any grid, an export that stands alone, a seed that counts.
. "$(dirname "$0")/lib.sh"
micro
# shape DIR SEED
shape() {
    mkdir -p "$1"
    cat >"$1/config.json" <<TEXT
{"architectures": ["LlamaForCausalLM"], "blockq_procedural": $2, "hidden_act": "silu", "hidden_size": 48, "intermediate_size": 80,
 "max_position_embeddings": 128, "model_type": "llama", "num_attention_heads": 3, "num_hidden_layers": 3, "num_key_value_heads": 1,
 "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "vocab_size": 97}
TEXT
}
shape toy 3
recipe r.json toy 4
expect 0 "$blockq" inspect toy
check "inspect tells what it is" grep -q '30 tensors' out
expect 0 mpi 1 run r.json -o one
check "numbers, not much worse than chance: $(result)" awk -F'[= ]' '{ exit !($2 > 10 && $2 < 1000 && $6 > 10 && $6 < 1000) }' <(result)
expect 0 mpi 3 run r.json -o three
same one three
check "the export has its own weights" [ -s one/safetensors/model.safetensors ]
check "the export does not say that it has none" [ "$(grep -c procedural one/safetensors/config.json)" = 0 ]
worth one
# bytes are no tokens of a large vocabulary, where its weights mean something
sed -i 's/"vocab_size": 97/"vocab_size": 600/' toy/config.json
recipe rtn.json toy 1
expect 0 "$blockq" run rtn.json --set 'phases=[{"passes":[{"pass":"rtn"}]}]' --set calibration.length=200 --set eval.ctx=129 --set eval.windows=1 -o large
check "longer than the positions" [ "$(grep -c 'warning: .*is [0-9]*, the model.s max_position_embeddings 128' err)" = 2 ]
expect 3 "$blockq" eval --model large/safetensors --tokens eval.h5 --ctx 32
one_error 'eval.h5 has the bytes of a text as tokens, 256 ids, the model.s vocabulary has 600'
shape toy 4
expect 2 "$blockq" run r.json -o one
one_error 'differs in: model'
shape toy -1
expect 3 "$blockq" run r.json -o none
one_error blockq_procedural
finish
