#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Bytes between ranks, counted by Open MPI, against the formulas in docs/architecture.md.
. "$(dirname "$0")/lib.sh"
root=$(cd "$here/../.." && pwd)
model=$root/jobs/demo/model stages=2 replicas=2 samples=12 length=24 steps=7 batch=4 micro=1
"$blockq" tokens --bytes "$root/jobs/demo/calibration.txt" -o text.h5 2>err
cat >recipe.json <<TEXT
{"model": "$model", "calibration": {"tokens": "text.h5", "samples": $samples, "length": $length}, "segments": 4,
 "phases": [{"inputs": "mix", "passes": [{"pass": "adascale", "iterations": $steps, "batch": $batch}]}]}
TEXT
mkdir counts
expect 0 "$mpiexec" -n $((stages * replicas)) --mca pml_monitoring_enable 2 --mca pml_monitoring_enable_output 3 \
    --mca pml_monitoring_filename counts/rank "$blockq" run recipe.json --stages $stages --micro $micro --threads 1 --no-eval -o run
if [[ ! -e counts/rank.0.prof ]]; then
    if ((failures)); then finish; fi
    echo "skipped: this Open MPI does not count bytes (pml monitoring)"
    exit 77
fi
number() { sed -nE "s/.*\"$1\": *([0-9]+).*/\1/p" "$model/config.json"; }
hidden=$(number hidden_size) inter=$(number intermediate_size) heads=$(number num_attention_heads)
kv=$(number num_key_value_heads) blocks=$(number num_hidden_layers)
dim=$((hidden / heads))
weights=$(((heads + 2 * kv) * dim * hidden + heads * dim * hidden + 3 * inter * hidden))
# sent KIND FROM TO: E of our own messages, I of those that collectives are made of
sent() { sed -nE "s/^$1\t$2\t$3\t([0-9]+) bytes.*/\1/p" counts/rank."$2".prof; }

# rank = stage * replicas + replica; a replica has half of the batch: one node of the tree
share=$((samples / replicas)) mine=$((blocks / stages))
reference=$((4 * length * hidden * share + 4 * share / micro))
sums=$((mine * steps * 4 * weights * (replicas - 1) / replicas))
rows=$((mine * (steps + 1) * 4 * weights * (replicas - 1) / replicas)) # each step's weights, and at last the folded ones
check "reference: $(sent E 0 2), not $reference" [ "$(sent E 0 2)" = $reference ]
check "reference: $(sent E 1 3), not $reference" [ "$(sent E 1 3)" = $reference ]
for pair in "0 1" "1 0" "2 3" "3 2"; do
    # shellcheck disable=SC2086
    set -- $pair
    beats=$(($(sent E "$1" "$2") - sums)) # heartbeats are empty
    check "gradients from rank $1: $beats bytes beyond $sums" [ $beats = 0 ]
    more=$(($(sent I "$1" "$2") - rows)) # scales, losses, agreements; from rank 0 the recipe, once
    check "weights from rank $1: $more bytes beyond $rows" [ $more -ge 0 -a $more -le $((rows / 100 + 16384)) ]
    echo "rank $1: gradients $sums bytes, weights $rows and $more more"
done

# run.csv counts the same, and its seconds add up
awk -F, -v reference=$reference -v low=$((sums + rows)) -v high=$(((sums + rows) * 101 / 100)) '
    NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i; next }
    NF != length(at) { print "a row of " NF " columns"; bad = 1 }
    $at["part"] == "block" { blocks++; next }
    { rest = $at["wall_s"] - $at["compute_s"] - $at["peers_s"] - $at["files_s"]; key = $at["part"] $at["rank"]; n[key]++ }
    rest > 0.001 || rest < -0.001 || $at["peers_s"] < 0 || $at["files_s"] < 0 { print "seconds: " $0; bad = 1 }
    $at["part"] == "reference" { sent[$at["rank"]] = $at["sent_bytes"]; got[$at["rank"]] = $at["received_bytes"] }
    $at["part"] == "phase" && ($at["sent_bytes"] < low || $at["sent_bytes"] > high) { print "sent: " $0; bad = 1 }
    $at["part"] == "phase" && ($at["read_bytes"] == 0 || $at["written_bytes"] == 0 && $at["rank"] % 2 == 0) { print "files: " $0; bad = 1 }
    END { for (r = 0; r < 2; r++) if (sent[r] != reference || got[r + 2] != reference) { print "reference: " sent[r], got[r + 2], reference; bad = 1 }
        for (r = 0; r < 4; r++) if (n["start" r] != 1 || n["reference" r] != 1 || n["phase" r] != 1 || n["join" r] != 1 || n["eval" r] != 1) bad = 1
        exit bad || blocks != '"$((mine * stages))"' }' run/run.csv >said || { bad "run.csv: $(cat said)" && cat run/run.csv; }
good
finish
