# SPDX-License-Identifier: Apache-2.0
"""Writes peer_hqq.safetensors: HQQ by torchao 0.18 and by hqq, iteration by iteration, and torchao's HQQ_SCALE_ONLY.

Needs torch (CPU), torchao, hqq, safetensors.  Usage: python make_peer_hqq.py OUT.safetensors
"""
import importlib.metadata as md
import sys

import torch
from hqq.core.quantize import Quantizer
from safetensors.torch import save_file
from torchao.quantization import IntxWeightOnlyConfig, PerGroup, quantize_
from torchao.quantization.quant_primitives import _choose_qparams_and_quantize_affine_hqq
from torchao.quantization.quantize_.workflows import IntxChooseQParamsAlgorithm as Algo

torch.set_num_threads(1)


def inputs():
    g = torch.Generator().manual_seed(7)
    w = torch.randn(16, 128, generator=g) * 0.05
    w[:, 9] *= 6
    w[3] = 0
    w[5] = w[5].abs() + 0.01  # one sign only
    w[6] = -w[6].abs() - 0.02
    w[7] = 0.0625  # a group without range
    w[8] *= 1e-9
    w[11, :64] = w[11, :64] * 0.01  # groups of very different size
    b = torch.randn(17, 96, generator=g) * torch.logspace(-3, 1, 17)[:, None]
    return {"W": w, "B": b}


def trace(data, prefix, w, bits, group, round_zero, ao):
    """The loop step by step with the operations of torchao (ao) or hqq; the caller compares its end with theirs, bit for bit."""
    wf, top = w.reshape(-1, group), 2**bits - 1
    lo, hi = wf.min(1, keepdim=True)[0], wf.max(1, keepdim=True)[0]
    inv = top / (hi - lo)
    if not ao:
        inv = torch.where((hi - lo).abs() <= 1e-4, torch.full_like(inv, 1.0), inv)
    inv = inv.clamp(max=2e4)
    zero = -lo * inv
    zero = zero.round() if round_zero else zero
    data[prefix + "inv_scale"], data[prefix + "zero0"] = inv, zero
    beta, best, zeros = 10.0, (1e4 if ao else float("inf")), []
    for _ in range(20):
        q = (wf * inv + zero).round().clamp(0, top)
        d = wf - (q - zero) / inv
        e = torch.sign(d) * torch.relu(d.abs() - (1.0 / beta) * d.abs().pow(0.7 - 1))
        zero = (q - (wf - e) * inv).mean(1, keepdim=True)
        beta *= 1.01 if ao else 1.0
        err = float(d.abs().mean())
        zeros.append(zero)
        if not err < best:
            break
        best = err
    q = (wf * inv + zero).round().clamp(0, top).reshape(w.shape)
    data[prefix + "zero_iter"], data[prefix + "q"] = torch.cat(zeros, 1), q.to(torch.uint8)
    return q, inv, zero


def main(out):
    src = inputs()
    data = {"in/" + name: t for name, t in src.items()}
    for name, bits, group in (("W", 4, 64), ("W", 3, 32), ("B", 3, 32), ("W", 2, 32), ("B", 2, 32)):
        w = src[name]
        q, inv, zero = trace(data, f"hqq_ao/{name}_{bits}_g{group}/", w, bits, group, bits == 4, True)
        theirs = _choose_qparams_and_quantize_affine_hqq(w, bits, group, True, 1, torch.float32, "cpu", raw_output=True)
        assert torch.equal(theirs[0].float(), q) and torch.equal(theirs[1].flatten(), (1 / inv).flatten())
        assert torch.equal(theirs[2].flatten(), zero.flatten())
    for bits, group, rounded in ((4, 64, False), (4, 64, True), (3, 32, False), (2, 16, False)):
        q, inv, zero = trace(data, f"hqq/W_{bits}_g{group}{'_rz' if rounded else ''}/", src["W"], bits, group, rounded, False)
        theirs, meta = Quantizer.quantize(src["W"], bits, True, group, True, rounded, 1, bitpack=False, device="cpu", compute_dtype=torch.float32)
        assert torch.equal(theirs.reshape(q.shape).float(), q) and torch.equal(meta["scale"], 1 / inv) and torch.equal(meta["zero"], zero)
    for bits, name in ((4, "W"), (3, "B")):
        w = src[name]
        m = torch.nn.Sequential(torch.nn.Linear(w.shape[1], w.shape[0], bias=False))
        m[0].weight.data.copy_(w)
        quantize_(m, IntxWeightOnlyConfig(getattr(torch, f"int{bits}"), PerGroup(32), intx_choose_qparams_algorithm=Algo.HQQ_SCALE_ONLY))
        prefix = f"cfg/intx{bits}_hqqscale_g32/{name}/"
        data[prefix + "scale"], data[prefix + "q"] = m[0].weight.scale, m[0].weight.qdata.to(torch.int8)
    producer = "; ".join(f"{p} {md.version(p)}" for p in ("torchao", "hqq"))
    save_file({k: v.detach().clone().contiguous() for k, v in data.items()}, out, metadata={"producer": producer, "torch": torch.__version__})


if __name__ == "__main__":
    main(sys.argv[1])
