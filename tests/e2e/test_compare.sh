#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# blockq compare: a run and what it wrote are the same; what differs is said, of models and of runs; bad input.
. "$(dirname "$0")/lib.sh"
micro llama_default qwen2 phi3_partial mixtral

# quantize NAME MODEL BITS PASSES [KEYS]
quantize() {
    cat >"$1.json" <<TEXT
{"model": "m_$2", "calibration": {"tokens": "cal.h5", "samples": 4, "length": 32}, "bits": {"decoder": {$3}}, ${5-}
 "phases": [{"inputs": "qt", "passes": [$4]}], "outputs": [{"format": "safetensors"}, {"format": "compressed-tensors"}]}
TEXT
    expect 0 "$blockq" run "$1.json" -o "$1" --no-eval
}
rtn='{"pass":"rtn"}'

# same_as A B: no value differs, and each side has all tensors
same_as() {
    expect 0 "$blockq" compare "$1" "$2"
    check "$1 and $2 are the same: $(grep 'all linears' out)" grep -qE '^ +0\.000e\+00 0\.000e\+00 +0 .*all linears' out
    check "$1 and $2: other tensors: $(grep 'other tensors' out)" grep -q '^[0-9]* of the other tensors are equal, 0 differ$' out
    check "$1 and $2: $(grep '^only' out)" [ "$(grep -c '^only' out)" = 0 ]
}
quantize w4 qwen2 '"bits": 4, "group": 16' "$rtn"
quantize w8 qwen2 '"bits": 8, "group": 16' "$rtn"
quantize zeros mixtral '"bits": 4, "symmetric": false' "$rtn"
quantize smooth phi3_partial '"bits": 8' "{\"pass\":\"smoothquant\"},$rtn"
quantize rotated llama_default '"bits": 4' "$rtn" '"transforms": [{"transform": "rotate"}],'
for run in w4 zeros smooth rotated; do
    same_as "$run" "$run/safetensors"
    same_as "$run" "$run/compressed-tensors"
done
same_as m_qwen2 m_qwen2

# small floats, and bits that do not fill words
mkdir m_even && cat >m_even/config.json <<TEXT # rows and columns in multiples of 32
{"architectures": ["LlamaForCausalLM"], "blockq_procedural": 3, "hidden_act": "silu", "hidden_size": 64, "intermediate_size": 96,
 "max_position_embeddings": 512, "model_type": "llama", "num_attention_heads": 4, "num_hidden_layers": 2, "num_key_value_heads": 2,
 "rms_norm_eps": 1e-05, "tie_word_embeddings": false, "vocab_size": 97}
TEXT
while read -r name bits; do
    quantize "$name" even "$bits" "$rtn"
    same_as "$name" "$name/compressed-tensors"
    check "$name: bits of both sides: $(grep 'all linears' out)" awk '/all linears/ { good = $6 == $7 } END { exit !good }' out
done <<'TEXT'
fp8_row "bits": "e4m3"
fp8_one "bits": "e4m3", "rows": -1, "group": -1
fp8_tile "bits": "e4m3", "rows": 16, "group": 32
nvfp4 "bits": "e2m1", "group": 16, "scale": "e4m3"
mxfp4 "bits": "e2m1", "group": 32, "scale": "e8m0"
mxfp6 "bits": "e2m3", "group": 32, "scale": "e8m0"
mxfp8 "bits": "e4m3", "group": 32, "scale": "e8m0"
int3 "bits": 3
int5 "bits": 5, "symmetric": false, "group": 32
TEXT

# two runs: codes and scales are compared, too
expect 0 "$blockq" compare w4 w4
check "equal codes: $(grep 'all linears' out)" grep -qE '0\.000e\+00 0\.000e\+00( +0){3}   6\.000   6\.000  all linears, 46080 weights' out
expect 0 "$blockq" compare w4 w8
check "codes of 4 and 8 bits: $(grep 'all linears' out)" \
    awk '/all linears/ { good = $1 > 0.05 && $1 < 0.12 && $3 > 30000 && $4 > 30000 && $5 == 2880 && $6 == 6 && $7 == 10 } END { exit !good }' out
expect 0 "$blockq" compare m_qwen2 w4
check "codes of a run and a model" grep -q 'codes are compared where both sides are runs' out
check "an error of 4 bits: $(grep 'all linears' out)" awk '/all linears/ { good = $1 > 0.05 && $1 < 0.12 && $6 == 32 } END { exit !good }' out
cp -r m_qwen2 moved
printf '\001' | dd of=moved/model.safetensors bs=1 conv=notrunc status=none seek=$(($(stat -c %s moved/model.safetensors) - 4))
expect 0 "$blockq" compare m_qwen2 moved
check "one value: $(tail -n 3 out)" [ "$(awk '$3 == 1 { n++ } END { print n }' out)" -ge 1 ]

