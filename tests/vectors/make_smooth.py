# SPDX-License-Identifier: Apache-2.0
"""Writes smooth.safetensors: the searches of block/scales and the clipping of block/awq on one small block with grouped
queries and biases, in plain numpy and double precision, for what no peer does just so.

Needs numpy, safetensors.  Usage: python make_smooth.py OUT.safetensors
"""
import json
import sys

import numpy as np
from safetensors.numpy import save_file

H, I, NH, NKV, HD, T, N, EPS, THETA = 32, 48, 4, 2, 8, 12, 3, 1e-5, 1e4
BITS, GROUP = 3, 16
rng = np.random.default_rng(11)


def weights():
    w = {}
    for name, rows, cols in (("qkv", (NH + 2 * NKV) * HD, H), ("o", H, NH * HD), ("gate_up", 2 * I, H), ("down", H, I)):
        w[name] = rng.normal(size=(rows, cols)) * cols ** -0.5
        w["b_" + name] = rng.normal(size=rows) * 0.1
    for n in ("norm1", "norm2"):
        w[n] = 1 + 0.2 * rng.normal(size=H)
        w[n][rng.permutation(H)[:3]] *= 9
    w["qkv"][-3:] *= 5
    w["gate_up"][-4:] *= 5
    return {k: v.astype(np.float32).astype(np.float64) for k, v in w.items()}


def rms(x, g):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + EPS) * g


def rope(x):  # (T, heads, HD)
    f = np.outer(np.arange(T), THETA ** (-np.arange(0, HD, 2) / HD))
    c, s, h = np.cos(f)[:, None], np.sin(f)[:, None], HD // 2
    return np.concatenate([x[..., :h] * c - x[..., h:] * s, x[..., h:] * c + x[..., :h] * s], -1)


