# SPDX-License-Identifier: Apache-2.0
# device.sh - the whole program on a GPU or the emulated one: equal bytes on any number of ranks, losses as on the cpu, the
# same after a stop.  A test is `bash X.sh BLOCKQ MAKE_MICRO MPIEXEC COMPARE_LOSSES`; it sets device_name, as the log has it,
# tf32_error, the most that products in tf32 may be off, and exact_losses, how near losses with fp16x2 are to the cpu's; it
# sources this first and ends with `finish`.
# shellcheck shell=bash disable=SC2154,SC2034 # the three are for the test to set; lists of keys are taken by name
compare_losses=$(realpath "$4")
. "$(dirname "${BASH_SOURCE[0]}")/../e2e/lib.sh"
# A search may choose otherwise between near equals where single roundings differ, and then losses do, too: one arithmetic
# on all machines, so that a test that passes on one does on the others.
if grep -q avx2 /proc/cpuinfo; then export BQ_CPU_ISA=avx2 OPENBLAS_CORETYPE=Haswell; fi
micro llama_default phi3_short qwen3 olmo2 gemma2 gemma3_text mixtral gpt_oss qwen2_moe
adascale='{"pass":"adascale","iterations":4,"batch":2}' gptq='{"pass":"gptq"}' smooth='{"pass":"autosmoothquant"}'
passes() { # FILE MODEL INPUTS PASSES
    recipe "$1" "$2" 4 ', "bits": {"decoder": {"scale": "bf16"}}'
    sed -i "s/\"inputs\": \"mix\", \"passes\": \[.*\]}\]/\"inputs\": \"$3\", \"passes\": [$4]}]/" "$1"
}
passes train.json m_llama_default mix "$adascale"
passes gptq.json m_phi3_short qt "${gptq/\}/,\"gram\":\"f64\"\}}, $adascale"
passes smooth.json m_phi3_short qt "$smooth, $adascale"
passes midway.json m_phi3_short qt '{"pass":"gptq","sequential":true}'
passes all.json m_phi3_short qt "$smooth, $gptq, $adascale"

# Equal files on any number of ranks; losses near the cpu's, step by step.
for name in train gptq smooth all; do
    expect 0 "$blockq" run $name.json --device cpu --threads 1 -o cpu_$name
    for ranks in 1 2 4; do
        if [[ $name$ranks =~ ^(gptq|smooth)4$ ]]; then continue; fi
        expect 0 mpi $ranks run $name.json --device cuda -o ${name}_$ranks
        check "$name: the log says which device" grep -q "$device_name" ${name}_$ranks/run.log
        same ${name}_1 ${name}_$ranks
    done
    for block in 000 001; do
        check "$name, block $block: losses are not near the cpu's" "$compare_losses" 1e-5 \
            cpu_$name/ckpt/block_$block.p0.s0.h5 ${name}_1/ckpt/block_$block.p0.s0.h5
    done
done

# other families: norms in all places, windows, two ropes, caps, GELU, latent attention; samples are longer than a window
latent m_latent 24 false
for name in qwen3 olmo2 gemma2 gemma3_text latent; do
    passes $name.json m_$name qt "$gptq, $adascale"
    sed -i 's/"samples": 6, "length": 24/"samples": 4, "length": 40/' $name.json
    expect 0 "$blockq" run $name.json --device cpu --threads 1 -o cpu_$name
    for ranks in 1 2; do expect 0 mpi $ranks run $name.json --device cuda -o ${name}_$ranks; done
    same ${name}_1 ${name}_2
    check "$name: losses are not near the cpu's" "$compare_losses" 1e-5 cpu_$name/ckpt/block_001.p0.s0.h5 ${name}_1/ckpt/block_001.p0.s0.h5
done

# inputs, keys and values that are rounded: measured scales, and passes that see them
rounded=(--set 'bits.activations={"bits": 8, "symmetric": false, "per": "tensor", "dynamic": false, "range": "percentile"}'
    --set 'bits.kv={"bits": 8, "per": "head"}' --set 'outputs=[{"format": "compressed-tensors"}]')
seen=(--set 'bits.activations={"bits": 8, "per": "tensor"}' --set bits.kv=8 --set phases.0.activations=true --set 'outputs=[]')
worth_of() { sed -n 's/.*, "[a-z+]*": \([0-9.]*\), "bits.*/\1/p' "$1/result.json"; }
for name in rounded seen; do
    declare -n keys=$name
    expect 0 "$blockq" run train.json "${keys[@]}" --device cpu --threads 1 -o cpu_$name
    for ranks in 1 2; do expect 0 mpi $ranks run train.json "${keys[@]}" --device cuda -o ${name}_$ranks; done
    same ${name}_1 ${name}_2
    check "$name: $(worth_of ${name}_1), not $(worth_of cpu_$name)" \
        awk -v a="$(worth_of ${name}_1)" -v b="$(worth_of cpu_$name)" 'BEGIN { exit !(a > 1 && (a / b - 1)^2 < 1e-6) }'
