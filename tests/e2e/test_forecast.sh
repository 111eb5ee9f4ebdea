#!/usr/bin/env bash
# What `plan` predicts for this machine is what a run takes, within a factor of 4; and what it says of machines that are not here.
. "$(dirname "$0")/lib.sh"
root=$(cd "$here/../.." && pwd)
"$blockq" tokens --bytes "$root/jobs/demo/calibration.txt" -o text.h5 2>err
cat >recipe.json <<TEXT
{"model": "$root/jobs/demo/model", "calibration": {"tokens": "text.h5", "samples": 8, "length": 64}, "segments": 4,
 "phases": [{"inputs": "mix", "passes": [{"pass": "gptq"}, {"pass": "adascale", "iterations": 8, "batch": 4}]}]}
TEXT
export OMP_NUM_THREADS=1
# took DIR: seconds of reference, phases and joins, the slowest rank's
took() {
    awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i; next }
        $at["part"] ~ /^(reference|phase|join)$/ { s[$at["rank"]] += $at["wall_s"] }
        END { for (r in s) if (s[r] > most) most = s[r]; print most }' "$1/run.csv"
}
# predict RANKS STAGES: seconds
predict() {
    expect 0 mpi "$1" plan recipe.json --stages "$2"
    awk '/^  all / { print $NF }' out
}
# Other users of the machine may change its speed in between: predicted before and after, tried up to ten times, and not judged
# where there are more processes than two a core.
for grid in "1 1" "2 2" "2 1" "4 2"; do
    # shellcheck disable=SC2086
    set -- $grid
    near=no
    for try in {1..10}; do
        before=$(predict "$1" "$2")
        expect 0 mpi "$1" run recipe.json --stages "$2" --no-eval -o "run_$1_$2_$try"
        real=$(took "run_$1_$2_$try")
        said="$before $(predict "$1" "$2")"
        echo "$1 ranks, $2 stages: predicted $said s, took $real s"
        if awk -v said="$said" -v b="$real" 'BEGIN { split(said, a, " "); for (k in a) ok = ok || (a[k] > 0 && b < 4 * a[k] && a[k] < 4 * b); exit !ok }'; then
            near=yes
            break
        fi
    done
    # Ranks that share cores with many others wait for their turn at every message, which no plan knows.
    if [[ $near = no ]] && awk -v cores="$(getconf _NPROCESSORS_ONLN)" '{ exit !($1 > 2 * cores + 1) }' /proc/loadavg; then
        echo "not judged: load $(cut -d ' ' -f 1 /proc/loadavg) on $(getconf _NPROCESSORS_ONLN) cores"
        continue
    fi
    check "$1 ranks, $2 stages: predicted $said s, took $real s" [ "$near" = yes ]
done

# row RANKS FIELD: of the table in ./out
row() { awk -v n="$1" -v f="$2" '/^ranks/ { on = 1 } on && $1 == n { print $f }' out; }
shape=$root/configs/shapes/llama3_8b
sed "s|\"model\": \"[^\"]*\"|\"model\": \"$shape\"|; s/\"segments\": 4/\"segments\": 8/" recipe.json >large.json
expect 0 "$blockq" plan large.json --gpu h100 --ranks 48 --memory 100G
check "rows for 1 to 48 ranks" [ "$(awk '/^ranks/ { on = 1; next } on { printf "%s ", $1 }' out)" = "1 2 4 8 16 32 48 " ]
check "8 stages are faster than one" awk -v a="$(row 1 6)" -v b="$(row 8 6)" 'BEGIN { exit !(a > 1.2 * b && b > 0) }'
fast=$(row 16 6)
expect 0 "$blockq" plan large.json --gpu h100 --ranks 16 --memory 100G --network 10Gb
check "a slower network takes longer" awk -v a="$fast" -v b="$(row 16 6)" 'BEGIN { exit !(b > 2 * a) }'
check "and is what limits" grep -q '^ *16 .* network' out
expect 2 "$blockq" plan large.json --gpu abacus
one_error 'known are'
expect 2 "$blockq" plan large.json --network 200
one_error '200Gb'
finish
