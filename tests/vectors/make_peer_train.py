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
from torchao.quantization import PerAxis
from torchao.quantization.qat import FakeQuantizedLinear, IntxFakeQuantizeConfig
from torchao.quantization.qat.fake_quantizer import IntxFakeQuantizer

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
    torch.randn(17, 96, generator=g)
    x = torch.randn(7, 128, generator=g)
    x[:, 17] *= 20
    x[2] = 0
    x[4] = x[4].abs() + 0.5
    return w, x, torch.randn(7, 16, generator=g)


def qat(w, x, dy):
    act = IntxFakeQuantizeConfig(torch.int8, "per_token", is_symmetric=False)
    for name, (a, config) in {"8da4w": (act, IntxFakeQuantizeConfig(torch.int4, group_size=32)),
                              "int2wo_ch": (None, IntxFakeQuantizeConfig(torch.int2, PerAxis(0))),
                              "int8_ch": (None, IntxFakeQuantizeConfig(torch.int8, "per_channel", is_symmetric=True))}.items():
        fq = FakeQuantizedLinear(128, 16, True, a, config, dtype=w.dtype)
        fq.weight.data.copy_(w)
        fq(x).backward(dy)
        put(f"qat/{name}/dW", fq.weight.grad), put(f"qat/{name}/wq", fq.weight_fake_quantizer(fq.weight))
        if a is not None:
            put(f"qat/{name}/xq", fq.activation_fake_quantizer(x))
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


w, x, dy = inputs()
put("in/W", w), put("in/X", x), put("in/dY", dy)
qat(w, x, dy)
autoround()
save_file(data, sys.argv[1], metadata={"producer": "torchao " + md.version("torchao") + "; auto-round " + md.version("auto-round"),
                                       "torch": torch.__version__, "clamp_gradient_at_bounds": "1", "cases": json.dumps(cases)})
