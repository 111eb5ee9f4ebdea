#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""GPTQModel: GPTQ with its own defaults (true-sequential, damping 0.05, group-aware order) unless told otherwise.

Its packed layers are dequantized for the evaluation; their scales are float16.
"""
import os

import common
import torch


def main():
    a = common.arguments(
        __doc__, damp=dict(type=float, default=0.05), mse=dict(type=float, default=0.0, help="norm of the range search; 0: none"),
        order=dict(choices=("none", "group-aware", "desc"), help="of columns; default group-aware, which needs groups, else none"),
        one_pass=dict(action="store_true", help="no true-sequential: all linears of a block from one forward pass"))
    os.environ["GPTQMODEL_CPU_WORKERS"] = str(max(2, a.threads))  # 7.7.0 wants two; the default is 1 on a small machine
    a.order = a.order or ("group-aware" if a.group > 0 else "none")
    from gptqmodel import BACKEND, GPTQModel, QuantizeConfig
    from gptqmodel.quantization import FORMAT
    config = QuantizeConfig(bits=a.bits, group_size=a.group, sym=not a.asymmetric, desc_act=a.order == "desc",
                            act_group_aware=a.order == "group-aware", true_sequential=not a.one_pass, damp_percent=a.damp,
                            mse=a.mse, offload_to_disk=False, device="cpu",
                            format=FORMAT.GPTQ_V2)  # whose zero points dequantize_weight() takes as they are
    g = GPTQModel.load(a.model, config, dtype=getattr(torch, a.dtype))
    torch.set_num_threads(a.threads)
    samples = [{"input_ids": s[None], "attention_mask": torch.ones_like(s)[None]} for s in common.calibration(a)]
    with common.Clock() as clock:
        g.quantize(samples, batch_size=1, calibration_sort=None, backend=BACKEND.TORCH)
    a.peak = common.peak_mb()
    packed = {n: x for n, x in g.model.named_modules() if n.rsplit(".", 1)[-1] in common.PARTS}
    m = common.load(a)
    with torch.no_grad():
        for name, x in common.linears(m):
            x.weight.copy_(packed[name].dequantize_weight().float().T)
    common.finish("gptqmodel gptq", "gptqmodel", a, m, clock, order=a.order, damp=a.damp, mse=a.mse,
                  true_sequential=not a.one_pass)


if __name__ == "__main__":
    main()
