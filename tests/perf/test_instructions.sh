#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The gate on instruction counts can fail: test_instructions.sh BUILD_DIR
set -euo pipefail
gate=$(cd "$(dirname "$0")/../.." && pwd)/perf/instructions.sh
temp=$(mktemp -d "${TMPDIR:-/tmp}/blockq-gate-XXXXXX")
trap 'rm -rf "$temp"' EXIT
failures=0
# expect CODE TEXT COMMAND...: exit code and a line that matches TEXT
expect() {
    local want=$1 text=$2 code=0
    shift 2
    "$@" >"$temp/out" 2>&1 || code=$?
    [[ -s $temp/out ]] || echo >"$temp/out"
    if ((code == 77)); then cat "$temp/out" && exit 77; fi
    if ((code != want)) || ! grep -qE "$text" "$temp/out"; then
        failures=$((failures + 1)) && echo "FAILED: code $code, not $want, or no '$text': ${*:2}" && cat "$temp/out"
    fi
}
# glu's count times FACTOR in a csv of another name: scaled FACTOR NAME
scaled() { awk -F, -v OFS=, -v by="$1" '$1 == "glu" { $4 = int($4 * by) } { print }' "$temp/csv" >"$temp/$2"; }
compare() { awk -F, -f "${gate%.sh}.awk" "$temp/$1" "$temp/csv"; }

expect 0 '^$' bash "$gate" "$1" --update --baseline "$temp/csv" glu
scaled 0.96 smaller
scaled 1.05 larger
scaled 0.8 much
expect 1 '^glu,[0-9x]+: [0-9]+ instructions, saved [0-9]+ \(\+4\.' bash "$gate" "$1" --baseline "$temp/smaller" glu
expect 1 '^glu,' env BQ_CPU_ISA=base bash "$gate" "$1" --baseline "$temp/csv" glu # really slower code
expect 0 '^1 ops counted, 0 above' compare csv
expect 0 '^glu,.* can be lowered' compare larger
sed -i '1s/[0-9][0-9]*/1/' "$temp/smaller" "$temp/much" # of another compiler
expect 0 '^limit 15 %' compare smaller
expect 1 '^glu,' compare much
sed 's/^glu/other/' "$temp/csv" >"$temp/others"
expect 1 '^glu,.*not in the baseline' compare others
echo "$failures failed"
exit $((failures > 0))
