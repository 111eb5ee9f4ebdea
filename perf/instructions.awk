# SPDX-License-Identifier: Apache-2.0
# instructions.awk - compares counts with saved ones: awk -F, -f instructions.awk SAVED.csv NOW.csv; see instructions.sh.
function class(line) { sub(/^# [^0-9]*/, "", line); sub(/\.[^,]*,/, ",", line); return line } # of the compiler the major version
FNR == 1 { made[++files] = $0; limit = class(made[1]) == class($0) ? 0.03 : 0.15; next }
FNR == 2 { next }
files == 1 { saved[$1 "," $2] = $4; next }
FNR == 3 && limit > 0.03 { printf "limit 15 %%: the baseline is of %s, this is %s\n", substr(made[1], 3), substr(made[2], 3) }
{ key = $1 "," $2; old = saved[key]; n++ }
!old { print key ": not in the baseline"; bad++; next }
$4 > old * (1 + limit) { printf "%s: %d instructions, saved %d (%+.1f %%)\n", key, $4, old, 100 * ($4 / old - 1); bad++ }
$4 < old * (1 - limit) { printf "%s: %d instructions, saved %d (%+.1f %%): the baseline can be lowered\n", key, $4, old, 100 * ($4 / old - 1) }
END { printf "%d ops counted, %d above the limit or unknown\n", n, bad; exit bad > 0 }