# other layouts; what one side lacks
expect 0 "$blockq" compare m_qwen2 m_llama_default
check "a tensor of one side" grep -q '^only in A  model.layers.0.self_attn.q_proj.bias$' out
check "other shapes" grep -qE 'another shape +model\.' out

# for programs; perplexities are those of eval, on any number of ranks
for side in w4/safetensors m_qwen2; do
    expect 0 "$blockq" eval --model $side --tokens eval.h5 --ctx 48 --windows 4
    sed -n 's/^perplexity: model=\([0-9.]*\) .*/\1/p' out >"${side%/*}.worth"
done
for ranks in 1 3; do
    expect 0 mpi $ranks compare m_qwen2 w4 --tokens eval.h5 --ctx 48 --windows 4
    cp out "compared.$ranks"
    check "perplexities on $ranks ranks: $(grep '^perplexity' out)" grep -q "^perplexity: a=$(cat m_qwen2.worth) b=$(cat w4.worth) windows=4 ctx=48$" out
done
check "3 ranks say the same" cmp -s compared.1 compared.3
expect 0 "$blockq" compare --json w4 w8
check "the text is nothing but JSON" grep -q '^{$' out
if command -v python3 >/dev/null; then
    python3 - <<'TEXT'
import json, os, struct
os.makedirs("names")
data = open("m_qwen2/model.safetensors", "rb").read()
n = struct.unpack("<Q", data[:8])[0]
header = json.loads(data[8:8 + n])
header["x\x1b[31m"] = {"dtype": "U8", "shape": [1], "data_offsets": [len(data) - 8 - n, len(data) - 7 - n]}
text = json.dumps(header).encode()
open("names/model.safetensors", "wb").write(struct.pack("<Q", len(text)) + text + data[8 + n:] + b"1")
open("names/config.json", "w").write(open("m_qwen2/config.json").read())
TEXT
    mv out numbers
    expect 0 "$blockq" compare m_qwen2 names
    check "a name that draws: $(grep only out)" grep -qF 'only in B  x?[31m' out
    # weights so small that a factor for them would be infinite
    python3 - <<'TEXT'
import os, shutil, struct, json
shutil.copytree("m_qwen2", "m_tiny")
data = bytearray(open("m_qwen2/model.safetensors", "rb").read())
n = struct.unpack("<Q", data[:8])[0]
from_, to = json.loads(data[8:8 + n])["model.layers.0.self_attn.o_proj.weight"]["data_offsets"]
data[8 + n + from_:8 + n + to] = struct.pack("<f", 1e-37) * ((to - from_) // 4)
open("m_tiny/model.safetensors", "wb").write(data)
TEXT
    quantize tiny tiny '"bits": "e2m1", "group": 16, "scale": "e4m3"' "$rtn"
    same_as tiny tiny/compressed-tensors
    mv numbers out
    check "numbers for programs" python3 - out <<'TEXT'
import json, sys
c = json.load(open(sys.argv[1]))
assert c["a"]["kind"] == "run" and c["b"]["path"] == "w8" and c["a"]["only"] == [] and c["windows"] is None
assert len(c["linears"]) == 14 and c["total"]["bits"] == [6, 10] and c["others"] == [] and c["others_equal"] == 12
assert sum(x["codes_differ"] for x in c["linears"]) == c["total"]["codes_differ"] > 30000
assert sum(x["weights"] for x in c["linears"]) == c["total"]["weights"] == 46080
assert abs(c["total"]["error"] - 0.08) < 0.02 and max(x["largest"] for x in c["linears"]) == c["total"]["largest"]
TEXT
fi

# bad input
expect 2 "$blockq" compare w4
expect 2 "$blockq" compare w4 w8 w4
expect 3 "$blockq" compare w4 nothing
one_error 'nothing: there is no model'
expect 3 "$blockq" compare text m_qwen2
expect 75 "$blockq" run w4.json --set bits.decoder.group=8 -o stopped --no-eval --stop-after-blocks 1
expect 3 "$blockq" compare stopped w4
one_error 'stopped is not finished'
cp -r w8 damaged
damage damaged/ckpt/block_001.p0.s0.h5 3000
expect 3 "$blockq" compare w8 damaged
one_error 'damaged/ckpt/block_001.p0.s0.h5'
cp -r m_qwen2 nan
printf '\377\377\377\177' | dd of=nan/model.safetensors bs=1 conv=notrunc status=none seek=$(($(stat -c %s nan/model.safetensors) - 4))
expect 3 "$blockq" compare m_qwen2 nan
one_error 'nan: tensor .* has a NaN or an infinity at row'
expect 3 "$blockq" compare m_qwen2 w4 --tokens text --ctx 48
finish
