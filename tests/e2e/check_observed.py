# SPDX-License-Identifier: Apache-2.0
"""check_observed.py MODEL TEXT SAMPLES LENGTH [CT] [IMATRIX]: compute what block 0 of a small model does, without blockq's code.

MODEL is a folder with float weights of a Llama or Qwen2.  The samples follow each other in TEXT, whose bytes are the tokens.  CT, a
compressed-tensors folder, must have the scales of its keys and values; IMATRIX the squares of the inputs of q, and their number.
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


def gguf(path):
    """F32 tensors of a file whose keys are texts, u32 and lists of texts: their values and dimensions."""
    with open(path, "rb") as f:
        data = f.read()
    at = 0

    def take(form):
        nonlocal at
        at += struct.calcsize(form)
        return struct.unpack_from(form, data, at - struct.calcsize(form))[0]

    def text():
        nonlocal at
        n = take("<Q")
        at += n
        return data[at - n:at].decode()

    def value(kind):
        if kind == 9:
            item, n = take("<I"), take("<Q")
            return [value(item) for _ in range(n)]
        return text() if kind == 8 else take("<I")

    assert data[:4] == b"GGUF" and struct.unpack_from("<I", data, 4)[0] == 3
    at = 8
    count, pairs = take("<Q"), take("<Q")
    keys = {}
    for _ in range(pairs):
        name = text()
        keys[name] = value(take("<I"))
    table = {}
    for _ in range(count):
        name = text()
        dims = [take("<Q") for _ in range(take("<I"))]
        assert take("<I") == 0
        table[name] = dims, take("<Q")
    start = -(-at // 32) * 32
    return keys, {name: (struct.unpack_from("<%df" % math.prod(dims), data, start + offset), dims)
                  for name, (dims, offset) in table.items()}


def near(what, have, want):
    assert abs(have - want) <= 1e-5 * abs(want), "%s: %g, not %g" % (what, have, want)


def main():
    model, text, samples, length = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    with open(os.path.join(model, "config.json")) as f:
        config = json.load(f)
    have = {name: (x, shape) for name, x, shape in tensors(os.path.join(model, "model.safetensors"))}
    with open(text, "rb") as f:
        ids = f.read(samples * length)
    hidden, heads = config["hidden_size"], config["num_key_value_heads"]
    size = config.get("head_dim", hidden // config["num_attention_heads"])
    block = "model.layers.0."
    gain, table = have[block + "input_layernorm.weight"][0], have["model.embed_tokens.weight"][0]
    square, most = [0.0] * hidden, {"k": 0.0, "v": 0.0}
    for position, token in enumerate(ids):
        row = table[token * hidden:(token + 1) * hidden]
        scale = 1 / math.sqrt(sum(v * v for v in row) / hidden + config["rms_norm_eps"])
        x = [v * scale * g for v, g in zip(row, gain)]
        square = [s + v * v for s, v in zip(square, x)]
        for kind in "kv":
            name = block + "self_attn.%s_proj." % kind
            w, bias = have[name + "weight"][0], have.get(name + "bias", ([0.0] * heads * size,))[0]
            y = [sum(a * b for a, b in zip(w[r * hidden:(r + 1) * hidden], x)) + bias[r] for r in range(heads * size)]
            for head in range(heads if kind == "k" else 0):
                part, half = y[head * size:(head + 1) * size], size // 2
                for i in range(half):
                    angle = position % length * config.get("rope_parameters", config)["rope_theta"] ** (-2 * i / size)
                    a, b = part[i], part[i + half]
                    y[head * size + i] = a * math.cos(angle) - b * math.sin(angle)
                    y[head * size + i + half] = b * math.cos(angle) + a * math.sin(angle)
            most[kind] = max(most[kind], max(abs(v) for v in y))
    for path in sys.argv[5:]:
        if path.endswith(".gguf"):
            keys, found = gguf(path)
            assert keys["general.type"] == "imatrix" and keys["imatrix.chunk_count"] == samples
            assert keys["imatrix.chunk_size"] == length, keys
            sums, dims = found["blk.0.attn_q.weight.in_sum2"]
            assert dims == [hidden, 1] and found["blk.0.attn_q.weight.counts"] == ((samples * length,), [1, 1])
            for c in range(hidden):
                near("column %d" % c, sums[c], square[c])
        else:
            found = {name: (x, shape) for name, x, shape in tensors(os.path.join(path, "model.safetensors"))}
            for kind in "kv":
                x, shape = found[block + "self_attn.%s_scale" % kind]
                assert shape == [1], shape
                near(kind, x[0], most[kind] / 448)


main()
