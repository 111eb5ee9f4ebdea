#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The whole program on a GPU, which ranks share (tests/simt/device.sh).  test_program.sh BLOCKQ MAKE_MICRO MPIEXEC COMPARE_LOSSES
device_name='cuda sm_[1-9]' tf32_error=1e-6 exact_losses=1e-5
. "$(dirname "$0")/../simt/device.sh"

# a step is a few launches from its third time on, and without that the same bytes
for name in train all; do
    BQ_CUDA_GRAPH=0 expect 0 mpi 1 run $name.json --device cuda -o plain_$name
    same ${name}_1 plain_$name
done
# the same again: no race
for k in 1 2 3; do
    expect 0 mpi 1 run all.json --device cuda -o again_$k
    same all_1 again_$k
done

# micro-batches of any size through the host: the same bytes
for micro in 1 2; do
    expect 0 mpi 2 run train.json --device cuda --set segments=2 --no-eval --stages 2 --micro $micro -o staged_$micro
done
same staged_1 staged_2
finish
