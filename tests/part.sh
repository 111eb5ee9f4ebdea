#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# part.sh NAME BUILD: a part of the test suite that is neither a program nor a script of its own.  77: something for it is missing here.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
name=$1 build=$2
temp=$(mktemp -d "${TMPDIR:-/tmp}/blockq-part-XXXXXX")
trap 'rm -rf "$temp"' EXIT
skip() {
    echo "skipped: $1"
    exit 77
}

house() { bash tests/house.sh "$build"; }

recipes_page() {
    diff <("$build/src/blockq" help schemes) docs/schemes.md || { echo "docs/schemes.md is not what \`blockq help schemes\` prints" && return 1; }
    diff <("$build/src/blockq" help recipe) docs/recipes.md || { echo "docs/recipes.md is not what \`blockq help recipe\` prints" && return 1; }
}

# Counted instructions of the ops, beside those that were saved.
gate() { bash perf/instructions.sh "$build"; }

tools() {
    local python=python3
    if [[ -x /usr/bin/python3 ]] && ! python3 -c 'import h5py' 2>/dev/null; then python=/usr/bin/python3; fi
    command -v "$python" >/dev/null || skip "no python3"
    "$python" docs/figures/architecture.py --check
    "$python" -m unittest discover tests/tools
}

# The build with MPI-IO, against the one without.
phdf5() { bash tests/phdf5.sh "$build"; }

# The CUDA build for sm_80, sm_90 and, where the toolkit has it, sm_100: what every kernel takes, and no spills.
cuda() {
    command -v nvcc >/dev/null || skip "no nvcc"
    local real="80-real;90-real"
    if nvcc --list-gpu-arch | grep -q compute_100; then real+=";100-real"; fi
    rm -f build-cuda/src/kernels/CMakeFiles/bq_kernels.dir/cuda/*.o # so that all are compiled, and described
    cmake --preset cuda "-DCMAKE_CUDA_ARCHITECTURES=$real" >"$temp/log" 2>&1 && cmake --build --preset cuda -j 1 >"$temp/cuda" 2>&1 ||
        { tail -n 40 "$temp/log" "$temp/cuda" && return 1; }
    bash tests/simt/kernels.sh "$temp/cuda"
}

# AdaScale gets back at least half of what round to nearest loses, whatever the seed (the demo has seed 0).
recovery() {
    local seed line text
    for text in calibration evaluation; do "$build/src/blockq" tokens --bytes jobs/demo/$text.txt -o "$temp/$text.h5" 2>"$temp/log"; done
    for seed in 1 ${BQ_FULL:+2 3}; do
        line=$(OMP_NUM_THREADS=1 "$build/src/blockq" run configs/demo.json --set seed=$seed --set "calibration.tokens=$temp/calibration.h5" \
            --set "eval.tokens=$temp/evaluation.h5" --set eval.windows=100 --out "$temp/$seed" 2>"$temp/log" | tail -n 1)
        echo "seed $seed: $line"
        awk -F'[= ]' '/^result: fp=/ { for (i = 2; i < NF; i++) v[$i] = $(i + 1); ok = v["rtn"] > v["fp"] &&
            v["rtn"] - v["adascale"] >= 0.5 * (v["rtn"] - v["fp"]) } END { exit !ok }' <<<"$line" || return 1
    done
}

"$name"
