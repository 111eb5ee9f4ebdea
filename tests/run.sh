#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# run.sh - all tests, from a bare Debian 12 on: installs what is missing, builds release and sanitizer builds, runs what
# there is.  The last line counts; the exit status is nonzero when anything failed.
set -euo pipefail
usage() {
    sed -n '3,4s/^# //p' "$0"
    cat <<'TEXT'
Usage: bash tests/run.sh [--full] [NAME...]

  NAME      only tests whose name has NAME in it (an extended regular expression)
  --full    more of each: hundreds of kills, all schedules of the emulator, long fuzzing, every script under sanitizers,
            the mutants of docs/testing.md.  Hours.

  CTEST_PARALLEL_LEVEL=N    tests at a time (one more than there are cores: many wait for files and processes)
TEXT
}
export BQ_FULL=
only=()
for word; do
    case $word in
    -h | --help) usage && exit ;;
    --full) BQ_FULL=1 ;;
    -*) echo "run.sh: $word: no such option; --help has them" >&2 && exit 2 ;;
    *) only+=("$word") ;;
    esac
done
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
. jobs/packages.sh
cores=$(nproc)
export CTEST_PARALLEL_LEVEL=${CTEST_PARALLEL_LEVEL:-$((cores + 1))} CMAKE_BUILD_PARALLEL_LEVEL=$cores
passed=0 failed=0 skipped=0

# What builds have in common is compiled once, where there is ccache.  Builds for CUDA and MPI-IO differ from the first in few files.
use_ccache() {
    command -v ccache >/dev/null || return 0
    export CMAKE_C_COMPILER_LAUNCHER=ccache CMAKE_CXX_COMPILER_LAUNCHER=ccache CCACHE_BASEDIR=$root CCACHE_NOHASHDIR=1
}

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

# tests DIR OPTIONS...: those of one build folder, or of a folder that names several.
tests() {
    local junit=$root/build/junit.xml all wrong left
    rm -f "$junit"
    ctest --test-dir "$1" --output-junit "$junit" --output-on-failure --test-output-size-failed 20000 "${@:2}" || true
    [[ -s $junit ]] || return 1
    all=$(count tests "$junit") wrong=$(count failures "$junit")
    left=$(($(count skipped "$junit") + $(count disabled "$junit")))
    passed=$((passed + all - wrong - left)) failed=$((failed + wrong)) skipped=$((skipped + left))
}

# Both builds' tests as one set, so that long ones of one fill the gaps of the other.
all_tests() {
    local chosen=()
    if [[ ! $BQ_FULL ]]; then chosen+=(-LE full); fi
    if ((${#only[@]})); then chosen+=(-R "$(IFS='|' && echo "${only[*]}")"); fi
    mkdir -p build/all
    printf 'subdirs("%s/build")\nsubdirs("%s/build-asan")\n' "$root" "$root" >build/all/CTestTestfile.cmake
    tests build/all "${chosen[@]}"
}

# Where there is a GPU: the ops and the program on it.
gpu() {
    command -v nvcc >/dev/null && nvidia-smi -L 2>/dev/null | grep -q GPU || { skip "kernels on a GPU: none here" && return 0; }
    build cuda || return 1
    tests build-cuda -R '^gpu_'
}

demo() { # NUMBER OPTIONS...: the result line has all numbers, and the log says of so many blocks what tokens experts get
    local line blocks number='[0-9.]+ '
    line=$(bash jobs/demo.sh "${@:2}" --out build/demo/test | tail -n 1)
    blocks=$(cat build/demo/test/{,gptq/}run.log 2>/dev/null | grep -c 'an expert gets [0-9]* to [0-9]* tokens') || true
    rm -rf build/demo/test
    echo "$line"
    [[ $line =~ ^result:\ fp=${number}rtn=$number(gptq=$number)?adascale=${number}out= && $blocks == "$1" ]] && pass
}

part "packages" install
use_ccache
part "release build" build release
part "sanitizer build" build asan
part "tests" all_tests
if ! ((${#only[@]})); then
    part "GPU" gpu
    part "demo" demo 0
    part "demo with experts" demo 4 --moe
fi
printf 'all of it took %d s\n' $SECONDS
if ((skipped)); then
    echo "$passed passed, $failed failed, $skipped skipped"
else
    echo "$passed passed, $failed failed"
fi
((failed == 0))
