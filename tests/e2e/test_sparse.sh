#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# 2:4 sparsity: two of four neighbours are 0 in what is exported, whatever passes, schemes and grids there are; the same bytes on any
# number of ranks, and after stops and kills.
. "$(dirname "$0")/lib.sh"
export OMP_NUM_THREADS=1
micro llama_bias mixtral
recipe r.json m_llama_bias 4 # widths 40, 48 and 112

# fours FILE: "FOURS LESS ZEROS": groups of four in the F32 matrices of the blocks, those with fewer than two zeros, zeros in all
fours() {
    python3 - "$1" <<'P'
import json, struct, sys
data = open(sys.argv[1], "rb").read()
size = struct.unpack("<Q", data[:8])[0]
fours = less = zeros = 0
for name, t in json.loads(data[8:8 + size]).items():
    if not name.endswith("_proj.weight") and ".experts." not in name:
        continue
    assert t["dtype"] == "F32", name
    begin, end = (8 + size + at for at in t["data_offsets"])
    values = [v == 0 for v in struct.unpack(f"<{(end - begin) // 4}f", data[begin:end])]
    for i in range(0, len(values), 4):
        four = sum(values[i:i + 4])
        fours, less, zeros = fours + 1, less + (four < 2), zeros + four
print(fours, less, zeros)
P
}
# sparse NAME PASSES [SET...]: a run of m_llama_bias ends, and its export is sparse
sparse() {
    local name=$1 sets=("--set=phases=[{\"inputs\":\"qt\",\"passes\":[$2]}]") fours
    shift 2
    expect 0 "$blockq" run r.json "${sets[@]}" "${@/#/--set=}" -o "$name"
    fours=$(fours "$name/safetensors/model.safetensors")
    check "$name: $fours" awk '{ exit !($1 > 9000 && $2 == 0 && $3 < 3 * $1) }' <<<"$fours"
}
gptq='{"pass":"gptq","order":"none","sparse":"2:4"}'
wanda='{"pass":"sparse24"}' magnitude='{"pass":"sparse24","method":"magnitude"}' kept='{"pass":"gptq","sparse":"kept"}'

# ---- passes and schemes ----
sparse sparsegpt "$gptq"
sparse sequential '{"pass":"gptq","order":"none","sparse":"2:4","sequential":true,"qep":0.5}'
sparse groups "$gptq" bits.decoder.group=8 bits.decoder.bits=3
sparse zeros "$gptq" bits.decoder.symmetric=false
sparse floats "$gptq" bits.decoder.bits=e2m1 bits.decoder.group=8 'outputs=[{"format":"safetensors"}]'
sparse wanda "$wanda, $kept"
sparse squared '{"pass":"sparse24","norm":"squared"}, {"pass":"rtn"}'
sparse magnitude "$magnitude, {\"pass\":\"rtn\",\"clip\":\"mse\"}" bits.decoder.symmetric=false
sparse hqq "$wanda, {\"pass\":\"hqq\"}" bits.decoder.symmetric=false bits.decoder.group=8
sparse smooth "$wanda, {\"pass\":\"smoothquant\"}, {\"pass\":\"awq\"}, {\"pass\":\"rtn\"}" bits.decoder.group=8
sparse adascale "$gptq, {\"pass\":\"adascale\",\"iterations\":4}"
expect 0 "$blockq" run r.json --set 'phases=[{"passes":[{"pass":"rtn"}]}]' -o dense
check "a run without it is not sparse" awk '{ exit !($2 > $1 / 10) }' <<<"$(fours dense/safetensors/model.safetensors)"
check "other weights stay" eval '! cmp -s magnitude/safetensors/model.safetensors squared/safetensors/model.safetensors'
check "and with the squares other ones" eval '! cmp -s wanda/safetensors/model.safetensors squared/safetensors/model.safetensors'
check "its name: $(cat sparsegpt/result.json)" grep -q '"gptq_sparse24": [0-9]' sparsegpt/result.json

# ---- the same on any number of ranks, after a stop and a kill ----
for passes in "$gptq" "$wanda, $kept"; do
    set=("--set=phases=[{\"inputs\":\"qt\",\"passes\":[$passes]}]")
    rm -rf one many
    expect 0 "$blockq" run r.json "${set[@]}" -o one
    for ranks in 2 3 4; do
        rm -rf many
        expect 0 mpi $ranks run r.json "${set[@]}" --stages 1 -o many
        same one many
    done
    rm -rf many
    expect 75 mpi 2 run r.json "${set[@]}" --stop-after-blocks 1 -o many
    expect 0 mpi 3 run r.json "${set[@]}" --stages 1 -o many
    same one many
    rm -rf many
    BQ_FAULT=ckpt_kill:2 "$blockq" run r.json "${set[@]}" -o many >out 2>err </dev/null || true
    expect 0 "$blockq" run r.json "${set[@]}" -o many
    same one many
done

# ---- experts, also one without samples ----
recipe x.json m_mixtral 4
starved=rtn # those with few tokens, which are all here, get none
for passes in "$gptq" "$magnitude, $kept" "$wanda, {\"pass\":\"adascale\",\"iterations\":2}" "$wanda, $kept"; do
    rm -rf x1 x2
    set=("--set=phases=[{\"inputs\":\"qt\",\"passes\":[$passes]}]" --set=calibration.samples=2 --set=calibration.length=8 "--set=experts.starved=$starved")
    if [[ $passes == *adascale* ]]; then set+=(--set=phases.0.passes.1.batch=2); fi
    expect 0 "$blockq" run x.json "${set[@]}" -o x1
    expect 0 mpi 2 run x.json "${set[@]}" -o x2
    same x1 x2
    check "experts are sparse: $(fours x1/safetensors/model.safetensors)" awk '{ exit $2 != 0 }' <<<"$(fours x1/safetensors/model.safetensors)"
    starved=$([[ $starved = rtn && $passes = *adascale* ]] && echo blend || echo rtn)
done

# ---- refusals ----
refused() { # TEXT PASSES [SET]
    expect 2 "$blockq" run r.json --set "phases=[{\"inputs\":\"qt\",\"passes\":[$2]}]" "${@:3}" -o no
    one_error "$1"
}
refused 'phases.0.passes.1: gptq would give the zeros before it other values (gptq keeps them' "$wanda, {\"pass\":\"gptq\"}"
refused 'passes.1: gptq would give the zeros' "$gptq, {\"pass\":\"gptq\"}"
refused 'phases.0.passes.0.order: must be none where sparse is 2:4' '{"pass":"gptq","sparse":"2:4"}'
refused 'passes.1.qep: gives zeros other values' "$wanda, {\"pass\":\"gptq\",\"sparse\":\"kept\",\"qep\":0.5}"
refused 'phases.0.passes.1: qat would give the zeros before it other values' "$wanda, {\"pass\":\"qat\"}"
refused 'phases.0.passes.1: autoround would give the zeros' "$wanda, {\"pass\":\"autoround\"}"
refused 'sparse24 makes weights 0, and the grids of bits with float zero points' "$wanda, {\"pass\":\"rtn\"}" \
    --set 'bits.decoder={"group": 8, "symmetric": false, "zero": "float"}'
refused 'sparse24 makes no codes: end the phase' "$wanda"
refused 'sparse24 prepares weights, and a pass before it' "{\"pass\":\"rtn\"}, $wanda, {\"pass\":\"rtn\"}"
finish
