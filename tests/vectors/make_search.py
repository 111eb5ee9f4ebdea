#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Grids by search, by plain numpy: clipping by the weights' error, Sequential MSE through a whole decoder block, scales in two levels.

    python make_search.py        writes search_tiny.safetensors beside this script

README.md lists the keys.  Grids are float32 operation by operation; forwards and losses are float64 and as direct as the definitions:
every candidate is multiplied with every token.
"""
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

F = np.float32
H, INTER, HEADS, KV, HD, TOKENS, SAMPLES, EPS = 24, 40, 4, 2, 6, 19, 5, 1e-5
LINEARS = {"q_proj": (HEADS * HD, H), "k_proj": (KV * HD, H), "v_proj": (KV * HD, H), "o_proj": (H, HEADS * HD),
           "gate_proj": (INTER, H), "up_proj": (INTER, H), "down_proj": (H, INTER)}
ORDER = (("q_proj", "k_proj", "v_proj"), ("o_proj",), ("gate_proj", "up_proj"), ("down_proj",))
CASES = {"channel": (4, -1, True), "group": (4, 8, True), "zero": (4, 8, False), "three": (3, -1, False)}  # bits, group, symmetric
CLEAR = 2e-5  # least relative distance between the best candidate and the next: float32 forwards cannot swap them


def grid(lo, hi, bits, symmetric):
    """Steps and zero points for the ends of many rows."""
    qmin, qmax = F(-(2 ** (bits - 1))), F(2 ** (bits - 1) - 1)
    least = min(F(2.0 ** -23), F(0.01) / (qmax - qmin))
    assert ((hi - lo) / (qmax - qmin) >= least).all()
    if symmetric:
        return np.maximum(hi / qmax, lo / qmin), np.zeros_like(lo)
    scale = (hi - lo) / (qmax - qmin)
    return scale, np.clip(qmin - np.rint(lo / scale), qmin, qmax)


def on_grid(w, scale, zero, bits):
    qmin, qmax = F(-(2 ** (bits - 1))), F(2 ** (bits - 1) - 1)
    code = np.clip(np.rint(w / scale[:, None]) + zero[:, None], qmin, qmax)
    return (code - zero[:, None]) * scale[:, None]


def best(w, shrinks, loss, bits, symmetric):
    """The grid of each row of w with the least loss(what - w), the first among equals; and how clear the choice was."""
    lo, hi = np.minimum(w.min(1), F(0)), np.maximum(w.max(1), F(0))
    tried = [grid(lo * p, hi * p, bits, symmetric) for p in shrinks]
    losses = np.array([loss(on_grid(w, s, z, bits).astype(np.float64) - w) for s, z in tried])
    at = losses.argmin(0)
    two = np.sort(losses, 0)[:2]
    rows = np.arange(len(w))
    return (np.array([t[0] for t in tried])[at, rows], np.array([t[1] for t in tried])[at, rows], (two[1] - two[0]) / two[0])


def mse(w, bits, symmetric, norm, steps=100, count=80):
    shrinks = [F(1 - i / steps) for i in range(count)]
    return best(w, shrinks, lambda e: (np.abs(e) ** norm).sum(1), bits, symmetric)


def by_output(w, x, bits, symmetric, n=20):
    """w: (rows * groups, group); x: all tokens, (T, cols)."""
    group = w.shape[1]
    parts = x.reshape(len(x), -1, group)
    rows = len(w) // parts.shape[1]

    def loss(e):
        y = np.einsum("tgc,rgc->trg", parts, e.reshape(rows, -1, group))
        return (y ** 2).sum(0).reshape(-1)

    return best(w, [F(k) / F(n) for k in range(n, 0, -1)], loss, bits, symmetric)


def levels(scale, groups, n, digits=24):
    """Whole multiples of one unit a row; the unit is cut to so few digits that the products are exact."""
    raw = scale.reshape(-1, groups).astype(np.float64)
    mantissa, exponent = np.frexp((raw.max(1).astype(F) / F(n)).astype(np.float64))
    keep = digits - int(np.log2(n))
    unit = np.ldexp(np.floor(np.ldexp(mantissa, keep)), exponent - keep)[:, None]
    ratio = raw.astype(F) / unit.astype(F)
    return (np.clip(np.rint(ratio), 1, n) * unit).astype(F).reshape(-1)


def rms(x, weight):
    return x / np.sqrt((x ** 2).mean(-1, keepdims=True) + EPS) * weight


def turn(x, heads, cos, sin):
    x = x.reshape(len(x), heads, HD)
    a, b = x[..., :HD // 2], x[..., HD // 2:]
    c, s = cos[:, None], sin[:, None]
    return np.concatenate([a * c - b * s, b * c + a * s], -1)


def inputs(w, norm, x, cos, sin):
    """What each linear of the block is fed, for one sample."""
    a = rms(x, norm[0])
    q, k = turn(a @ w["q_proj"].T, HEADS, cos, sin), turn(a @ w["k_proj"].T, KV, cos, sin)
    v = (a @ w["v_proj"].T).reshape(len(x), KV, HD)
    k, v = np.repeat(k, HEADS // KV, 1), np.repeat(v, HEADS // KV, 1)
    s = np.einsum("ihd,jhd->hij", q, k) / np.sqrt(HD)
    s[:, ~np.tri(len(x), dtype=bool)] = -np.inf
    p = np.exp(s - s.max(-1, keepdims=True))
    o = np.einsum("hij,jhd->ihd", p / p.sum(-1, keepdims=True), v).reshape(len(x), -1)
    n = rms(x + o @ w["o_proj"].T, norm[1])
    g = n @ w["gate_proj"].T
    return {"q_proj": a, "o_proj": o, "gate_proj": n, "down_proj": g / (1 + np.exp(-g)) * (n @ w["up_proj"].T)}


def make(seed):
    rng = np.random.default_rng(seed)
    out = {f"w/{n}": rng.standard_normal(s).astype(F) / F(s[1] ** 0.5) for n, s in LINEARS.items()}
    out["norm"] = (1 + 0.25 * rng.standard_normal((2, H))).astype(F)
    out["x"] = (rng.standard_normal((SAMPLES, TOKENS, H)) * (1 + 3 * (np.arange(H) == 5))).astype(F)  # one loud channel
    angle = np.arange(TOKENS)[:, None] / 1e4 ** (np.arange(HD // 2) * 2 / HD)
    out["cos"], out["sin"] = np.cos(angle).astype(F), np.sin(angle).astype(F)
    wide = {k: v.astype(np.float64) for k, v in out.items()}
    for case, (bits, group, symmetric) in CASES.items():
        now = {n: wide[f"w/{n}"] for n in LINEARS}
        for names in ORDER:
            x = np.concatenate([inputs(now, wide["norm"], s, wide["cos"], wide["sin"])[names[0]] for s in wide["x"]])
            for n in names:
                w = out[f"w/{n}"]
                w = w.reshape(-1, group if group > 0 else w.shape[1])
                at = f"{case}/{n}/"
                scale, zero, gap = by_output(w, x, bits, symmetric)
                if gap.min() < CLEAR:
                    return None
                out[at + "seqmse/scale"], out[at + "seqmse/zero"] = scale, zero
                now[n] = on_grid(w, scale, zero, bits).astype(np.float64).reshape(LINEARS[n])
                for norm in (2.0, 2.4):
                    k = f"{at}mse{norm}/"
                    out[k + "scale"], out[k + "zero"], gap = mse(w, bits, symmetric, norm)
                    out[k + "gap"] = gap.astype(F)
                if symmetric and group > 0:
                    plain, _ = grid(np.minimum(w.min(1), F(0)), np.maximum(w.max(1), F(0)), bits, True)
                    groups = LINEARS[n][1] // group
                    out[at + "lpbq/scale"] = levels(plain, groups, 2 ** (8 - bits))
                    out[at + "seqmse+lpbq/scale"] = levels(scale, groups, 2 ** (8 - bits))
    return out


def main():
    seed = 0
    while (out := make(seed)) is None:
        seed += 1
    path = Path(__file__).with_name("search_tiny.safetensors")
    save_file({k: np.ascontiguousarray(v) for k, v in out.items()}, path, {"made": f"numpy {np.__version__}, seed {seed}"})
    print(path.name, "seed", seed, path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
