#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The trainings autoround, omniquant and qat, one after the other in a phase and alone: the same bytes on any grid, and after kills and
# stops inside a block, whose saved state is of one of several passes.  Floats and zero points; what is refused.
. "$(dirname "$0")/lib.sh"
results() { (cd "$1" && find ckpt compressed-tensors -type f ! -name state.json ! -name lock ! -name model.hash.json | LC_ALL=C sort); }
micro llama_bias
export OMP_NUM_THREADS=1
ar='{"pass":"autoround","iterations":200,"batch":3}' om='{"pass":"omniquant","iterations":200,"batch":2,"loss":"relative","only_if_better":true}' qat='{"pass":"qat","iterations":200,"lr":1e-3'
recipe r.json m_llama_bias 4

# case_of NAME PASSES OPTION...: clean on one rank; the same on 2 and 3; killed and stopped on other grids
case_of() {
    local name=$1 options=(--set "phases=[{\"inputs\":\"qt\",\"passes\":[$2]}]" --set 'outputs=[{"format":"compressed-tensors"}]' "${@:3}") ranks
    expect 0 mpi 1 run r.json "${options[@]}" -o "$name"
    for ranks in 2 3; do
        expect 0 mpi $ranks run r.json "${options[@]}" -o "$name$ranks"
        same "$name" "$name$ranks"
    done
    : >said
    BQ_FAULT=step_kill:150@0 expect 137 mpi 2 run r.json "${options[@]}" --save-every 0.0001 -o "${name}_cut"
    while "$blockq" status "${name}_cut" 2>/dev/null | grep -q '^[^ ]*: running (host'; do sleep 0.2; done
    BQ_FAULT=step_usr1:100@1 expect 75 mpi 3 run r.json "${options[@]}" -o "${name}_cut"
    cat err >>said
    while "$blockq" status "${name}_cut" 2>/dev/null | grep -q '^[^ ]*: running (host'; do sleep 0.2; done
    expect 0 mpi 1 run r.json "${options[@]}" -o "${name}_cut"
    cat err >>said
    check "$name: it went on inside a block" grep -q 'going on inside it' said
    same "$name" "${name}_cut"
}
adascale='{"pass":"adascale","iterations":20}'
case_of all "$adascale, $ar, $om, $qat}"
case_of zeros "$qat,\"learn_scales\":true}, $ar" --set bits.decoder.symmetric=false --set bits.decoder.group=8
case_of floats '{"pass":"qat","iterations":200,"optimizer":"sgd","lr":1e-2,"only_if_better":true}' --set 'bits.decoder.bits="e4m3"'
differ all zeros

expect 2 "$blockq" run r.json --set "phases=[{\"passes\":[$ar]}]" --set 'bits.decoder.bits="e4m3"' -o refused
one_error "autoround works with integers"
expect 2 "$blockq" run r.json --set "phases=[{\"passes\":[$qat}]}]" --set calibration.samples=6 --set phases.0.passes.0.batch=4 -o refused
one_error "must divide calibration.samples"
finish
