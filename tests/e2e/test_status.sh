#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# `blockq status`: how far a run is and how it ended, from its files alone.
. "$(dirname "$0")/lib.sh"
micro llama_default
recipe r.json m_llama_default 300
says() { check "status says $1: $(cat out)" grep -q "^run: $1" out; }
json() { "$blockq" status --json run | sed -n "s/^  \"$1\": \(.*[^,]\),*$/\1/p"; }

expect 2 "$blockq" status run
one_error "there is no run"
expect 75 "$blockq" run r.json -o run --stop-after-blocks 1
find run -type f -exec md5sum {} + | sort >before
expect 0 "$blockq" status run
says stopped
check "a block of two: $(cat out)" grep -q 'adascale *1 of 2 blocks' out
check "pace and time left: $(cat out)" grep -q 'left of this phase *about 0:00:0' out
progress=$(json progress)
check "progress: $progress" grep -q '^"1 blocks, 6 samples, ' <<<"$progress"
find run -type f -exec md5sum {} + | sort >after
check "nothing is written" cmp before after

# at work: who, and where inside a block; killed
"$blockq" run r.json --set 'phases.0.passes.0.iterations=200000' -o long --save-every 0.05 >out 2>err </dev/null &
job=$!
for ((i = 0; i < 200; i++)); do
    if compgen -G "long/ckpt/inside_*.h5" >/dev/null; then break; fi
    sleep 0.05
done
expect 0 "$blockq" status long
check "it runs: $(cat out)" grep -q "^long: running (host .*, pid $job)" out
check "a state is kept: $(cat out)" grep -q 'inside block 1  *step [0-9]* is kept' out
echo "2026-01-01 00:00:00 12.0%, ETA 01:23, block 1/2  loss 3" >>long/run.log # as a run does once a minute
expect 0 "$blockq" status long
check "what it is at: $(cat out)" grep -q '^  at work on  *block 1/2  loss 3, 01:23 left$' out
"$blockq" status --watch long >watched 2>&1 &
watcher=$!
until [[ -s watched ]]; do sleep 0.05; done
kill -9 $job
wait $job 2>/dev/null || true
check "the watch ends with the run" wait $watcher
check "and says how: $(cat watched)" [ "$(grep -c '^long: ' watched)" -ge 2 -a "$(grep -c '^long: killed' watched)" = 1 ]
expect 0 "$blockq" status long
check "it was killed: $(cat out)" grep -q '^long: killed$' out

# an error of another rank is the reason; then the end
OMP_NUM_THREADS=1 BQ_FAULT=weights_read:1@1 expect 1 "$mpiexec" -n 2 "$blockq" run r.json -o run
expect 0 "$blockq" status run
says failed
check "why: $(cat out)" grep -q 'why .* r1 error: .*weights.c' out
check "its progress is the same: $(json progress)" [ "$(json progress)" = "$progress" ]
expect 0 "$blockq" run r.json -o run
expect 0 "$blockq" status run
says 'done'
check "perplexities: $(cat out)" grep -q 'perplexity of adascale  *[0-9.]*$' out
check "json: $(json state) $(json 'done')" [ "$(json state) $(json 'done')" = '"done" 2' ]

# whatever is in the files
printf 'x' >run/ckpt/state.json
printf '{"fp": "\033[31m"}' >run/result.json
printf '0,0,zero\n,,,,\n' >run/run.csv
head -c 3000 /dev/urandom >run/run.log
expect 0 "$blockq" status run
expect 0 "$blockq" status --json run
finish
