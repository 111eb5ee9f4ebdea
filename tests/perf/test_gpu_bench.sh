#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# gpu_bench.sh with the emulated GPU, and with programs in the place of NVIDIA's tools: every part writes its rows, a part that
# is ended says so and keeps what it had.  test_gpu_bench.sh BUILD
set -euo pipefail
build=$(realpath "$1") bench=$(cd "$(dirname "$0")/../.." && pwd)/perf/gpu_bench.sh
temp=$(mktemp -d "${TMPDIR:-/tmp}/blockq-perf-XXXXXX")
trap 'rm -rf "$temp"' EXIT
failures=0
bad() { failures=$((failures + 1)) && echo "FAILED: $*"; }
# rows COUNT PATTERN: lines of the last table
rows() { [[ $(grep -cE "$2" "$temp/out/table.md") == "$1" ]] || bad "not $1 rows of $2"; }
run() { bash "$bench" --dry "$build" --out "$temp/out" "$@" >"$temp/said" 2>&1 || bad "code $?: $* $(tail -n 5 "$temp/said")"; }

mkdir "$temp/bin"
cat >"$temp/bin/compute-sanitizer" <<'TEXT'
#!/usr/bin/env bash
if [[ ${SLOW:-} && $* == *memcheck*attention* ]]; then echo "========= Invalid __global__ read" && exec sleep 60; fi
if [[ $2 == racecheck ]]; then echo "========= RACECHECK SUMMARY: 0 hazards displayed"; else echo "========= ERROR SUMMARY: 0 errors"; fi
TEXT
cat >"$temp/bin/ncu" <<'TEXT'
#!/usr/bin/env bash
cat <<'CSV'
==PROF== Connected
op,shape,seconds
"ID","Process ID","Kernel Name","gpu__time_duration.sum","smsp__inst_executed.sum"
"","","","us","inst"
"0","7","attend(bq_attend)","500.5","1,234"
"1","7","attend(bq_attend)","501","1,234"
"2","7","attend_dq(bq_attend)","900","5,678"
CSV
TEXT
cat >"$temp/bin/peer" <<'TEXT'
#!/usr/bin/env bash
if [[ $1 == -c ]]; then exit 0; fi
if [[ ${BROKEN:-} ]]; then exit 1; fi
if [[ $1 == *llmcompressor* ]]; then echo '{"version": "0.14", "seconds": 7.25, "cpu_seconds": 8}' && exit; fi
while read -r _; do for name in f32 bf16; do echo "{\"variant\": \"$name\", \"step_seconds\": 0.0625, \"loss\": 1}"; done; done
TEXT
chmod +x "$temp/bin/"*
export PATH=$temp/bin:$PATH ROUNDS=1 PYTHON=peer

run
ways=$("$build/tests/simt/gpu_bench_nmse_simt" cuda 8 8 8 | cut -d, -f1)
rows 1 '^## emulated, 20'
rows 1 '^\*\*Build'
rows 2 '^\| simt_test_(quadratic|float)_ops \| *Passed'
for op in 'gemm (forward|dx|dw)' add mix rmsnorm rmsnorm_bwd rope glu glu_bwd column_max column_squares mse adascale_weights adascale_step \
    attention attention_bwd xent gram factor fit gptq; do
    grep -qE "^\| $op \| [^|]+ \| [0-9.e-]+ \|" "$temp/out/table.md" || bad "no row of $op"
done
for way in $ways; do
    rows 1 "^\| $way \| [0-9.e-]+ \| [0-9.e-]+ \|$"
    rows 1 "^\| tiny \| $way \| -?[0-9.e-]+ \| 62.5( \(f32\))? \| -?[0-9.e+-]+ \|  \|  \| 1 \|"
    rows 1 "^\| 4 samples, $way \|( [0-9.e-]+ \|){6}$"
    rows 1 "^\| tiny, a step of AdaScale, $way \| [0-9.e-]+ \| [0-9.e-]* \| -?[0-9.e-]+ \|"
    rows 4 "^\| tiny, GPTQ, 4 samples, $way: (passes|stream|weights in|checkpoint) \|"
done
rows 1 '^\| tiny \| tf32 \| -?[0-9.e-]+ \| 62.5 \(f32\) \|'
rows 2 '^\| 4 samples, llm-compressor 0.14, (bfloat16|float32) \|  \|  \|  \|  \|  \| 7.25 \|'
rows 2 '^\| attend(_dq)? \| (500\.5|900) \| (1234|5678) \|$'
rows 3 '^\| test_(attention|gemm|gptq_ops) \| ERROR SUMMARY: 0 errors \| ERROR SUMMARY: 0 errors \| RACECHECK SUMMARY: 0 hazards'
rows 1 '^\| tiny, a step of AdaScale, f32 \|( [0-9.e-]+ \|){2}'
for part in build check ops steps gptq plan profile sanitize; do rows 1 "^\| $part \| [0-9]+ \|$"; done
rows 0 '^- ' # no part was cut, and none failed
cmp -s <(sed '$a\' "$temp/out/table.md") <(sed -n '/^## /,$p' "$temp/said") || bad "the table is not printed"

# peers that end at once; a part in the middle of its rounds, without peers; a program of another part that hangs
BROKEN=1 run steps gptq
rows 1 '^\| tiny \| f32 \| -?[0-9.e-]+ \|  \|'
rows 1 '^- steps: the torch loop on tiny gave no times'
rows 2 '^- gptq: llm-compressor failed'
ROUNDS=1000 BUDGET=4 PYTHON=false run steps
rows 1 '^- steps: no peers: '
rows 1 '^- steps: ended after its 4 s'
rows 1 "^\| tiny \| f32 \| -?[0-9.e-]+ \|"
SLOW=1 LIMIT=20 run sanitize
rows 1 '^\| test_attention \| not finished in [0-9] s, 1 findings until then \|'
rows 1 '^\| test_gemm \| ERROR SUMMARY'
LIMIT=0 run build
rows 1 '^- build: no time left'

for wrong in none "--dry" "wheels"; do
    code=0
    bash "$bench" "$wrong" >"$temp/said" 2>&1 || code=$?
    [[ $code == 2 && -s $temp/said ]] || bad "code $code for $wrong"
done
echo "$failures failures"
((failures == 0))
