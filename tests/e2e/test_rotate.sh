#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Rotated models: the same function, the same bytes on any grid, exports that other programs load as they are.
. "$(dirname "$0")/lib.sh"
root=$(cd "$here/../.." && pwd)
micro llama_llama3 llama_bias phi3_partial phi3_short
random='"transforms": [{"transform": "rotate", "r1": "randomized", "r2": "randomized"}]'
orthogonal='"transforms": [{"transform": "rotate", "r1": "orthogonal", "r2": "orthogonal"}]'

# value DIR KEY: a number of the run's result
value() { sed -E "s/.*\"$2\": ([^,}]*).*/\1/" "$1/result.json"; }
# near A B [HOW]: equal to 1e-5, or to HOW
near() { awk -v a="$1" -v b="$2" -v how="${3:-1e-5}" 'BEGIN { d = a / b - 1; exit !(d < how && d > -how) }'; }
# loads DIR RUN KEY: what a run exported to DIR has the perplexity that the run had
loads() {
    expect 0 "$blockq" eval --model "$1" --tokens eval.h5 --ctx 32 --windows 5
    # equal as far as the digits go that are printed
    check "$1 has the perplexity of $2" near "$(sed -n 's/.*model=\([0-9.]*\).*/\1/p' out)" "$(value "$2" "$3")" 1e-8
}
# header DIR: names of a model's tensors
header() { strings -n 200 "$1/model.safetensors" | head -n 1; }

# tied and not, with biases, fused and not
recipe_of() { # NAME MODEL TRANSFORMS
    recipe "$1.json" "$2" 4 ", $3"
}
recipe_of l m_llama_llama3 "$random"
recipe_of b m_llama_bias "$orthogonal"
recipe_of p m_phi3_partial "$random"
recipe_of s m_phi3_short "$orthogonal"
for name in l b p s; do
    expect 0 "$blockq" run $name.json -o "r_$name"
    expect 0 "$blockq" run $name.json -o "plain_$name" --set 'transforms=[]'
    check "$name: the same function" near "$(value r_$name fp)" "$(value plain_$name fp)"
    check "$name: other codes" [ "$(value r_$name rtn)" != "$(value plain_$name rtn)" ]
    loads r_$name/safetensors r_$name adascale
    check "$name: the head is a matrix of its own" grep -q lm_head.weight <(header r_$name/safetensors)
    check "$name: packed as well" grep -q lm_head.weight <(header r_$name/compressed-tensors)
    check "$name: untied" grep -q '"tie_word_embeddings": false' r_$name/safetensors/config.json
done
for name in l p; do # tied models
    check "$name: without a rotation there is no head" [ "$(header plain_$name/safetensors | grep -c lm_head)" = 0 ]
    check "$name: nor does the config say so" grep -q '"tie_word_embeddings": true' plain_$name/safetensors/config.json
done

# R2 alone: norms, embedding and a tied head stay
expect 0 "$blockq" run l.json --set 'transforms=[{"transform":"rotate","r1":"none","r2":"hadamard"}]' -o r2
check "R2: the same function" near "$(value r2 fp)" "$(value plain_l fp)"
check "R2: no head" [ "$(header r2/safetensors | grep -c lm_head)" = 0 ]
loads r2/safetensors r2 adascale

# a trained model: every kind of rotation
cat >d.json <<TEXT
{"model": "$root/jobs/demo/model", "phases": [{"passes": [{"pass": "rtn"}]}], "outputs": [{"format": "safetensors"}],
 "eval": {"tokens": "demo.h5", "ctx": 64, "windows": 4}}
TEXT
"$blockq" tokens --bytes "$root/jobs/demo/evaluation.txt" -o demo.h5 2>/dev/null
expect 0 "$blockq" run d.json -o demo
for kind in hadamard randomized block orthogonal; do
    more=
    if [[ $kind = block ]]; then more=',"r1_block":32'; fi
    expect 0 "$blockq" run d.json --set "transforms=[{\"transform\":\"rotate\",\"r1\":\"$kind\",\"r2\":\"hadamard\"$more}]" -o demo_$kind
    check "$kind: the same function" near "$(value demo_$kind fp)" "$(value demo fp)"
    differ demo demo_$kind
done

# the same bytes: ranks, stages, threads, a stop; seeds count
mpi() {
    local ranks=$1
    shift
    OMP_NUM_THREADS=1 timeout $hang "$mpiexec" -n "$ranks" "$blockq" "$@"
}
for name in l s; do
    expect 0 "$blockq" run $name.json --threads 3 -o threads_$name
    same r_$name threads_$name
    for ranks in 2 3; do
        expect 0 mpi $ranks run $name.json -o "${name}_$ranks"
        same r_$name "${name}_$ranks"
    done
    expect 75 "$blockq" run $name.json --stop-after-blocks 1 -o stopped_$name
    expect 0 mpi 2 run $name.json -o stopped_$name
    same r_$name stopped_$name
done
expect 0 "$blockq" run l.json --set segments=2 -o segments
expect 0 mpi 2 run l.json --set segments=2 --stages 2 -o segments2
for file in ckpt/block_00{0,1}.p0.s0.h5 safetensors/model.safetensors; do
    check "two stages: $file" cmp segments/$file segments2/$file
done
expect 0 "$blockq" run l.json --set seed=1 --set phases.0.inputs=fp -o seed1
expect 0 "$blockq" run l.json --set phases.0.inputs=fp -o seed0
differ seed0 seed1

# another basis is another run, and its streams are not those of this one
expect 2 "$blockq" run l.json --set 'transforms=[]' -o r_l
one_error "differs in: transforms"
cp -r plain_l mixed && rm -r mixed/ckpt
expect 0 "$blockq" run l.json -o mixed
check "streams are made again" cmp mixed/acts/fp_000.h5 r_l/acts/fp_000.h5
expect 0 "$blockq" eval --run r_l --tokens eval.h5 --ctx 32 --windows 5
check "evaluated later" [ "$(grep -c "fp=$(printf %.4f "$(value r_l fp)")" out)" = 1 ]
expect 0 "$blockq" export --run r_l --format safetensors --out later
check "exported later" cmp later/model.safetensors r_l/safetensors/model.safetensors
expect 0 "$blockq" plan l.json
check "planned" grep -q 'rotations' out

# refused
expect 2 "$blockq" run b.json --set 'transforms=[{"transform":"rotate","r2":"hadamard"}]' -o never
one_error "no Hadamard matrix of size 10"
expect 2 "$blockq" run b.json --set 'transforms=[{"transform":"rotate","r1":"block","r1_block":32}]' -o never
one_error "do not divide 48"
check "before any work" [ ! -e never ]
finish
