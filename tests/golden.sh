#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# golden.sh [DIR [PROGRAM]]: runs every golden file of a folder again (tests/vectors/README.md): complete AIMET runs aimet_*.safetensors, models
# model_*, peers peer_*.  One line a file: kind, name, worst deviation of each quantity, ok or FAIL.  Exit status 1 when one is not ok.
# DIR: tests/vectors by default.  PROGRAM: build/tests/golden_replay by default, made by a build with BQ_TESTS=ON.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
folder=${1:-$root/tests/vectors} program=${2:-$root/build/tests/golden_replay}
[[ -x $program ]] || { echo "golden.sh: $program is not there: build with -DBQ_TESTS=ON" >&2 && exit 2; }
temp=$(mktemp -d "${TMPDIR:-/tmp}/blockq-golden-XXXXXX")
trap 'rm -rf "$temp"' EXIT
export TMPDIR=$temp # a file that ends its process leaves a folder there
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

# say FILE WORDS: the line of a file that has printed none itself
say() {
    local name
    name=$(basename "$1" .safetensors)
    printf '%-6s %-18s %s\n' "${name%%_*}" "${name#*_}" "$2"
}

# why CODE: the message of a process that ended with this code
why() {
    local line
    line=$(grep -m 1 -E '^bq: .*error: ' "$temp/err" || tail -n 1 "$temp/err")
    if (($1 > 128)); then line="ended by signal $(($1 - 128)): $line"; fi
    printf '%s' "${line:-ended with code $1}"
}

ok=0 wrong=0 left=0
shopt -s nullglob
for file in "$folder"/{aimet,model,peer}_*.safetensors; do
    code=0
    "$program" "$file" >"$temp/out" 2>"$temp/err" || code=$?
    cat "$temp/out"
    if ((code == 0)); then
        ok=$((ok + 1))
    elif ((code == 77)); then
        left=$((left + 1))
    elif [[ ! -s $temp/out && $(<"$temp/err") =~ :\ model_type:\ \'([^\']*)\'[^:]*\ is\ not\ known ]]; then
        say "$file" "not replayed: model_type ${BASH_REMATCH[1]}"
        left=$((left + 1))
    elif [[ ! -s $temp/out && $(<"$temp/err") =~ ([a-z_]+):\ is\ true,\ which\ is\ not\ supported ]]; then
        say "$file" "not replayed: ${BASH_REMATCH[1]}"
        left=$((left + 1))
    else
        if ((code != 1)) || [[ ! -s $temp/out ]]; then say "$file" "FAIL: $(why "$code")"; fi
        wrong=$((wrong + 1))
    fi
done
((ok + wrong + left)) || { echo "golden.sh: no golden files in $folder" >&2 && exit 2; }
echo "$ok ok, $wrong failed, $left not replayed"
((wrong == 0))
