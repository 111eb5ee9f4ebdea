# SPDX-License-Identifier: Apache-2.0
"""Writes peer_inputs.safetensors: inputs of a linear as compressed-tensors rounds them, dynamically, a scale a token.

Needs compressed-tensors, torch (CPU).  Usage: python make_peer_inputs.py OUT.safetensors
"""
import importlib.metadata as md
import sys

import torch
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme, QuantizationStatus
from compressed_tensors.quantization.lifecycle.forward import forward_quantize
from safetensors.torch import save_file

torch.set_num_threads(1)


def main(out):
    g = torch.Generator().manual_seed(11)
    x = torch.randn(9, 67, generator=g) * torch.logspace(-6, 3, 9)[:, None]
    x[3, 5] *= 40  # an outlier
    x[4] = 0
    x[5] = x[5].abs()
    x[6] = -x[6].abs()
    data = {"x": x}
    for bits in (8, 4):
        args = QuantizationArgs(num_bits=bits, type="int", symmetric=True, strategy="token", dynamic=True)
        linear = torch.nn.Linear(67, 2)
        linear.quantization_scheme = QuantizationScheme(targets=["Linear"], input_activations=args)
        linear.quantization_status = QuantizationStatus.FROZEN
        data[f"y{bits}"] = forward_quantize(linear, x[None], "input", args)[0].contiguous()
    meta = {"producer": "compressed-tensors " + md.version("compressed-tensors"), "torch": torch.__version__}
    save_file(data, out, meta)


main(sys.argv[1])
