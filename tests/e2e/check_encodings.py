# SPDX-License-Identifier: Apache-2.0
"""check_encodings.py FOLDER MODEL TEXT SAMPLES LENGTH: AIMET's encodings of a small Llama, read as AIMET's page says, without blockq's code.

FOLDER has an output of the format aimet, 1.0.0 or 2.0.0 with names of torch.  Every weight in it must lie on its grid.  The ranges of block 0 are
computed again with these weights, from the samples, which follow each other in TEXT, whose bytes are the tokens: of the input of q, k and v, which
is asymmetric with 16 bits; of keys and values, symmetric with 8.
"""
import json
import math
import os
import struct
import sys


def tensors(path):
    with open(path, "rb") as f:
        data = f.read()
    size = struct.unpack_from("<Q", data)[0]
    for name, t in json.loads(data[8:8 + size]).items():
        if name != "__metadata__" and t["dtype"] == "F32":
            first, last = t["data_offsets"]
            yield name, struct.unpack("<%df" % ((last - first) // 4), data[8 + size + first:8 + size + last]), t["shape"]


def near(what, have, want, limit=1e-5):
    assert abs(have - want) <= limit * max(abs(want), 1e-30), "%s: %g, not %g" % (what, have, want)


def grid(e):
    """(scales, zero in 0 ... 2^bits - 1, bits) of an entry of either version."""
    if "enc_type" in e:
        assert e["dtype"] == "INT"
        return e["scale"], -e["offset"][0], e["bw"]
    bits = int(e["output_dtype"].lstrip("uint"))
    scale = e["y_scale"]
    zero = e.get("y_zero_point", 0) + (0 if e["output_dtype"].startswith("u") else 1 << bits - 1)
    return scale if isinstance(scale, list) else [scale], zero, bits


def main():
    folder, model, text, samples, length = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
    with open(os.path.join(folder, "model_torch.encodings")) as f:
        file = json.load(f)
    with open(os.path.join(model, "config.json")) as f:
        config = json.load(f)
    if file["version"] == "2.0.0":
        entries = {e["name"]: e for e in file["encodings"]}
        params, acts = {k: e for k, e in entries.items() if k.endswith(".weight")}, entries
    else:
        assert file["version"] == "1.0.0" and file["quantizer_args"]["activation_bitwidth"] == 16
        params = {e["name"]: e for e in file["param_encodings"]}
        acts = {e["name"]: e for e in file["activation_encodings"]}
        assert all(e["enc_type"] == "PER_TENSOR" for e in acts.values())
    have = {name: (x, shape) for name, x, shape in tensors(os.path.join(folder, "model.safetensors"))}
    for name, e in params.items():
        scales, _, bits = grid(e)
        x, (rows, cols) = have[name]
        assert bits == (8 if name == "lm_head.weight" else 4) and len(scales) == rows, name
        for r in range(rows):
            for v in x[r * cols:(r + 1) * cols]:
                q = v / scales[r]
                assert abs(q - round(q)) < 1e-4 and -(1 << bits - 1) <= round(q) < 1 << bits - 1, name
    blocks = config["num_hidden_layers"]
    linears = [n for n in params if n != "lm_head.weight"]
    assert len(linears) == 7 * blocks
    for name in linears:  # linears of one input have one grid
        assert name[:-len(".weight")] + ".input" in acts, name
    for b in range(blocks):
        for site in (("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), ("mlp.gate_proj", "mlp.up_proj")):
            assert len({repr(grid(acts["model.layers.%d.%s.input" % (b, n)])) for n in site}) == 1
        for kind in ("key", "value"):
            assert grid(acts["past_%s_%d_in" % (kind, b)]) == grid(acts["past_%s_%d_out" % (kind, b)])
    check_ranges(have, config, acts, text, samples, length)


def check_ranges(have, config, acts, text, samples, length):
    with open(text, "rb") as f:
        ids = f.read(samples * length)
    hidden, heads = config["hidden_size"], config["num_key_value_heads"]
    size = config.get("head_dim") or hidden // config["num_attention_heads"]
    gain, table = have["model.layers.0.input_layernorm.weight"][0], have["model.embed_tokens.weight"][0]
    lo, hi, most = 0.0, 0.0, {"key": 0.0, "value": 0.0}
    theta = config.get("rope_parameters", config).get("rope_theta", config.get("rope_theta"))
    for position, token in enumerate(ids):
        row = table[token * hidden:(token + 1) * hidden]
        scale = 1 / math.sqrt(sum(v * v for v in row) / hidden + config["rms_norm_eps"])
        x = [v * scale * g for v, g in zip(row, gain)]
        lo, hi = min([lo] + x), max([hi] + x)
        for kind in ("key", "value"):
            name = "model.layers.0.self_attn.%s_proj." % kind[0]
            w, bias = have[name + "weight"][0], have.get(name + "bias", ([0.0] * heads * size,))[0]
            y = [sum(a * b for a, b in zip(w[r * hidden:(r + 1) * hidden], x)) + bias[r] for r in range(heads * size)]
            for head in range(heads if kind == "key" else 0):
                part, half = y[head * size:(head + 1) * size], size // 2
                for i in range(half):
                    angle = position % length * theta ** (-2 * i / size)
                    a, b = part[i], part[i + half]
                    y[head * size + i] = a * math.cos(angle) - b * math.sin(angle)
                    y[head * size + i + half] = b * math.cos(angle) + a * math.sin(angle)
            most[kind] = max(most[kind], max(abs(v) for v in y))
    scales, zero, bits = grid(acts["model.layers.0.self_attn.q_proj.input"])
    assert bits == 16
    near("scale of q's input", scales[0], (hi - lo) / 65535)
    assert abs(zero - round(-lo / scales[0])) <= 1, zero
    for kind in most:
        scales, zero, bits = grid(acts["past_%s_0_in" % kind])
        assert (zero, bits) == (128, 8)
        near(kind, scales[0], most[kind] / 127.5)


main()
