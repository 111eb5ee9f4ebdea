#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs of each family that has more than Llama's blocks: passes, outputs, ranks, stops; and what a family has beside the text
# decoder stays as it is.
. "$(dirname "$0")/lib.sh"
models=(qwen3 mistral_window qwen2_window olmo2 gemma2 gemma3_text qwen2_5_vl_text qwen3_vl_text)
micro "${models[@]}"
declare -A passes=(
    [rtn]='{"pass":"rtn"}'
    [gptq]='{"pass":"gptq"}'
    [adascale]='{"pass":"adascale","iterations":4}'
    [smoothquant]='{"pass":"smoothquant"},{"pass":"rtn"}'
    [awq]='{"pass":"awq"},{"pass":"rtn"}'
    [all]='{"pass":"smoothquant"},{"pass":"gptq"},{"pass":"adascale","iterations":4}'
)
names="awq all"
if [[ ${BQ_FULL-} ]]; then names=${!passes[*]}; fi

# samples that are longer than the windows
for model in "${models[@]}"; do
    for name in $names; do
        run=${model}_$name
        cat >"$run.json" <<TEXT
{"model": "m_$model", "calibration": {"tokens": "cal.h5", "samples": 3, "length": 40},
 "phases": [{"inputs": "qt", "passes": [${passes[$name]}]}],
 "outputs": [{"format": "safetensors"}, {"format": "compressed-tensors"}],
 "eval": {"tokens": "eval.h5", "ctx": 48, "windows": 4}}
TEXT
        expect 0 "$blockq" run "$run.json" -o "$run"
        expect 0 mpi 3 run "$run.json" -o "$run.3"
        same "$run" "$run.3"
        worth "$run" 48 4
        check "$run: packed codes" [ -s "$run/compressed-tensors/model.safetensors" ]
    done
    expect 75 "$blockq" run "${model}_all.json" -o "$model.stopped" --stop-after-blocks 1
    expect 0 mpi 3 run "${model}_all.json" -o "$model.stopped"
    same "${model}_all" "$model.stopped"
done

# killed, wherever it is then
"$blockq" run gemma3_text_all.json -o killed >out 2>err </dev/null &
sleep 0.3
kill -9 $! 2>/dev/null || true
wait $! 2>/dev/null || true
expect 0 "$blockq" run gemma3_text_all.json -o killed
same gemma3_text_all killed

# norms: Gemma's tensors are the gains less 1, so smoothing leaves values near 0; without norms to fold into nothing changes
for model in qwen3 gemma2 gemma3_text; do
    check "$model: smoothing changes norms" [ "$("$make_micro" same "m_$model" "${model}_all/safetensors" input_layernorm >same.txt 2>&1 || echo differ)" = differ ]
done
check "olmo2: smoothing changes no norm" "$make_micro" same m_olmo2 olmo2_all/safetensors norm

# vision towers
for model in qwen2_5_vl_text qwen3_vl_text; do
    for form in safetensors compressed-tensors; do
        check "$model: $form has the vision tower" "$make_micro" same "m_$model" "${model}_all/$form" visual.
    done
    check "$model: config.json keeps the vision tower" grep -q vision_config "${model}_all/compressed-tensors/config.json"
done
check "another tensor is another" [ "$("$make_micro" same m_qwen3 qwen3_all/safetensors q_proj 2>/dev/null || echo differ)" = differ ]

# rotations: R2 of all, R1 of those whose norms read the residual stream alone
transform() { echo "transforms=[{\"transform\":\"rotate\",$1}]"; }
for model in qwen3 mistral_window qwen2_5_vl_text qwen3_vl_text; do
    expect 0 "$blockq" run "${model}_awq.json" --set "$(transform '"r1":"orthogonal","r2":"orthogonal"')" -o "$model.rotated"
    worth "$model.rotated" 48 4
done
for model in olmo2 gemma2 gemma3_text; do
    expect 0 "$blockq" run "${model}_awq.json" --set "$(transform '"r1":"none","r2":"orthogonal"')" -o "$model.rotated"
    worth "$model.rotated" 48 4
    expect 2 "$blockq" run "${model}_awq.json" --set "$(transform '"r1":"orthogonal"')" -o refused
    one_error 'has norms behind o and down'
    check "nothing was made" [ ! -e refused ]
done

finish
