#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# All ranks write the outputs, cut small: the same directories for any number of ranks, after kills, and when the recipe's
# outputs change.
. "$(dirname "$0")/lib.sh"
root=$(cd "$here/../.." && pwd)
export OMP_NUM_THREADS=1
cat >r.json <<TEXT
{"model": "$root/jobs/demo/model", "phases": [{"inputs": "fp", "passes": [{"pass": "rtn"}]}],
 "bits": {"decoder": {"scale": "f16"}},
 "outputs": [{"format": "safetensors", "shard_bytes": 100000},
             {"format": "compressed-tensors", "dir": "ct", "shard_bytes": 100000}, {"format": "compressed-tensors", "dir": "whole"},
             {"format": "gptq", "shard_bytes": 100000}, {"format": "gptq", "version": 2, "dir": "gptq2", "shard_bytes": 100000},
             {"format": "awq", "shard_bytes": 100000}, {"format": "aimet", "shard_bytes": 100000, "version": "0.6.1"},
             {"format": "safetensors", "dir": "bf16", "shard_bytes": 100000, "type": "bf16"}]}
TEXT
outputs="safetensors ct whole gptq gptq2 awq aimet bf16"
# equal A B: all outputs of two run directories are there and hold the same files with the same bytes.
equal() {
    local output
    for output in $outputs; do
        check "$1/$output is whole" [ -s "$1/$output/config.json" ]
        check "$output of $1 and $2 differ" diff -r "$1/$output" "$2/$output"
    done
}
# wrote DIR SHARDS RANKS: the log says so, once.
wrote() { check "no 'wrote $1: $2 by $3'" [ "$(grep -cE "^bq: wrote $1: $2 shards? by $3 ranks? in [0-9.]+ s$" err)" = 1 ]; }

for ranks in 1 2 3 4; do
    expect 0 mpi $ranks run r.json -o $ranks
    wrote $ranks/safetensors 43 $ranks
    wrote $ranks/ct 12 $ranks
    wrote $ranks/whole 1 1
    wrote $ranks/gptq 12 $ranks
    wrote $ranks/gptq2 12 $ranks
    wrote $ranks/awq 12 $ranks
    wrote $ranks/aimet 43 $ranks
    check "types are rounded" grep -q '^bq: .*safetensors: [0-9]* tensors were rounded to BF16, the worst, ' err
    check "time of the export" grep -q '^bq: done in .* export [0-9.]* s of it' err
    equal 1 $ranks
done
check "shards as the index has them" [ "$(find 1/safetensors -name 'model-*-of-00043.safetensors' | wc -l)" = 43 ]
check "one file" [ -s 1/whole/model.safetensors -a ! -e 1/whole/model.safetensors.index.json ]
expect 0 mpi 13 run r.json -o 13 # more than shards of ct
equal 1 13
expect 0 mpi 2 run r.json -o 1
check "what is whole is not written again" [ "$(grep -c wrote err)" = 0 ]

# another time, in a form and cut of its own
expect 0 mpi 3 export --run 1 --format safetensors --shard 100000 --out later
wrote later 43 3
check "export writes what run writes" diff -r 1/safetensors later
expect 0 mpi 2 export --run 1 --format gptq --shard 100000 --out later_gptq
check "gptq, too" diff -r 1/gptq later_gptq
expect 0 mpi 2 export --run 1 --format gptq:version=2 --shard 100000 --out later_gptq2
check "of version 2, too" diff -r 1/gptq2 later_gptq2
expect 0 mpi 2 export --run 1 --format awq --shard 100000 --out later_awq
check "awq, too" diff -r 1/awq later_awq
expect 0 mpi 2 export --run 1 --format aimet:version=0.6.1 --shard 100000 --out later_aimet
check "aimet, too" diff -r 1/aimet later_aimet
expect 0 mpi 3 export --run 1 --format safetensors:type=bf16 --shard 100000 --out later_bf16
check "another type, too" diff -r 1/bf16 later_bf16
check "the weights of aimet are those of safetensors" diff -r -x '*.encodings' -x README.md -x recipe.json -x quantization.json -x SHA256SUMS \
    1/safetensors 1/aimet
