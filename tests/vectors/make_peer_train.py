# SPDX-License-Identifier: Apache-2.0
"""Writes peer_train.safetensors: torchao's fake quantization with its gradients, and auto-round's training of one layer.

Needs torch 2.11 (CPU), torchao 0.18, auto-round 0.16, safetensors.  Usage: python make_peer_train.py OUT.safetensors
From torch 2.14 on the gradient of a clamp is 0 at its ends; this file is of a torch where it passes there.
"""
import importlib.metadata as md
import json
import sys

import torch
from auto_round.algorithms.quantization.sign_round.sign_sgd import SignSGD
from auto_round.wrapper import WrapperLinear
from safetensors.torch import save_file
from torchao.prototype.qat.mx import MXFakeQuantizedLinear, MXFakeQuantizeConfig
from torchao.quantization import Int8DynamicActivationIntxWeightConfig, PerAxis, PerGroup, PerTensor, quantize_
from torchao.quantization.qat import (FakeQuantizedEmbedding, FakeQuantizedLinear, Float8FakeQuantizeConfig, IntxFakeQuantizeConfig,
                                      QATConfig)
from torchao.quantization.qat.fake_quantizer import IntxFakeQuantizer
from torchao.quantization.qat.linear import _get_8da4w_activation_config, _get_8da4w_weight_config

torch.set_num_threads(1)
data, cases = {}, {}


def put(key, t):
    data[key] = (t.detach().to(torch.int32) if t.dtype == torch.int64 else t.detach()).clone().contiguous()


def inputs():
    g = torch.Generator().manual_seed(7)
    w = torch.randn(16, 128, generator=g) * 0.05
    w[:, 9] *= 6
    w[3] = 0
    w[5] = w[5].abs() + 0.01
    w[6] = -w[6].abs() - 0.02
    w[7] = 0.0625
    w[8] *= 1e-9
    w[11, :64] = w[11, :64] * 0.01
    b = torch.randn(17, 96, generator=g) * torch.logspace(-3, 1, 17)[:, None]
    x = torch.randn(7, 128, generator=g)
    x[:, 17] *= 20
    x[2] = 0
    x[4] = x[4].abs() + 0.5
    return w, b, x, torch.randn(7, 16, generator=g)


def linear(w, bias):
    lin = torch.nn.Linear(128, 16)
    lin.weight.data.copy_(w), lin.bias.data.copy_(bias)
    return torch.nn.Sequential(lin)


def qat(w, b, x, dy):
    act, bias = IntxFakeQuantizeConfig(torch.int8, "per_token", is_symmetric=False), torch.linspace(-1, 1, 16)
    row, tensor = Float8FakeQuantizeConfig(hp_value_lb=1e-12), Float8FakeQuantizeConfig(granularity=PerTensor())
    put("qat/bias", bias)
    for name, (a, config) in {"8da4w": (act, IntxFakeQuantizeConfig(torch.int4, group_size=32)),
                              "8da4w_legacy": (_get_8da4w_activation_config(torch.float32), _get_8da4w_weight_config(32, torch.float32)),
                              "fp8_row": (row, row), "fp8_tensor": (tensor, tensor),
                              "int2wo_ch": (None, IntxFakeQuantizeConfig(torch.int2, PerAxis(0))),
                              "int8_ch": (None, IntxFakeQuantizeConfig(torch.int8, "per_channel", is_symmetric=True))}.items():
        fq = FakeQuantizedLinear(128, 16, True, a, config, dtype=w.dtype)
        fq.weight.data.copy_(w), fq.bias.data.copy_(bias)
        xg = x.clone().requires_grad_()
        y = fq(xg)
        y.backward(dy)
        p = f"qat/{name}/"
        put(p + "y", y), put(p + "dW", fq.weight.grad), put(p + "dX", xg.grad), put(p + "wq", fq.weight_fake_quantizer(fq.weight))
        if a is not None:
            put(p + "xq", fq.activation_fake_quantizer(x))
    lin = MXFakeQuantizedLinear(128, 16, False, MXFakeQuantizeConfig(), MXFakeQuantizeConfig())
    lin.weight.data.copy_(w)
    xg = x.clone().requires_grad_()
    y = lin(xg)
    y.backward(dy)
    put("qat/mxfp4/y", y), put("qat/mxfp4/dW", lin.weight.grad), put("qat/mxfp4/dX", xg.grad)
    emb = FakeQuantizedEmbedding(17, 96, weight_config=IntxFakeQuantizeConfig(torch.int4, group_size=32, scale_precision=torch.float32))
    emb.weight.data.copy_(b)
    ids, up = torch.tensor([[0, 5, 5], [16, 2, 0]]), torch.randn(2, 3, 96, generator=torch.Generator().manual_seed(11))
    e = emb(ids)
    e.backward(up)
    put("qat/embedding/ids", ids), put("qat/embedding/dE", up), put("qat/embedding/out", e), put("qat/embedding/dW", emb.weight.grad)
    m = linear(w, bias)
    base = Int8DynamicActivationIntxWeightConfig(torch.int4, PerGroup(32))
    quantize_(m, QATConfig(base, step="prepare"))
    put("qat/convert_8da4w/y_prepare", m(x))
    quantize_(m, QATConfig(base, step="convert"))
    put("qat/convert_8da4w/q", m[0].weight.qdata), put("qat/convert_8da4w/scale", m[0].weight.scale)
    for name, sym in (("sym", True), ("asym", False)):
        fq = IntxFakeQuantizer(IntxFakeQuantizeConfig(torch.int4, group_size=32, is_symmetric=sym, is_dynamic=False, range_learning=True,
                                                      scale_precision=torch.float32, zero_point_precision=torch.float32))
        fq._initialized = True
        fq.scale = None
        v = w.clone().requires_grad_()
        fq(v)
        if sym:
            fq.scale.data.mul_(0.8)  # so that something clamps
        out = fq(v)
        out.backward(dy.t() @ x)
        p = f"qat/range_{name}/"
        put(p + "scale", fq.scale), put(p + "zero", fq.zero_point), put(p + "wq", out), put(p + "dW", v.grad), put(p + "dscale", fq.scale.grad)
        if not sym:
            put(p + "dzero", fq.zero_point.grad)


