#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# SmoothQuant whose scales nothing absorbs: factors of the inputs stand beside the codes, in checkpoints, streams, evaluation
# and exports; where there is no place for them, it is said before work starts.
. "$(dirname "$0")/lib.sh"
micro llama_bias phi3_short
smooth='{"pass": "smoothquant", "fuse": false, "entries": "all"}'
cat >w8a8.json <<TEXT
{"model": "m_llama_bias", "calibration": {"tokens": "cal.h5", "samples": 6, "length": 24},
 "bits": {"decoder": {"bits": 8}, "activations": 8},
 "phases": [{"inputs": "qt", "passes": [$smooth, {"pass": "rtn"}]}],
 "eval": {"tokens": "eval.h5", "ctx": 32, "windows": 5}}
TEXT
value() { sed -n "s/.*\"$2\": \([0-9.]*\).*/\1/p" "$1/result.json"; }
name='smoothquant+rtn'

# any number of ranks; stopped and gone on with; killed
for model in llama_bias phi3_short; do
    keys=(--set "model=m_$model" --set bits.decoder.bits=3 --set bits.decoder.group=8)
    expect 0 "$blockq" run w8a8.json "${keys[@]}" -o "$model.1"
    for ranks in 2 3 4; do
        expect 0 mpi "$ranks" run w8a8.json "${keys[@]}" -o "$model.$ranks"
        same "$model.1" "$model.$ranks"
        check "$model: the same result on $ranks ranks" cmp "$model.1/result.json" "$model.$ranks/result.json"
    done
    expect 75 "$blockq" run w8a8.json "${keys[@]}" -o "$model.s" --stop-after-blocks 1
    expect 0 mpi 2 run w8a8.json "${keys[@]}" -o "$model.s"
    same "$model.1" "$model.s"
    for fault in ckpt_write:1 ckpt_rename:2 stream_nan:10; do
        rm -rf killed
        BQ_FAULT=$fault expect "$([[ $fault == stream_nan* ]] && echo 3 || echo 1)" "$blockq" run w8a8.json "${keys[@]}" -o killed
        expect 0 mpi 2 run w8a8.json "${keys[@]}" -o killed
        same "$model.1" killed
    done
    expect 0 "$blockq" inspect "$model.1/ckpt/block_001.p0.s0.h5"
    check "inspect on factors" [ "$(grep -c 'factors of its inputs' out)" = "$(grep -c 'x.* bits' out)" ]
done

# the stream behind a block sees them, and so does the next one; a second phase goes on from them
one() { expect 0 "$blockq" run w8a8.json --set bits.decoder.bits=3 --set "phases=[$2]" -o "$1"; }
one plain '{"inputs": "qt", "passes": [{"pass": "rtn"}]}'
one fused '{"inputs": "qt", "passes": [{"pass": "smoothquant", "entries": "all"}, {"pass": "rtn"}]}'
one kept "{\"inputs\": \"qt\", \"passes\": [$smooth, {\"pass\": \"rtn\"}]}"
one behind "{\"inputs\": \"qt\", \"passes\": [{\"pass\": \"awq\"}, $smooth, {\"pass\": \"rtn\", \"clip\": \"mse\"}]}"
one twice "{\"inputs\": \"qt\", \"passes\": [$smooth, {\"pass\": \"rtn\"}]}, {\"passes\": [{\"pass\": \"rtn\", \"clip\": \"mse\"}]}"
differ plain kept
differ fused kept
check "a second phase keeps the factors" cmp <("$blockq" inspect twice/ckpt/block_000.p0.s0.h5 | grep -c factors) \
    <("$blockq" inspect twice/ckpt/block_000.p1.s0.h5 | grep -c factors)
near() { awk -v a="$(value "$1" "$name")" -v b="$(value "$1" fp)" -v most="$2" 'BEGIN { exit !(a > 1 && (a / b - 1)^2 < most^2) }'; }
expect 0 "$blockq" run w8a8.json -o w8a8
check "8 bits are nearly enough" near w8a8 0.02

# dense weights absorb the factors, unless inputs are rounded behind them
keys=(--set bits.decoder.bits=3 --set bits.activations=16 --set 'outputs=[{"format": "safetensors"}]')
for decoder in group=-1 group=8 symmetric=false; do
    rm -rf dense
    expect 0 "$blockq" run w8a8.json "${keys[@]}" --set "bits.decoder.$decoder" -o dense
    said=$(value dense "$name")
    expect 0 "$blockq" eval --model dense/safetensors --tokens eval.h5 --ctx 32 --windows 5
    check "$decoder: the export is not worth $said: $(cat out)" \
        awk -v a="$said" -v b="$(sed -n 's/.*model=\([0-9.]*\).*/\1/p' out)" 'BEGIN { exit !(a > 1 && (a - b)^2 < 1e-10 * a * a) }'
done
check "weights as without" [ "$(value dense "$name")" != "$(value plain rtn)" ]
expect 3 "$blockq" run w8a8.json --set 'outputs=[{"format": "safetensors"}]' -o never
one_error "with bits.activations 16 the weights absorb the factors"
for bits in 8 16; do
    expect 3 "$blockq" run w8a8.json --set "bits.activations=$bits" --set 'outputs=[{"format": "compressed-tensors"}]' -o never
    one_error "compressed-tensors has no place for these"
done
expect 3 "$blockq" export --run w8a8 --out never
one_error "compressed-tensors has no place for these"

# passes that look at the inputs of linears do not follow
for pass in gptq adascale seqmse awq autosmoothquant smoothquant; do
    expect 2 "$blockq" run w8a8.json --set "phases=[{\"passes\": [$smooth, {\"pass\": \"$pass\"}, {\"pass\": \"rtn\"}]}]" -o never
    one_error "phases.0.passes.1: $pass looks at the inputs of linears"
done
expect 2 "$blockq" run w8a8.json --set "phases=[{\"passes\": [$smooth, {\"pass\": \"rtn\"}]}, {\"passes\": [{\"pass\": \"gptq\"}]}]" -o never
one_error "phases.1.passes.0: gptq looks at the inputs of linears"
check "before any work" [ ! -e never ]
finish
