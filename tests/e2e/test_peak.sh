#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# No rank ever holds more than its plan said: every recipe in configs/, on one rank and on three.  In the first model the head
# is the largest matrix by far, in the second the matrices of a block: one of them more would be too much.
. "$(dirname "$0")/lib.sh"
if grep -q __asan_init "$blockq"; then echo "skipped: a sanitizer's shadow is no part of a plan" && exit 77; fi
micro

# shape DIR HIDDEN INTERMEDIATE VOCABULARY BLOCKS
shape() {
    mkdir -p "$1"
    cat >"$1/config.json" <<TEXT
{"architectures": ["LlamaForCausalLM"], "blockq_procedural": 5, "hidden_act": "silu", "hidden_size": $2, "intermediate_size": $3,
 "head_dim": 32, "max_position_embeddings": 512, "model_type": "llama", "num_attention_heads": 4, "num_hidden_layers": $5,
 "num_key_value_heads": 2, "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "vocab_size": $4, "tie_word_embeddings": false}
TEXT
}
shape wide 128 384 65536 2
shape tall 2048 4096 512 1
shape pair 512 2816 512 2

cp -r "$configs" configs
sed -Ei 's/"(iterations|steps)": *[0-9]+/"\1": 2/; s/"(batch|segments)": *[0-9]+/"\1": 2/' configs/*.json

# planned RUN RANKS: in no row of run.csv are there more bytes than planned, and each rank has rows.
planned() {
    check "$1: peak beyond the plan, or rows are missing: $(tail -n 3 "$1/run.csv" 2>&1)" awk -F, -v ranks="$2" '
        NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i; next }
        { seen[$at["rank"]]; bad += !($at["peak_bytes"] > 1e6 && $at["peak_bytes"] <= $at["planned_bytes"]) }
        END { exit bad || length(seen) != ranks }' "$1/run.csv"
}

# Of a block with experts one unit is in memory: all 16 experts are 100 MB, one is 6 MB.
mkdir -p many
cat >many/config.json <<TEXT
{"architectures": ["Qwen3MoeForCausalLM"], "blockq_procedural": 5, "hidden_act": "silu", "hidden_size": 512, "intermediate_size": 512,
 "moe_intermediate_size": 1024, "num_experts": 16, "num_experts_per_tok": 4, "norm_topk_prob": true, "head_dim": 32,
 "max_position_embeddings": 512, "model_type": "qwen3_moe", "num_attention_heads": 4, "num_hidden_layers": 2,
 "num_key_value_heads": 2, "rms_norm_eps": 1e-06, "rope_theta": 10000.0, "vocab_size": 512, "tie_word_embeddings": false}
TEXT

# try RANKS RECIPE MODEL
try() {
    local out
    out=$(basename "$2" .json)_$3_$1
    expect 0 mpi "$1" run "$2" --set "model=$3" --set calibration.tokens=cal.h5 --set calibration.samples=4 \
        --set calibration.length=24 --set eval.tokens=eval.h5 --set eval.ctx=16 --set eval.windows=3 -o "$out"
    planned "$out" "$1"
    rm -rf "$out"
}

export OMP_NUM_THREADS=1
for config in configs/*.json; do
    try 1 "$config" wide
    try 3 "$config" wide
done
try 1 configs/rtn_w4.json tall
try 1 configs/smollm2_awq.json pair
try 1 configs/smollm2_spinquant.json pair
for ranks in 1 2 3; do
    try "$ranks" configs/experts_gptq.json many
    try "$ranks" configs/smollm2_gptq_adascale.json many
done
try 2 configs/smollm2_adascale_fp.json many
try 2 configs/smollm2_adascale_fp.json pair # two stages, the reference between them
try 3 configs/smollm2_gptq_adascale.json pair
OMP_NUM_THREADS=4 try 1 configs/smollm2_gptq.json pair

# A plan is made whatever the size: with little memory, and where nothing could hold the model.
shape vast 16777216 16777216 65536 2
expect 2 "$blockq" plan configs/smollm2_gptq.json --set model=vast --set calibration.tokens=cal.h5 --set calibration.samples=4 \
    --set calibration.length=24 --set eval.tokens=eval.h5 --set eval.ctx=16 --set eval.windows=3 --ranks 2 --memory 60M
one_error 'the run needs [0-9]* MB, 63 MB may be used'
check "a plan of $(head -c 300 out)" grep -q '^  total .* of 62.9 that may be used' out
finish
