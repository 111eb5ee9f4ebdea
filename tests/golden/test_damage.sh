#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# test_damage.sh PROGRAM: what golden.sh says about files that are damaged, lie, or are of a kind that blockq does not know: one line each, and no
# crash.
set -euo pipefail
tests=$(cd "$(dirname "$0")/.." && pwd)
program=$1
temp=$(mktemp -d "${TMPDIR:-/tmp}/blockq-damage-XXXXXX")
trap 'rm -rf "$temp"' EXIT
mkdir "$temp/files"
declare -A wanted

# altered FROM NAME SED WORDS: a copy with a change that keeps its length, and words of the line about it
altered() {
    local from=$tests/vectors/$1.safetensors to=$temp/files/$2.safetensors
    LC_ALL=C sed "$3" "$from" >"$to"
    if [[ $(stat -c %s "$from") != "$(stat -c %s "$to")" ]] || cmp -s "$from" "$to"; then echo "$2: the change failed" && exit 1; fi
    wanted[$2]=$4
}

altered aimet_tiny_qt0 aimet_iterations 's/"iterations":"24"/"iterations":"25"/' "FAIL: bq: error: .*tensor 'loss' has 48 values"
altered aimet_tiny_qt0 aimet_mix 's/"qt_probability":"0.0"/"qt_probability":"0.5"/' 'FAIL: bq: error: .*must be 0 or 1'
altered model_llama_bias model_missing 's/"dY"/"dZ"/' "FAIL: bq: error: .*tensor 'dY' is missing"
altered model_llama_bias model_type 's/"tokens":{"dtype":"I32"/"tokens":{"dtype":"F32"/' 'FAIL: bq: error: .*has type F32: I32 is needed'
altered model_llama_bias model_config 's/hidden_size\\": 48/hidden_size\\": 49/' 'FAIL: bq: error: .*another shape than config.json says'
altered model_llama_bias model_family 's/model_type\\": \\"llama/model_type\\": \\"lambo/' 'not replayed: model_type lambo$'
altered peer_gptq peer_gptq_group "s/group_size': 32/group_size': 31/g" 'FAIL: bq: error: .*groups of 31 in 96 columns'
altered peer_smoothquant peer_smoothquant_words 's/heads 4, kv heads 2/heads 4, kv heads x/' "FAIL: bq: error: .*'model' is not understood"
altered peer_awq peer_awq_token 's/vocabulary 97/vocabulary 96/' 'FAIL: bq: error: .*is not 96 x 64 of a float type'
altered peer_inputs peer_inputs_unread 's/"y8"/"z8"/' 'tensors that nothing is compared with 1 of 3 \[WRONG: .* z8\], FAIL$'
altered peer_inputs peer_unknown 's/"torch"/"Torch"/' 'not replayed: kind peer_unknown$'
# The last four bytes are a token in one file, a value in the other: as a float they are NaN.
for pair in model_phi3_long:model_token peer_inputs:peer_inputs_nan; do
    cp "$tests/vectors/${pair%:*}.safetensors" "$temp/files/${pair#*:}.safetensors"
    printf '\377\377\377\177' | dd of="$temp/files/${pair#*:}.safetensors" bs=1 conv=notrunc status=none \
        seek=$(($(stat -c %s "$temp/files/${pair#*:}.safetensors") - 4))
done
wanted[model_token]="FAIL: bq: error: .*token 2147483647 is not one of the vocabulary's 97"
wanted[peer_inputs_nan]=' rounded inputs inf .*, FAIL$'
head -c 20000 "$tests/vectors/model_phi3_long.safetensors" >"$temp/files/model_cut.safetensors"
wanted[model_cut]='FAIL: bq: error: .*model_cut.safetensors'
: >"$temp/files/model_empty.safetensors"
wanted[model_empty]='FAIL: bq: error: .*model_empty.safetensors'

code=0 failed=0
bash "$tests/golden.sh" "$temp/files" "$program" >"$temp/out" 2>&1 || code=$?
for name in "${!wanted[@]}"; do
    line=$(grep -E "^${name%%_*} +${name#*_} " "$temp/out") || line="no line about $name"
    grep -qE -- "${wanted[$name]}" <<<"$line" || { echo "$name: wanted: ${wanted[$name]}: $line" && failed=1; }
done
last="0 ok, $((${#wanted[@]} - 2)) failed, 2 not replayed"
if [[ $(tail -n 1 "$temp/out") != "$last" || $code != 1 || $(wc -l <"$temp/out") != $((${#wanted[@]} + 1)) ]]; then
    echo "exit status $code, wanted '$last' after a line for each file:" && cat "$temp/out" && failed=1
fi
exit $failed