done

# distillation: streams of the original and gradients from stage to stage
distill=(--set 'distill={"steps": 4, "batch": 2, "lr": 0.01, "positions": 9, "held_out": 2}')
expect 0 "$blockq" run gptq.json "${distill[@]}" --device cpu --threads 1 -o cpu_distill
for ranks in 1 2 4; do
    expect 0 mpi $ranks run gptq.json "${distill[@]}" --device cuda -o distill_$ranks
    rm -rf distill_$ranks/acts
    same distill_1 distill_$ranks
done
of_result() { sed -n 's/.*"gptq+adascale": \([0-9.]*\).*/\1/p' "$1/result.json"; }
check "distill: $(of_result distill_1), not $(of_result cpu_distill)" \
    awk -v a="$(of_result distill_1)" -v b="$(of_result cpu_distill)" 'BEGIN { exit !(a > 1 && (a / b - 1)^2 < 1e-5) }'

# experts, sinks, clamped gates: a model is worth what it is on the cpu
perplexity() { sed -n 's/.*model=\([0-9.]*\).*/\1/p' out; }
for name in mixtral gpt_oss; do
    expect 0 "$blockq" eval --model m_$name --tokens eval.h5 --ctx 48 --windows 4 --device cpu
    cpu=$(perplexity)
    expect 0 mpi 2 eval --model m_$name --tokens eval.h5 --ctx 48 --windows 4 --device cuda
    check "$name: $(perplexity), not $cpu" awk -v a="$(perplexity)" -v b="$cpu" 'BEGIN { exit !(a > 1 && (a / b - 1)^2 < 1e-10) }'
done

# experts, on one rank and on several; a small arena leaves the streams on the host
passes experts.json m_qwen2_moe mix "$gptq, ${adascale/\"batch\":2/\"batch\":1}"
sed -i 's/"samples": 6, "length": 24/"samples": 4, "length": 40/' experts.json
expect 0 "$blockq" run experts.json --device cpu --threads 1 -o cpu_experts
for ranks in 1 2 3; do expect 0 mpi $ranks run experts.json --device cuda -o experts_$ranks; done
for ranks in 2 3; do
    rm -rf experts_$ranks/acts experts_1/acts
    same experts_1 experts_$ranks
done
for unit in "" .e000 .e003; do
    check "experts$unit: losses are not near the cpu's" "$compare_losses" 1e-5 {cpu_experts,experts_1}/ckpt/block_000.p0.s0$unit.h5
done

# a matrix at a time, the samples kept on the GPU
for ranks in 1 2; do expect 0 mpi $ranks run midway.json --device cuda -o midway_$ranks; done
check "the samples are kept: $(grep kept: midway_1/run.log)" grep -q 'kept: 6 of 6 samples' midway_1/run.log
expect 75 mpi 1 run midway.json --device cuda --stop-after-blocks 1 -o midway_stopped
expect 0 mpi 2 run midway.json --device cuda -o midway_stopped
for other in 2 stopped; do same midway_1 midway_$other; done

# narrower products: the log says what they change, the bytes are the same on any number of ranks; what the device does not
# have is made in f32; another way is another recipe
for compute in bf16 tf32; do
    for ranks in 1 2; do
        expect 0 mpi $ranks run train.json --device cuda --set phases.0.compute=$compute -o ${compute}_$ranks
    done
    same ${compute}_1 ${compute}_2
    check "$compute: the log says the error once" [ "$(grep -c "in $compute, against f32: nmse qkv" ${compute}_1/run.log)" = 1 ]
    differ train_1 ${compute}_1
done
# as exact as f32 on tensor cores: of codes with scales of rows, and of floats where rows have groups; with the reference, too
exact=(--device cuda --set phases.0.compute=fp16x2)
for ranks in 1 2 4; do
    expect 0 mpi $ranks run train.json "${exact[@]}" -o fp16x2_$ranks
    same fp16x2_1 fp16x2_$ranks
