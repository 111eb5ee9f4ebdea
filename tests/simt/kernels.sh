#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# kernels.sh LOG: of every kernel that ptxas describes in the log of a build: registers, shared memory, spills.  Spills fail.
set -euo pipefail
awk '
/Compiling entry function/ { match($0, /\047[^\047]*\047/); name = substr($0, RSTART + 1, RLENGTH - 2); arch = $NF; gsub(/\047/, "", arch) }
/bytes stack frame/ { spills = $5 + $9; frame = $1 }
/Used [0-9]+ registers/ {
    shared = 0
    for (i = 2; i <= NF; i++) { if ($i == "registers," || $i == "registers") registers = $(i - 1); if ($i ~ /^smem/) shared = $(i - 2) }
    if (name) print arch, name, registers, shared, spills
    if (name && spills) bad = 1
    name = ""
}
END { exit bad }' "$1" >"$1.txt" && code=0 || code=1
printf '%-44s %-6s %9s %7s %7s\n' kernel arch registers shared spills
c++filt <"$1.txt" | sed -E 's/\(bq_act\)//; s/^(sm_[0-9]+) (void )?(.*) ([0-9]+) ([0-9]+) ([0-9]+)$/\3|\1|\4|\5|\6/; s/\([^|]*\)//' |
    sort | awk -F'|' '{ printf "%-44s %-6s %9s %7s %7s\n", substr($1, 1, 44), $2, $3, $4, $5 }'
[[ -s $1.txt ]] || { echo "no kernel in $1" && exit 1; }
exit $code
