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

# Every command that docs and help texts print.
commands() {
    command -v python3 >/dev/null || skip "no python3"
    python3 tests/commands.py "$build/src/blockq"
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
    local seed line
    for seed in 1 ${BQ_FULL:+2 3}; do
        line=$(OMP_NUM_THREADS=1 "$build/src/blockq" run configs/demo.json --set seed=$seed --set eval.windows=100 --out "$temp/$seed" 2>"$temp/log" | tail -n 1)
        echo "seed $seed: $line"
        awk -F'[= ]' '/^result: fp=/ { for (i = 2; i < NF; i++) v[$i] = $(i + 1); ok = v["rtn"] > v["fp"] &&
            v["rtn"] - v["adascale"] >= 0.5 * (v["rtn"] - v["fp"]) } END { exit !ok }' <<<"$line" || return 1
    done
}

# What is installed works where it is moved, and an uninstall leaves nothing; the same from a Debian package.
works() { # TREE: the program, its recipes by name, the demo, the pages
    local small=(--set calibration.samples=4 --set phases.0.passes.0.iterations=2 --set eval.windows=4)
    rm -rf "$temp/work" && mkdir "$temp/work" && cd "$temp/work"
    "$1/bin/blockq" --version | grep -q '^blockq [0-9.]*'
    "$1/bin/blockq" run demo "${small[@]}" -o named >out 2>err || { cat err && return 1; }
    bash "$1/share/blockq/jobs/demo.sh" -- "${small[@]}" >out 2>err || { cat out err && return 1; }
    grep -q '^result: fp=.* out=.*/blockq-demo$' out
    cmp named/safetensors/model.safetensors blockq-demo/safetensors/model.safetensors
    BQ_HOME=$1/share/blockq BQ_RECIPE=$1/share/blockq/configs/demo.json BQ_OUT=job bash -c '. "$BQ_HOME/jobs/slurm.sh" && [[ -x $BQ_BLOCKQ ]]'
    grep -q '^.TH BLOCKQ 1' "$1"/share/man/man1/blockq.1* || zcat "$1"/share/man/man1/blockq.1.gz | grep -q '^.TH BLOCKQ 1'
    for file in LICENSE NOTICE README.md docs/files.md; do [[ -s $1/share/doc/blockq/$file ]]; done
    bash -ec '. "$1"; COMP_WORDS=(blockq pl) COMP_CWORD=1; _blockq; [[ ${COMPREPLY[*]} == plan ]]
        COMP_WORDS=(blockq plan --gp) COMP_CWORD=2; _blockq; [[ ${COMPREPLY[*]} == --gpu ]]' - "$1/share/bash-completion/completions/blockq"
    cd "$root"
}
install() {
    cmake --install "$build" --prefix "$temp/a" >"$temp/log" || { cat "$temp/log" && return 1; }
    cp "$build/install_manifest.txt" "$temp/manifest"
    mv "$temp/a" "$temp/moved" && works "$temp/moved"
    sed "s,^$temp/a/,$temp/moved/," "$temp/manifest" | tr '\n' '\0' | xargs -0 rm
    [[ ! $(find "$temp/moved" -type f) ]] || { echo "left: $(find "$temp/moved" -type f)" && return 1; }
    command -v dpkg-deb dpkg-shlibdeps >/dev/null || return 0
    cpack --config "$build/CPackConfig.cmake" -G DEB -B "$temp/deb" >"$temp/log" 2>&1 || { cat "$temp/log" && return 1; }
    dpkg-deb -x "$temp"/deb/blockq_*.deb "$temp/root" && works "$temp/root/usr"
    dpkg-deb -f "$temp"/deb/blockq_*.deb Depends | tee "$temp/depends"
    for file in openmpi-bin libopenmpi libhdf5 libopenblas0-serial libjansson4 libxxhash0; do grep -q "$file" "$temp/depends"; done
}

"$name"
