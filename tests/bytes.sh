#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# bytes.sh FILE [BUILD]: hashes of all checkpoints and outputs that the recipes in configs/ make of small models.  FILE is written
# where it is not there; else its hashes are compared with those of this build, and runs that differ are named.  For changes that
# are to change no byte: record before, compare after, on the same machine (another instruction set or BLAS has other bytes).
#
# Each run is made on 1 and on 3 ranks of the cpu, which must be equal, and on the emulated cuda backend.
set -euo pipefail
: "${1:?usage: bash $0 FILE [BUILD]}"
root=$(cd "$(dirname "$0")/.." && pwd)
file=$(realpath -m "$1") build=$(realpath "${2:-$root/build}")
# shellcheck source=e2e/lib.sh
. "$root/tests/e2e/lib.sh" "$build/src/blockq" "$build/tests/make_micro"
simt=$build/tests/simt/blockq_simt
micro llama_default llama_bias llama_llama3 phi3_short phi3_partial
export OMP_NUM_THREADS=1

cp -r "$configs" configs
sed -Ei 's/"iterations": *[0-9]+/"iterations": 4/; s/"group": *[0-9]+/"group": 8/; s/"budget": *[0-9.]+/"budget": 7/; s/"(batch|segments)": *[0-9]+/"\1": 2/; s/"steps": *[0-9]+/"steps": 4/' configs/*.json
hashes() { (cd "$1" && results . | xargs sha256sum | sed "s|^\([0-9a-f]*\)  |$2 \1 |"); }

# record NAME RECIPE OPTION...: one recipe, on every backend
record() {
    local name=$1 recipe=$2 options
    shift 2
    options=(--set calibration.tokens=cal.h5 --set calibration.samples=4 --set calibration.length=24 --set eval.tokens=eval.h5
        --set eval.ctx=32 --set eval.windows=3 "$@")
    rm -rf one three cuda
    expect 0 "$blockq" run "$recipe" "${options[@]}" -o one
    expect 0 mpi 3 run "$recipe" "${options[@]}" -o three
    same one three
    expect 0 "$simt" run "$recipe" --device cuda "${options[@]}" -o cuda
    hashes one "$name:cpu" >>now
    hashes cuda "$name:cuda" >>now
}

for config in configs/*.json; do
    name=$(basename "$config" .json)
    case $name in
    *rotate*) models="llama_llama3" ;;
    *adascale*) models="llama_bias phi3_short" ;;
    *) models="llama_bias" ;; # widths that 8 divides
    esac
    for model in $models; do record "$name:$model" "$config" --set "model=m_$model"; done
done
recipe mixed.json m_llama_default 4 ', "segments": 2, "sweeps": 2'
record sweeps mixed.json
for model in llama_default llama_llama3 phi3_partial; do
    recipe plain.json "m_$model" 4
    record "adascale:$model" plain.json
done
gptq='{"pass":"gptq","order":"gar","clip":"mse","sequential":true,"qep":0.5,"damp":0.02}'
recipe gptq.json m_llama_bias 4
record gptq gptq.json --set 'phases=[{"inputs":"mix","passes":['"$gptq"',{"pass":"adascale","iterations":4}]}]' \
    --set bits.decoder.group=8
record zeros gptq.json --set 'phases=[{"inputs":"qt","passes":['"$gptq"']}]' --set bits.decoder.group=8 \
    --set bits.decoder.symmetric=false
record bf16 gptq.json --set bits.decoder.scale=bf16 --set bits.linears.v_proj.bits=8 --set phases.0.compute=bf16
((failures == 0)) || finish

class=$(sed -nE '1s/.*blocks, (cpu [^,]*),.*/\1/p' one/run.log)
sed -i "1i class ${class:-unknown}" now
if [[ ! -e $file ]]; then
    cp now "$file"
    echo "$(grep -c . now) lines recorded"
elif diff <(sort "$file") <(sort now) >changes; then
    echo "equal: $(($(grep -c . now) - 1)) files"
else
    sed -nE 's/^[<>] ([^ ]*) .*/\1/p' changes | sort | uniq -c
    echo "$(grep -c '^>' changes) files differ"
    exit 1
fi