def heads(w, a, linear=None):
    y = linear("qkv", a) if linear else a @ w["qkv"].T + w["b_qkv"]
    q, k, v = np.split(y, [NH * HD, (NH + NKV) * HD], -1)
    q, k, v = rope(q.reshape(T, NH, HD)), rope(k.reshape(T, NKV, HD)), v.reshape(T, NKV, HD)
    out = np.zeros((T, NH, HD))
    for h in range(NH):
        p = q[:, h] @ k[:, h * NKV // NH].T * HD ** -0.5
        p = np.where(np.tril(np.ones((T, T))) > 0, p, -np.inf)
        p = np.exp(p - p.max(-1, keepdims=True))
        out[:, h] = p / p.sum(-1, keepdims=True) @ v[:, h * NKV // NH]
    return out.reshape(T, NH * HD)


def gated(w, n, linear=None):
    g, u = np.split(linear("gate_up", n) if linear else n @ w["gate_up"].T + w["b_gate_up"], 2, -1)
    return g / (1 + np.exp(-g)) * u


def forward(w, x):
    """The inputs of the four matrices, and the output."""
    a = rms(x, w["norm1"])
    o = heads(w, a)
    m = x + o @ w["o"].T + w["b_o"]
    n = rms(m, w["norm2"])
    z = gated(w, n)
    return {"qkv": a, "o": o, "gate_up": n, "down": z}, m + z @ w["down"].T + w["b_down"]


def module(w, mat, inputs):
    if mat == "qkv":
        return heads(w, inputs["qkv"]) @ w["o"].T + w["b_o"]
    if mat == "gate_up":
        return gated(w, inputs["gate_up"]) @ w["down"].T + w["b_down"]
    return inputs[mat] @ w[mat].T + w["b_" + mat]


def quantized(w):
    g = w.reshape(-1, GROUP)
    qmin, qmax = -2 ** (BITS - 1), 2 ** (BITS - 1) - 1
    s = np.maximum(g.max(1).clip(0) / qmax, g.min(1).clip(max=0) / qmin)[:, None]
    return (np.clip(np.rint(g / s), qmin, qmax) * s).reshape(w.shape)


def group_heads(s):
    s = s.reshape(NKV, NH // NKV, HD)
    return np.broadcast_to(s.max(1, keepdims=True), s.shape).reshape(-1)


def candidate(act, r):
    s = np.maximum(act ** r, 1e-4)
    return s / np.sqrt(s.max() * s.min())


def positive(w, xs):
    """The block and its inputs, changed so that all inputs of matrices are positive: the largest of a token lies half a step
    above its last code; of a negative one the last bit of a float would decide whether it is -127 or -128."""
    w = {k: v.copy() for k, v in w.items()}
    w["norm1"], w["norm2"], w["o"] = abs(w["norm1"]), abs(w["norm2"]), w["o"] / 256
    w["b_qkv"][(NH + NKV) * HD:] += 64
    w["b_gate_up"] += 64
    w = {k: v.astype(np.float32).astype(np.float64) for k, v in w.items()}
    xs = [(np.abs(x) + 1).astype(np.float32).astype(np.float64) for x in xs]
    assert all(v.min() > 0 for x in xs for v in forward(w, x)[0].values())
    return w, xs


def per_token(x):
    """Symmetric 8 bits, a scale for each row: max |x| / 127.5."""
    s = np.abs(x).max(-1, keepdims=True) / 127.5
    return np.clip(np.rint(x / s), -128, 127) * s


def losses(w, xs, mat, whole, grouped, rounded=False):
    runs = [forward(w, x) for x in xs]
    act = np.max([np.abs(i[mat]).max(0) for i, _ in runs], 0)
    out = []
    for k in range(10):
        s = candidate(act, k / 10)
        if grouped and mat == "o":
            s = group_heads(s)
        v = dict(w)
        v[mat] = quantized(w[mat] * s) / s
        if rounded:
            fed = [{**i, mat: per_token(i[mat] / s) * s} for i, _ in runs]
            out.append(np.mean(np.square([module(v, mat, f) - module(w, mat, i) for f, (i, _) in zip(fed, runs)])))
            continue
        d = [(forward(v, x)[1] - y if whole else module(v, mat, i) - module(w, mat, i)) for x, (i, y) in zip(xs, runs)]
        out.append(np.mean(np.square(d)))
    return act, out


LINEARS = {"q": ("qkv", 0, NH * HD), "k": ("qkv", NH * HD, NKV * HD), "v": ("qkv", (NH + NKV) * HD, NKV * HD), "o": ("o", 0, H),
           "gate": ("gate_up", 0, I), "up": ("gate_up", I, I), "down": ("down", 0, H)}


def prescaled(w, xs, act):
    """Factors 1 / s of each linear's own inputs (alpha 0.5), and the outputs of a block of such linears in W3 (groups of 16) A8."""
    s = {n: np.sqrt(act[m] / np.abs(w[m][r:r + k]).max(0)) for n, (m, r, k) in LINEARS.items()}
    q = {n: quantized(w[m][r:r + k] * s[n]) for n, (m, r, k) in LINEARS.items()}

    def linear(mat, x):
        return np.concatenate([per_token(x / s[n]) @ q[n].T for n in LINEARS if LINEARS[n][0] == mat], -1) + w["b_" + mat]

    out = []
    for x in xs:
        m = x + linear("o", heads(w, rms(x, w["norm1"]), linear))
        out.append(m + linear("down", gated(w, rms(m, w["norm2"]), linear)))
    return {n: 1 / v for n, v in s.items()}, np.array(out)


def clipped(w, x):
    """The first best of ten limits for each row of each group."""
    out, gaps = w.copy(), []
    for g in range(0, w.shape[1], GROUP):
        part = w[:, g:g + GROUP]
        c0 = np.abs(part).max(1, keepdims=True)
        tries = [np.clip(part, -c0 * (1 - i / 20), c0 * (1 - i / 20)) for i in range(10)]
        e = np.array([np.square(x[:, g:g + GROUP] @ (quantized(t) - part).T).sum(0) for t in tries])
        best = e.argmin(0)
        out[:, g:g + GROUP] = np.array(tries)[best, np.arange(len(w))]
        two = np.sort(e, 0)[:2]
        gaps.append((two[1] - two[0]) / two[0])
    gaps = np.array(gaps)
    print("limits of the same weights:", (gaps == 0).mean(), "nearest others:", gaps[gaps > 0].min())
    return out


def main(path):
    w, xs = weights(), [rng.normal(size=(T, H)).astype(np.float32).astype(np.float64) for _ in range(N)]
    data = {"x": np.array(xs)}
    data.update({"init/" + k: v for k, v in w.items()})
    stacked = {m: np.concatenate([forward(w, x)[0][m] for x in xs]) for m in ("qkv", "o", "gate_up", "down")}
    for mat in stacked:
        for name, whole, grouped in (("block", True, True), ("module", False, True), ("late", False, False)):
            act, loss = losses(w, xs, mat, whole, grouped)
            data[f"act/{mat}"], data[f"losses/{name}/{mat}"] = act, np.array(loss)
            print(mat, name, int(np.argmin(loss)), sorted(loss)[1] / min(loss))
        data[f"clip/{mat}"] = clipped(w[mat], stacked[mat])
        print(mat, "rows clipped", (np.abs(data[f"clip/{mat}"] - w[mat]).max(1) > 0).mean())
    w, xs = positive(w, xs)
    acts = {}
    for mat in stacked:
        acts[mat], plain = losses(w, xs, mat, False, True)
        loss = data[f"losses/rounded/{mat}"] = np.array(losses(w, xs, mat, False, True, rounded=True)[1])
        print(mat, "rounded", int(np.argmin(loss)), sorted(loss)[1] / min(loss), "not rounded is off by", np.abs(plain / loss - 1).max())
    pre, data["prescaled"] = prescaled(w, xs, acts)
    data.update({f"pre/{n}": v for n, v in pre.items()})
    keep = ("losses/",)
    data = {k: np.ascontiguousarray(v if k.startswith(keep) else v.astype(np.float32)) for k, v in data.items()}
    sizes = dict(hidden=H, inter=I, heads=NH, kv_heads=NKV, head_dim=HD, tokens=T, samples=N, bits=BITS, group=GROUP)
    save_file(data, path, metadata={"sizes": json.dumps(sizes), "numpy": np.__version__})


if __name__ == "__main__":
    main(sys.argv[1])
