#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The whole program on the emulated cuda backend (device.sh), and what only the emulator can show: launches counted, marks,
# GPUs of any size, NCCL and its errors.  test_cuda.sh BLOCKQ MAKE_MICRO MPIEXEC COMPARE_LOSSES
device_name='cuda sm_00' tf32_error=2e-7 exact_losses=1e-6
. "$(dirname "$0")/device.sh"

# a step is a few launches from its third time on, and without that the same bytes
SIMT_COUNT=1 expect 0 mpi 1 run train.json --device cuda -o graphs
check "graphs: $(grep '^simt' err)" grep -qE ', [1-9][0-9]* graphs' err
SIMT_COUNT=1 BQ_CUDA_GRAPH=0 expect 0 mpi 1 run train.json --device cuda -o plain
check "no graphs: $(grep '^simt' err)" grep -q ', 0 graphs' err
same graphs plain
BQ_CUDA_GRAPH=0 expect 0 mpi 2 run all.json --device cuda -o plain_2
same all_2 plain_2
BQ_CUDA_GRAPH=0 expect 0 mpi 2 run train.json "${exact[@]}" -o fp16x2_plain
same fp16x2_1 fp16x2_plain

# what a profiler sees, with its depth
SIMT_MARKS=1 expect 0 mpi 1 run train.json --device cuda -o marks
check "marks: $(grep -c 'simt: mark' err) of them" diff - <(sed -n 's/^simt: mark //p' err) <<TEXT
0 reference
$(for b in 1 2; do printf '0 block %d\n1 adascale\n2 step 0\n2 step 1\n2 step 2\n2 step 3\n' $b; done)
TEXT

# two ranks that share a GPU: messages go through the host, with the same bytes
SIMT_ONE_GPU=1 expect 0 mpi 2 run all.json --device cuda -o shared
same all_1 shared
SIMT_NCCL_ERROR=1 expect 1 mpi 2 run all.json --device cuda -o broken
check "an error of NCCL ends the job" grep -q 'error: .*NCCL: unhandled system error' err

# ranks of two kinds are refused before they wait for each other
for kinds in 'cpu cuda' 'cuda cpu'; do
    expect 4 timeout -s KILL 60 "$mpiexec" -n 1 "$blockq" run train.json --device "${kinds% *}" -o kinds : \
        -n 1 "$blockq" run train.json --device "${kinds#* }" -o kinds
    one_error 'this rank computes with .*, rank 0 does not'
done
check "nothing was made" [ ! -e kinds ]

# micro-batches from GPU to GPU, the last one short, or through the host: the same bytes
chain() { mpi "$1" run train.json --device cuda --set segments=2 --no-eval "${@:2}"; }
expect 0 chain 1 -o chain_1
for ranks in 2 4; do
    expect 0 chain $ranks --stages 2 --micro 2 -o direct_$ranks
    check "micro-batches go from GPU to GPU" grep -q 'micro-batches of 2 from GPU to GPU' direct_$ranks/run.log
    SIMT_ONE_GPU=1 expect 0 chain $ranks --stages 2 --micro 2 -o staged_$ranks
    check "micro-batches go through the host" grep -q 'micro-batches of 2$' staged_$ranks/run.log
    same staged_$ranks direct_$ranks
    for file in compressed-tensors/model.safetensors safetensors/model.safetensors ckpt/block_00{0,1}.p0.s0.h5; do
        check "$file is the same on 2 x $((ranks / 2)) ranks" cmp chain_1/$file direct_$ranks/$file
    done
done
SIMT_NCCL_ERROR=1 expect 1 chain 2 --stages 2 -o lost
check "an error of NCCL in the pipeline ends the job" grep -q 'error: .*NCCL: unhandled system error' err
BQ_FAULT=stream_nan:3 expect 3 chain 2 --stages 2 -o nan
check "a NaN on its way is named" grep -q 'error: .*block 1/2: the original stream of sample 2 has nan at token 0' err

# the plan knows what is on the GPU, and what does not fit there
expect 0 "$blockq" plan train.json --device cuda
check "the plan has a line for the GPU" grep -q 'on the GPU' out
SIMT_MEMORY=66000000 expect 2 "$blockq" run train.json --device cuda -o small
one_error 'of the GPU'