done
differ train_1 fp16x2_1
check "errors of fp16x2: $(grep nmse fp16x2_1/run.log)" grep -qE 'in fp16x2, against f32: nmse qkv [0-9.]+e-1[2-9]' fp16x2_1/run.log
group=(--set bits.linears.q_proj.group=8 --set 'outputs=[{"format":"safetensors"}]') reference=(--set reference_compute=fp16x2)
expect 0 "$blockq" run train.json --device cpu --threads 1 "${group[@]}" -o cpu_group
for ranks in 1 2; do
    expect 0 mpi $ranks run train.json "${exact[@]}" "${group[@]}" -o group_$ranks
    expect 0 mpi $ranks run train.json "${exact[@]}" "${reference[@]}" -o reference_$ranks
    expect 0 mpi $ranks run gptq.json "${exact[@]}" "${reference[@]}" -o exact_gptq_$ranks
done
for name in group reference exact_gptq; do same ${name}_1 ${name}_2; done
expect 0 mpi 2 run train.json --device cuda "${reference[@]}" --set phases.0.inputs=fp --stages 2 -o reference_stages
for pair in "train fp16x2 $exact_losses" "group group 1e-5" "train reference 1e-5" "gptq exact_gptq 1e-5"; do
    read -r want name limit <<<"$pair"
    for block in 000 001; do
        check "$name, block $block: losses are not near the cpu's" "$compare_losses" "$limit" \
            cpu_$want/ckpt/block_$block.p0.s0.h5 ${name}_1/ckpt/block_$block.p0.s0.h5
    done
done
expect 2 "$blockq" run train.json --device cuda --set reference_compute=tf32 -o refused
one_error 'reference_compute'

passes narrow.json m_phi3_short mix '{"pass":"gptq","qep":0.5}, {"pass":"seqmse"}' # products of other shapes, in the planned scratch
for ranks in 1 2; do
    for name in all narrow; do expect 0 mpi $ranks run $name.json --device cuda --set phases.0.compute=bf16 -o bf16_${name}_$ranks; done
done
for name in all narrow; do same bf16_${name}_1 bf16_${name}_2; done
error_of() { sed -nE "s/.*in $1, against f32: nmse qkv ([^,]*), o ([^,]*), gate_up ([^,]*), down (.*)/\1 \2 \3 \4/p" "$1_1/run.log"; }
between() { awk -v lo="$2" -v hi="$3" '{ for (i = 1; i <= 4; i++) if ($i < lo || $i > hi) exit 1 } END { exit NR != 1 }' <<<"$1"; }
check "errors of bf16: $(error_of bf16)" between "$(error_of bf16)" 1e-6 2e-5
check "errors of tf32: $(error_of tf32)" between "$(error_of tf32)" 1e-8 "$tf32_error"
expect 0 mpi 1 run train.json --device cuda --set phases.0.compute=bf16x3 -o bf16x3_1
check "bf16x3 is fp16x2 on a GPU" grep -q 'bf16x3 is made in fp16x2 here' bf16x3_1/run.log
check "bf16x3 is fp16x2 on a GPU" cmp fp16x2_1/safetensors/model.safetensors bf16x3_1/safetensors/model.safetensors
expect 2 mpi 1 run train.json --device cuda --set phases.0.compute=tf32 -o bf16_1
one_error 'differs in: phases'

# factors beside the codes: the same on any number of ranks, and worth what they are on the cpu
passes kept.json m_llama_default qt '{"pass":"smoothquant","fuse":false,"entries":"all"},{"pass":"rtn"}'
keys=(--set 'outputs=[{"format":"safetensors"}]')
expect 0 "$blockq" run kept.json "${keys[@]}" --device cpu --threads 1 -o cpu_kept
for ranks in 1 2; do expect 0 mpi $ranks run kept.json "${keys[@]}" --device cuda -o kept_$ranks; done
same kept_1 kept_2
value() { sed -n 's/.*"smoothquant+rtn": \([0-9.]*\).*/\1/p' "$1/result.json"; }
check "kept: $(value kept_1), not $(value cpu_kept)" \
    awk -v a="$(value kept_1)" -v b="$(value cpu_kept)" 'BEGIN { exit !(a > 1 && (a / b - 1)^2 < 1e-6) }'

# stages and replicas; stopped inside a block and gone on with on another grid
expect 0 mpi 1 run train.json --device cuda --set phases.0.inputs=fp -o fp_1
expect 0 mpi 4 run train.json --device cuda --set phases.0.inputs=fp --stages 2 -o fp_4
for file in compressed-tensors/model.safetensors safetensors/model.safetensors ckpt/block_001.p0.s0.h5; do
    check "$file is the same on 2 x 2 ranks" cmp fp_1/$file fp_4/$file
done
expect 75 mpi 2 run train.json --device cuda --stop-after-blocks 1 -o stopped
expect 0 mpi 1 run train.json --device cuda -o stopped
same train_1 stopped

# what the cpu began the gpu does not go on with: another class of numbers
expect 2 "$blockq" run train.json --device cuda -o cpu_train
