#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# experts.sh - the tables on starved experts in docs/results.md: GPTQ of the demo model with experts (jobs/demo/moe).
#
# Usage: bash perf/experts.sh BLOCKQ CALIBRATION.h5 EVALUATION.h5 DIR [PATTERN] [JOBS=1]
# Rows whose name matches PATTERN (a regular expression, default all) are run in DIR, JOBS at a time, one thread each; a row that is
# there already is not run again.  A row is BITS.TOKENS.POLICY.LEAST.OFFSET: the calibration has so many tokens, from there on.
# Prints: row, perplexity over the first 150 windows of 512, least and median tokens of an expert and starved experts, of each block.
set -euo pipefail
if (($# < 4)); then
    sed -n '3,8s/^# \{0,1\}//p' "$0"
    exit 2
fi
blockq=$(realpath "$1") calibration=$(realpath "$2") evaluation=$(realpath "$3") dir=$4 pattern=${5:-.} jobs=${6:-1}
model=$(realpath "$(dirname "$0")/../jobs/demo/moe")
export OMP_NUM_THREADS=1
mkdir -p "$dir"

measure() { # NAME BITS TOKENS POLICY LEAST OFFSET
    local run=$dir/$1
    cat >"$run.json" <<TEXT
{"model": "$model", "calibration": {"tokens": "$calibration", "samples": $(($3 / 256)), "length": 256, "offset": $6},
 "experts": {"starved": "$4", "least": $5}, "bits": {"decoder": {"bits": $2}},
 "phases": [{"inputs": "qt", "passes": [{"pass": "gptq"}]}]}
TEXT
    "$blockq" run "$run.json" --no-eval -o "$run" >"$run.log" 2>&1 &&
        "$blockq" eval --result-only --run "$run" --tokens "$evaluation" --ctx 512 --windows 150 2>>"$run.log" |
        sed -n 's/^result: .*=\([0-9.]*\) out=.*/\1/p' >"$run.part" && mv "$run.part" "$run.ppl"
    rm -rf "$run" "$run.part"
}

names=()
row() { # BITS TOKENS POLICY LEAST OFFSET
    local name=$1.$2.$3.$4.$5
    [[ $name =~ $pattern ]] || return 0
    names+=("$name")
    if [[ -s $dir/$name.ppl ]]; then return 0; fi
    while (($(jobs -rp | wc -l) >= jobs)); do wait -n; done
    measure "$name" "$@" &
}
for offset in 0 36864 73728; do
    for bits in 4 3; do
        for tokens in 1024 2048; do
            for least in 0 64 256 512 1024 2048; do
                if ((least > tokens)); then continue; fi
                row $bits $tokens blend $least $offset
                if ((least)); then row $bits $tokens all_tokens $least $offset; fi
                if ((least)); then row $bits $tokens rtn $least $offset; fi
            done
        done
    done
done
wait
for name in "${names[@]}"; do
    printf '%-32s %s  %s\n' "$name" "$(cat "$dir/$name.ppl" 2>/dev/null || tail -n 1 "$dir/$name.log")" "$(sed -nE \
        's/.*an expert gets ([0-9]+) to ([0-9]+) tokens, the median ([0-9]+); ([0-9]+) of.*/\1 \3 (\4)/p' "$dir/$name.log" | paste -sd ' ')"
done
