#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Learned rotations: the loss falls, the model's function stays, the same bytes on any number of ranks and after kills; a file that is
# damaged or of another run is not used.
leaks=1
. "$(dirname "$0")/lib.sh"
root=$(cd "$here/../.." && pwd)
micro llama_llama3 phi3_partial llama_bias mixtral

# recipe_of FILE MODEL R1 R2 STEPS [MORE]
recipe_of() {
    cat >"$1" <<TEXT
{"model": "$2", "calibration": {"tokens": "cal.h5", "samples": 5, "length": 24},
 "transforms": [{"transform": "rotate", "r1": "$3", "r2": "$4", "learn": {"steps": $5, "batch": 4, "lr": 0.05}}],
 "phases": [{"inputs": "qt", "passes": [{"pass": "gptq"}]}], "outputs": [{"format": "safetensors"}, {"format": "compressed-tensors"}],
 "eval": {"tokens": "eval.h5", "ctx": 32, "windows": 5}${6-}}
TEXT
}
mpi() {
    local ranks=$1
    shift
    OMP_NUM_THREADS=1 timeout $hang "$mpiexec" -n "$ranks" "$blockq" "$@"
}
value() { sed -E "s/.*\"$2\": ([^,}]*).*/\1/" "$1/result.json"; }
near() { awk -v a="$1" -v b="$2" 'BEGIN { d = a / b - 1; exit !(d < 1e-5 && d > -1e-5) }'; }
rotations() { cmp "$1/ckpt/rotation.f32" "$2/ckpt/rotation.f32"; }

# R1 and R2, tied and fused; R1 alone; R2 alone; sizes without a Hadamard matrix, biases
recipe_of l.json m_llama_llama3 hadamard hadamard 4
recipe_of p.json m_phi3_partial randomized none 3
recipe_of n.json m_phi3_partial none hadamard 3
recipe_of b.json m_llama_bias orthogonal orthogonal 3
for name in l p n b; do
    expect 0 "$blockq" run $name.json -o $name
    check "$name: the log" grep -q 'rotations: step 3/[34], mean error of a block 0\.' err
    expect 0 "$blockq" run $name.json --set transforms.0.learn.steps=0 -o fixed_$name
    check "$name: the same function" near "$(value $name fp)" "$(value fixed_$name fp)"
    check "$name: other codes" [ "$(value $name gptq)" != "$(value fixed_$name gptq)" ]
    for ranks in 2 3; do
        expect 0 mpi $ranks run $name.json -o ${name}_$ranks
        same $name ${name}_$ranks
        check "$name: the rotations of $ranks ranks" rotations $name ${name}_$ranks
    done
    worth $name
    expect 0 "$blockq" eval --run $name --tokens eval.h5 --ctx 32 --windows 5
    check "$name: evaluated later" grep -q "gptq=$(printf %.4f "$(value $name gptq)")" out
    expect 0 mpi 2 export --run $name --format compressed-tensors --out later_$name
    check "$name: exported later" cmp later_$name/model.safetensors $name/compressed-tensors/model.safetensors
done

# stages, segments, more ranks than samples in a batch
expect 0 "$blockq" run l.json --set segments=2 -o segments
expect 0 mpi 2 run l.json --stages 2 --set segments=2 -o stages
check "two stages" rotations segments stages
check "two stages: the result" cmp segments/safetensors/model.safetensors stages/safetensors/model.safetensors
expect 0 mpi 3 run l.json --set transforms.0.learn.batch=2 -o few_3
expect 0 "$blockq" run l.json --set transforms.0.learn.batch=2 -o few
same few few_3

# kills and stops between steps
for hit in 1 2 4; do
    rm -rf killed
    BQ_FAULT=rotation:$hit expect 137 "$blockq" run l.json -o killed
    expect 0 mpi $((hit / 2 + 1)) run l.json -o killed
    same l killed
    check "killed after step $hit" rotations l killed
done

# a file that is damaged, gone, of another run
for how in damaged gone; do
    cp -r l broken
    if [[ $how = gone ]]; then rm broken/ckpt/rotation.f32; else damage broken/ckpt/rotation.f32 2000; fi
    expect 3 "$blockq" eval --run broken --tokens eval.h5 --ctx 32 --windows 5
    one_error 'rotation.f32 is gone or damaged'
    expect 3 "$blockq" export --run broken --format safetensors --out never
    one_error 'rotation.f32 is gone or damaged'
    expect 0 "$blockq" run l.json -o broken
    check "$how: made again" rotations l broken
    same l broken
    rm -r broken
done
expect 2 "$blockq" run l.json --set transforms.0.learn.lr=0.04 -o l
one_error 'differs in: transforms.0.learn.lr'
expect 0 "$blockq" run l.json --set bits.decoder.bits=3 -o three
check "other bits, other rotations" [ "$(cksum <three/ckpt/rotation.f32)" != "$(cksum <l/ckpt/rotation.f32)" ]
expect 0 "$blockq" run l.json --set 'bits={"auto": {"schemes": [{"bits": 3}, {"bits": 8}], "samples": 3, "budget": 5}}' -o auto
check "with bits.auto" cmp <(tail -c +9 auto/ckpt/rotation.f32 | head -c 5000) <(tail -c +9 l/ckpt/rotation.f32 | head -c 5000)

# a trained model: the loss falls
cat >d.json <<TEXT
{"model": "$root/jobs/demo/model", "calibration": {"tokens": "demo.h5", "samples": 4, "length": 64},
 "transforms": [{"transform": "rotate", "r2": "hadamard", "learn": {"steps": 12, "batch": 4}}],
 "phases": [{"passes": [{"pass": "rtn"}]}], "eval": {"tokens": "demo.h5", "ctx": 64, "windows": 4}}
TEXT
"$blockq" tokens --bytes "$root/jobs/demo/evaluation.txt" -o demo.h5 2>/dev/null
expect 0 "$blockq" run d.json -o demo
errors=$(sed -n 's|.*rotations: step [0-9]*/12, mean error of a block ||p' err) # steps differ by more than the arithmetic does: the least
check "the loss falls: $(xargs <<<"$errors")" awk 'NR == 1 { a = $1 } b == 0 || $1 < b { b = $1 } END { exit !(b > 0 && b < 0.97 * a) }' <<<"$errors"
expect 0 "$blockq" run d.json --set transforms='[]' -o plain
check "the same function" near "$(value demo fp)" "$(value plain fp)"

# planned, refused
expect 0 "$blockq" plan l.json
check "planned: memory" grep -q 'rotations that are learned' out
check "planned: work" grep -q 'training of rotations' out
recipe_of x.json m_mixtral orthogonal none 2
expect 2 "$blockq" run x.json -o never
one_error 'mixtral has experts'
expect 2 "$blockq" run l.json --set calibration.tokens='""' -o never
one_error 'transforms.0.learn reads samples'
check "before any work" [ ! -e never ]
finish
