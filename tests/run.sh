#!/usr/bin/env bash
# run.sh - all tests, from a bare Debian 12 on: installs what is missing, builds release and sanitizer builds, runs what
# there is.  The last line counts; the exit status is nonzero when anything failed.
set -euo pipefail
if [[ ${1-} == -h || ${1-} == --help ]]; then
    sed -n '2,3s/^# //p' "$0"
    echo "Usage: bash tests/run.sh; CTEST_PARALLEL_LEVEL=N runs N tests at a time (the number of cores)"
    exit
fi
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
. jobs/packages.sh
cores=$(nproc)
export CTEST_PARALLEL_LEVEL=${CTEST_PARALLEL_LEVEL:-$cores} CMAKE_BUILD_PARALLEL_LEVEL=$cores
passed=0 failed=0 skipped=0

# part NAME COMMAND...: run it, say how long it took.  A part counts its own results; a failing command counts as one.
part() {
    local name=$1 since=$SECONDS code=0
    shift
    printf '== %s\n' "$name"
    "$@" || code=$?
    if ((code)); then failed=$((failed + 1)); fi
    printf '== %s: %d s%s\n\n' "$name" $((SECONDS - since)) "$( ((code)) && echo ', FAILED')"
    return 0
}
pass() { passed=$((passed + 1)); }
skip() {
    skipped=$((skipped + 1))
    echo "skipped: $1"
}
quiet() { "$@" >build/log 2>&1 </dev/null || { tail -n 40 build/log && return 1; }; }

install() {
    bq_packages_install "${bq_packages[@]}" "${bq_test_packages[@]}" || exit 1
    bq_packages_install "${bq_extra_packages[@]}" 2>/dev/null || echo "without $(bq_packages_missing "${bq_extra_packages[@]}" | xargs)"
}

build() { # PRESET OPTIONS...
    mkdir -p build
    quiet cmake --preset "$1" -DBQ_TESTS=ON "${@:2}" || return 1
    quiet cmake --build --preset "$1" || return 1
    pass
}

# A number in the first line of a JUnit file.
count() { sed -nE "s/.*<testsuite .*\b$1=\"([0-9]+)\".*/\1/p; s/^\t$1=\"([0-9]+)\".*/\1/p" "$2" | head -n 1; }

tests() { # PRESET OPTIONS...
    local junit=$root/build/ctest-$1.xml all wrong left
    rm -f "$junit"
    ctest --preset "$1" --output-junit "$junit" --test-output-size-failed 20000 "${@:2}" || true
    [[ -s $junit ]] || return 1
    all=$(count tests "$junit") wrong=$(count failures "$junit")
    left=$(($(count skipped "$junit") + $(count disabled "$junit")))
    passed=$((passed + all - wrong - left)) failed=$((failed + wrong)) skipped=$((skipped + left))
}

recipes_page() {
    diff <(build/src/blockq help recipe) docs/recipes.md || { echo "docs/recipes.md is not what \`blockq help recipe\` prints" && return 1; }
    pass
}

house() {
    bash tests/house.sh build || return 1
    pass
}

python_tools() {
    local python=python3 all left
    if [[ -x /usr/bin/python3 ]] && ! python3 -c 'import h5py' 2>/dev/null; then python=/usr/bin/python3; fi
    command -v "$python" >/dev/null || { skip "tests/tools: no python3" && return 0; }
    "$python" -m unittest discover tests/tools >build/tools.log 2>&1 || { tail -n 40 build/tools.log && return 1; }
    all=$(sed -nE 's/^Ran ([0-9]+) tests?.*/\1/p' build/tools.log)
    left=$(sed -nE 's/^OK.*skipped=([0-9]+).*/\1/p' build/tools.log)
    passed=$((passed + all - ${left:-0})) skipped=$((skipped + ${left:-0}))
    grep skipped: build/tools.log || true
}

instructions() {
    local code=0
    bash perf/instructions.sh build >build/log 2>&1 || code=$?
    ((code != 77)) || { skip "instruction counts: $(cat build/log)" && return 0; }
    cat build/log
    ((code == 0)) || return 1
    pass
}

# The build with MPI-IO, against the one without.
mpi_io() {
    local code=0
    bash tests/phdf5.sh build >build/log 2>&1 || code=$?
    ((code != 77)) || { skip "MPI-IO: $(cat build/log)" && return 0; }
    tail -n 20 build/log
    ((code == 0)) || return 1
    pass
}

# The CUDA build for sm_80 and sm_90: what every kernel takes, and no spills.  Where there is a GPU, the ops on it.
cuda() {
    command -v nvcc >/dev/null || { skip "the CUDA build: no nvcc" && return 0; }
    mkdir -p build
    rm -f build-cuda/src/kernels/CMakeFiles/bq_kernels.dir/cuda/*.o # so that all are compiled, and described
    CCACHE_DISABLE=1 cmake --preset cuda >build/log 2>&1 && CCACHE_DISABLE=1 cmake --build --preset cuda >build/cuda.log 2>&1 ||
        { tail -n 40 build/log build/cuda.log && return 1; }
    pass
    bash tests/simt/kernels.sh build/cuda.log || return 1
    pass
    command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q GPU || { skip "kernels on a GPU: none here" && return 0; }
    quiet cmake --preset cuda -DBQ_TESTS=ON || return 1
    quiet cmake --build --preset cuda || return 1
    tests cuda -R '^gpu_'
}

demo() {
    local line
    line=$(bash jobs/demo.sh --out build/demo/test | tail -n 1)
    rm -rf build/demo/test
    echo "$line"
    [[ $line =~ ^result:\ fp=[0-9.]+\ rtn=[0-9.]+\ adascale=[0-9.]+\ out= ]] && pass
}

# AdaScale gets back at least half of what round to nearest loses, whatever the seed.
recovery() {
    local seed line dir=build/demo/recovery
    for seed in 1 2 3; do
        rm -rf "$dir"
        line=$(OMP_NUM_THREADS=2 build/src/blockq run configs/demo.json --set seed=$seed --set eval.windows=100 --out "$dir" 2>build/log |
            tail -n 1)
        echo "seed $seed: $line"
        awk -F'[= ]' '/^result: fp=/ { for (i = 2; i < NF; i++) v[$i] = $(i + 1); ok = v["rtn"] > v["fp"] &&
            v["rtn"] - v["adascale"] >= 0.5 * (v["rtn"] - v["fp"]) } END { exit !ok }' <<<"$line" || return 1
        pass
    done
    rm -rf "$dir"
}

part "packages" install
part "release build" build release
part "release tests" tests release
part "sanitizer build" build asan
part "sanitizer tests" tests asan -LE 'fuzz|slow'
part "house rules" house
part "recipes page" recipes_page
part "instruction counts" instructions
part "tools" python_tools
part "MPI-IO" mpi_io
part "cuda" cuda
part "demo" demo
part "recovery" recovery
printf 'all of it took %d s\n' $SECONDS
if ((skipped)); then
    echo "$passed passed, $failed failed, $skipped skipped"
else
    echo "$passed passed, $failed failed"
fi
((failed == 0))
