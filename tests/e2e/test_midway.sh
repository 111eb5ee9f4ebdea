#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Passes that walk the samples through a block once, a matrix at a time: the same bytes on any number of ranks, whatever
# is kept on the way, and after every stop; and those of a run that advances the streams itself.
. "$(dirname "$0")/lib.sh"
micro llama_default phi3_short
sequential='{"pass":"gptq","sequential":true}'
make() { # FILE MODEL PASSES
    recipe "$1" "$2" 4
    sed -i "s/\"inputs\": \"mix\", \"passes\": \[.*\]}\]/\"inputs\": \"qt\", \"passes\": [$3]}]/; s/\"samples\": 6, \"length\": 24/\"samples\": 60, \"length\": 40/" "$1"
}
make one.json m_llama_default "$sequential"
make f64.json m_phi3_short "${sequential/\}/,\"gram\":\"f64\",\"order\":\"gar\",\"clip\":\"mse\"\}}"
make both.json m_phi3_short "{\"pass\":\"seqmse\"}, ${sequential/\}/,\"qep\":0.5\}}"
make mse.json m_llama_default '{"pass":"seqmse"}'
kept() { sed -nE 's/.*kept: ([0-9]+ of [0-9]+) samples midway.*/\1/p' "$1/run.log" | tail -n 1; }

for name in one f64 both mse; do
    for ranks in 1 2 3 4; do expect 0 mpi $ranks run $name.json --stages 1 --threads 1 -o ${name}_$ranks; done
    for ranks in 2 3 4; do same ${name}_1 ${name}_$ranks; done
    check "$name: all are kept: $(kept ${name}_1)" [ "$(kept ${name}_1)" = "60 of 60" ]
done
worth one_1
expect 0 mpi 1 run one.json --set segments=2 --threads 2 -o halves
for ranks in 2 4; do
    expect 0 mpi $ranks run one.json --set segments=2 --stages 2 -o halves_$ranks
    check "2 stages: the last block" cmp halves/ckpt/block_001.p0.s0.h5 halves_$ranks/ckpt/block_001.p0.s0.h5
    check "2 stages: the model" cmp halves/safetensors/model.safetensors halves_$ranks/safetensors/model.safetensors
done

# the plan counts what is kept, and keeps less where there is less memory: half of what is left
expect 0 "$blockq" plan one.json
check "the plan has a line for it" grep -q '^  60 of 60 samples midway in a block .* device' out
whole=$(awk '$1 == "total" { print $2 }' out) part=$(awk '/^  60 of 60/ { print $(NF - 1) }' out)
limit() { awk -v a="$whole" -v b="$part" -v share="$1" 'BEGIN { printf "%d\n", (a - b + share * b) * 1e6 / 1024 }'; }
for share in 0.2 1; do
    expect 0 "$blockq" run one.json --memory "$(limit $share)K" -o "less_$share"
    read -r some _ < <(kept "less_$share")
    check "$share of the room: $some are kept" [ "$some" -lt 50 ]
    same one_1 "less_$share"
done
expect 0 mpi 2 run both.json --memory "$(limit 1.5)K" -o less_both
same both_1 less_both
mkdir scratch
expect 0 "$blockq" run one.json --memory "$(limit -0.3)K" --scratch scratch -o files
same one_1 files

# a block that was restored is left by a forward of its own
expect 75 "$blockq" run one.json --stop-after-blocks 1 -o stopped
expect 0 mpi 3 run one.json --stages 1 -o stopped
same one_1 stopped
for fault in ckpt_write:1 ckpt_write:2 stream_nan:70; do
    BQ_FAULT=$fault expect "$([[ $fault == stream_nan* ]] && echo 3 || echo 1)" "$blockq" run one.json -o "fault_$fault"
    expect 0 mpi 2 run one.json --stages 1 -o "fault_$fault"
    same one_1 "fault_$fault"
done
BQ_FAULT=stream_nan:3 expect 3 "$blockq" run one.json -o nan
one_error 'block 1/2: the quantized stream of sample 2 has nan at token 0'

# with a pass behind it nothing is handed on, and the streams are as they were for that one
make behind.json m_llama_default "$sequential, {\"pass\":\"gptq\",\"damp\":0.5}"
expect 0 "$blockq" run behind.json -o behind
expect 0 "$blockq" run behind.json --threads 1 --memory "$(limit 0.5)K" -o behind_less
same behind behind_less
finish
