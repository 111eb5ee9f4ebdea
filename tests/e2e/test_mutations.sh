#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Random edits of models, configs, recipes, tokens and run directories: blockq takes a file or refuses it with one line and
# a documented exit code; it never crashes nor hangs, and what a run directory held before decides no byte of the result.
# FIRST=N starts at seed N, ROUNDS=N does so many; a failure names its seed.
. "$(dirname "$0")/lib.sh"
# Not the activation files: bytes of their structure that nobody reads stay as they are.
results() { (cd "$1" && find ckpt safetensors -type f ! -name state.json ! -name lock ! -name model.hash.json | LC_ALL=C sort); }
mutate=$(dirname "$make_micro")/mutate
first=${FIRST:-1} rounds=${ROUNDS:-$(more "$((60 + 90 * ${BQ_SANITIZE:-0}))" 10000)}
export OMP_NUM_THREADS=1
micro llama_default phi3_short
recipe r.json m_llama_default 2
cat >w.json <<TEXT
{"model": "m", "calibration": {"tokens": "c.h5", "samples": 4, "length": 12}, "segments": 2, "sweeps": 2,
 "phases": [{"inputs": "qt", "passes": [{"pass": "rtn"}, {"pass": "adascale", "iterations": 2}]}], "outputs": [{"format": "safetensors"}]}
TEXT
cp -r m_llama_default m
cp cal.h5 c.h5
expect 0 "$blockq" run w.json -o clean
expect 75 "$blockq" run w.json -o half --stop-after-blocks 2
mapfile -t kept < <(find half -type f ! -name '*.log' | LC_ALL=C sort)
check "a run stopped midway holds files of every kind: ${kept[*]}" [ "$(printf '%s\n' "${kept[@]}" | grep -cE 'fp_000|\.valid|block_|state|hash|recipe|csv|lock')" -ge 8 ]

# judge SEED WHAT COMMAND...: how it ended is documented, and said in one line
judge() {
    local seed=$1 what=$2 code=0 lines
    shift 2
    timeout -s KILL $hang "$@" >out 2>err </dev/null || code=$?
    lines=$(grep -c '^bq:.*error: ' err) || true
    counts[$code]=$((${counts[$code]-0} + 1))
    case $code in
    0 | 75) lines=1 ;;
    2 | 3) ;;
    *) lines=bad ;;
    esac
    if [[ $lines == 1 ]] && ! grep -qE 'runtime error|Sanitizer|Segmentation|Assertion' err; then good && return 0; fi
    bad "seed $seed, $what: code $code, $(grep -c 'error: ' err) error lines: $*"
    tail -n 5 err
}
declare -A counts=()
for ((seed = first; seed < first + rounds; seed++)); do
    rm -rf m c.h5 w
    cp -r m_llama_default m
    cp cal.h5 c.h5
    case $((seed % 5)) in
    0) what=model.safetensors && "$mutate" $seed m/model.safetensors ;;
    1) what=config.json && { ((seed % 2)) || cp m_phi3_short/config.json m/; } && "$mutate" $seed m/config.json ;;
    2) what=recipe && cp r.json w.json.$seed && "$mutate" $seed w.json.$seed ;;
    3) what=tokens && "$mutate" $seed c.h5 ;;
    4) what=${kept[seed / 5 % ${#kept[@]}]} && cp -r half w && "$mutate" $seed "w${what#half}" ;;
    esac
    case $what in
    model.safetensors | config.json)
        judge $seed $what "$blockq" inspect m
        ((seed / 5 % 6)) || judge $seed $what "$blockq" run w.json -o w
        ;;
    recipe)
        judge $seed $what "$blockq" plan w.json.$seed
        rm w.json.$seed
        ;;
    tokens)
        judge $seed $what "$blockq" inspect c.h5
        ((seed / 5 % 6)) || judge $seed $what "$blockq" run w.json -o w
        ;;
    *)
        judge $seed "$what" "$blockq" run w.json -o w
        if [[ -e w/result.json || -e w/safetensors/config.json ]]; then same clean w; fi
        ;;
    esac
done
for code in "${!counts[@]}"; do echo "code $code: ${counts[$code]} times"; done
finish
