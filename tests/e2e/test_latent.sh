#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Latent attention without experts: all passes, on any grid, stopped in between; rotations; a model in FP8.
. "$(dirname "$0")/lib.sh"
micro
latent toy 24 false
latent flat null true
expect 0 "$blockq" inspect toy
check "inspect names the rope and the linears" grep -q 'rope yarn (6 channels' out
check "kv_b is a linear" grep -q 'self_attn.kv_b_proj .*66 x 16' out

value() { sed -E "s/.*\"$2\": ([^,}]*).*/\1/" "$1/result.json"; }
near() { awk -v a="$1" -v b="$2" -v how="$3" 'BEGIN { d = a / b - 1; exit !(d < how && d > -how) }'; }

declare -A passes=(
    [rtn]='{"pass":"rtn"}'
    [gptq]='{"pass":"gptq"}'
    [sequential]='{"pass":"gptq","sequential":true}'
    [adascale]='{"pass":"adascale","iterations":4}'
    [smoothquant]='{"pass":"smoothquant","entries":"all"},{"pass":"rtn"}'
    [autosmoothquant]='{"pass":"autosmoothquant","qkv":"block"},{"pass":"rtn"}'
    [awq]='{"pass":"awq"},{"pass":"rtn"}'
    [seqmse]='{"pass":"seqmse"}'
    [hqq]='{"pass":"hqq"}'
    [kept]='{"pass":"smoothquant","fuse":false},{"pass":"rtn"}'
    [all]='{"pass":"smoothquant"},{"pass":"gptq"},{"pass":"adascale","iterations":4}'
)
names=$(more "gptq sequential awq all" "${!passes[*]}")
for model in toy flat; do
    for name in $names; do
        run=${model}_$name
        recipe "$run.json" "$model" 4
        how=(--set "phases=[{\"inputs\":\"qt\",\"passes\":[${passes[$name]}]}]")
        if [[ $name = kept ]]; then how+=(--set 'outputs=[{"format":"safetensors"}]'); fi
        expect 0 "$blockq" run "$run.json" "${how[@]}" -o "$run"
        expect 0 mpi 2 run "$run.json" "${how[@]}" -o "$run.2"
        same "$run" "$run.2"
        worth "$run"
    done
    how=(--set "phases=[{\"inputs\":\"qt\",\"passes\":[${passes[all]}]}]")
    expect 75 "$blockq" run "${model}_all.json" "${how[@]}" -o "$model.stopped" --stop-after-blocks 1
    expect 0 mpi 3 run "${model}_all.json" "${how[@]}" -o "$model.stopped"
    same "${model}_all" "$model.stopped"
done
check "smoothing folds into the norm before attention" [ "$("$make_micro" same toy_gptq/safetensors toy_all/safetensors input_layernorm >/dev/null 2>&1 || echo differ)" = differ ]
check "and not into those inside" "$make_micro" same toy_gptq/safetensors toy_all/safetensors a_layernorm

# rotations: R1 of what reads the stream, not of q_b and kv_b
recipe r.json toy 4 ', "bits": {"decoder": {"bits": 8}}'
expect 0 "$blockq" run r.json --set 'phases=[{"passes":[{"pass":"rtn"}]}]' -o plain
expect 0 "$blockq" run r.json --set 'phases=[{"passes":[{"pass":"rtn"}]}]' --set 'transforms=[{"transform":"rotate","r1":"orthogonal","r2":"none"}]' -o r1
check "R1: the same function" near "$(value r1 fp)" "$(value plain fp)" 1e-5
worth r1
expect 2 "$blockq" run r.json --set 'transforms=[{"transform":"rotate","r1":"none","r2":"orthogonal"}]' -o refused
one_error 'transforms.0.r2: deepseek_v3 has latent attention'
check "nothing was made" [ ! -e refused ]

# FP8: near the model it was made of, and not a part of any output
mkdir fp8
sed 's/"architectures"/"quantization_config": {"fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [128, 128]}, "architectures"/' \
    plain/safetensors/config.json >fp8/config.json
"$make_micro" fp8 plain/safetensors fp8
expect 0 "$blockq" eval --model fp8 --tokens eval.h5 --ctx 32 --windows 5
check "near: $(cat out), $(value plain fp)" near "$(sed -n 's/.*model=\([0-9.]*\).*/\1/p' out)" "$(value plain fp)" 0.05
expect 0 "$blockq" run r.json --set model=fp8 --set 'phases=[{"passes":[{"pass":"rtn"}]}]' -o from_fp8
worth from_fp8
for form in safetensors compressed-tensors; do
    check "$form: no scales of tiles" [ "$(grep -ac _scale_inv "from_fp8/$form/model.safetensors")" = 0 ]
    check "$form: no FP8" [ "$(grep -ac F8_E4M3 "from_fp8/$form/model.safetensors")" = 0 ]
done
check "config.json does not say FP8" [ "$(grep -c fp8 from_fp8/safetensors/config.json)" = 0 ]
# a layer behind the blocks, as that of multi-token prediction: unused, written as floats
mkdir more
cp fp8/model.safetensors more
sed 's/"num_hidden_layers": 3/"num_hidden_layers": 2/; s/"first_k_dense_replace": 3/"first_k_dense_replace": 2/' fp8/config.json >more/config.json
expect 0 "$blockq" run r.json --set model=more --set 'phases=[{"passes":[{"pass":"rtn"}]}]' -o from_more
worth from_more
check "floats" [ "$(grep -ac F8_E4M3 from_more/safetensors/model.safetensors)" = 0 ]
check "the layer is there" grep -aq 'model.layers.2.self_attn.kv_b_proj.weight"' from_more/safetensors/model.safetensors
sed -i 's/128, 128/128, 64/; s/128,$/64,/' fp8/config.json
expect 3 "$blockq" eval --model fp8 --tokens eval.h5 --ctx 32
one_error weight_block_size
finish
