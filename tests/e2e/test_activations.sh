#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Inputs rounded to 8 bits: what the result is worth and what is exported changes, what the passes made does not.
leaks=1
. "$(dirname "$0")/lib.sh"
micro llama_bias
cat >r.json <<TEXT
{"model": "m_llama_bias", "bits": {"decoder": {"bits": 8}, "activations": 8}, "phases": [{"passes": [{"pass": "rtn"}]}],
 "outputs": [{"format": "compressed-tensors", "dir": "ct"}, {"format": "safetensors", "dir": "plain"}],
 "eval": {"tokens": "eval.h5", "ctx": 32, "windows": 5}}
TEXT
value() { sed -n "s/.*\"$2\": \([0-9.]*\).*/\1/p" "$1/result.json"; }
expect 0 "$blockq" run r.json -o a8
expect 0 "$blockq" run r.json --set bits.activations=16 -o a16
check "the original's inputs are as they are" [ "$(value a8 fp)" = "$(value a16 fp)" ]
check "those of the result are not" [ "$(value a8 rtn)" != "$(value a16 rtn)" ]
near() { awk -v a="$(value a8 rtn)" -v b="$(value a16 rtn)" 'BEGIN { exit !(a > 1 && b > 1 && (a / b - 1)^2 < 1e-3) }'; }
check "but 8 bits are nearly enough" near
check "the same checkpoints" diff -r -x lock -x state.json -x model.hash.json -x 'export_*' a8/ckpt a16/ckpt
check "the same float model" diff -r -x README.md -x recipe.json -x quantization.json -x SHA256SUMS a8/plain a16/plain
check "codes as they are" grep -q '"format": *"int-quantized"' a8/ct/config.json
check "packed codes" grep -q '"format": *"pack-quantized"' a16/ct/config.json

# the same run, evaluated and exported in the other way, there and back
cp -r a8/ct ct8
expect 0 "$blockq" run r.json --set bits.activations=16 -o a8
check "another export" diff -r a8/ct a16/ct
check "another result" diff a8/result.json a16/result.json
expect 0 "$mpiexec" -n 2 "$blockq" run r.json -o a8
check "and back" diff -r a8/ct ct8
expect 0 "$blockq" export --run a8 --out later
check "the same later" diff -r later ct8

# a scheme that no engine has
expect 2 "$blockq" run r.json --set bits.activations=12 -o never
one_error 'bits.activations: is 12, must be an integer from 2 to 8, 16, or "int16"'
expect 3 "$blockq" run r.json --set bits.decoder.symmetric=false -o never
one_error "where inputs are rounded, too, compressed-tensors is written for integer inputs of at most 8 bits and symmetric weights"
check "before any work" [ ! -e never ]
expect 0 "$blockq" run r.json --set bits.decoder.bits=4 --set 'outputs=[{"format": "safetensors"}]' -o w4a8
finish
