#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# growth.sh measures every size of an axis and prints a slope: test_growth.sh BLOCKQ
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
temp=$(mktemp -d "${TMPDIR:-/tmp}/blockq-growth-XXXXXX")
trap 'rm -rf "$temp"' EXIT
TOKENS=16 HIDDEN=64 DEPTH=2 SAMPLES=8 bash "$root/perf/growth.sh" "$1" 1 depth ranks >"$temp/csv" 2>"$temp/slopes"
cat "$temp/csv" "$temp/slopes"
[[ $(head -n 1 "$temp/csv") == axis,value,seconds ]]
[[ $(cut -d, -f1,2 "$temp/csv" | tail -n +2 | xargs) == "depth,2 depth,4 depth,8 depth,16 ranks,1 ranks,2 ranks,4" ]]
awk -F, 'NR > 1 && !($3 > 0) { exit 1 }' "$temp/csv"
grep -q '^depth: slope .* over 4 sizes' "$temp/slopes"
grep -q '^ranks: slope .* over 3 sizes' "$temp/slopes"
