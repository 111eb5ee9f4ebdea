# SPDX-License-Identifier: Apache-2.0
"""make_packed.py MODEL OUT FORM: quantize the linears of a small float32 model, without blockq's code.

Writes OUT/coded, a compressed-tensors checkpoint of that form, and OUT/floats, the values of its codes as float32.  FORM: fp8_tensor,
fp8_channel, fp8_block, nvfp4, mxfp4, mxfp6, mxfp8, int3, int7 (the layout before version 0.18), or mixed: a form for each linear in turn.
"""
import bisect
import json
import os
import struct
import sys

E2M1 = [0, 0.5, 1, 1.5, 2, 3, 4, 6]
E2M3 = [m / 8 for m in range(8)] + [2**e * (1 + m / 8) for e in range(3) for m in range(8)]
E4M3 = [m / 512 for m in range(8)] + [2.0 ** (e - 7) * (1 + m / 8) for e in range(1, 16) for m in range(8)][:119]
FORMATS = {"fp8_tensor": "float-quantized", "fp8_channel": "float-quantized", "fp8_block": "float-quantized",
           "nvfp4": "nvfp4-pack-quantized", "mxfp4": "mxfp4-pack-quantized", "mxfp6": "mxfp6-pack-quantized",
           "mxfp8": "mxfp8-quantized", "int3": "pack-quantized", "int7": "pack-quantized"}
GROUP = {"nvfp4": 16, "mxfp4": 32, "mxfp6": 32, "mxfp8": 32}


def f32(x):
    return struct.unpack("<f", struct.pack("<f", x))[0]


def nearest(table, x):
    """Code of the value of a small float type that is nearest to x."""
    i = bisect.bisect_left(table, abs(x))
    if i == len(table) or (i and table[i] - abs(x) > abs(x) - table[i - 1]):
        i -= 1
    return i | (len(table) + (len(table) == 127) if x < 0 else 0)


def value(table, code):
    half = len(table) + (len(table) == 127)
    return -table[code - half] if code >= half else table[code]