expect 0 mpi 2 export --run 1 --format gptq --shard 100000 --out later_aimet
check "in the place of aimet" diff -r 1/gptq later_aimet
rm 1/aimet/model_torch.encodings
expect 0 mpi 2 run r.json -o 1
check "what is gone is written again" [ "$(grep -c 'is written again: model_torch.encodings is gone' err)" = 1 ]
equal 1 2
expect 0 mpi 2 export --run 1 --shard 300K --out later
check "over what was there" [ "$(find later -name '*.safetensors' | wc -l)" -lt 10 ]
expect 0 mpi 1 export --run 1 --shard 300K --out later2
check "in another cut" diff -r later later2

# refused once, by all
mkdir foreign && echo '{}' >foreign/config.json
expect 3 mpi 3 export --run 1 --out foreign
one_error "not from blockq"
expect 3 mpi 3 run r.json -o six --set bits.decoder.bits=6
one_error "is of int6, gptq has integers of 2, 3, 4 and 8 bits"
check "before any work" [ ! -e six ]
expect 3 mpi 3 run r.json -o zeros --set bits.decoder.symmetric=false
one_error "gptq of version 1 is written for symmetric codes only"
expect 3 mpi 1 run r.json -o wide --set bits.decoder.scale=f32 --set 'outputs=[{"format":"gptq"}]'
one_error "set bits.decoder.scale=f16"
check "before any work" [ ! -e wide ]
for bits in 3 8; do
    expect 3 mpi 1 run r.json -o wide --set bits.decoder.bits=$bits --set 'outputs=[{"format":"awq"}]'
    one_error "is of int$bits, awq has int4"
done
expect 3 mpi 3 run r.json -o wide --set bits.activations=8 --set bits.decoder.bits=8 --set 'outputs=[{"format":"aimet"}]'
one_error "rounded to int8, and aimet has integers with one measured scale"
check "before any work" [ ! -e wide ]
echo '{"model.layers.0.mlp.up_proj.weight": "up"}' >names.json
expect 3 mpi 2 export --run 1 --format aimet:names=names.json --out never
one_error "has no name in .*names.json"
expect 2 "$blockq" export --run 1 --format aimet:version=3 --out never
one_error "version"
expect 2 "$blockq" export --run 1 --format gptq:version=1.0.0 --out never
one_error "version"
expect 75 mpi 1 run r.json -o begun --stop-after-blocks 2
expect 3 mpi 3 export --run begun --out never
one_error "not finished"
expect 2 "$blockq" run r.json -o never --set outputs.0.shard_bytes=99999
one_error "outputs.0.shard_bytes"

# the schemes of compressed-tensors, and zero points in gptq: the same for any number of ranks
cat >ct.json <<TEXT
{"model": "$root/jobs/demo/model", "phases": [{"inputs": "fp", "passes": [{"pass": "rtn"}]}], "bits": {"decoder": {"scale": "f16"}},
 "outputs": [{"format": "compressed-tensors", "dir": "ct", "shard_bytes": 100000}]}
