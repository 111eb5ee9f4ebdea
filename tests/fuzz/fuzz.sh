#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# fuzz.sh PROGRAM OPTIONS...: a fuzzer for 3 seconds, or 120 in the full suite (BQ_FULL=1).
set -eu
program=$1 seconds=3
shift
if [ "${BQ_FULL-}" ]; then seconds=120; fi
exec "$program" -max_total_time=$seconds -runs=50000000 -seed=1 -timeout=60 -rss_limit_mb=2048 -close_fd_mask=2 \
    -artifact_prefix="$program-" "$@"
