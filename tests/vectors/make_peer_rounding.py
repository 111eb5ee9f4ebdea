# SPDX-License-Identifier: Apache-2.0
"""Writes peer_rounding.safetensors: inputs of linears, keys and values as torchao rounds them.

Run it twice, as no environment has both: with torchao 0.18, and then, adding to the file, with torchao 0.10 (`old`).
Needs torch (CPU), torchao, safetensors.  Usage: python make_peer_rounding.py OUT.safetensors [old]
"""
import importlib.metadata as md
import sys

import torch
from safetensors import safe_open
from safetensors.torch import save_file

torch.set_num_threads(1)


def inputs():
    g = torch.Generator().manual_seed(7)
    w = torch.randn(16, 128, generator=g) * 0.05
    w[:, 9] *= 6
    w[3] = 0
    w[5] = w[5].abs() + 0.01  # one sign only
    w[6] = -w[6].abs() - 0.02
    w[7] = 0.0625
    w[8] *= 1e-9
    w[11, :64] = w[11, :64] * 0.01  # groups of very different size
    torch.randn(17, 96, generator=g)
    x = torch.randn(7, 128, generator=g)
    x[:, 17] *= 20
    x[2] = 0  # a token of zeros: e4m3 of it is NaN
    x[4] = x[4].abs() + 0.5  # a token without zero in its range
    return w, x


def linear(w):
    m = torch.nn.Linear(w.shape[1], w.shape[0], bias=False)
    m.weight.data = w.clone()
    return torch.nn.Sequential(m)


def new(put):
    from torchao.quantization import (Int8DynamicActivationInt8WeightConfig, Int8DynamicActivationIntxWeightConfig, MappingType,
                                      PerGroup, quantize_)
    from torchao.quantization.granularity import PerToken
    from torchao.quantization.qat import IntxFakeQuantizeConfig
    from torchao.quantization.qat.fake_quantizer import IntxFakeQuantizer
    from torchao.quantization.quant_primitives import _choose_scale_float8, _dequantize_affine_float8, _quantize_affine_float8
    w, x = inputs()
    put("w", w), put("x", x)
    for name, config in (("int8dq", Int8DynamicActivationInt8WeightConfig()),
                         ("int8dq_asym", Int8DynamicActivationInt8WeightConfig(act_mapping_type=MappingType.ASYMMETRIC)),
                         ("int8dq_reduced", Int8DynamicActivationInt8WeightConfig(reduce_range=True)),
                         ("8da4w", Int8DynamicActivationIntxWeightConfig(torch.int4, PerGroup(32)))):
        m = linear(w)
        quantize_(m, config)
        put(f"{name}/w", m[0].weight.dequantize()), put(f"{name}/y", m(x))
    put("8da4w/x", IntxFakeQuantizer(IntxFakeQuantizeConfig(torch.int8, PerToken(), is_symmetric=False))(x))
    for name, block in (("row", (1, 128)), ("tensor", (7, 128))):
        s = _choose_scale_float8(x, block)
        put(f"fp8_{name}/x", _dequantize_affine_float8(_quantize_affine_float8(x, s), s))


def old(put):
    from torchao._models.llama.model import AffineQuantizedKVCache
    from torchao.quantization import utils
    _, x = inputs()
    q, s = utils.quantize_activation_per_token_absmax(x)
    put("old_int8dq/x", q.float() * s[:, None])
    g = torch.Generator().manual_seed(5)
    cache = AffineQuantizedKVCache(1, 6, 2, 16, torch.float32)
    k, v = torch.randn(1, 2, 4, 16, generator=g), torch.randn(1, 2, 4, 16, generator=g)
    k[0, 0, 1] = 0
    cache.update(torch.arange(4), k, v)
    put("kv/k", k), put("kv/v", v)
    k, v = cache.update(torch.tensor([4]), torch.randn(1, 2, 1, 16, generator=g), torch.randn(1, 2, 1, 16, generator=g))
    put("kv/k_out", k[:, :, :4]), put("kv/v_out", v[:, :, :4])


def main(out, *which):
    data, meta = {}, {}
    if which:
        with safe_open(out, "pt") as f:
            data, meta = {k: f.get_tensor(k) for k in f.keys()}, f.metadata()

    def put(name, t):
        data[name] = t.detach().contiguous().clone()
    (old if which else new)(put)
    meta["old" if which else "producer"] = "torchao " + md.version("torchao")
    meta["torch"] = torch.__version__
    save_file(data, out, meta)


main(*sys.argv[1:])
