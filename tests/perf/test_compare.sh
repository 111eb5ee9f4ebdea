#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The benchmarks run, small, and --compare tells a fraction that fell: test_compare.sh BENCH_IO BENCH_COMM MPIEXEC
set -euo pipefail
temp=$(mktemp -d "${TMPDIR:-/tmp}/blockq-perf-XXXXXX")
trap 'rm -rf "$temp"' EXIT
failures=0
# expect CODE COMMAND...
expect() {
    local want=$1 code=0
    shift
    "$@" >"$temp/out" 2>"$temp/err" || code=$?
    if ((code != want)); then failures=$((failures + 1)) && echo "FAILED: code $code, not $want: $*" && cat "$temp/err"; fi
}
# Fractions of a csv times FACTOR: scaled IN FACTOR OUT
scaled() { awk -F, -v OFS=, -v by="$2" '/^#/ || !seen++ { print; next } { $NF *= by; print }' "$1" >"$3"; }

expect 0 "$1" "$temp" 20 1
cp "$temp/out" "$temp/io.csv"
[[ $(grep -c MiB, "$temp/io.csv") == 9 ]] || { failures=$((failures + 1)) && echo "FAILED: not 9 rows of files"; }
for ranks in 1 2 3; do
    expect 0 "$3" -n $ranks "$2" 1 64
    cp "$temp/out" "$temp/comm.csv"
    scaled "$temp/comm.csv" 0 "$temp/low.csv"
    scaled "$temp/comm.csv" 1000 "$temp/high.csv"
    expect 0 "$3" -n $ranks "$2" 1 64 --compare "$temp/low.csv"
    expect 1 "$3" -n $ranks "$2" 1 64 --compare "$temp/high.csv"
    # any row: on a busy machine the smallest messages have a fraction that rounds to 0, which stays 0
    grep -q "^[a-z -]*,[0-9]* B on $ranks: fraction" "$temp/err" || { failures=$((failures + 1)) && echo "FAILED: no name of what fell" && cat "$temp/err"; }
done
sed 's/^hand-over/handed/' "$temp/low.csv" >"$temp/other.csv" # a row that does not come any more
expect 1 "$3" -n 3 "$2" 1 64 --compare "$temp/other.csv"
echo text >"$temp/bad.csv"
expect 2 "$1" "$temp" --compare "$temp/bad.csv"
echo "$failures failed"
exit $((failures > 0))