def dense(codes, bits):
    """Codes one behind the other, the first in the lowest bits."""
    return sum(c << bits * i for i, c in enumerate(codes)).to_bytes((len(codes) * bits + 7) // 8, "little")


class Coded:
    def __init__(self, name, w, n, k, form):
        self.tensors, self.floats = {}, []
        getattr(self, form.split("_")[0].rstrip("37"))(name[: -len("weight")], [w[i * k:(i + 1) * k] for i in range(n)], n, k, form)

    def put(self, name, dtype, shape, data):
        self.tensors[name] = (dtype, shape, data)

    def fp8(self, p, w, n, k, form):
        bh, bw = {"tensor": (n, k), "channel": (1, k), "block": (16, 32)}[form[4:]]
        tops = {}
        for r in range(n):
            for c in range(k):
                at = r // bh, c // bw
                tops[at] = max(tops.get(at, 0), abs(w[r][c]))
        scale = {at: f32(top / 448) for at, top in sorted(tops.items())}
        codes = [[nearest(E4M3, x / scale[r // bh, c // bw]) for c, x in enumerate(row)] for r, row in enumerate(w)]
        self.floats = [f32(value(E4M3, u) * scale[r // bh, c // bw]) for r, row in enumerate(codes) for c, u in enumerate(row)]
        shape = [1] if form == "fp8_tensor" else [-(-n // bh), -(-k // bw)]
        self.put(p + "weight", "F8_E4M3", [n, k], bytes(sum(codes, [])))
        self.put(p + "weight_scale", "F32", shape, struct.pack("<%df" % len(scale), *scale.values()))

    def nvfp(self, p, w, n, k, form):
        unit, g = f32(448 * 6 / max(abs(x) for row in w for x in row)), 16
        scales, codes = [], []
        for row in w:
            for c in range(0, k, g):
                s = nearest(E4M3, unit * max(abs(x) for x in row[c:c + g]) / 6)
                scale = f32(value(E4M3, s) / unit)
                scales.append(s)
                for x in row[c:c + g]:
                    codes.append(nearest(E2M1, x / scale if scale else 0))
                    self.floats.append(f32(value(E2M1, codes[-1]) * scale))
        self.put(p + "weight_packed", "U8", [n, k // 2], dense(codes, 4))
        self.put(p + "weight_scale", "F8_E4M3", [n, k // g], bytes(scales))
        self.put(p + "weight_global_scale", "F32", [1], struct.pack("<f", unit))

    nvfp4 = nvfp

    def mx(self, p, w, n, k, table, bits, name):
        scales, codes, g = [], [], 32
        for row in w:
            for c in range(0, k, g):
                e = 0
                while 2.0**e * table[-1] < max(abs(x) for x in row[c:c + g]):
                    e += 1
                while e > -100 and 2.0 ** (e - 1) * table[-1] >= max(abs(x) for x in row[c:c + g]):
                    e -= 1
                scales.append(e + 127)
                for x in row[c:c + g]:
                    codes.append(nearest(table, x / 2.0**e))
                    self.floats.append(f32(value(table, codes[-1]) * 2.0**e))
        self.put(p + name, "F8_E4M3" if bits == 8 else "U8", [n, k * bits // 8], dense(codes, bits))
        self.put(p + "weight_scale", "U8", [n, k // g], bytes(scales))

    def mxfp4(self, p, w, n, k, form):
        self.mx(p, w, n, k, E2M1, 4, "weight_packed")

    def mxfp6(self, p, w, n, k, form):
        self.mx(p, w, n, k, E2M3, 6, "weight_packed")

    def mxfp8(self, p, w, n, k, form):
        self.mx(p, w, n, k, E4M3, 8, "weight")

    def int(self, p, w, n, k, form):
        bits = int(form[3:])
        half, fill = 1 << bits - 1, 32 // bits if bits == 7 else 0
        scales, words, width = [], b"", 0
        for row in w:
            s = f32(max(abs(x) for x in row) / (half - 0.5)) or 1.0
            q = [max(-half, min(half - 1, round(x / s))) for x in row]
            self.floats += [f32(x * s) for x in q]
            scales.append(s)
            u = [x + half for x in q]
            line = b"".join(dense(u[i:i + fill], bits).ljust(4, b"\0") for i in range(0, k, fill)) if fill else dense(u, bits)
            words += line.ljust(-(-len(line) // 4) * 4, b"\0")
            width = -(-len(line) // 4)
        self.put(p + "weight_packed", "I32", [n, width], words)
        self.put(p + "weight_scale", "F32", [n, 1], struct.pack("<%df" % n, *scales))
        self.put(p + "weight_shape", "I64", [2], struct.pack("<2q", n, k))


def read(path):
    with open(path, "rb") as f:
        data = f.read()
    n = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + n])
    header.pop("__metadata__", None)
    return {k: (v["dtype"], v["shape"], data[8 + n + v["data_offsets"][0]:8 + n + v["data_offsets"][1]]) for k, v in header.items()}


def write(folder, tensors, config):
    os.makedirs(folder)
    header, data = {}, b""
    for name, (dtype, shape, raw) in sorted(tensors.items()):
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    with open(folder + "/model.safetensors", "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)
    with open(folder + "/config.json", "w") as f:
        json.dump(config, f)


def main(model, out, form):
    with open(model + "/config.json") as f:
        config = json.load(f)
    coded, floats, used = {}, {}, set()
    for i, (name, (dtype, shape, raw)) in enumerate(sorted(read(model + "/model.safetensors").items())):
        coded[name] = floats[name] = dtype, shape, raw
        which = sorted(FORMATS)[i % len(FORMATS)] if form == "mixed" else form
        if dtype != "F32" or not name.endswith("_proj.weight") or shape[1] % GROUP.get(which, 1):
            continue
        c = Coded(name, struct.unpack("<%df" % (shape[0] * shape[1]), raw), *shape, which)
        del coded[name]
        coded.update(c.tensors)
        floats[name] = "F32", shape, struct.pack("<%df" % len(c.floats), *c.floats)
        used.add(which)
    assert used, "no linear has rows of whole groups"
    groups = {}
    for which in sorted(used):
        weights = {"num_bits": int("".join(x for x in which.split("_")[0] if x.isdigit()))}
        if which == "fp8_block":
            weights["block_structure"] = [16, 32]
        groups[which] = {"format": FORMATS[which], "targets": ["Linear"], "weights": weights}
    write(out + "/floats", floats, config)
    common = FORMATS[form] if form in FORMATS else "mixed-precision"
    write(out + "/coded", coded, {**config, "quantization_config": {"quant_method": "compressed-tensors", "format": common, "version": "0.18.0",
                                                                    "config_groups": groups}})


main(*sys.argv[1:])
