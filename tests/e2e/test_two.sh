#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Two runs in one directory: the second is refused by the lock, with a message that names the first, and harms nothing.
. "$(dirname "$0")/lib.sh"
micro llama_default
recipe r.json m_llama_default 8000
expect 0 "$blockq" run r.json -o clean
"$blockq" run r.json -o twice >first.out 2>first.err </dev/null &
first=$!
for _ in {1..200}; do
    if [[ -s twice/ckpt/lock ]]; then break; fi
    sleep 0.02
done
expect 2 "$blockq" run r.json -o twice
one_error "twice is in use by another run (host .*, pid $first)"
code=0
wait $first || code=$?
check "the first run ended with $code" [ $code = 0 ]
same clean twice
expect 0 "$blockq" run r.json -o twice
expect 0 "$blockq" eval --run twice --tokens eval.h5 --ctx 32 --windows 3

# a holder that was killed holds nothing
"$blockq" run r.json -o killed >/dev/null 2>&1 </dev/null &
first=$!
for _ in {1..200}; do
    if [[ -s killed/ckpt/lock ]]; then break; fi
    sleep 0.02
done
kill -9 $first
wait $first 2>/dev/null || true
expect 0 "$blockq" run r.json -o killed
same clean killed

# two writers of one file outside a run
for i in 1 2 3 4 5; do
    "$blockq" tokens --bytes text -o both.h5 2>other.err &
    other=$!
    expect 0 "$blockq" tokens --bytes text -o both.h5
    code=0
    wait $other || code=$?
    check "the other writer ended with $code" [ $code = 0 ]
    check "a whole file, round $i" cmp both.h5 cal.h5
done
check "no temporary file is left" [ -z "$(find . -name '*.tmp')" ]
finish
