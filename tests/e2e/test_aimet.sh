#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# AIMET's recipe end to end (configs/aimet_w4a16.json): 4-bit weights by AdaScale, inputs of 16 bits with zero points, a head, keys and values
# of 8; evaluated, and written with encodings of activations in each version.  Python reads them again without blockq's code.
leaks=1
. "$(dirname "$0")/lib.sh"
micro llama_bias
sed -E 's/"iterations": *[0-9]+/"iterations": 6/' "$configs/aimet_w4a16.json" >r.json
keys=(--set model=m_llama_bias --set calibration.tokens=cal.h5 --set calibration.samples=5 --set calibration.length=24
    --set eval.tokens=eval.h5 --set eval.ctx=32 --set eval.windows=5)
value() { sed -n "s/.*\"$2\": \([0-9.]*\).*/\1/p" "$1/result.json"; }
reads() { python3 "$here/check_encodings.py" "$1" m_llama_bias text 5 24; }

expect 0 "$blockq" run r.json "${keys[@]}" -o one
check "version 1.0.0" reads one/aimet
expect 0 "$blockq" export --run one --out two --format aimet:version=2.0.0
check "version 2.0.0" reads two
for ranks in 2 3; do
    expect 0 mpi $ranks run r.json "${keys[@]}" -o on_$ranks
    same one on_$ranks
    check "the same value on $ranks ranks" cmp one/result.json on_$ranks/result.json
done
"$blockq" run r.json "${keys[@]}" -o killed >out 2>err </dev/null &
sleep 0.1
kill -9 $! 2>/dev/null || true
wait $! 2>/dev/null || true
expect 0 "$blockq" run r.json "${keys[@]}" -o killed
same one killed
check "the card" grep -q "inputs of these linears: int16 with zero points, a scale for each linear, measured" one/aimet/README.md

# what rounding costs is little, and it is counted
expect 0 "$blockq" run r.json "${keys[@]}" --set bits.activations=16 --set bits.kv=16 --set outputs='[]' -o floats
check "16 bits cost little" awk -v a="$(value one adascale)" -v b="$(value floats adascale)" 'BEGIN { exit !(a != b && (a / b - 1)^2 < 1e-3) }'
expect 0 "$blockq" eval --run one --tokens eval.h5 --ctx 32 --windows 5
check "eval has it, too" grep -q "adascale=$(printf %.4f "$(value one adascale)")" out

# 0.6.1: the inputs of modules; it has no place for keys
expect 3 "$blockq" export --run one --out never --format aimet:version=0.6.1
one_error "aimet cannot say how keys and values are cached"
expect 0 "$blockq" run r.json "${keys[@]}" --set bits.kv=16 --set 'outputs=[{"format": "aimet", "version": "0.6.1"}]' -o old
check "0.6.1: an entry for the input of each linear" python3 - <<'TEXT'
import json
file, new = json.load(open("old/aimet/model_torch.encodings")), json.load(open("one/aimet/model_torch.encodings"))
acts = file["activation_encodings"]
assert len(acts) == 14 and file["quantizer_args"]["activation_bitwidth"] == 16
for e in new["activation_encodings"]:
    if not e["name"].endswith(".input"): continue
    a = acts[e["name"][:-len(".input")]]["input"]["0"]
    assert (a["bitwidth"], a["is_symmetric"], a["offset"], a["scale"]) == (16, "False", e["offset"][0], e["scale"][0])
    assert abs(a["min"] - a["scale"] * a["offset"]) < 1e-6 and abs(a["max"] - a["min"] - 65535 * a["scale"]) < 1e-4
TEXT

# names of ONNX: linears that read one tensor have one entry
python3 - <<'TEXT'
import json
new = json.load(open("one/aimet/model_torch.encodings"))
site = {"q": "a", "k": "a", "v": "a", "o": "o", "gate": "n", "up": "n", "down": "z", "lm": "head"}
names = {}
for name in [e["name"] for e in new["param_encodings"]]:
    parts = name.split(".")
    names[name] = {"name": "onnx::" + name, "transposed": True, "input": "/read/%s/%s" % (parts[2:3], site[parts[-2].split("_")[0]])}
json.dump(names, open("names.json", "w"))
for e in names.values(): del e["input"]
json.dump(names, open("old_names.json", "w"))
TEXT
expect 0 "$blockq" export --run one --out onnx --format aimet:names=names.json
check "four inputs a block" python3 - <<'TEXT'
import json
acts = json.load(open("onnx/model.encodings"))["activation_encodings"]
names = [e["name"] for e in acts]
assert len(names) == len(set(names)) and sum(n.startswith("/read/") for n in names) == 8, names
assert sorted(n for n in names if n.startswith("past_"))[:2] == ["past_key_0_in", "past_key_0_out"]
TEXT
expect 3 "$blockq" export --run one --out never --format aimet:names=old_names.json
one_error "has no input in .*old_names.json: make the map again for this model"
expect 3 "$blockq" run r.json "${keys[@]}" --set bits.activations=8 --set bits.kv=16 -o never
one_error "aimet has integers with one measured scale for a linear"
check "before any work" [ ! -e never ]
finish
