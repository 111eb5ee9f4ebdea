#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""AdaScale as a hand-written torch loop: what somebody who needs no framework would write, and the rival to beat.

The same mathematics, schedule and data as AIMET's; the block is transformers' own with scaled-dot-product attention, the
quantizer one autograd function with its gradients by hand, the optimizer torch's fused Adam.  --compile lets torch's
inductor (it calls g++) make loops of the quantizer, or of the quantizer and the block.

--time measures steps of several variants on the first block in one process, so that another program can run between rounds: each
line on standard input is a round, answered by one line of JSON a variant.
"""
import copy
import json
import statistics
import sys
import time

import common
import torch
from torch.nn import functional as F


def forward(w, s2, s3, beta, gamma, low, high, qmin, qmax):
    """(dequantized, folded, step) of rows w (R, C); s3 ... high (R, 1)."""
    step = (gamma.exp() * high - beta.exp() * low) / (qmax - qmin)
    folded = w / s2.exp() / s3.exp()
    return (folded / step).round().clamp(qmin, qmax) * step, folded, step


def backward(g, folded, step, beta, gamma, low, high, qmin, qmax):
    """Gradients of s2, s3, beta, gamma: straight through the rounding, none to s2 and s3 where the code is clamped."""
    r = folded / step
    k = r.round()
    q = k.clamp(qmin, qmax)
    inside = k == q
    dstep = (g * torch.where(inside, q - r, q)).sum(1, keepdim=True) / (qmax - qmin)
    d2 = torch.where(inside, -g * folded, 0.0)
    return d2, d2.sum(1, keepdim=True), -dstep * beta.exp() * low, dstep * gamma.exp() * high


kernels = {"forward": forward, "backward": backward}


class Quantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w, s2, s3, beta, gamma, low, high, qmin, qmax):
        out, folded, step = kernels["forward"](w, s2, s3, beta, gamma, low, high, qmin, qmax)
        ctx.save_for_backward(folded, step, beta, gamma, low, high)
        ctx.ends = qmin, qmax
        return out

    @staticmethod
    def backward(ctx, g):
        return None, *kernels["backward"](g, *ctx.saved_tensors, *ctx.ends), None, None, None, None


class Linear(torch.nn.Module):
    """Takes the place of a torch.nn.Linear while its block is trained."""

    def __init__(self, linear, bits, group):
        super().__init__()
        self.linear, self.qmin, self.qmax = linear, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
        w = self.w = linear.weight.data.view(-1, group if group > 0 else linear.in_features)
        step = torch.maximum(w.amax(1, keepdim=True).clamp(min=0) / self.qmax, w.amin(1, keepdim=True).clamp(max=0) / self.qmin)
        step = step.clamp(min=torch.finfo(torch.float32).eps)
        self.low, self.high = step * self.qmin, step * self.qmax
        self.s2 = torch.nn.Parameter(torch.zeros_like(w))
        self.s3, self.beta, self.gamma = (torch.nn.Parameter(torch.zeros_like(step)) for _ in range(3))

    def weight(self):
        return Quantize.apply(self.w, self.s2, self.s3, self.beta, self.gamma, self.low, self.high, self.qmin,
                              self.qmax).view_as(self.linear.weight)

    def forward(self, x):
        return F.linear(x, self.weight(), self.linear.bias)

    @torch.no_grad()
    def fold(self):
        self.linear.weight.copy_(self.weight())
        return self.linear


def replace(block, make):
    """Puts make(linear) in the place of each of a block's linears; those that are new."""
    new = []
    for holder in list(block.modules()):
        for name, child in list(holder.named_children()):
            if name in common.PARTS:
                new.append(make(child))
                setattr(holder, name, new[-1])
    return new


def enter(m, samples):
    """The inputs of the first block, and the arguments that all blocks are called with."""
    inputs, keywords = [], {}

    class Stop(Exception):
        pass

    def hook(block, args, kwargs):
        inputs.append(args[0] if args else kwargs.pop("hidden_states"))
        keywords.update(kwargs)
        raise Stop

    handle = m.model.layers[0].register_forward_pre_hook(hook, with_kwargs=True)
    for s in samples:
        try:
            m(s[None])
        except Stop:
            pass
    handle.remove()
    return inputs, keywords


def run(block, x, keywords):
    y = block(x, **keywords)
    return y[0] if isinstance(y, tuple) else y


