#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# step_roof.sh - a whole step of AdaScale beside the GEMM roof: floating-point operations that a step needs over its seconds, as a
# fraction of what one large f32 product of the BLAS reaches a moment later.  Needed: products of the linears forward and backward, but
# for the gradient of the block's input, and the seven of attention, half of each square.
#
# On a GPU: DEVICE=cuda, and the roof is its product in f32, whatever COMPUTE is.
#
# Usage: [DEVICE=cpu] bash perf/step_roof.sh BUILD [MODEL=configs/shapes/llama32_1b] [TOKENS=512] [THREADS=1] [ROUNDS=5] [COMPUTE=f32]
set -euo pipefail
if (($# < 1)) || [[ $1 == -h || $1 == --help ]]; then
    sed -n '3,9s/^# \{0,1\}//p' "$0"
    exit 2
fi
root=$(cd "$(dirname "$0")/.." && pwd)
build=$(realpath "$1") model=$(realpath "${2:-$root/configs/shapes/llama32_1b}") tokens=${3:-512} threads=${4:-1} rounds=${5:-5} compute=${6:-f32} device=${DEVICE:-cpu} more=12
if [[ $device != cpu ]]; then more=102; fi
dir=$(mktemp -d "${TMPDIR:-/tmp}/step-XXXXXX")
trap 'rm -rf "$dir"' EXIT
head -c $((4 * tokens)) /dev/zero | tr '\0' 'a' >"$dir/text"
"$build/src/blockq" tokens --bytes "$dir/text" -o "$dir/tokens.h5" 2>/dev/null
mkdir "$dir/model" # of this shape, without its weights: bytes are no tokens of a model that has some
python3 -c 'import json, sys; c = json.load(sys.stdin); c.setdefault("blockq_procedural", 1); print(json.dumps(c))' <"$model/config.json" >"$dir/model/config.json"
cat >"$dir/recipe.json" <<TEXT
{"model": "$dir/model", "calibration": {"tokens": "$dir/tokens.h5", "samples": 2, "length": $tokens},
 "phases": [{"inputs": "mix", "compute": "$compute", "passes": [{"pass": "adascale", "iterations": 4}]}]}
TEXT
needed=$(python3 - "$model/config.json" "$tokens" <<'TEXT'
import json, sys
c, t = json.load(open(sys.argv[1])), int(sys.argv[2])
h, i, heads, kv = c["hidden_size"], c["intermediate_size"], c["num_attention_heads"], c["num_key_value_heads"]
d = c.get("head_dim", h // heads)
qkv = h * d * (heads + 2 * kv)
print(2 * t * (3 * (qkv + heads * d * h + 3 * h * i) - qkv) + 7 * t * t * d * heads)
TEXT
)
export OMP_NUM_THREADS=$threads
# seconds ITERATIONS: of the pass
seconds() {
    rm -rf "$dir/run"
    "$build/src/blockq" run "$dir/recipe.json" --set phases.0.passes.0.iterations="$1" --no-eval -o "$dir/run" --device "$device" --threads "$threads" --stop-after-blocks 1 \
        >"$dir/log" 2>&1 || [[ $? == 75 ]] || { cat "$dir/log" >&2 && return 1; }
    awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i; next } $at["part"] == "block" { print $at["passes_s"] }' "$dir/run/run.csv"
}
for ((k = 0; k < rounds; k++)); do
    few=$(seconds 2) many=$(seconds $more) # what they share is not a step: grids, first touch
    roof=$("$build/perf/bench_ops" "$threads" 512 'gemm forward' --backend "$device" | awk -F, '$1 == "gemm forward" && !n++ { print $(NF - 3) / $(NF - 1) }')
    awk -v f="$needed" -v s="$many" -v o="$few" -v r="$roof" -v n=$((more - 2)) 'BEGIN { s = (s - o) / n; g = f / s / 1e9
        printf "step %.5f s, %.1f GFLOP/s, roof %.1f, fraction %.3f\n", s, g, r, g / r }'
done
