#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# phdf5.sh BUILD: blockq built again with BQ_PHDF5=ON, in build-phdf5: activation files that went through MPI-IO are those of
# plain reads and writes by BUILD, byte for byte, and each reads the other's.  77 where there is no parallel HDF5.
root=$(cd "$(dirname "$0")/.." && pwd)
build=${1:?usage: bash tests/phdf5.sh BUILD}
command -v h5pcc >/dev/null || { echo "no parallel HDF5 (libhdf5-openmpi-dev)" && exit 77; }
mkdir -p "$root/build-phdf5"
cmake -S "$root" -B "$root/build-phdf5" -DCMAKE_BUILD_TYPE=Release -DBQ_PHDF5=ON -DBQ_TESTS=OFF >"$root/build-phdf5/log" 2>&1 &&
    cmake --build "$root/build-phdf5" --target blockq -j "$(nproc)" >>"$root/build-phdf5/log" 2>&1 ||
    { tail -n 40 "$root/build-phdf5/log" && exit 1; }
. "$root/tests/e2e/lib.sh" "$build/src/blockq" "$build/tests/make_micro"
parallel=$root/build-phdf5/src/blockq
linked() { ldd "$1" | grep -o 'libhdf5[a-z_]*' | sort -u; }
check "$blockq has the serial HDF5" [ "$(linked "$blockq")" != "$(linked "$parallel")" ]

"$blockq" tokens --bytes "$root/jobs/demo/calibration.txt" -o text.h5 2>err
cat >r.json <<TEXT
{"model": "$root/jobs/demo/model", "calibration": {"tokens": "text.h5", "samples": 11, "length": 24}, "segments": 3, "sweeps": 2,
 "phases": [{"inputs": "qt", "passes": [{"pass": "rtn"}, {"pass": "adascale", "iterations": 3}]}]}
TEXT
# plain or mpio, then RANKS DIR OPTION...
go() { OMP_NUM_THREADS=1 timeout $hang "$mpiexec" -n "$2" "$1" run r.json -o "${@:3}"; }
plain() { go "$blockq" "$@"; }
mpio() { go "$parallel" "$@" --acts parallel; }
# The records of a log, in any order: ranks append as they go.
records() { od -An -v -tx1 -w32 "$1" | sort; }
same_logs() {
    local log
    for log in "$1"/acts/*.valid; do check "$1, $2: ${log##*/}" cmp <(records "$log") <(records "$2/acts/${log##*/}"); done
}

expect 2 mpi 2 run r.json -o refused --acts parallel
one_error "BQ_PHDF5=ON"
number=0
for grid in 1 2 "2 --stages 2" "3 --split-reference" "4 --stages 2" "4 --stages 2 --split-reference"; do
    number=$((number + 1))
    # shellcheck disable=SC2086 # a rank count and options
    set -- $grid
    expect 0 plain "$1" plain$number "${@:2}"
    expect 0 mpio "$1" mpio$number "${@:2}"
    same plain$number mpio$number
    same_logs plain$number mpio$number
done

# written by one, read by the other: no sample is written twice
mixed() { # FIRST RANKS SECOND RANKS
    rm -rf mixed
    expect 75 "$1" "$2" mixed --stages 1 --stop-after-blocks 3
    expect 0 "$3" "$4" mixed --stages 1
    for file in acts/fp_000.h5 ckpt/block_007.p0.s1.h5; do check "$*: $file" cmp plain1/$file mixed/$file; done
    same_logs plain1 mixed
}
mixed mpio 2 plain 3
mixed plain 2 mpio 1
mixed mpio 4 mpio 2

# a transfer that fails, and a job that dies, each gone on
expect 1 env BQ_FAULT=mpio:5 "$mpiexec" -n 1 "$parallel" run r.json -o fault --acts parallel
one_error "by MPI-IO failed"
expect 0 mpio 1 fault
same plain1 fault
for pause in 0.4 0.8; do
    mpio 2 killed >out 2>err &
    job=$!
    sleep $pause
    # shellcheck disable=SC2046 # words
    kill -9 $job $(pgrep -P $job | sed 's/^/-/') 2>/dev/null || true # with what `timeout` has started
    wait $job 2>/dev/null || true
done
while "$blockq" status killed 2>/dev/null | grep -q running; do sleep 0.1; done # ranks on their way out
expect 0 mpio 2 killed
same plain2 killed
finish
