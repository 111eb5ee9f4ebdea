#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
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
check "8 stages are faster than one" awk -v a="$(row 1 7)" -v b="$(row 8 7)" 'BEGIN { exit !(a > 1.2 * b && b > 0) }'
fast=$(row 16 7)
expect 0 "$blockq" plan large.json --gpu h100 --ranks 16 --memory 100G --network 10Gb --node 1
check "a slower network takes longer" awk -v a="$fast" -v b="$(row 16 7)" 'BEGIN { exit !(b > 2 * a) }'
check "and is what limits" grep -q '^ *16 .* network' out

# Large models with experts on GPUs that are not here: the plan needs no tokens, a run does.  More replicas need less memory.
for shape in deepseek_v3_671b qwen3_235b_a22b; do
    cp -r "$root/configs/shapes/$shape" .
    before=1e9
    for replicas in 1 8 32; do
        expect 0 "$blockq" plan "$root/configs/experts_gptq.json" --set model="$shape" --set segments=2 --gpu h200 --memory 200G \
            --ranks $((2 * replicas)) --stages 2
        check "$shape, $replicas replicas: $(cat out)" grep -q '^  it fits' out
        check "of 2 stages" grep -q "^memory of one rank of 2 stages x $replicas replicas" out
        gpu=$(awk '/^  on the GPU/ { print $4 }' out)
        check "the table says the same" [ "$(row $((2 * replicas)) 6)" = "$gpu" ]
        check "$shape, $replicas replicas: $gpu MB, with fewer $before" awk -v a="$before" -v b="$gpu" 'BEGIN { exit !(b < a) }'
        before=$gpu
    done
done
expect 2 "$blockq" plan "$root/configs/experts_gptq.json" --set model=deepseek_v3_671b --gpu v100 --memory 200G --ranks 8 \
    --set calibration.length=16384
one_error 'of the GPU, 32000 MB are free'
check "it does not fit" grep -q '^  it does not fit' out
check "nor in the table" grep -q '^ *8 .*, does not fit' out
expect 4 "$blockq" plan "$root/configs/experts_gptq.json" --set model=deepseek_v3_671b --gpu h200 --ranks 256
one_error 'start fewer ranks'
expect 2 "$blockq" run "$root/configs/experts_gptq.json" --set model=deepseek_v3_671b -o none
one_error 'calibration.tokens is missing, and phases.0 reads samples'
expect 2 "$blockq" plan large.json --gpu abacus
one_error 'known are'
expect 2 "$blockq" plan large.json --network 200
one_error '200Gb'
finish
