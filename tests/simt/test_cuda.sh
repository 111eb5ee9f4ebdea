#!/usr/bin/env bash
# The whole program on the emulated cuda backend: equal bytes on any number of ranks, losses as on the cpu, the same
# after a stop.  test_cuda.sh BLOCKQ MAKE_MICRO MPIEXEC COMPARE_LOSSES
compare_losses=$(realpath "$4")
. "$(dirname "$0")/../e2e/lib.sh"
# A search may choose otherwise between near equals where single roundings differ, and then losses do, too: one arithmetic
# on all machines, so that a test that passes on one does on the others.
if grep -q avx2 /proc/cpuinfo; then export BQ_CPU_ISA=avx2 OPENBLAS_CORETYPE=Haswell; fi
micro llama_default phi3_short
adascale='{"pass":"adascale","iterations":4,"batch":2}' gptq='{"pass":"gptq"}' smooth='{"pass":"autosmoothquant"}'
passes() { # FILE MODEL INPUTS PASSES
    recipe "$1" "$2" 4 ', "bits": {"decoder": {"scale": "bf16"}}'
    sed -i "s/\"inputs\": \"mix\", \"passes\": \[.*\]}\]/\"inputs\": \"$3\", \"passes\": [$4]}]/" "$1"
}
passes train.json m_llama_default mix "$adascale"
passes gptq.json m_phi3_short qt "$gptq, $adascale"
passes smooth.json m_phi3_short qt "$smooth, $adascale"
passes all.json m_phi3_short qt "$smooth, $gptq, $adascale"

# Equal files on any number of ranks; losses near the cpu's, step by step.
for name in train gptq smooth all; do
    expect 0 "$blockq" run $name.json --device cpu --threads 1 -o cpu_$name
    for ranks in 1 2 4; do
        if [[ $name$ranks =~ ^(gptq|smooth)4$ ]]; then continue; fi
        expect 0 mpi $ranks run $name.json --device cuda -o ${name}_$ranks
        check "$name: the log says which device" grep -q 'cuda sm_00' ${name}_$ranks/run.log
        same ${name}_1 ${name}_$ranks
    done
    for block in 000 001; do
        check "$name, block $block: losses are not near the cpu's" "$compare_losses" 1e-5 \
            cpu_$name/ckpt/block_$block.p0.s0.h5 ${name}_1/ckpt/block_$block.p0.s0.h5
    done
done

# two ranks that share a GPU: messages go through the host, with the same bytes
SIMT_ONE_GPU=1 expect 0 mpi 2 run all.json --device cuda -o shared
same all_1 shared
SIMT_NCCL_ERROR=1 expect 1 mpi 2 run all.json --device cuda -o broken
check "an error of NCCL ends the job" grep -q 'error: .*NCCL: unhandled system error' err

# stages and replicas; stopped inside a block and gone on with on another grid
expect 0 mpi 1 run train.json --device cuda --set phases.0.inputs=fp -o fp_1
expect 0 mpi 4 run train.json --device cuda --set phases.0.inputs=fp --stages 2 -o fp_4
for file in compressed-tensors/model.safetensors safetensors/model.safetensors ckpt/block_001.p0.s0.h5; do
    check "$file is the same on 2 x 2 ranks" cmp fp_1/$file fp_4/$file
done
expect 75 mpi 2 run train.json --device cuda --stop-after-blocks 1 -o stopped
expect 0 mpi 1 run train.json --device cuda -o stopped
same train_1 stopped

# the plan knows what is on the GPU, and what does not fit there
expect 0 "$blockq" plan train.json --device cuda
check "the plan has a line for the GPU" grep -q 'on the GPU' out
SIMT_MEMORY=66000000 expect 2 "$blockq" run train.json --device cuda -o small
one_error 'of the GPU'

# streams live where the plan finds room, with the same bytes: on the device, pinned, in plain memory, in files
passes places.json m_llama_default mix "$adascale"
sed -i 's/"samples": 6/"samples": 60/' places.json
megabytes() { awk "$1 { print int((\$$2 - 0.2) * 1e6) }" out; } # a little less than the plan says there
expect 0 "$blockq" plan places.json --device cuda
check "the plan says where streams live" grep -q 'live in device memory' out
gpu=$(megabytes /GPU/ 4)
SIMT_MEMORY=$gpu expect 0 "$blockq" plan places.json --device cuda
check "the plan counts what is pinned" grep -Eq '^  pinned +[0-9.]+  of the total' out
host=$(megabytes '$1 == "total"' 2)
expect 0 mpi 2 run places.json --device cuda -v -o device
SIMT_MEMORY=$gpu expect 0 mpi 1 run places.json --device cuda -o pinned
BQ_FAULT=pin:4 SIMT_MEMORY=$gpu expect 0 mpi 1 run places.json --device cuda -o plain
check "a stream that cannot be pinned is said so" grep -q 'stream of .* cannot be pinned' err
mkdir scratch
SIMT_MEMORY=$gpu expect 0 mpi 1 run places.json --device cuda --memory "$host" --scratch scratch -o files
for home in "device:device memory" "pinned:pinned host memory" "files:files in scratch"; do
    check "${home%%:*}: streams in ${home#*:}" grep -q "streams in ${home#*:}" "${home%%:*}/run.log"
done
for home in pinned plain files; do same device $home; done
sweeps=(--device cuda --set segments=2 --set sweeps=2)
expect 0 mpi 2 run places.json "${sweeps[@]}" --stages 1 -o sweeps_device
SIMT_MEMORY=$gpu expect 0 mpi 1 run places.json "${sweeps[@]}" -o sweeps_pinned
same sweeps_device sweeps_pinned
expect 0 mpi 2 run places.json "${sweeps[@]}" --stages 2 --split-reference -o split
check "split: the last block" cmp sweeps_device/ckpt/block_001.p0.s1.h5 split/ckpt/block_001.p0.s1.h5

# the next block's weights come ahead, unless there is no room or no pinned memory for them: the same bytes
check "the weights of block 2 came ahead" grep -q 'block 2: .* read ahead' device/run.log
BQ_FAULT=pin:2 expect 0 mpi 1 run places.json --device cuda -v -o behind
check "the weights of block 2 did not" grep -q 'no pinned memory to read weights ahead' err
same device behind
BQ_FAULT=ahead_thread expect 1 mpi 1 run places.json --device cuda -o refused
one_error 'no thread to read weights ahead'

# what the cpu began the gpu does not go on with: another class of numbers
expect 2 "$blockq" run train.json --device cuda -o cpu_train
finish
