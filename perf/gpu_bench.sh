#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# gpu_bench.sh - builds, checks and times everything on a machine with a GPU, in less than ten minutes; writes a table in Markdown.
set -euo pipefail
usage() {
    cat <<'TEXT'
Usage: perf/gpu_bench.sh [--dry BUILD] [--out DIR] [PART...]
       perf/gpu_bench.sh wheels DIR

Parts, in this order; without any, all:
  build     for the GPU that is here, into build-cuda
  check     the whole program on the GPU, and each op beside the cpu (tests named gpu_)
  ops       bench_ops on blocks of Llama 3 8B and 3.2 1B; how far products are from products in f64
  steps     AdaScale on a block of both models, 2048 tokens a step, in each arithmetic that the GPU has; in turn with it the
            torch loop (peers/torch_adascale.py) in f32, tf32 and bf16, as it is and compiled
  gptq      GPTQ of a block of the 8B model, 64 and 128 samples; llm-compressor on the same block
  plan      what `blockq plan` says, with published rates (PLAN_GPU) and with rates measured here, beside what was measured
  profile   counters of attention's kernels, by ncu
  sanitize  compute-sanitizer on attention, GEMM and GPTQ, in the time that is left

Results go to DIR, or $OUT, or gpu-bench: results.tsv and csv of ops grow line by line, table.md is written after each part.
log.txt has what the programs said.  The exit status is 1 when a part failed.  A part that runs out of its time loses only what it was doing.

  --dry BUILD   the emulated programs of BUILD and tiny shapes, to test this script

  LIMIT=570     seconds for all parts
  BUDGET=N      seconds for each part, instead of its own
  ROUNDS=3      of steps
  COMMIT=HASH   for the table, where there is no .git
  PLAN_GPU=h200 for plan's published rates; from the GPU's name where that is one of plan's
  PYTHON=python3   with torch, transformers and h5py for the peers; without these, they are left out
  WHEELS=DIR    what `wheels` downloaded: wheels are installed beside PYTHON's packages, packages of Debian (DIR/*.deb, put there
                by hand with `apt-get download`) are unpacked into the system before the build

`wheels DIR` downloads what llm-compressor needs beside torch, transformers, accelerate, h5py, pandas and pyarrow, which the
machine must have: some 4 MB, for Python 3.12 (PYTHON_VERSION) on x86-64.  torch itself, with the libraries of CUDA that it
needs, is several GB and cannot be carried where 64 MB are the limit.
TEXT
}

root=$(cd "$(dirname "$0")/.." && pwd)
here=$root/perf
parts=(build check ops steps gptq plan profile sanitize)
# seconds that a part may take
declare -A budget=([build]=170 [check]=130 [ops]=110 [steps]=210 [gptq]=150 [plan]=60 [profile]=40 [sanitize]=600)

