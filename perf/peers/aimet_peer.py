#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""AIMET's AdaScale on a transformers model: weights only, per channel, symmetric, as in its published recipes."""
import common
import torch


class Logits(torch.nn.Module):
    """AIMET wants a module that maps tensors to tensors."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, ids):
        return self.model(input_ids=ids, use_cache=False).logits


def main():
    a = common.arguments(__doc__, iterations=dict(type=int, default=128, help="a block"),
                         mix=dict(type=float, default=0.5, help="share of elements from the quantized stream; 0: inputs fp"))
    if a.asymmetric or a.group > 0:
        raise SystemExit("aimet: AdaScale takes symmetric ranges of whole rows only")
    import aimet_torch
    from aimet_torch.adascale import adascale_optimizer
    from aimet_torch.quantization.affine import QuantizeDequantize
    adascale_optimizer._QT_SAMPLING_PROB = a.mix

    samples = [s[None] for s in common.calibration(a)]
    wrapped = Logits(common.load(a, attn_implementation="eager"))
    with common.Clock() as setup:
        sim = aimet_torch.QuantizationSimModel(wrapped, dummy_input=(samples[0],), default_param_bw=a.bits,
                                               default_output_bw=16, in_place=True)
    taken = {}
    for name, x in sim.model.named_modules():
        if not hasattr(x, "param_quantizers"):
            continue
        for quantizers in (x.input_quantizers, x.output_quantizers, x.param_quantizers):
            for key in quantizers if isinstance(quantizers, torch.nn.ModuleDict) else range(len(quantizers)):
                quantizers[key] = None
        if name.rsplit(".", 1)[-1] in common.PARTS:
            taken[name.removeprefix("model.")] = x
            x.param_quantizers["weight"] = QuantizeDequantize(shape=(x.weight.shape[0], 1), bitwidth=a.bits, symmetric=True)
    with common.Clock() as clock, common.Steps() as steps:
        aimet_torch.adascale.apply_adascale(sim, samples, lambda m, s: m(s), num_iterations=a.iterations)
    a.peak = common.peak_mb()
    m = common.load(a)
    plain = dict(common.linears(m))
    assert plain.keys() == taken.keys()
    with torch.no_grad():
        for name, x in taken.items():
            plain[name].weight.copy_(x.param_quantizers["weight"](x.weight).dequantize())
    common.finish("aimet adascale", "aimet-torch", a, m, clock, iterations=a.iterations, mix=a.mix,
                  simulation_seconds=round(setup.seconds, 2), **steps.settings())


if __name__ == "__main__":
    main()
