#!/usr/bin/env bash
# Killed (-9) five times at random moments and started again, a run ends with the bytes of one that nobody disturbed.
# BQ_SEED=N repeats the moments of an earlier run, as far as the machine does.
. "$(dirname "$0")/lib.sh"
RANDOM=${BQ_SEED:=$(($(date +%s) % 32768))}
echo "BQ_SEED=$BQ_SEED"
micro llama_default
recipe r.json m_llama_default 300
phases='phases=[{"inputs":"mix","passes":[{"pass":"adascale","iterations":500}]}]'
now() { date +%s%N; }

since=$(now)
expect 0 "$blockq" run r.json --set "$phases" -o clean
took=$((($(now) - since) / 1000000))
for round in 1 2 3 4 5; do
    after=$((50 + took * (RANDOM % 70) / 100))
    "$blockq" run r.json --set "$phases" -o killed >out 2>err </dev/null &
    pid=$!
    sleep "$((after / 1000)).$(printf %03d $((after % 1000)))"
    kill -9 $pid 2>/dev/null || true
    code=0
    wait $pid 2>/dev/null || code=$?
    echo "kill $round of a run of $took ms: after $after ms, exit code $code, $(find killed/ckpt -name 'block_*.h5' 2>/dev/null | wc -l) blocks"
    check "killed, or done before" [ "$code" = 137 -o "$code" = 0 ]
done
expect 0 "$blockq" run r.json --set "$phases" -o killed
same clean killed
check "no temporary file is left" [ -z "$(find killed -name '*.tmp')" ]
finish
