#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# instructions.sh - counts the instructions of ops under valgrind, with the AVX2 code on one thread, and compares them with perf/instructions.csv.
#
# Usage: bash perf/instructions.sh BUILD_DIR [--update] [--baseline CSV] [OP...]
# Fails (1) where an op takes over 3 % more than the csv says, or is not in it; says where the csv can be lowered.  With another compiler
# (major version) or BLAS than the csv's the limit is 15 %.  --update writes the csv.  77: no valgrind, or no AVX2 here.
set -euo pipefail
if (($# == 0)) || [[ $1 == -h || $1 == --help ]]; then
    sed -n '3,7s/^# \{0,1\}//p' "$0"
    exit 2
fi
program=$1/perf/count_ops baseline=$(dirname "$0")/instructions.csv update=
shift
while [[ ${1-} == --* ]]; do
    case $1 in
        --update) update=1 ;;
        --baseline) baseline=${2:?a csv is needed} && shift ;;
        *) echo "no option $1" >&2 && exit 2 ;;
    esac
    shift
done
command -v valgrind >/dev/null || { echo "no valgrind" && exit 77; }
grep -qsw avx2 /proc/cpuinfo || { echo "no AVX2" && exit 77; }
temp=$(mktemp -d "${TMPDIR:-/tmp}/blockq-instructions-XXXXXX")
trap 'rm -rf "$temp"' EXIT

export BQ_CPU_ISA=${BQ_CPU_ISA:-avx2} OPENBLAS_CORETYPE=Haswell OMP_NUM_THREADS=1
"$program" >"$temp/list"
mapfile -t ops < <((($#)) && printf '%s\n' "$@" || sed '1,2d; s/,.*//' "$temp/list")
# Counts of the function `counted` alone, a dump a call: PREFIX.1, PREFIX.2, ...
valgrind --tool=callgrind --collect-atstart=no --toggle-collect=counted --dump-after=counted --callgrind-out-file="$temp/dump" \
    "$program" "${ops[@]}" >"$temp/log" 2>&1 || { cat "$temp/log" >&2 && exit 2; }
{
    sed -n 1p "$temp/list"
    echo op,shape,per_unit,instructions
    for ((i = 0; i < ${#ops[@]}; i++)); do
        shape=$(sed -n "s/^${ops[i]},//p" "$temp/list")
        awk -v op="${ops[i]}" -v shape="$shape" -v n="$(sed -n 's/^totals: //p' "$temp/dump.$((i + 1))")" \
            'BEGIN { split(shape, s, "x"); printf "%s,%s,%.3f,%d\n", op, shape, n / (s[1] * s[2] * s[3]), n }'
    done
} >"$temp/csv"
if [[ $update ]]; then
    cp "$temp/csv" "$baseline"
    exit
fi
awk -F, -f "$(dirname "$0")/instructions.awk" "$baseline" "$temp/csv"
