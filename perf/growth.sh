#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# growth.sh - how time grows with each size of the problem, the others fixed: tokens, hidden, depth, samples, ranks.  A procedural
# toy model and one AdaScale recipe (`inputs: fp`, batch 2); seconds are those of reference, phases and joins in run.csv, the slowest
# rank's, and the least of REPEATS runs.  csv on standard output, slopes in log-log on standard error; tools/report.py plots the csv.
#
# Usage: bash perf/growth.sh BLOCKQ [REPEATS=1] [AXIS...]; TOKENS, HIDDEN, DEPTH, SAMPLES and RANKS are the sizes that stay
set -euo pipefail
if (($# < 1)) || [[ $1 == -h || $1 == --help ]]; then
    sed -n '3,7s/^# \{0,1\}//p' "$0"
    exit 2
fi
blockq=$(realpath "$1") repeats=${2:-1}
shift $(($# < 2 ? $# : 2))
axes=("$@")
((${#axes[@]})) || axes=(tokens hidden depth samples ranks)
export OMP_NUM_THREADS=1 OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
dir=$(mktemp -d "${TMPDIR:-/tmp}/growth-XXXXXX")
trap 'rm -rf "$dir"' EXIT
head -c 400000 /dev/zero | tr '\0' 'a' >"$dir/text"
"$blockq" tokens --bytes "$dir/text" -o "$dir/tokens.h5" 2>/dev/null

# Training is one round of the samples.
tokens=${TOKENS:-128} hidden=${HIDDEN:-256} depth=${DEPTH:-4} samples=${SAMPLES:-16} ranks=${RANKS:-1}

# seconds: of one run of those sizes
seconds() {
    mkdir -p "$dir/model"
    cat >"$dir/model/config.json" <<TEXT
{"architectures": ["LlamaForCausalLM"], "blockq_procedural": 0, "hidden_act": "silu", "hidden_size": $hidden,
 "intermediate_size": $((3 * hidden)), "max_position_embeddings": 8192, "model_type": "llama", "num_attention_heads": $((hidden / 64)),
 "num_hidden_layers": $depth, "num_key_value_heads": $((hidden / 64)), "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "vocab_size": 256}
TEXT
    cat >"$dir/recipe.json" <<TEXT
{"model": "$dir/model", "calibration": {"tokens": "$dir/tokens.h5", "samples": $samples, "length": $tokens},
 "phases": [{"inputs": "fp", "passes": [{"pass": "adascale", "iterations": $((samples / 2)), "batch": 2}]}]}
TEXT
    rm -rf "$dir/run"
    mpirun --bind-to none -n "$ranks" "$blockq" run "$dir/recipe.json" --no-eval -o "$dir/run" >"$dir/log" 2>&1 || { cat "$dir/log" >&2 && return 1; }
    awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i; next }
        $at["part"] ~ /^(reference|phase|join)$/ { s[$at["rank"]] += $at["wall_s"] }
        END { for (r in s) if (s[r] > most) most = s[r]; print most }' "$dir/run/run.csv"
}

echo axis,value,seconds
for axis in "${axes[@]}"; do
    case $axis in
    tokens) values=(128 256 512 1024 2048 4096) ;;
    hidden) values=(128 256 512 1024) ;;
    depth) values=(2 4 8 16) ;;
    samples) values=(8 16 32 64) ;;
    ranks) values=(1 2 4) ;;
    *) echo "growth.sh: no axis '$axis'" >&2 && exit 2 ;;
    esac
    for value in "${values[@]}"; do
        (
            declare "$axis=$value"
            for ((k = 0; k < repeats; k++)); do seconds; done | sort -g | head -n 1 | sed "s/^/$axis,$value,/"
        )
    done
done | tee "$dir/csv"
awk -F, '{ x = log($2); y = log($3); n[$1]++; sx[$1] += x; sy[$1] += y; xx[$1] += x * x; xy[$1] += x * y }
    END { for (a in n) if (n[a] > 1) printf "%s: slope %.2f over %d sizes\n", a, (n[a] * xy[a] - sx[a] * sy[a]) / (n[a] * xx[a] - sx[a]^2), n[a] }' \
    "$dir/csv" | sort >&2
