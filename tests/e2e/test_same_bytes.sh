#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Equal recipes give equal bytes: for any number of threads, again, elsewhere, after a stop; other seeds give others.
. "$(dirname "$0")/lib.sh"
micro llama_default phi3_short
recipe r.json m_llama_default 24
recipe p.json m_phi3_short 8

for file in r p; do
    for threads in 1 2 3; do
        expect 0 "$blockq" run $file.json --threads $threads -o $file$threads
        result >$file$threads.line
    done
    same ${file}1 ${file}2
    same ${file}1 ${file}3
    check "$file: the same result line" cmp ${file}1.line ${file}3.line
done

mkdir -p other/place
cp -r m_llama_default other/place
expect 0 "$blockq" run r.json --set model=other/place/m_llama_default -o other/place/run
same r1 other/place/run
cp -r r1 again
expect 0 "$blockq" run r.json -o again # a finished run again: nothing to do but evaluate
check "only the evaluation ran again" grep -q '2 of 2 blocks are done' err
same r1 again

# stopped after a block, then on
expect 75 "$blockq" run r.json --stop-after-blocks 1 -o stopped
check "nothing is exported by a stop" [ ! -e stopped/safetensors ]
expect 0 "$blockq" run r.json -o stopped
same r1 stopped

# passes and phases follow each other: what the first leaves is where the second starts
rtn='{"pass":"rtn"}' train='{"pass":"adascale","iterations":9}'
expect 0 "$blockq" run r.json --set "phases=[{\"passes\":[$rtn]}]" -o rtn
expect 0 "$blockq" run r.json --set "phases=[{\"passes\":[$rtn]},{\"passes\":[$rtn]}]" -o rtn_twice
check "the grid of what lies on it is the same" cmp rtn/compressed-tensors/model.safetensors \
    rtn_twice/compressed-tensors/model.safetensors
expect 0 "$blockq" run r.json --set "phases=[{\"inputs\":\"mix\",\"passes\":[$rtn,$train]}]" -o chain
expect 75 "$blockq" run r.json --set "phases=[{\"inputs\":\"mix\",\"passes\":[$rtn,$train]}]" --stop-after-blocks 1 -o chain_stopped
expect 0 "$blockq" run r.json --set "phases=[{\"inputs\":\"mix\",\"passes\":[$rtn,$train]}]" -o chain_stopped
same chain chain_stopped
differ rtn chain
expect 0 "$blockq" run r.json --set "phases=[{\"passes\":[$rtn]},{\"passes\":[$train]}]" -o phases
differ rtn phases
check "the second phase has its own checkpoints" [ -e phases/ckpt/block_001.p1.s0.h5 ]

# streams in a scratch directory instead of memory
mkdir scratch
expect 0 "$blockq" run r.json --scratch scratch -o scratched
same r1 scratched
check "nothing stays in the scratch directory" [ -z "$(ls scratch)" ]

# seeds
expect 0 "$blockq" run r.json --set seed=1 -o seed1
expect 0 "$blockq" run r.json --set seed=1 -o seed1_again
same seed1 seed1_again
differ r1 seed1
expect 0 "$blockq" run r.json --set phases.0.inputs=fp -o fp
expect 0 "$blockq" run r.json --set phases.0.inputs=fp --set seed=1 -o fp1
check "without a mix there is nothing random" cmp fp/compressed-tensors/model.safetensors \
    fp1/compressed-tensors/model.safetensors
finish
