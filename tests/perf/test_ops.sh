#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The benchmark of ops runs, tiny, on the cpu and on the emulated GPU: the same ops, each with fractions of both roofs.
# test_ops.sh BENCH_OPS BENCH_OPS_SIMT
set -euo pipefail
temp=$(mktemp -d "${TMPDIR:-/tmp}/blockq-perf-XXXXXX")
trap 'rm -rf "$temp"' EXIT
failures=0
bad() { failures=$((failures + 1)) && echo "FAILED: $*"; }
# rows NAME: op and shape of each row, without products that not every device has
rows() { grep -v '^#' "$1" | tail -n +2 | grep -vE '^(gemm [a-z]+|gram) (fp16x2|tf32|bf16)' | cut -d, -f1,2; }

"$1" 1 40 --shape tiny >"$temp/cpu"
"$2" 1 40 --shape tiny --backend cuda >"$temp/cuda"
for csv in cpu cuda; do
    grep -q "^# $csv .*, 1 threads, 40 tokens, tiny$" "$temp/$csv" || bad "$csv: $(head -n 1 "$temp/$csv")"
    awk -F, '/^#/ || /^op,/ { next } { n++; for (i = 3; i <= 7; i++) if (!($i > 0 || $i ~ /^0\.0+$/)) exit 1; if (NF != 7 || !($3 > 0)) exit 1 }
        END { exit n < 30 }' "$temp/$csv" || bad "$csv: a row without its numbers, or rows are missing" "$(cat "$temp/$csv")"
done
diff <(rows "$temp/cpu") <(rows "$temp/cuda") || bad "not the same ops on both"
for way in fp16x2 tf32 bf16; do
    [[ $(grep -cE "^gemm (forward|dx|dw) $way," "$temp/cuda") == 15 ]] || bad "cuda: not 15 products in $way"
done
[[ $("$2" 1 40 rope --shape tiny --backend cuda | grep -c '^[a-z]') == 2 ]] || bad "not rope alone"
for wrong in "--backend none" "--backend auto" "--shape none" "0"; do
    code=0
    # shellcheck disable=SC2086 # words
    "$1" $wrong >"$temp/out" 2>"$temp/err" || code=$?
    [[ $code == 2 && -s $temp/err ]] || bad "code $code for $wrong"
done
echo "$failures failures"
((failures == 0))
