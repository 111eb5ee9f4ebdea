# SPDX-License-Identifier: Apache-2.0
# lib.sh - what the end-to-end tests share.  A test is `bash test_x.sh BLOCKQ MAKE_MICRO [MPIEXEC]`; it sources this first
# and ends with `finish`.
# shellcheck shell=bash disable=SC2034 # variables are for those who source this
set -euo pipefail
: "${2:?usage: bash $0 BLOCKQ MAKE_MICRO [MPIEXEC]}"
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
configs=$(cd "$here/../../configs" && pwd)
blockq=$(realpath "$1") make_micro=$(realpath "$2") mpiexec=${3:-mpirun}
temp=$(mktemp -d "${TMPDIR:-/tmp}/blockq-e2e-XXXXXX")
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_hwloc_base_binding_policy=none OMP_WAIT_POLICY=passive OMP_NUM_THREADS=2
unset BQ_FAULT SLURM_STEP_NUM_TASKS OPENBLAS_CORETYPE
# Leaks are looked for by unit tests, and here by a script that sets leaks=1 first: the call stacks of all allocations are four fifths
# of a start under sanitizers.
if [[ ! ${leaks-}${BQ_FULL-} ]]; then export ASAN_OPTIONS=detect_leaks=0; fi

hang=${BQ_HANG:-900} # seconds; what takes as long hangs: ends the command, and measures nothing
checks=0 failures=0
trap 'mountpoint -q small && umount small; rm -rf "$temp"' EXIT
cd "$temp"

good() { checks=$((checks + 1)); }
bad() {
    failures=$((failures + 1))
    echo "FAILED: $*"
}
finish() {
    echo "$((checks)) checks passed, $failures failed"
    exit $((failures > 0))
}

# more QUICK FULL: how many of something, in the quick suite and in the full one.
more() { if [[ ${BQ_FULL-} ]]; then echo "$2"; else echo "$1"; fi; }

# check TEXT COMMAND...: the command succeeds.
check() {
    local text=$1
    shift
    if "$@"; then good; else bad "$text"; fi
}

# expect CODE COMMAND...: it exits with that code; its output is in ./out, its messages in ./err.
expect() {
    local want=$1 code=0
    shift
    "$@" >out 2>err </dev/null || code=$?
    if ((code == want)); then good && return 0; fi
    bad "exit code $code, not $want: $*"
    tail -n 8 err
    return 0
}

# damage FILE AT: the byte there becomes another one.
damage() {
    local byte
    byte=$(od -An -tu1 -j "$2" -N 1 "$1")
    printf '%b' "\\0$(printf %o $((255 - byte)))" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

# The last messages were one error line, with this in it.
one_error() {
    local count
    count=$(grep -c '^bq:.*error: ' err) || true
    if [[ $count != 1 ]]; then bad "$count error lines, not one ('$1')" && cat err && return 0; fi
    if grep -q "^bq:.*error: .*$1" err; then good; else bad "no '$1' in: $(grep error err)"; fi
}

# What a run makes that must be equal, byte by byte, for equal recipes: all but times, paths, and logs.
results() {
    (cd "$1" && find . -type f ! -name 'run.*' ! -name state.json ! -name lock ! -name model.hash.json ! -name recipe.json \
        ! -name '*.valid' | LC_ALL=C sort)
}

# same A B: two run directories hold the same result files with the same bytes.
same() {
    local file
    if ! diff <(results "$1") <(results "$2") >diff.txt; then
        bad "$1 and $2 hold different files: $(tr '\n' ' ' <diff.txt)"
        return 0
    fi
    while read -r file; do
        cmp "$1/$file" "$2/$file" || { bad "$1 and $2 differ in $file" && return 0; }
    done < <(results "$1")
    good
}

# differ A B: the codes of the first block are not the same.
differ() {
    if cmp -s "$1/ckpt/block_000.p0.s0.h5" "$2/ckpt/block_000.p0.s0.h5"; then bad "$1 and $2 are equal"; else good; fi
}

# Two-block models and tokens below their vocabulary of 97, as m_<vector>, cal.h5 and eval.h5.
micro() {
    local vector
    for vector; do "$make_micro" "model_$vector" "m_$vector"; done
    # 2400 characters from '!' to '`', without a period that a sample could see twice
    LC_ALL=C awk 'BEGIN { x = 7; for (i = 0; i < 2400; i++) { x = (x * 1103 + 12345) % 65521; printf "%c", 33 + x % 64 } }' >text
    "$blockq" tokens --bytes text -o cal.h5 2>/dev/null
    head -c 700 text >text2
    "$blockq" tokens --bytes text2 -o eval.h5 2>/dev/null
}

# A model with latent attention and no experts, of three blocks: latent DIR Q_LORA_RANK ATTENTION_BIAS
latent() {
    mkdir -p "$1"
    cat >"$1/config.json" <<TEXT
{"architectures": ["DeepseekV3ForCausalLM"], "attention_bias": $3, "blockq_procedural": 3, "first_k_dense_replace": 3, "hidden_act": "silu",
 "hidden_size": 48, "intermediate_size": 144, "kv_lora_rank": 16, "max_position_embeddings": 20480, "model_type": "deepseek_v3",
 "moe_intermediate_size": 20, "n_routed_experts": 8, "num_attention_heads": 3, "num_experts_per_tok": 2, "num_hidden_layers": 3,
 "q_lora_rank": $2, "qk_nope_head_dim": 10, "qk_rope_head_dim": 6, "rms_norm_eps": 1e-05, "rope_scaling": {"beta_fast": 32, "beta_slow": 1,
 "factor": 40, "mscale": 1.0, "mscale_all_dim": 1.0, "original_max_position_embeddings": 512, "type": "yarn"}, "rope_theta": 10000.0,
 "v_head_dim": 12, "vocab_size": 97}
TEXT
}

# A recipe for them: recipe FILE MODEL ITERATIONS [MORE KEYS, each with a comma in front]
recipe() {
    cat >"$1" <<TEXT
{
  "model": "$2",
  "calibration": {"tokens": "cal.h5", "samples": 6, "length": 24},
  "phases": [{"inputs": "mix", "passes": [{"pass": "adascale", "iterations": $3}]}],
  "outputs": [{"format": "safetensors"}, {"format": "compressed-tensors"}],
  "eval": {"tokens": "eval.h5", "ctx": 32, "windows": 5}${4-}
}
TEXT
}

# blockq on that many ranks: mpi RANKS COMMAND...
mpi() {
    local ranks=$1
    shift
    timeout $hang "$mpiexec" -n "$ranks" "$blockq" "$@"
}

# The perplexity that the run printed last is that of the model it wrote: worth RUN [CTX WINDOWS], as `recipe` has them.
worth() {
    local said
    said=$(sed -n 's/.*, "[a-z0-9_+]*": \([0-9.]*\)}.*/\1/p' "$1/result.json")
    expect 0 "$blockq" eval --model "$1/safetensors" --tokens eval.h5 --ctx "${2-32}" --windows "${3-5}"
    check "$1: the export has another perplexity than $said: $(cat out)" \
        awk -v a="$said" -v b="$(sed -n 's/.*model=\([0-9.]*\).*/\1/p' out)" 'BEGIN { exit !(a > 1 && (a - b)^2 < 1e-10 * a * a) }'
}

# The numbers of the result line in ./out.
result() { sed -n 's/^result: \(.*\) out=.*/\1/p' out; }