def precision(compute, device):
    """The context of a forward; tf32 is a setting of the process, for the backward too."""
    torch.set_float32_matmul_precision("high" if compute == "tf32" else "highest")
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=compute == "bf16")


def rig(block, a):
    """Linears to train in the place of the block's own, and what steps them."""
    new = replace(block, lambda linear: Linear(linear, a.bits, a.group))
    optimizer = torch.optim.Adam([{"params": [p for x in new for p in (x.beta, x.gamma)], "lr": 1e-3},
                                  {"params": [p for x in new for p in (x.s2, x.s3)], "lr": 5e-4}], fused=True)
    return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=a.iterations)


@torch.enable_grad()
def iterate(block, rigged, fp, qt, targets, keywords, a, step, compute):
    """--iterations steps: the last loss, and the seconds of each."""
    optimizer, schedule = rigged
    seconds = []
    for i in range(a.iterations):
        start = time.perf_counter()
        n = i % len(fp)
        x = {"fp": fp, "qt": qt}[a.inputs][n] if a.inputs != "mix" else torch.where(torch.rand_like(fp[n]) < 0.5, qt[n], fp[n])
        with precision(compute, a.device):
            y = step(block, x, keywords)
        loss = (y - targets[n]).square().sum(1).mean()
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if x.is_cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return loss.item(), seconds


def train(block, fp, qt, targets, keywords, a, step):
    loss, _ = iterate(block, rig(block, a), fp, qt, targets, keywords, a, step, a.compute)
    replace(block, lambda x: x.fold())
    return loss


def time_variants(m, samples, a):
    """Rounds of --time: each variant has a copy of the block, with its own factors and optimizer."""
    torch._dynamo.config.recompile_limit = 64
    fp, keywords = enter(m, samples)
    block = m.model.layers[0]
    targets = [run(block, x, keywords) for x in fp]
    variants = {name: copy.deepcopy(block) for name in a.time.split(",")}
    rigs = {name: rig(b, a) for name, b in variants.items()}
    steps = {name: torch.compile(run, dynamic=False) if name.endswith("+compile") else run for name in variants}
    for _ in sys.stdin:
        for name, b in variants.items():
            loss, seconds = iterate(b, rigs[name], fp, fp, targets, keywords, a, steps[name], name.split("+")[0])
            print(json.dumps({"variant": name, "step_seconds": statistics.median(seconds), "loss": loss}), file=common._out, flush=True)


@torch.no_grad()
def main():
    a = common.arguments(
        __doc__, iterations=dict(type=int, default=128, help="a block"),
        inputs=dict(choices=("fp", "qt", "mix"), default="mix", help="stream that blocks are trained on"),
        compile=dict(choices=("none", "quantizer", "block"), default="none", help="with torch.compile"),
        compute=dict(choices=("f32", "tf32", "bf16"), default="f32", help="of the steps' products; bf16: torch.autocast"),
        device=dict(default="cpu", help="cuda: a step then ends with a wait for the GPU"),
        time=dict(metavar="VARIANT,...", help="instead of all this, rounds of --iterations steps: f32, bf16+compile, ..."),
        blocks=dict(type=int, default=0, help="stop after so many, for speed alone; 0: all"))
    if a.asymmetric:
        raise SystemExit("AdaScale is symmetric")
    m, samples = common.load(a), common.calibration(a)
    m.requires_grad_(False)
    m.to(a.device)
    samples = samples.to(a.device)
    if a.time:
        return time_variants(m, samples, a)
    if a.compile == "quantizer":
        kernels.update({k: torch.compile(f, dynamic=False) for k, f in kernels.items()})
    step = torch.compile(run, dynamic=False) if a.compile == "block" else run
    with common.Clock() as clock, common.Steps() as steps:
        fp, keywords = enter(m, samples)
        qt = list(fp)
        for i, block in enumerate(list(m.model.layers)[: a.blocks or None]):
            targets = [run(block, x, keywords) for x in fp]
            loss = train(block, fp, qt, targets, keywords, a, step)
            print(f"block {i}: last loss {loss:.6g}, {clock.so_far():.1f} s")
            fp = targets
            if a.inputs != "fp":
                qt = [run(block, x, keywords) for x in qt]
    if a.blocks:
        a.eval = None
    common.finish("torch adascale", "torch", a, m, clock, iterations=a.iterations, inputs=a.inputs, compile=a.compile, compute=a.compute,
                  **steps.settings())


if __name__ == "__main__":
    main()
