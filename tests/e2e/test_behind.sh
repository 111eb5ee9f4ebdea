#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Checkpoints that a thread writes behind the work on the next block: no block counts before its file is on disk, whatever
# happens meanwhile; a failure in the thread ends the run with one message; where there is no memory for a copy each is
# written at once.  The bytes are the same in all cases.
. "$(dirname "$0")/lib.sh"
micro llama_default
recipe plain.json m_llama_default 6
recipe phases.json m_llama_default 6
sed -i 's/"phases": \[/"phases": [{"inputs": "qt", "passes": [{"pass": "gptq"}]}, /' phases.json
expect 0 "$blockq" run plain.json -o plain
expect 0 "$blockq" run phases.json -o phases
rows() { grep -c ',block,[0-9]' "$1/run.csv" || true; }
column() { awk -F, -v name="$2" 'NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i; next } $at["part"] == "block" { print $at[name] }' "$1/run.csv"; }
check "a row a block" [ "$(rows plain)" = 2 ]
for value in $(column plain ckpt_bytes); do check "bytes of a checkpoint: $value" [ "$value" -gt 1000 ]; done
for value in $(column plain ckpt_s); do check "seconds of a checkpoint: $value" awk -v s="$value" 'BEGIN { exit !(s > 0 && s < 100) }'; done

# the weights before rounding are stored only where the next phase starts from them: four bytes a weight
size() { stat -c %s "$1"; }
check "without the weights" [ $((3 * $(size plain/ckpt/block_000.p0.s0.h5))) -lt "$(size phases/ckpt/block_000.p0.s0.h5)" ]
check "the last phase is without them" [ $((3 * $(size phases/ckpt/block_000.p1.s0.h5))) -lt "$(size phases/ckpt/block_000.p0.s0.h5)" ]

# killed in the thread, at each checkpoint: those before it are there, it is not
for hit in 1 2 3 4; do
    BQ_FAULT=ckpt_kill:$hit expect 137 "$blockq" run phases.json -o killed_$hit
    check "killed in checkpoint $hit: $(ls killed_$hit/ckpt)" \
        [ "$(find killed_$hit/ckpt -name 'block_*.h5' | wc -l)" = $((hit - 1)) ]
    check "rows of killed_$hit: $(rows killed_$hit)" [ "$(rows killed_$hit)" = $((hit - 1)) ]
    expect 0 "$blockq" status killed_$hit
    expect 0 "$blockq" run phases.json -o killed_$hit
    same phases killed_$hit
    check "no temporary file is left" [ -z "$(find killed_$hit -name '*.tmp')" ]
    check "a row a block in the end: $(rows killed_$hit)" [ "$(rows killed_$hit)" = 4 ]
done

# killed long after a block's file is on disk, in the training of the next block: its row is there, too
recipe long.json m_llama_default 3000
BQ_FAULT=step_kill:4500 expect 137 "$blockq" run long.json -o long
check "the first of two blocks is done: $(ls long/ckpt)" \
    [ -e long/ckpt/block_000.p0.s0.h5 -a ! -e long/ckpt/block_001.p0.s0.h5 ]
check "its row is there, and its line" [ "$(rows long)" = 1 -a "$(grep -c 'block 1/2: loss' long/run.log)" = 1 ]

# while the thread waits before its last step, the block does not count, and a kill loses no other
BQ_FAULT=ckpt_stall:1 "$blockq" run phases.json -o stalled >out 2>err </dev/null &
pid=$!
while ! compgen -G 'stalled/ckpt/block_000.p0.s0.h5.*.tmp' >/dev/null && kill -0 $pid; do sleep 0.02; done
sleep 0.5
kill -STOP $pid # so that the machine's speed does not matter
expect 0 "$blockq" status stalled
check "no block is done: $(cat out)" [ "$(grep -c ' 0 of 2 blocks' out)" = 2 ]
check "no file, no row" [ ! -e stalled/ckpt/block_000.p0.s0.h5 -a "$(rows stalled)" = 0 ]
kill -9 $pid
wait $pid 2>/dev/null || true
expect 0 "$blockq" run phases.json -o stalled
same phases stalled
BQ_FAULT=ckpt_stall:1 expect 0 "$blockq" run phases.json -o late # all others wait for it
same phases late
check "what was waited for: $(column late ckpt_s | head -n 1)" awk -v s="$(column late ckpt_s | head -n 1)" 'BEGIN { exit !(s > 2) }'

# a stop comes with all that was made on disk
BQ_FAULT=ckpt_stall:1 expect 75 "$blockq" run plain.json --stop-after-blocks 1 -o stopped
check "the block is there" [ -e stopped/ckpt/block_000.p0.s0.h5 -a "$(rows stopped)" = 1 ]
expect 0 "$blockq" run plain.json -o stopped
same plain stopped

# what fails in the thread is told by the run: the file, the reason and what to do
for fault in ckpt_write ckpt_rename; do
    BQ_FAULT=$fault:1 expect 1 "$blockq" run phases.json -o failed_$fault
    one_error "of 'failed_$fault/ckpt/block_000.p0.s0.h5' failed: .*the same command goes on"
    expect 0 "$blockq" run phases.json -o failed_$fault
    same phases failed_$fault
done
BQ_FAULT=ckpt_thread:1 expect 0 "$blockq" run phases.json -o alone
check "a warning" grep -q "no thread to write '" err
same phases alone

# on ranks: a replica of each stage writes; the next stage starts when the blocks before it are on disk
expect 0 mpi 2 run phases.json --set segments=2 --stages 2 -o halves
for fault in ckpt_kill:2@0 ckpt_stall:1@0,1 ckpt_write:1@1; do
    BQ_FAULT=$fault mpi 2 run phases.json --set segments=2 --stages 2 -o "ranks_$fault" >out 2>err </dev/null || true
    expect 0 mpi 2 run phases.json --set segments=2 --stages 2 -o "ranks_$fault"
    same halves "ranks_$fault"
done

# without memory for a copy each is written at once, as the plan says
expect 0 "$blockq" plan phases.json
check "the plan has a line for it" grep -q '^  a checkpoint that is being written .* host' out
check "how: $(cat out)" grep -q 'checkpoints are written behind the work on the next block' out
# room for half of the copy: the program's own part differs from process to process
least() { awk '$1 == "total" { all = $2 } /a checkpoint that is being written/ { part = $(NF - 1) / 2 } / midway in a block/ { part += $(NF - 1) }
    END { printf "%d\n", (all - part) * 1e6 }' out; }
memory=$(least)
expect 0 "$blockq" plan phases.json --memory "$memory"
check "how with $memory: $(cat out)" grep -q 'checkpoints are written at once: there is no room for a copy' out
check "it fits" grep -q '^  it fits' out
expect 0 "$blockq" run phases.json --memory "$memory" -o once
check "the log tells it" grep -q 'checkpoints are written at once' once/run.log
same phases once
BQ_FAULT=ckpt_write:2 expect 1 "$blockq" run phases.json --memory "$memory" -o once_failed
one_error "of 'once_failed/ckpt/block_001.p0.s0.h5' failed: .*the same command goes on"
check "the first is done" [ "$(rows once_failed)" = 1 ]
finish