wheels() { # DIR
    local dir=$1 python=${PYTHON:-python3} wheel
    mkdir -p "$dir"
    fetch() {
        "$python" -m pip download -q --disable-pip-version-check --no-deps --only-binary=:all: --python-version "${PYTHON_VERSION:-3.12}" \
            --implementation cp --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
            -d "$dir" "$@"
    }
    # asks FILE NAME: NAME with the version that a wheel asks for
    asks() { "$python" -c 'import re, sys, zipfile
z = zipfile.ZipFile(sys.argv[1])
text = z.read(next(n for n in z.namelist() if n.endswith(".dist-info/METADATA"))).decode()
print(next(iter(re.findall(rf"^Requires-Dist: ({sys.argv[2]}==[0-9.a-z]+)", text, re.M)), sys.argv[2]))' "$1" "$2"; }
    fetch llmcompressor pydantic datasets
    for wheel in llmcompressor:compressed-tensors pydantic:pydantic-core; do
        fetch "$(asks "$(ls "$dir/${wheel%:*}"-*.whl)" "${wheel#*:}")"
    done
    fetch loguru dill multiprocess annotated-types typing-inspection
    du -ch "$dir"/*.whl
}

# put PART ROW COLUMN VALUE
put() { printf '%s\t%s\t%s\t%s\n' "$@" >>"$out/results.tsv"; }
note() {
    put "$1" note "" "$2"
    echo "$1: $2"
}
log() { "$@" >>"$out/log.txt" 2>&1; }
left() { echo $((deadline - $(date +%s))); }
table() { python3 "$here/gpu_bench_table.py" "$out" >"$out/table.md"; }

# Where Python has what the peers need, and the GPU; else a note to the part that is named.
torch_here() {
    ! log "$python" -c "import torch, transformers, h5py; assert '$device' == 'cpu' or torch.cuda.is_available()" || return 0
    if (($#)); then note "$1" "no peers: $python does not have torch, transformers and h5py that work on the device '$device'"; fi
    return 1
}

# The models, as files that both sides read, and ids.  model NAME
model() {
    [[ ! -e $dir/$1.h5 ]] || return 0
    log python3 "$here/gpu_bench_model.py" "$shapes/$1" "$dir/$1" "$dir/text" $((samples_most * length))
    log "$blockq" tokens --bytes "$dir/text" -o "$dir/$1.h5"
}

# recipe MODEL INPUTS COMPUTE SAMPLES PASS: a file's name.  Where the reference can be computed in the same way, it is.
recipe() {
    local reference=''
    [[ -s $dir/keys ]] || "$blockq" help recipe >"$dir/keys"
    if grep -q "reference_compute.*\"$3\"" "$dir/keys"; then reference="\"reference_compute\": \"$3\","; fi
    cat >"$dir/recipe.json" <<TEXT
{"model": "$1", "calibration": {"tokens": "$dir/$(basename "$1").h5", "samples": $4, "length": $length}, $reference
 "phases": [{"inputs": "$2", "compute": "$3", "passes": [$5]}]}
TEXT
}

# run_block: of the recipe, on the GPU.  The fields of run.csv about the block: NAME=VALUE, a line each.
run_block() {
    rm -rf "$dir/run"
    "$blockq" run "$dir/recipe.json" --no-eval -o "$dir/run" --device cuda --stop-after-blocks 1 >>"$out/log.txt" 2>&1 || (($? == 75)) || return 1
    awk -F, 'NR == 1 { split($0, name); next } $0 ~ /(^|,)block(,|$)/ && !n++ { for (i in name) print name[i] "=" $i }' "$dir/run/run.csv"
}
field() { sed -n "s/^$1=//p"; }

# ---- the parts ----

part_build() {
    local since=$SECONDS arch deb tests=ON targets
    if [[ ! $dry ]]; then
        if compgen -G "$wheels/*.deb" >/dev/null; then for deb in "$wheels"/*.deb; do log dpkg -x "$deb" /; done; log ldconfig; fi
        arch=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -n 1 | tr -d .)
        cd "$root"
        configure() { log cmake --preset cuda -DCMAKE_BUILD_TYPE=Release -DCMAKE_CUDA_ARCHITECTURES="$arch-real" -DBQ_TESTS="$1"; }
        configure ON || { tests=OFF && configure OFF; } || { note build "cmake failed: $(tail -n 3 "$out/log.txt" | xargs)" && return 1; }
        log cmake --build --preset cuda -j "$(nproc)" --target blockq bench_ops gpu_bench_nmse
        if [[ $tests == ON ]]; then
            mapfile -t targets < <(cmake --build --preset cuda --target help | sed -nE 's/.* (gpu_test_[a-z_]+)$/\1/p')
            log cmake --build --preset cuda -j "$(nproc)" --target make_micro compare_losses "${targets[@]}"
        else
            note build "without tests: cmake failed with them (is there cmocka?)"
        fi
    fi
    put build programs seconds $((SECONDS - since))
}

part_check() {
    local ran code=0
    if [[ ! $dry ]]; then warm_peers & fi
    ctest --test-dir "$build" -R "$tests" -j 4 --output-on-failure --test-output-size-passed 20000 -V 2>&1 | tee -a "$out/log.txt" | while read -r line; do
        ran=$(sed -nE 's/^[0-9]+\/[0-9]+ Test +#[0-9]+: ([a-z_0-9]+) \.*[ *]*([A-Za-z][A-Za-z :*]*[a-z:]) +([0-9.]+) sec.*/\1\t\2, \3 s/p' <<<"$line")
        if [[ $ran ]]; then put check "${ran%%$'\t'*}" result "${ran#*$'\t'}"; fi
        if [[ $line =~ [0-9]+\ checks,\ [0-9]+\ failed ]]; then put check "the whole program" checks "${BASH_REMATCH[0]}"; fi
    done || code=$?
    wait # nothing else runs while others are timed
    return $code
}

# How products can be computed here, a line each; a part that finds none fails.
ways() {
    [[ -s $dir/ways ]] || "$nmse" cuda 8 8 8 2>>"$out/log.txt" | cut -d, -f1 >"$dir/ways"
    cat "$dir/ways"
}

part_ops() {
    local name way columns error
    # shellcheck disable=SC2086 # words
    "$nmse" cuda "$length" $nmse_shape 2>>"$out/log.txt" | while IFS=, read -r way columns error; do put nmse "$way" "K = $columns" "$error"; done ||
        note ops "errors of products: failed"
    for name in $op_shapes; do
        "$bench" 1 "$length" --shape "$name" --backend cuda --runs 5 >"$out/ops_$name.csv" 2>>"$out/log.txt" || note ops "bench_ops failed on $name"
    done
}

# The loop, in a process that waits for rounds.  Where it ends by itself, bash closes what the array `loop` has: hence the copies.
start_peer() { # MODEL STEPS
    trap '' PIPE
    coproc loop { exec "$python" "$here/peers/torch_adascale.py" --model "$dir/$1" --tokens "$dir/$1.h5" --samples 2 --length "$length" \
        --iterations "$2" --device "$device" --time "$variants" 2>>"$out/log.txt"; }
    # shellcheck disable=SC2154 # loop_PID is bash's
    loop_pid=$loop_PID
    exec {loop_out}<&"${loop[0]}" {loop_in}>&"${loop[1]}"
    eval "exec ${loop[1]}>&-"
}
peer_round() { # [MODEL]: without it, nothing is written down
    local line
    echo 1>&"$loop_in" || return 1
    for _ in ${variants//,/ }; do
        read -r -t 150 -u "$loop_out" line || return 1
        if (($#)); then put steps "$1" "torch $(sed -E 's/.*"variant": "([^"]*)".*/\1/' <<<"$line")" "$(sed -E 's/.*"step_seconds": ([^,]*),.*/\1/' <<<"$line")"; fi
    done
}
end_peer() {
    exec {loop_in}>&- {loop_out}<&- # no more rounds
    wait "$loop_pid" || true
}
# Compile the loops while nothing is timed; the compiler keeps what it made.
warm_peers() {
    local name
    torch_here || return 0
    for name in $models; do
        model "$name"
        start_peer "$name" 2
        peer_round || kill "$loop_pid" 2>/dev/null || true
        end_peer
    done
}

part_steps() {
    local name way round passes peers='' running
    ways >/dev/null
    adascale_seconds() {
        recipe "$dir/$name" mix "$way" 2 "{\"pass\": \"adascale\", \"iterations\": $1}"
        run_block | field passes_s
    }
    declare -A few
    if torch_here steps; then peers=1; fi
    for name in $models; do
        model "$name"
        read -r way < <(ways)
        adascale_seconds 1 >/dev/null || true # reads files that nobody has read yet
        running=$peers
        if [[ $running ]]; then start_peer "$name" "$peer_steps"; fi
        for ((round = 1; round <= rounds; round++)); do
            for way in $(ways); do
                # what runs of few and many steps share is no step: grids, first touch, graphs
                if ((round == 1)); then few[$way]=$(adascale_seconds $first_steps) || few[$way]=''; fi
                [[ ${few[$way]} ]] && passes=$(adascale_seconds $((first_steps + steps))) || { note steps "blockq failed: $name, $way" && continue; }
                put steps "$name" "blockq $way" "$(awk -v a="$passes" -v b="${few[$way]}" -v n="$steps" 'BEGIN { printf "%.3e", (a - b) / n }')"
            done
            if [[ $running ]] && ! peer_round "$name"; then
                note steps "the torch loop on $name gave no times"
                kill "$loop_pid" 2>/dev/null || true
                end_peer
                running=''
            fi
        done
        if [[ $running ]]; then end_peer; fi
    done
}

part_gptq() {
    local n way line column peer='' name=${models##* }
    ways >/dev/null
    model "$name"
    if torch_here gptq; then
        if log "$python" -c 'import llmcompressor'; then peer=1; else note gptq "no llm-compressor: WHEELS=DIR with what 'gpu_bench.sh wheels DIR' downloaded"; fi
    fi
    for n in $gptq_samples; do
        for way in $(ways); do
            recipe "$dir/$name" qt "$way" "$n" '{"pass": "gptq"}'
            run_block >"$dir/fields" || { note gptq "blockq failed: $n samples, $way" && continue; }
            for column in load target passes advance save wall; do put gptq "$n samples, $way" "$column" "$(field ${column}_s <"$dir/fields")"; done
        done
        [[ $peer ]] || continue
        for way in bfloat16 float32; do
            line=$(timeout 100 "$python" "$here/peers/llmcompressor_peer.py" --model "$dir/$name.one" --tokens "$dir/$name.h5" --samples "$n" --length "$length" \
                --method gptq --dtype "$way" --warm 2 --threads "$(nproc)" 2>>"$out/log.txt") || { note gptq "llm-compressor failed: $n samples, $way" && continue; }
            put gptq "$n samples, llm-compressor $(sed -E 's/.*"version": "([^"]*)".*/\1/' <<<"$line"), $way" wall "$(sed -E 's/.*"seconds": ([0-9.]*), "cpu.*/\1/' <<<"$line")"
        done
    done
}

# predict RATES ROW BY OPTIONS...: the recipe for the whole model; seconds of a block, training divided by BY as well
predict() {
    local blocks
    sed -i 's/"tokens": "[^"]*", //' "$dir/recipe.json"
    blocks=$(sed -nE 's/.*"num_hidden_layers": ([0-9]+).*/\1/p' "$shapes/${2%% *}/config.json")
    "$blockq" plan "$dir/recipe.json" "${@:4}" 2>>"$out/log.txt" | awk -v n="$blocks" -v by="$3" -v row="$2" -v rates="$1" -v OFS='\t' '
        /^work of one rank/ { on = 1; next } on && !/^  / { exit } !on { next }
        { s = $NF; sub(/ +[0-9.]+ +[0-9.]+$/, ""); sub(/^ +/, ""); sub(/ \(.*/, "")
          print "plan", row, rates " " $0, sprintf("%.3e", s / n / ($0 == "training" ? by : 1)) }' >>"$out/results.tsv" || note plan "no plan of $2, $1"
}

part_plan() {
    local name way n rates options
    ways >/dev/null
    for rates in published measured; do
        options=(--gpu "$plan_gpu" --memory 100G)
        if [[ $rates == measured ]]; then options=(--device cuda); fi
        for way in $(ways); do
            if [[ $dry && $rates == measured && $way != f32 ]]; then continue; fi # the emulated GPU is slow to measure
            for name in $models; do
                recipe "$shapes/$name" mix "$way" 2 '{"pass": "adascale", "iterations": 4096}'
                predict $rates "$name adascale $way" 4096 "${options[@]}"
            done
            for n in $gptq_samples; do
                recipe "$shapes/$name" qt "$way" "$n" '{"pass": "gptq"}'
                predict $rates "$name gptq $way $n" 1 "${options[@]}"
            done
        done
    done
}

part_profile() {
    local counters=gpu__time_duration.sum,sm__throughput.avg.pct_of_peak_sustained_elapsed,dram__throughput.avg.pct_of_peak_sustained_elapsed
    counters+=,sm__warps_active.avg.pct_of_peak_sustained_active,sm__inst_executed_pipe_tensor.sum,launch__registers_per_thread
    counters+=,l1tex__data_bank_conflicts_pipe_lsu.sum,smsp__inst_executed.sum
    command -v ncu >/dev/null || { note profile "no ncu here" && return; }
    ncu --csv --page raw --clock-control none -k 'regex:attend|attention' -c 8 --metrics "$counters" \
        "$bench" 1 "$length" attention --shape "${op_shapes%% *}" --backend cuda --runs 1 >"$dir/ncu.csv" 2>>"$out/log.txt" || note profile "ncu failed: $(tail -n 1 "$dir/ncu.csv")"
    python3 "$here/gpu_bench_table.py" --counters "$dir/ncu.csv" >>"$out/results.tsv"
}

part_sanitize() {
    local tool program waves=3 limit
    command -v compute-sanitizer >/dev/null || { note sanitize "no compute-sanitizer here" && return; }
    checked() { # TOOL PROGRAM SECONDS
        local code=0 said
        timeout "$3" compute-sanitizer --tool "$1" "$build/tests/${prefix}_$2" >"$dir/$1.$2" 2>&1 </dev/null || code=$?
        said=$(sed -nE 's/^=+ ((ERROR|RACECHECK) SUMMARY: .*)/\1/p' "$dir/$1.$2" | tail -n 1)
        if ((code == 124)); then said="not finished in $3 s, $(grep -cE '^=+ (Error|Invalid|Barrier|.*hazard)' "$dir/$1.$2" || true) findings until then"; fi
        put sanitize "$2" "$1" "${said:-code $code}"
        tail -n 30 "$dir/$1.$2" >>"$out/log.txt"
    }
    for tool in memcheck synccheck racecheck; do
        limit=$((($(left) - 10) / waves--))
        if ((limit < 2)); then note sanitize "no time for $tool" && return; fi
        for program in test_attention test_gemm test_gptq_ops; do checked $tool $program $limit & done
        wait
    done
}

# ---- the program ----

dry='' out=${OUT:-gpu-bench} chosen=()
while (($#)); do
    case $1 in
    -h | --help) usage && exit ;;
    wheels) (($# == 2)) || { usage >&2 && exit 2; } && wheels "$2" && exit ;;
    --dry | --out) (($# > 1)) || { usage >&2 && exit 2; } && if [[ $1 == --dry ]]; then dry=$(realpath "$2"); else out=$2; fi && shift ;;
    *) [[ -v budget[$1] ]] || { echo "gpu_bench.sh: $1 is none of ${parts[*]}" >&2 && exit 2; } && chosen+=("$1") ;;
    esac
    shift
done
python=${PYTHON:-python3} rounds=${ROUNDS:-3} wheels=$(realpath "${WHEELS:-/nonexistent}")
mkdir -p "$out"
out=$(realpath "$out")
if [[ $dry ]]; then
    build=$dry blockq=$dry/tests/simt/blockq_simt bench=$dry/tests/simt/bench_ops_simt nmse=$dry/tests/simt/gpu_bench_nmse_simt prefix=simt
    tests='^simt_test_(quadratic|float)_ops$' device=cpu length=32 op_shapes='tiny' nmse_shape='64 64 96' models='tiny' variants=f32,bf16
    first_steps=2 steps=2 peer_steps=3 gptq_samples=4 samples_most=4 plan_gpu=${PLAN_GPU:-h200}
else
    build=$root/build-cuda blockq=$build/src/blockq bench=$build/perf/bench_ops nmse=$build/perf/gpu_bench_nmse prefix=gpu
    tests=^gpu_ device=cuda length=2048 op_shapes='llama8b llama1b' nmse_shape='4096 4096 14336' models='llama32_1b llama3_8b'
    variants=f32,tf32,bf16,f32+compile,tf32+compile,bf16+compile
    first_steps=16 steps=112 peer_steps=20 gptq_samples='64 128' samples_most=128
    gpu=$(nvidia-smi --query-gpu=name --format=csv,noheader | head -n 1) || { echo "gpu_bench.sh: no GPU here (nvidia-smi)" >&2 && exit 3; }
    plan_gpu=${PLAN_GPU:-$(grep -oiE 'v100|a100|h100|h200|b200' <<<"$gpu" | head -n 1 | tr '[:upper:]' '[:lower:]' || true)}
    plan_gpu=${plan_gpu:-h200}
fi
if [[ ${BENCH_PART:-} ]]; then # one part, in a process of its own, so that its time can end
    dir=$BENCH_DIR deadline=$BENCH_DEADLINE shapes=$BENCH_DIR/shapes
    "part_$BENCH_PART"
    exit
fi

deadline=$(($(date +%s) + ${LIMIT:-570}))
dir=$(mktemp -d "${TMPDIR:-/tmp}/gpu-bench-XXXXXX")
trap 'rm -rf "$dir"' EXIT
rm -f "$out"/{results.tsv,log.txt,ops_*.csv}
touch "$out"/{results.tsv,log.txt}
mkdir "$dir/shapes"
cp -r "$root"/configs/shapes/llama3* "$dir/shapes"
if [[ $dry ]]; then
    mkdir "$dir/shapes/tiny"
    cat >"$dir/shapes/tiny/config.json" <<'TEXT'
{"architectures": ["LlamaForCausalLM"], "blockq_procedural": 1, "hidden_act": "silu", "hidden_size": 64, "intermediate_size": 96, "head_dim": 32,
 "max_position_embeddings": 128, "model_type": "llama", "num_attention_heads": 2, "num_key_value_heads": 1,
 "num_hidden_layers": 2, "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "tie_word_embeddings": true, "vocab_size": 256}
TEXT
fi
put about commit "" "${COMMIT:-$(git -C "$root" describe --always --dirty 2>/dev/null || echo unknown)}"
put about device "" "$([[ $dry ]] && echo emulated || nvidia-smi --query-gpu=name,compute_cap,memory.total,driver_version --format=csv,noheader | head -n 1)"
put about cores "" "$(nproc)"
if compgen -G "$wheels/*.whl" >/dev/null; then
    log "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$dir/site" "$wheels"/*.whl || note about "the wheels were not installed"
    export PYTHONPATH=$dir/site${PYTHONPATH:+:$PYTHONPATH}
fi
export BENCH_DIR=$dir BENCH_DEADLINE=$deadline TORCHINDUCTOR_CACHE_DIR=$dir/inductor HF_HUB_OFFLINE=1 OUT=$out
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
failed=0
for part in "${parts[@]}"; do
    [[ ${#chosen[@]} == 0 || " ${chosen[*]} " == *" $part "* ]] || continue
    limit=${BUDGET:-${budget[$part]}} since=$SECONDS code=0
    ((limit <= $(left))) || limit=$(left)
    if ((limit > 0)); then
        BENCH_PART=$part timeout -k 5 "$limit" bash "$0" ${dry:+--dry "$dry"} --out "$out" || code=$?
    else
        note "$part" "no time left"
    fi
    case $code in
    0) ;;
    124 | 137) note "$part" "ended after its $limit s" ;;
    *) note "$part" "failed with code $code: log.txt" && failed=1 ;;
    esac
    put time "$part" seconds $((SECONDS - since))
    table
done
cat "$out/table.md"
exit $failed
