#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""llm-compressor: RTN, GPTQ, AWQ or SmoothQuant on weights, through its own `oneshot` with sequential pipeline.

AWQ is followed by rounding (`QuantizationModifier`), SmoothQuant by rounding or by GPTQ (--then).
"""
import common
import torch
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme, fake_quantize
from llmcompressor import oneshot
from llmcompressor.modifiers.gptq import GPTQModifier
from llmcompressor.modifiers.quantization import QuantizationModifier
from llmcompressor.modifiers.transform.awq import AWQModifier
from llmcompressor.modifiers.transform.smoothquant import SmoothQuantModifier
from llmcompressor.pipelines.cache import IntermediatesCache

if not torch.cuda.is_available():
    IntermediatesCache.pin_memory = lambda *a: None  # 0.14.0.1 pins memory without asking whether there is a GPU


def recipe(a):
    """The modifiers, in order."""
    strategy = dict(strategy="channel") if a.group < 0 else dict(strategy="group", group_size=a.group)
    weights = QuantizationArgs(num_bits=a.bits, type="int", symmetric=not a.asymmetric, observer=a.observer, **strategy)
    scheme = dict(config_groups={"all": QuantizationScheme(targets=["Linear"], weights=weights)}, ignore=["lm_head"])
    gptq = dict(block_size=a.block_size, dampening_frac=a.damp, actorder=None if a.actorder == "none" else a.actorder)
    last = GPTQModifier(**scheme, **gptq) if "gptq" in (a.method, a.then) else QuantizationModifier(**scheme)
    if a.method == "awq":
        duo = {"true": True, "false": False, "both": "both"}[a.duo_scaling]
        return [AWQModifier(duo_scaling=duo, n_grid=a.grid), last]
    if a.method == "smoothquant":
        return [SmoothQuantModifier(smoothing_strength=a.alpha), last]
    return [last]


def unwrap(m):
    """Writes the dequantized weights down, so that evaluation does not round them again at each call."""
    for _, x in m.named_modules():
        scheme = getattr(x, "quantization_scheme", None)
        if scheme is not None and scheme.weights is not None:
            zero = getattr(x, "weight_zero_point", None)
            x.weight.data.copy_(fake_quantize(x.weight.data, x.weight_scale, zero, scheme.weights))
            x.quantization_enabled = False


def quantize(m, t, a):
    data = torch.utils.data.DataLoader([{"input_ids": x, "attention_mask": torch.ones_like(x)} for x in t])  # one a batch, in order
    oneshot(model=m, processor=common.tokenizer(a), dataset=data, recipe=recipe(a), num_calibration_samples=len(t),
            max_seq_length=t.shape[1], shuffle_calibration_samples=False)


def main():
    a = common.arguments(
        __doc__, method=dict(choices=("rtn", "gptq", "awq", "smoothquant"), default="gptq"),
        actorder=dict(choices=("none", "static", "group"), default="static", help="GPTQ's; static is llm-compressor's default"),
        observer=dict(default="memoryless_minmax", help="of the weights; memoryless_mse searches a shrunken range"),
        block_size=dict(type=int, default=128, help="GPTQ's"), damp=dict(type=float, default=0.01, help="GPTQ's"),
        duo_scaling=dict(choices=("true", "false", "both"), default="true", help="AWQ's"),
        grid=dict(type=int, default=20, help="AWQ's"), alpha=dict(type=float, default=0.5, help="SmoothQuant's"),
        then=dict(choices=("rtn", "gptq"), default="rtn", help="after AWQ or SmoothQuant"),
        warm=dict(type=int, default=0, help="first quantize another copy of the model with so many samples, outside the clock: kernels are compiled"))
    m, t = common.load(a), common.calibration(a) if a.method != "rtn" else torch.zeros(1, 8, dtype=torch.int64)
    if a.warm:
        quantize(common.load(a), t[: a.warm], a)
    with common.Clock() as clock:
        quantize(m, t, a)
    unwrap(m)
    extra = {"observer": a.observer, "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None}
    if "gptq" in (a.method, a.then):
        extra.update(actorder=a.actorder, block_size=a.block_size, damp=a.damp)
    extra.update({"awq": dict(duo_scaling=a.duo_scaling, grid=a.grid), "smoothquant": dict(alpha=a.alpha)}.get(a.method, {}))
    if a.method in ("awq", "smoothquant"):
        extra["then"] = a.then
    common.finish("llm-compressor " + a.method, "llmcompressor", a, m, clock, **extra)


if __name__ == "__main__":
    main()