TEXT
# scheme NAME CONFIG SETTING...: outputs of one rank and of three; CONFIG is in quantization_config.
scheme() {
    local name=$1 config=$2 dir setting sets=()
    shift 2
    for setting; do sets+=(--set "$setting"); done
    for ranks in 1 3; do expect 0 mpi $ranks run ct.json -o $name.$ranks "${sets[@]}"; done
    for dir in $name.1/ct $name.1/gptq; do
        [[ ! -e $dir ]] || check "$dir of 3 ranks is another" diff -r $dir $name.3/${dir#*/}
    done
    check "$name: no $config in config.json" grep -q "$config" $name.1/*/config.json
}
zeros='{"format": "gptq", "version": 2, "shard_bytes": 100000}, {"format": "compressed-tensors", "dir": "ct", "shard_bytes": 100000}'
scheme b2 '"num_bits": *2' bits.decoder.bits=2 bits.decoder.group=32
scheme b3 '"num_bits": *3' bits.decoder.bits=3
scheme b5 '"symmetric": *false' bits.decoder.bits=5 bits.decoder.symmetric=false
scheme b7 '"num_bits": *7' bits.decoder.bits=7 bits.decoder.symmetric=false bits.decoder.group=64
scheme w4a8 '"int-quantized"' bits.activations=8 bits.decoder.group=32
scheme rows '"group_size": *64' bits.decoder.symmetric=false outputs.0.row_group=64
scheme mixed '"num_bits": *6' bits.linears.v_proj.bits=6 bits.linears.v_proj.group=32
for bits in 3 4; do scheme v2.$bits '"gptq_v2"' bits.decoder.bits=$bits bits.decoder.symmetric=false bits.decoder.group=32 "outputs=[$zeros]"; done
expect 3 mpi 1 run ct.json -o never --set outputs.0.row_group=48
one_error "groups of 48 do not divide its 128 columns"

# other outputs are another export, but not another run; one that broke off is not believed by its old mark
expect 0 mpi 2 run r.json -o 2 --set outputs.0.shard_bytes=400000
wrote 2/safetensors 17 2
check "the others stay" [ "$(grep -c wrote err)" = 1 ]
for fault in writer_close:3@0 writer_write:5@1 file_rename:6@1; do
    expect 0 mpi 2 run r.json -o 2
    equal 1 2
    BQ_FAULT=$fault expect 1 mpi 2 run r.json -o 2 --set outputs.0.shard_bytes=400000
    check "a broken export does not load" [ ! -e 2/safetensors/config.json ]
done
expect 0 mpi 2 run r.json -o 2
wrote 2/safetensors 43 2
equal 1 2
expect 0 mpi 2 run r.json -o 2 --set outputs.1.format=safetensors
equal_dense() { diff -r 2/ct 2/safetensors; }
check "another format in the same place" equal_dense

# AIMET's encodings of families, in all versions, with blocks of columns, zero points and LPBQ: for any number of ranks
micro llama_llama3 qwen2 phi3_short qwen3_moe
for family in llama_llama3 qwen2 phi3_short qwen3_moe; do
    cat >f.json <<TEXT
{"model": "m_$family", "phases": [{"passes": [{"pass": "rtn"}]}],
 "bits": {"decoder": {"group": 8, "symmetric": false}, "linears": {"down_proj": {"group": -1}}},
 "outputs": [{"format": "aimet", "dir": "a", "version": "0.6.1"}, {"format": "aimet", "dir": "b"},
             {"format": "aimet", "dir": "c", "version": "2.0.0", "shard_bytes": 100000}]}
TEXT
    lpbq=(--set bits.decoder.symmetric=true --set phases.0.passes.0.pass=lpbq)
    for ranks in 1 3; do
        expect 0 mpi $ranks run f.json -o $family$ranks
        expect 0 mpi $ranks run f.json -o l$family$ranks "${lpbq[@]}"
    done
    for run in $family l$family; do
        for output in a b c; do
            check "$run/$output of 1 and 3 ranks differ" diff -r ${run}1/$output ${run}3/$output
        done
        check "$run: one model in three versions" cmp ${run}1/a/model.safetensors ${run}1/b/model.safetensors
    done
    check "$family: blocks" grep -q '"enc_type": "PER_BLOCK", "dtype": "INT", "bw": 4, "is_sym": false' ${family}1/b/model_torch.encodings
    check "$family: LPBQ" grep -q '"enc_type": "LPBQ", "dtype": "INT", "bw": 8, "is_sym": true' l${family}1/b/model_torch.encodings
    check "$family: rows" grep -q '"enc_type": "PER_CHANNEL", "dtype": "INT", "bw": 4, "is_sym": false' ${family}1/b/model_torch.encodings
    check "$family: LPBQ in 2.0.0" grep -q '"per_channel_float_scale": \[\[' l${family}1/c/model_torch.encodings
done

# killed while shards are being written: all ranks, or one of them
caught=0
for round in {1..8}; do
    ranks=$((1 + round % 4)) want=$((4 * round))
    rm -rf killed/{safetensors,ct,whole}
    "$mpiexec" -n $ranks "$blockq" run r.json -o killed >out 2>err &
    job=$!
    shards=()
    while kill -0 $job 2>/dev/null && ((${#shards[@]} < want)); do
        mapfile -t shards < <(compgen -G 'killed/safetensors/model-*.safetensors' || true)
    done
    mapfile -t victims < <(pgrep -P $job || true)
    if ((round % 2)); then victims=("${victims[@]:0:1}"); fi
    kill -9 "${victims[@]}" 2>/dev/null || true
    wait $job 2>/dev/null || true
    [[ -e killed/safetensors/config.json ]] || caught=$((caught + 1))
    if ((round % 2)); then
        expect 0 mpi $((1 + (round + 2) % 4)) run r.json -o killed
        equal 1 killed
        check "no temporary file is left" [ -z "$(find killed -name '*.tmp')" ]
    fi
done
expect 0 mpi 2 run r.json -o killed
equal 1 killed
echo "$caught of 8 kills came in the middle"
check "a kill in the middle" [ $caught -gt 0 ]
finish
