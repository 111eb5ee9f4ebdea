#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# blockq clean: what it removes, what stays and still works, and what it refuses.
leaks=1
. "$(dirname "$0")/lib.sh"
command -v python3 >/dev/null || { echo "skipped: no python3" && exit 77; }
micro qwen2
recipe r.json m_qwen2 4 ', "segments": 2'
expect 0 mpi 2 run r.json --stages 2 -o one
cp -r one kept
touch one/acts/note.txt one/ckpt/inside_000.A.h5
ln -s "$PWD/text" one/ckpt/inside_001.A.h5

expect 2 "$blockq" clean one && one_error 'inside_001.A.h5'
rm one/ckpt/inside_001.A.h5
size=$(cat one/acts/*.h5 one/acts/*.valid | wc -c)
expect 0 "$blockq" clean --dry-run one
check "what it would remove: $(cat out)" grep -q "^one: $(($(ls one/acts/*.h5 one/acts/*.valid | wc -l) + 1)) files, .*, would be removed$" out
check "nothing was removed" [ "$size" = "$(cat one/acts/*.h5 one/acts/*.valid | wc -c)" ]
expect 0 "$blockq" clean one
check "streams and states are gone: $(ls one/acts one/ckpt)" [ "$(ls one/acts)" = note.txt ]
check "no state" [ ! -e one/ckpt/inside_000.A.h5 ]
for file in one/ckpt/block_* one/safetensors/* one/result.json; do cmp "$file" "kept/${file#one/}" || bad "$file has changed"; done
expect 0 "$blockq" clean one
check "a second time: $(cat out)" grep -q '^one: 0 files' out

# all that a finished run is good for
expect 0 "$blockq" eval --run one --tokens eval.h5 --ctx 32 --windows 5
expect 0 "$blockq" export --run one --format safetensors --out later
expect 0 mpi 2 run r.json --stages 2 -o one
check "no block was made again" [ "$(grep -c 'loss' one/run.log)" = "$(grep -c 'loss' kept/run.log)" ]
check "the same result" cmp one/safetensors/model.safetensors kept/safetensors/model.safetensors

expect 75 "$blockq" run r.json --stop-after-blocks 1 -o part
before=$(find part -type f | sort)
expect 2 "$blockq" clean part one && one_error 'part: not all of its blocks are done'
check "the others are cleaned: $(cat out)" grep -q '^one: ' out
check "part has all of its files" [ "$before" = "$(find part -type f | sort)" ]
expect 2 "$blockq" clean m_qwen2 && one_error 'm_qwen2: there is no run'
python3 - kept/ckpt/lock <<'PY' & # held by somebody else
import fcntl, os, struct, sys, time
fd = os.open(sys.argv[1], os.O_RDWR)
fcntl.fcntl(fd, 37, struct.pack("hhqqi", fcntl.F_WRLCK, 0, 0, 0, 0))  # F_OFD_SETLK
open("held", "w").close()
time.sleep(60)
PY
holder=$!
until [[ -e held ]]; do sleep 0.05; done
expect 2 "$blockq" clean kept && one_error 'kept is in use by another run'
kill $holder
finish
