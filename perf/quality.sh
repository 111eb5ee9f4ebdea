#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# quality.sh - the table of methods in docs/results.md: one run a row, its perplexities and seconds.
#
# Usage: bash perf/quality.sh BLOCKQ MODEL CALIBRATION.h5 EVALUATION.h5 DIR [PATTERN] [JOBS=1]
# Rows whose name matches PATTERN (a regular expression, default all) are run in DIR, JOBS at a time, one thread each; a row that is
# there already is not run again.  Calibration: 32 x 512 tokens.  Prints: row, seconds of quantization, perplexity over 40 windows of
# 512, over 20 of 2048 (CONTEXTS=512 leaves the second out).
set -euo pipefail
if (($# < 5)); then
    sed -n '3,8s/^# \{0,1\}//p' "$0"
    exit 2
fi
blockq=$(realpath "$1") model=$(realpath "$2") calibration=$(realpath "$3") evaluation=$(realpath "$4") dir=$5 pattern=${6:-.} jobs=${7:-1}
export OMP_NUM_THREADS=1
mkdir -p "$dir"

rotate='"transforms": [{"transform": "rotate", "r1": "randomized", "r2": "hadamard"}],'
a128='{"pass": "adascale", "iterations": 128}' a48='{"pass": "adascale", "iterations": 48}' rtn='{"pass": "rtn"}'
gptq='{"pass": "gptq"}'
# NAME INPUTS PASSES [KEYS [COMPUTE [KEYS OF THE PHASE]]]
row() {
    local name=$1 inputs=$2 passes=$3 keys=${4-} compute=${5-f32} phase=${6-}
    [[ $name =~ $pattern ]] || return 0
    cat >"$dir/$name.json" <<TEXT
{"model": "$model", "calibration": {"tokens": "$calibration", "samples": 32, "length": 512}, $keys
 "phases": [{$phase"inputs": "$inputs", "compute": "$compute", "passes": [$passes]}], "eval": {"tokens": "$evaluation", "ctx": 512, "windows": 40}}
TEXT
    names+=("$name")
}
names=()
row rtn fp "$rtn"
row rtn-mse fp '{"pass": "rtn", "clip": "mse"}'
row seqmse fp '{"pass": "seqmse"}'
row smoothquant fp "{\"pass\": \"smoothquant\"}, $rtn"
row autosmoothquant fp "{\"pass\": \"autosmoothquant\"}, $rtn"
row autosmoothquant-halving fp "{\"pass\": \"autosmoothquant\", \"search\": \"halving\"}, $rtn"
row awq fp "{\"pass\": \"awq\"}, $rtn"
row awq-halving fp "{\"pass\": \"awq\", \"search\": \"halving\"}, $rtn"
row gptq-qt qt "$gptq"
row gptq-qt-bf16 qt "$gptq" '' bf16
row gptq-sequential-bf16 qt '{"pass": "gptq", "sequential": true}' '' bf16
row gptq-fp fp "$gptq"
row gptq-qt-noclip qt '{"pass": "gptq", "clip": "minmax"}'
row gptq-fp-noclip fp '{"pass": "gptq", "clip": "minmax"}'
row gptq-qt-noact qt '{"pass": "gptq", "order": "none"}'
row gptq-qt-noclip-noact qt '{"pass": "gptq", "clip": "minmax", "order": "none"}'
row gptq-qep qt '{"pass": "gptq", "qep": 0.5}'
row rotate-rtn fp "$rtn" "$rotate"
row rotate-gptq qt "$gptq" "$rotate"
row gptq-adascale mix "$gptq, $a48"
row gptq-adascale-5 mix "$gptq, $a48" '"segments": 5,'
row gptq-adascale-fp fp "$gptq, $a48"
row rotate-gptq-adascale mix "$gptq, $a48" "$rotate"
row adascale mix "$a128"
row adascale-bf16 mix "$a128" '' bf16
row adascale-early384-bf16 mix '{"pass": "adascale", "iterations": 384, "early_stop": true, "check_interval": 32, "window": 32, "threshold": 0.05, "anneal": 0.25}' '' bf16
row adascale-early256-bf16 mix '{"pass": "adascale", "iterations": 256, "early_stop": true, "check_interval": 32, "window": 32, "threshold": 0.1, "anneal": 0.25}' '' bf16
row adascale-batch2-bf16 mix '{"pass": "adascale", "iterations": 64, "batch": 2, "lr_clip": 1.4e-3, "lr_weight": 7e-4}' '' bf16
row adascale-batch4-bf16 mix '{"pass": "adascale", "iterations": 32, "batch": 4, "lr_clip": 2e-3, "lr_weight": 1e-3}' '' bf16
row adascale-5 mix "$a128" '"segments": 5,'
row adascale-30 mix "$a128" '"segments": 30,'
row adascale-5-sweeps mix "$a128" '"segments": 5, "sweeps": 2,'
row rotate-adascale mix "$a128" "$rotate"
row rotate-adascale-bf16 mix "$a128" "$rotate" bf16
g64='"bits": {"decoder": {"group": 64}},'
row g64-rtn fp "$rtn" "$g64"
row g64-awq fp "{\"pass\": \"awq\"}, $rtn" "$g64"
row g64-gptq qt "$gptq" "$g64"
zeros='"bits": {"decoder": {"group": 64, "symmetric": false}},'
row g64-zeros-rtn fp "$rtn" "$zeros"
row g64-zeros-rtn-mse fp '{"pass": "rtn", "clip": "mse"}' "$zeros"
row g64-zeros-hqq fp '{"pass": "hqq"}' "$zeros"
row g64-zeros-hqq-scale fp '{"pass": "hqq", "solve": "scale"}' "$zeros"

# schemes by name (docs/schemes.md has their bits), rounded to nearest; then what recovers their loss
for name in $("$blockq" help schemes | sed -n 's/^| `\([A-Za-z0-9_]*\)`.*/\1/p'); do
    row "scheme-$name" fp "$rtn" "\"bits\": {\"preset\": \"$name\"},"
done
int4='"bits": {"preset": "w4g64"},' da4w='"bits": {"preset": "w4a8g32"},'
row int4-hqq fp '{"pass": "hqq"}' "$int4"
row int4-gptq qt "$gptq" "$int4"
row nvfp4-expanded fp '{"pass": "rtn", "clip": "expanded"}' '"bits": {"preset": "NVFP4A16"},'
row nvfp4-four-over-six fp '{"pass": "rtn", "clip": "four_over_six"}' '"bits": {"preset": "NVFP4A16"},'
row nvfp4-gptq qt "$gptq" '"bits": {"preset": "NVFP4A16"},'
row mxfp4-gptq qt "$gptq" '"bits": {"preset": "MXFP4A16"},'
row 8da4w-gptq qt "$gptq" "$da4w"
even='"bits": {"decoder": {"group": 32, "grid": "absmax"}, "activations": {"bits": 8, "symmetric": false}},' # 8da4w, on grids that qat trains
row 8da4w-even fp "$rtn" "$even"
row 8da4w-qat qt '{"pass": "qat", "iterations": 128, "lr": 1e-4}' "$even" f32 '"activations": true, '
for kv in 8 4 '"e4m3"'; do row "kv-${kv//\"/}" fp "$rtn" "\"bits\": {\"decoder\": {\"bits\": 8}, \"kv\": $kv},"; done
for bits in g64 zeros; do
    row "$bits-autoround" qt '{"pass": "autoround", "iterations": 50}' "${!bits}"
    row "$bits-omniquant" qt '{"pass": "omniquant", "iterations": 128}' "${!bits}"
    row "$bits-qat" qt '{"pass": "qat", "iterations": 128, "lr": 1e-4}' "${!bits}"
done
row autoround qt '{"pass": "autoround", "iterations": 50}'
row omniquant qt '{"pass": "omniquant", "iterations": 128}'
row qat qt '{"pass": "qat", "iterations": 128, "lr": 1e-4}'
row gptq-distill qt "$gptq" '"distill": {"steps": 32, "lr": 0.002},'
row g64-gptq-distill qt "$gptq" "$g64 \"distill\": {\"steps\": 32, \"lr\": 0.002},"
row sparse-magnitude fp "{\"pass\": \"sparse24\", \"method\": \"magnitude\"}, $rtn"
row sparse-wanda qt '{"pass": "sparse24"}, {"pass": "gptq", "sparse": "kept"}'
row sparse-gptq qt '{"pass": "gptq", "order": "none", "sparse": "2:4"}'
schemes=$(for bits in 3 4 5 6; do printf '{"bits": %d, "group": 64, "scale": "f16"}, ' $bits; done)
for bits in 4 5; do row "uniform-$bits" qt "$gptq" "\"bits\": {\"decoder\": {\"bits\": $bits, \"group\": 64, \"scale\": \"f16\"}},"; done
for budget in 4.25 4.5 4.75; do row "auto-$budget" qt "$gptq" "\"bits\": {\"auto\": {\"budget\": $budget, \"schemes\": [${schemes%, }]}},"; done

# Each step leaves a file and is not done again.
quantize() {
    local name=$1 start ctx
    if [[ ! -s $dir/$name.seconds ]]; then
        start=$(date +%s.%N)
        "$blockq" run "$dir/$name.json" --no-eval -o "$dir/$name" >"$dir/$name.log" 2>&1 || { echo "$name: $(tail -n 1 "$dir/$name.log")" && return 0; }
        awk -v s="$start" -v e="$(date +%s.%N)" 'BEGIN { print e - s }' >"$dir/$name.seconds"
    fi
    for ctx in ${CONTEXTS:-512 2048}; do
        [[ -s $dir/$name.$ctx ]] ||
            "$blockq" eval --result-only --run "$dir/$name" --tokens "$evaluation" --ctx "$ctx" --windows $((ctx == 512 ? 40 : 20)) 2>>"$dir/$name.log" |
            sed -n 's/^result: .*=\([0-9.]*\) out=.*/\1/p' >"$dir/$name.$ctx"
    done
}
for name in "${names[@]}"; do
    while (($(jobs -rp | wc -l) >= jobs)); do wait -n; done
    quantize "$name" &
done
wait
for name in "${names[@]}"; do
    if [[ -s $dir/$name.seconds ]]; then
        printf '%-26s %8.1f s %10s %10s\n' "$name" "$(cat "$dir/$name.seconds")" "$(cat "$dir/$name.512")" "$(cat "$dir/$name.2048" 2>/dev/null)"
    fi
done