def autoround():
    g = torch.Generator().manual_seed(41)
    n, k, iters = 24, 64, 40
    w = torch.randn(n, k, generator=g) * 0.08
    x = (torch.randn(48, k, generator=g) * torch.logspace(0, -1, k)) @ (torch.randn(k, k, generator=g) / k**0.5)
    put("autoround/W", w), put("autoround/X", x)
    for name, bits, sym, minmax, dt in (("sym4_g32", 4, True, True, torch.float16), ("asym4_g32", 4, False, True, torch.float16),
                                        ("asym2_g32", 2, False, True, torch.float16), ("sym4_g32_vonly", 4, True, False, torch.float16),
                                        ("asym4_g32_f32", 4, False, True, torch.float32)):
        lin = torch.nn.Linear(k, n, bias=False)
        lin.weight.data.copy_(w)
        for key, v in dict(bits=bits, group_size=32, sym=sym, data_type="int", scale_dtype=dt, act_bits=16, act_data_type="int", act_sym=True,
                           act_group_size=-1, act_dynamic=True).items():
            setattr(lin, key, v)
        ref = lin(x).detach()
        wl = WrapperLinear(lin, enable_minmax_tuning=minmax, enable_torch_compile=False, device="cpu", iters=iters)
        lr = torch.tensor(1.0 / iters)
        groups = [{"params": [wl.value], "lr": lr.clone()}]
        if minmax:
            groups.append({"params": [wl.min_scale, wl.max_scale], "lr": lr.clone()})
        opt = SignSGD(groups, lr=lr.clone(), weight_decay=0)
        sched = torch.optim.lr_scheduler.LinearLR(opt, 1.0, 0.0, iters)
        losses, best, keep, p = [], float("inf"), None, f"autoround/{name}/"
        for i in range(iters):
            loss = torch.nn.functional.mse_loss(wl(x).float(), ref.float())
            losses.append(loss.item())
            if loss.item() < best:
                best, keep = loss.item(), {key: v.detach().clone() for key, v in wl.params.items()}
            loss.backward()
            if i == 0:
                put(p + "grad_value_0", wl.value.grad)
                if minmax:
                    put(p + "grad_min_0", wl.min_scale.grad), put(p + "grad_max_0", wl.max_scale.grad)
            opt.step(), opt.zero_grad(), sched.step()
        out = wl.unwrapper(keep)
        put(p + "loss", torch.tensor(losses, dtype=torch.float64)), put(p + "scale", out.scale)
        zero = out.zp if isinstance(out.zp, torch.Tensor) else torch.zeros(n, 2)
        q = (out.weight.data / out.scale.float().repeat_interleave(32, 1)).round() + (0 if sym else zero.float().repeat_interleave(32, 1))
        put(p + "q", q.to(torch.int8 if sym else torch.uint8))
        if not sym:
            put(p + "zp", zero.float())
        cases[p[:-1]] = dict(bits=bits, sym=sym, group=32, minmax=minmax, scale_dtype=str(dt), iters=iters, lr=1.0 / iters)


w, b, x, dy = inputs()
put("in/W", w), put("in/B", b), put("in/X", x), put("in/dY", dy)
qat(w, b, x, dy)
autoround()
save_file(data, sys.argv[1], metadata={"producer": "torchao " + md.version("torchao") + "; auto-round " + md.version("auto-round"),
                                       "torch": torch.__version__, "clamp_gradient_at_bounds": "1", "cases": json.dumps(cases)})
