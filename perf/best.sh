#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# best.sh - the tables of docs/quality.md: recipes over seeds, and with the two texts swapped.
#
# Usage: bash perf/best.sh BLOCKQ MODEL A.h5 B.h5 DIR [PATTERN] [JOBS=1]
# Rows whose name matches PATTERN (a regular expression, default all) are run in DIR, JOBS at a time, one thread each; a row that is
# there already is not run again.  Texts: A calibrates and B measures; in rows that end in -swapped the other way round.  Prints the
# row; then twice, without distillation and with it, seconds, perplexity over 40 windows of 512, and over 20 of 2048 (CONTEXTS=512
# leaves that out); KL of held-out samples before and after.
set -euo pipefail
if (($# < 5)); then
    sed -n '3,10s/^# \{0,1\}//p' "$0"
    exit 2
fi
blockq=$(realpath "$1") model=$(realpath "$2") a=$(realpath "$3") b=$(realpath "$4") dir=$5 pattern=${6:-.} jobs=${7:-1}
export OMP_NUM_THREADS=1
mkdir -p "$dir"
rotate='"transforms": [{"transform": "rotate", "r1": "randomized", "r2": "hadamard"}],'
gptq='{"pass": "gptq", "sequential": true, "qep": 0.5}'
e2e='"distill": {"steps": 512, "batch": 1, "lr": 0.0015, "positions": 160, "compute": "bf16", "held_out": 8},'

# row NAME SEED KEYS [PASSES [DISTILL]]
names=()
row() {
    local name=$1 seed=$2 keys=$3 passes=${4:-$gptq} distill=${5-$e2e} from=$a to=$b
    [[ $name =~ $pattern ]] || return 0
    if [[ $name = *-swapped* ]]; then from=$b to=$a; fi
    cat >"$dir/$name.json" <<TEXT
{"model": "$model", "seed": $seed, "calibration": {"tokens": "$from", "samples": 136, "length": 512}, $keys $distill
 "phases": [{"inputs": "qt", "compute": "bf16", "passes": [$passes]}], "eval": {"tokens": "$to", "ctx": 512, "windows": 40}}
TEXT
    names+=("$name")
}
for seed in 0 1 2; do
    for split in '' -swapped; do
        row "best-$seed$split" $seed "$rotate"
        row "parallel-$seed$split" $seed "$rotate \"segments\": 5," "$gptq" "${e2e/512, \"batch\": 1/64, \"batch\": 4}"
        row "fast-$seed$split" $seed '' "$gptq" ""
    done
    for bits in 3 2; do row "w$bits-$seed" $seed "$rotate \"bits\": {\"decoder\": {\"bits\": $bits, \"group\": 64}}," "$gptq" "${e2e/512/256}"; done
done
for split in '' -swapped; do row "rtn-0$split" 0 '' '{"pass": "rtn"}' ""; done
for bits in 3 2; do row "w$bits-rtn-0" 0 "\"bits\": {\"decoder\": {\"bits\": $bits, \"group\": 64}}," '{"pass": "rtn"}' ""; done

# Each step leaves a file and is not done again.
part() { # NAME PART OPTIONS...: run, and evaluate
    local name=$1 part=$1.$2 start ctx text=$b
    shift 2
    if [[ $name = *-swapped* ]]; then text=$a; fi
    if [[ ! -s $dir/$part.seconds ]]; then
        start=$(date +%s.%N)
        "$blockq" run "$dir/$name.json" --no-eval "$@" -o "$dir/$name" >>"$dir/$name.log" 2>&1 || { echo "$name: $(tail -n 1 "$dir/$name.log")" && return 0; }
        awk -v s="$start" -v e="$(date +%s.%N)" 'BEGIN { printf "%.0f", e - s }' >"$dir/$part.seconds"
    fi
    for ctx in ${CONTEXTS:-512 2048}; do
        [[ -s $dir/$part.$ctx ]] ||
            "$blockq" eval --result-only --run "$dir/$name" --tokens "$text" --ctx "$ctx" --windows $((ctx == 512 ? 40 : 20)) 2>>"$dir/$name.log" |
            sed -n 's/^result: .*=\([0-9.]*\) out=.*/\1/p' >"$dir/$part.$ctx"
    done
}
quantize() {
    if [[ ! -s $dir/$1.distill.512 ]]; then part "$1" phases --set distill.steps=0; fi
    if grep -q distill "$dir/$1.json"; then part "$1" distill; fi
}
for name in "${names[@]}"; do
    while (($(jobs -rp | wc -l) >= jobs)); do wait -n; done
    quantize "$name" &
done
wait
for name in "${names[@]}"; do
    printf '%-20s' "$name"
    for part in phases distill; do
        for number in seconds 512 2048; do printf ' %8s' "$(cat "$dir/$name.$part.$number" 2>/dev/null)"; done
    done
    sed -n 's/.*held out \(.*\),.*/  \1/p' "$dir/$name.log" 2>/dev/null
    echo
done
