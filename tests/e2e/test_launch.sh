#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Launchers: ranks that cannot be used are refused, evaluation does not depend on them, a lost rank ends the job.
. "$(dirname "$0")/lib.sh"
micro llama_default
recipe r.json m_llama_default 4
mpi() {
    local ranks=$1
    shift
    OMP_NUM_THREADS=1 timeout $hang "$mpiexec" -n "$ranks" "$blockq" "$@"
}

SLURM_STEP_NUM_TASKS=4 expect 4 "$blockq" run r.json -o slurm
one_error "srun --mpi=pmix"
check "nothing was made" [ ! -e slurm ]
SLURM_STEP_NUM_TASKS=4 expect 0 mpi 1 plan r.json
expect 4 mpi 3 run r.json --stages 2 -o ranks
one_error "3 ranks"
check "nothing was made" [ ! -e ranks ]
expect 0 mpi 1 run r.json -o one
expect 0 "$blockq" run r.json -o alone
same one alone
if grep -q avx512vl /proc/cpuinfo && grep -q OpenBLAS one/run.log; then # also where this OpenBLAS is older than the processor
    check "wide kernels: $(grep -o 'OpenBLAS.*' one/run.log)" grep -qE 'OpenBLAS .*(SkylakeX|Cooperlake|SapphireRapids)' one/run.log
    OPENBLAS_CORETYPE=Haswell expect 0 "$blockq" eval --model m_llama_default --tokens eval.h5 --ctx 32
    check "what the user says stays, and is warned of" grep -q 'kernels for Haswell, .*as OPENBLAS_CORETYPE says' err
fi

evaluate=(eval --model m_llama_default --tokens eval.h5 --ctx 32 --rtn 4)
expect 0 mpi 1 "${evaluate[@]}"
cp out one.txt
for ranks in 2 3; do
    expect 0 mpi $ranks "${evaluate[@]}"
    check "$ranks ranks print the same perplexity" cmp out one.txt
done
expect 0 mpi 2 "${evaluate[@]}" --windows 1 # a rank without windows
expect 0 mpi 2 eval --run one --tokens eval.h5 --ctx 32
cp out two.txt
expect 0 mpi 1 eval --run one --tokens eval.h5 --ctx 32
check "a run's result on 2 ranks" cmp out two.txt

# bad input on several ranks: one message, everybody leaves
expect 3 mpi 3 eval --model m_llama_default --tokens nothing.h5
one_error nothing.h5
expect 2 mpi 3 eval --model m_llama_default
one_error "tokens is missing"
expect 2 mpi 2 eval --run one --tokens eval.h5 --ctx 32 --memory 1M
one_error MB

# a device that is not here
expect 2 mpi 2 run r.json --device cuda:1 -o none
one_error "CUDA"
expect 2 "$blockq" run r.json --device gpu -o none
one_error "gpu: must be"
check "nothing was made" [ ! -e none ]

# a rank dies: the others do not wait for it (the watch would take 600 s)
BQ_FAULT=weights_read:3@1 expect 1 mpi 3 "${evaluate[@]}"
check "the lost rank said why" grep -q 'r1 error: .*weights.c' err
finish
