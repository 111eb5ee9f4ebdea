#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# two_ranks.sh - how well two ranks of one thread share a job: pairs of
#   control   two independent jobs of one rank at once: what two cores can do on this machine in this minute
#   run       one job on two ranks
# One line a pair, and the median of efficiency = control / 2 / run.
#
# Usage: bash perf/two_ranks.sh BLOCKQ RECIPE.json [PAIRS=5] [OPTION...]; options go to the run on two ranks.
set -euo pipefail
if (($# < 2)) || [[ $1 == -h || $1 == --help ]]; then
    sed -n '3,9s/^# \{0,1\}//p' "$0"
    exit 2
fi
blockq=$1 recipe=$2 pairs=${3:-5}
shift $(($# < 3 ? $# : 3))
export OMP_NUM_THREADS=1 OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
dir=$(mktemp -d "${TMPDIR:-/tmp}/two_ranks-XXXXXX")
trap 'rm -rf "$dir"' EXIT

now() { date +%s.%N; }
job() { "$blockq" run "$recipe" --no-eval -o "$1" >"$1.out" 2>&1 || { cat "$1.out" && return 1; }; }
"$blockq" run "$recipe" --no-eval -o "$dir/warm" --stop-after-blocks 1 >/dev/null 2>&1 || true # files into the page cache
for ((i = 1; i <= pairs; i++)); do
    rm -rf "$dir"/*
    t0=$(now)
    job "$dir/a" &
    job "$dir/b"
    wait
    t1=$(now)
    mpirun -n 2 --bind-to none "$blockq" run "$recipe" --no-eval -o "$dir/two" "$@" >"$dir/two.out" 2>&1 || { cat "$dir/two.out" && exit 1; }
    t2=$(now)
    for file in "$dir"/a/ckpt/block_*.h5; do cmp "$file" "$dir/two/ckpt/$(basename "$file")"; done
    awk -v t0="$t0" -v t1="$t1" -v t2="$t2" -v i="$i" \
        'BEGIN { c = t1 - t0; r = t2 - t1; printf "pair %d: control %.1f s, two ranks %.1f s, efficiency %.4f\n", i, c, r, c / 2 / r }'
done | tee "$dir.log"
awk '{ print $NF }' "$dir.log" | sort -n | awk '{ v[NR] = $1 } END { printf "median efficiency %.4f of %d pairs, %.4f to %.4f\n", v[int((NR + 1) / 2)], NR, v[1], v[NR] }'
rm -f "$dir.log"
