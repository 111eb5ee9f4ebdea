#!/bin/sh
# fuzz.sh PROGRAM OPTIONS...: a fuzzer for 3 seconds, or 120 in the full suite (BQ_FULL=1).
set -eu
program=$1
shift
exec "$program" -max_total_time=$([ "${BQ_FULL-}" ] && echo 120 || echo 3) -runs=50000000 -seed=1 -timeout=60 -rss_limit_mb=2048 \
    -close_fd_mask=2 -artifact_prefix="$program-" "$@"
