#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# run.sh PAIR...: blockq and a peer in turn, with the same model, ids, settings and threads; then a table of medians.
# PAIR: eval rtn gptq gptq-static gptq-mse gptq-group gptqmodel autosmoothquant awq awq-symmetric awq-quark smoothquant adascale
# adascale-torch, or all.
# From the environment: MODEL TOKENS EVAL (paths; needed); SAMPLES 32, LENGTH 512, CTX 512, WINDOWS 40, GROUP 64 (of pairs
# with groups), ITERATIONS 8 (AdaScale's, a block), THREADS 1, REPEATS 3, COMPUTE f32 (blockq's), DTYPE float32 (the peers'
# models), BLOCKQ build/src/blockq, PEERS build/peers (setup.sh made it), OUT perf-peers.jsonl (lines are appended;
# `table.py FILE` prints the table again).
# Perplexities are measured in the first round only: neither side is random.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
: "${MODEL:?}" "${TOKENS:?}" "${EVAL:?}"
: "${SAMPLES:=32}" "${LENGTH:=512}" "${CTX:=512}" "${WINDOWS:=40}" "${GROUP:=64}" "${ITERATIONS:=8}" "${THREADS:=1}"
: "${REPEATS:=3}" "${COMPUTE:=f32}" "${DTYPE:=float32}" "${BLOCKQ:=build/src/blockq}" "${PEERS:=build/peers}" "${OUT:=perf-peers.jsonl}"
export OMP_NUM_THREADS=$THREADS
all=(eval rtn gptq gptq-static gptq-mse gptq-group gptqmodel autosmoothquant awq awq-symmetric awq-quark smoothquant adascale adascale-torch)
[[ $# -gt 0 ]] || { sed -n '3,10s/^# //p' "$0" >&2 && exit 2; }
[[ $1 != all ]] || set -- "${all[@]}"
given=(--model "$MODEL" --samples "$SAMPLES" --length "$LENGTH" --ctx "$CTX" --windows "$WINDOWS" --threads "$THREADS")

# keep SIDE COMMAND...: runs it and keeps its line, marked with the pair and the side
keep() {
    local side=$1 line
    shift
    if line=$("$@" 2>"$OUT.log"); then
        printf '{"pair": "%s", "side": "%s", "line": %s}\n' "$pair" "$side" "$line" >>"$OUT"
    else
        echo "run.sh: $pair: $side failed:" >&2 && tail -n 5 "$OUT.log" >&2
    fi
}
# ours PASSES INPUTS ARG...
ours() {
    local passes=$1 inputs=$2
    shift 2
    keep blockq python3 "$here/blockq_run.py" --blockq "$BLOCKQ" "${given[@]}" --tokens "$TOKENS" ${passes:+--passes "$passes"} \
        --inputs "$inputs" --compute "$COMPUTE" "${evaluate[@]}" "$@"
}
# theirs ENVIRONMENT SCRIPT ARG...; the libraries' path is for torch alone
theirs() {
    local python=$PEERS/$1/bin/python script=$here/$2.py
    shift 2
    keep peer bash -c '. "$0" && exec "$@"' "$PEERS/env.sh" "$python" "$script" "${given[@]}" --dtype "$DTYPE" --tokens "$TOKENS" "${evaluate[@]}" "$@"
}

once() { # one round of a pair: the same settings on both sides
    local llm=llmcompressor_peer group=(--group "$GROUP") grid=(--grid absmax)
    local awq='[{"pass": "awq", "duo": true, "clip": false, "grouped_queries": "skip"}, {"pass": "rtn"}]'
    case $pair in
    eval) ours "" qt && theirs torch torch_eval ;;
    rtn) ours '[{"pass": "rtn"}]' fp "${grid[@]}" && theirs llmcompressor $llm --method rtn ;;
    gptq)
        ours '[{"pass": "gptq", "order": "none", "clip": "minmax"}]' qt "${grid[@]}"
        theirs llmcompressor $llm --method gptq --actorder none
        ;;
    gptq-static)
        ours '[{"pass": "gptq", "order": "act", "clip": "minmax"}]' qt "${grid[@]}"
        theirs llmcompressor $llm --method gptq --actorder static
        ;;
    gptq-mse)
        ours '[{"pass": "gptq", "order": "act", "clip": "mse", "shrink": 0.2}]' qt "${grid[@]}"
        theirs llmcompressor $llm --method gptq --actorder static --observer memoryless_mse
        ;;
    gptq-group)
        ours '[{"pass": "gptq", "order": "act", "clip": "minmax"}]' qt "${group[@]}" "${grid[@]}"
        theirs llmcompressor $llm --method gptq --actorder static "${group[@]}"
        ;;
    gptqmodel)
        ours '[{"pass": "gptq", "order": "none", "clip": "minmax", "sequential": true, "damp": 0.05}]' qt "${grid[@]}"
        theirs gptqmodel gptqmodel_peer
        ;;
    autosmoothquant)
        ours '[{"pass": "autosmoothquant", "loss": "mse", "grouped_queries": "late"}, {"pass": "rtn"}]' fp "${grid[@]}"
        theirs quark quark_peer --method autosmoothquant --loss MSE
        ;;
    awq)
        ours "$awq" qt "${group[@]}" --asymmetric
        theirs llmcompressor $llm --method awq "${group[@]}" --asymmetric
        ;;
    awq-symmetric)
        ours "$awq" qt "${group[@]}" "${grid[@]}"
        theirs llmcompressor $llm --method awq "${group[@]}"
        ;;
    awq-quark)
        ours '[{"pass": "awq", "grouped_queries": "late"}, {"pass": "rtn"}]' fp "${group[@]}" "${grid[@]}"
        theirs quark quark_peer --method awq "${group[@]}"
        ;;
    smoothquant)
        ours '[{"pass": "smoothquant", "statistic": "range", "weight_factor": 2, "weight_floor": 0}, {"pass": "rtn"}]' fp "${grid[@]}"
        theirs llmcompressor $llm --method smoothquant
        ;;
    adascale)
        ours '[{"pass": "adascale", "iterations": '"$ITERATIONS"'}]' mix
        theirs aimet aimet_peer --iterations "$ITERATIONS"
        ;;
    adascale-torch)
        ours '[{"pass": "adascale", "iterations": '"$ITERATIONS"'}]' mix
        theirs torch torch_adascale --iterations "$ITERATIONS" ${TORCH_COMPILE:+--compile "$TORCH_COMPILE"}
        ;;
    *) echo "run.sh: $pair is none of ${all[*]}" >&2 && exit 2 ;;
    esac
}

for pair; do
    evaluate=(--eval "$EVAL")
    for ((round = 1; round <= REPEATS; round++)); do
        once
        [[ $pair == eval ]] || evaluate=()
    done
done
python3 "$here/table.py" "$OUT"