# samples that are kept midway: as far as there is room for them, with the same bytes
expect 0 "$blockq" plan midway.json --device cuda
few=$(awk '/ on the GPU/ { gpu = $4 } /^  6 of 6 samples/ { kept = $(NF - 1) } END { print int((gpu - 0.2 * kept + 0.05) * 1e6) }' out)
SIMT_MEMORY=$few expect 0 mpi 1 run midway.json --device cuda -o midway_few
check "only some are kept: $(grep kept: midway_few/run.log)" grep -q 'kept: [0-5] of 6 samples' midway_few/run.log
same midway_1 midway_few

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
BQ_FAULT=pin:4 SIMT_MEMORY=$gpu expect 0 mpi 1 run places.json --device cuda -o paged
check "a stream that cannot be pinned is said so" grep -q 'stream of .* cannot be pinned' err
mkdir scratch
SIMT_MEMORY=$gpu expect 0 mpi 1 run places.json --device cuda --memory "$host" --scratch scratch -o files
for home in "device:device memory" "pinned:pinned host memory" "files:files in scratch"; do
    check "${home%%:*}: streams in ${home#*:}" grep -q "streams in ${home#*:}" "${home%%:*}/run.log"
done
for home in pinned paged files; do same device $home; done
sweeps=(--device cuda --set segments=2 --set sweeps=2)
expect 0 mpi 2 run places.json "${sweeps[@]}" --stages 1 -o sweeps_device
SIMT_MEMORY=$gpu expect 0 mpi 1 run places.json "${sweeps[@]}" -o sweeps_pinned
same sweeps_device sweeps_pinned
expect 0 mpi 2 run places.json "${sweeps[@]}" --stages 2 --split-reference -o split
check "split: the last block" cmp sweeps_device/ckpt/block_001.p0.s1.h5 split/ckpt/block_001.p0.s1.h5
# micro-batches are on the device if it has room for them, with the same bytes
wide=(--device cuda --set calibration.length=40 --set segments=2 --stages 2 --micro 60)
expect 0 mpi 2 run places.json "${wide[@]}" -o wide
expect 0 mpi 2 plan places.json "${wide[@]}"
check "the plan has micro-batches on the GPU" grep -q 'micro-batches of the reference beyond' out
for name in tight narrow; do # without the streams; without micro-batches, too
    both=$((2 * $(megabytes /GPU/ 4)))
    SIMT_MEMORY=$both expect 0 mpi 2 run places.json "${wide[@]}" -o $name
    same wide $name
    SIMT_MEMORY=$both expect 0 mpi 2 plan places.json "${wide[@]}"
done
check "tight: from GPU to GPU" grep -q 'micro-batches of 60 from GPU to GPU' tight/run.log
check "tight: streams are pinned" grep -q 'streams in pinned' tight/run.log
check "narrow: through the host" grep -q 'micro-batches of 60$' narrow/run.log

# the next block's weights come ahead, unless there is no room or no pinned memory for them: the same bytes
check "the weights of block 2 came ahead" grep -q 'block 2: .* read ahead' device/run.log
BQ_FAULT=pin:2 expect 0 mpi 1 run places.json --device cuda -v -o behind
check "the weights of block 2 did not" grep -q 'no pinned memory to read weights ahead' err
same device behind
BQ_FAULT=ahead_thread expect 1 mpi 1 run places.json --device cuda -o refused
one_error 'no thread to read weights ahead'

# where streams are on the GPU, the host does not wait for each sample
waits() {
    SIMT_COUNT=1 expect 0 mpi 1 run gptq_only.json --device cuda --no-eval --set calibration.samples="$1" -o "waits_$1"
    sed -n 's/^simt: .* \([0-9]*\) waits/\1/p' err
}
echo '{"model": "m_llama_default", "calibration": {"tokens": "cal.h5", "samples": 8, "length": 24},
 "phases": [{"passes": [{"pass": "gptq"}]}]}' >gptq_only.json
# nor for each step of a training: of 64 more steps it looks at 16 losses at a time
steps() {
    SIMT_COUNT=1 expect 0 mpi 1 run train.json --device cuda --no-eval --set phases.0.passes.0.iterations="$1" \
        --set phases.0.passes.0.batch=1 -o "steps_$1"
    sed -n 's/^simt: .* \([0-9]*\) waits/\1/p' err
}
many=$(steps 80) few=$(steps 16)
check "$many waits with 80 steps, $few with 16, 2 blocks" [ $((many - few)) -le $((2 * 64 / 16)) ]
# a loss among them that is not finite: as on the cpu
for device in cpu cuda; do
    BQ_FAULT=loss_nan:21 expect 0 mpi 1 run train.json --device $device --no-eval --set phases.0.passes.0.iterations=40 \
        --set phases.0.passes.0.batch=1 -o nan_$device
    check "$device: the loss is named" grep -q 'the loss of sample .* is nan at iteration 20' err
done
expect 0 "$blockq" compare nan_cpu nan_cuda
check "the block is rounded to nearest on both" [ "$(grep -c ' 0  *0  *0  .* model.layers.0' out)" = 7 ]
many=$(waits 40) few=$(waits 8)
check "$many waits with 40 samples, $few with 8: 3 for a sample at most" [ $((many - few)) -lt $((3 * 32)) ]
finish
