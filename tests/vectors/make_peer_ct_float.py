# SPDX-License-Identifier: Apache-2.0
"""Writes peer_ct_float.safetensors: layers stored by compressed-tensors 0.20.

A toy linear goes through apply_quantization_config, calculate_qparams on its own minima and
maxima, and the library's compressor; the config.json text comes from the library too.
Needs compressed-tensors, torch (CPU), safetensors.  Usage: python make_peer_ct_float.py OUT.safetensors
"""
import json
import os
import sys
import tempfile
import warnings

import compressed_tensors
import torch
from compressed_tensors.quantization import QuantizationArgs, QuantizationConfig, QuantizationScheme
from safetensors.torch import save_file

warnings.simplefilter("ignore")
torch.set_num_threads(1)
data, cases, configs = {}, {}, {}


def put(key, t):
    t = t.detach()
    if str(t.dtype).startswith("torch.float8"):
        cases.setdefault("dtypes", {})[key] = str(t.dtype).removeprefix("torch.")
        t = t.view(torch.uint8)
    data[key] = t.clone().contiguous()


def weight(n, k, seed):
    g = torch.Generator().manual_seed(seed)
    w = torch.randn(n, k, generator=g) * torch.logspace(-2, 0.3, n)[:, None]
    w[:, k // 3] *= 8
    w[2] = 0
    w[3, :32] = 0
    w[4] = w[4].abs() + 0.01
    return w.bfloat16().float()


def block_pad(w, bh, bw):
    return torch.nn.functional.pad(w, (0, -w.shape[1] % bw, 0, -w.shape[0] % bh))


def minmax(w, a):
    """Range of each unit of the strategy, in the shape of its scale."""
    if a.strategy == "tensor":
        return w.min().reshape(1), w.max().reshape(1)
    if a.strategy == "channel":
        return w.amin(1, keepdim=True), w.amax(1, keepdim=True)
    if a.strategy == "block":
        bh, bw = a.block_structure
        p = block_pad(w, bh, bw)
        p = p.reshape(p.shape[0] // bh, bh, p.shape[1] // bw, bw)
        return p.amin((1, 3)), p.amax((1, 3))
    g = w.reshape(w.shape[0], -1, a.group_size)
    return g.amin(2), g.amax(2)


def current():
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import apply_quantization_config
    from compressed_tensors.quantization.lifecycle.forward import dequantize, quantize
    from compressed_tensors.quantization.quant_scheme import PRESET_SCHEMES
    from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam
    P = lambda name: {k: v.model_copy(deep=True) for k, v in PRESET_SCHEMES[name].items()}
    block = QuantizationArgs(num_bits=8, type="float", strategy="block", block_structure=[16, 32], symmetric=True)
    int4 = dict(num_bits=4, type="int", group_size=32)
    jobs = {  # name: (arguments of the scheme, N, K, dtype, kv_cache_scheme)
        "fp8_channel": (P("FP8_DYNAMIC"), 20, 64, torch.float32, None),
        "fp8_channel_bf16": (P("FP8_DYNAMIC"), 20, 64, torch.bfloat16, None),
        "fp8_tensor": (P("FP8"), 20, 64, torch.float32, QuantizationArgs(num_bits=8, type="float", strategy="tensor", symmetric=True, dynamic=False)),
        "fp8_block": ({"weights": block, "input_activations": P("FP8_BLOCK")["input_activations"]}, 40, 96, torch.float32, None),
        "nvfp4a16": (P("NVFP4A16"), 20, 96, torch.float32, None),
        "nvfp4": (P("NVFP4"), 20, 96, torch.bfloat16, None),
        "mxfp4": (P("MXFP4"), 20, 96, torch.float32, None),
        "mxfp6": (P("MXFP6A16"), 20, 96, torch.float32, None),
        "mxfp8": (P("MXFP8"), 20, 96, torch.float32, None),
        "int8_channel": (P("W8A8"), 20, 64, torch.float32, QuantizationArgs(num_bits=8, type="int", strategy="attn_head", symmetric=True, dynamic=False)),
        "int4_g32": ({"weights": QuantizationArgs(**int4, symmetric=True)}, 20, 96, torch.float32, None),
        "int4_asym_g32": ({"weights": QuantizationArgs(**int4, symmetric=False)}, 20, 96, torch.float32, None),
        "int4_asym_ch": ({"weights": QuantizationArgs(num_bits=4, type="int", strategy="channel", symmetric=False)}, 20, 96, torch.float32, None),
        "int4_static_g32": ({"weights": QuantizationArgs(**int4, symmetric=True, actorder="static")}, 20, 96, torch.float32, None),
    }
    for i, (name, (kw, n, k, dtype, kv)) in enumerate(jobs.items()):
        w = weight(n, k, 60 + i).to(dtype)
        model = torch.nn.Sequential()
        model.add_module("lin", torch.nn.Linear(k, n, bias=False).to(dtype))
        model.lin.weight.data.copy_(w)
        scheme = QuantizationScheme(targets=["Linear"], **kw)
        apply_quantization_config(model, QuantizationConfig(config_groups={"group_0": scheme}, ignore=["lm_head"]))
        a = model.lin.quantization_scheme.weights
        lo, hi = minmax(w.float(), a)
        gs = None
        p = f"{name}/"
        if a.strategy == "tensor_group":
            gs = generate_gparam(w.float().min(), w.float().max())
            model.lin.weight_global_scale.data.copy_(gs)
        scale, zp = calculate_qparams(lo, hi, a, gs)
        put(p + "scale_in", scale)
        model.lin.weight_scale.data.copy_(scale)
        if not a.symmetric:
            model.lin.weight_zero_point.data.copy_(zp)
            put(p + "zp_in", zp)
        if hasattr(model.lin, "input_global_scale"):
            model.lin.input_global_scale.data.fill_(448 * 6 / 3.5)
        if hasattr(model.lin, "input_scale"):
            model.lin.input_scale.data.fill_(0.01)
        s = model.lin.weight_scale.data.clone()
        q = quantize(w, s, zp if not a.symmetric else None, a, global_scale=gs)
        put(p + "q", q.float() if a.type == "float" else q.to(torch.int8))
        put(p + "weight", w)
        put(p + "dequant", dequantize(q.float(), s.float(), zp if not a.symmetric else None, a, dtype=torch.float32, global_scale=gs))
        mc = ModelCompressor.from_pretrained_model(model)
        mc.quantization_config.kv_cache_scheme = kv
        mc.quantization_config.ignore = ["lm_head"]  # a model without an lm_head drops it
        mc.compress_model(model)
        for key, t in model.state_dict().items():
            put(p + "file/" + key, t)
        with tempfile.TemporaryDirectory() as d:
            mc.update_config(d)
            configs[name] = open(os.path.join(d, "config.json")).read()
    # static KV scales: the parameters an attention with 2 kv heads of size 8 gets, and keys [batch, head, position, size] through them
    from compressed_tensors.quantization.lifecycle.forward import fake_quantize
    from compressed_tensors.quantization.lifecycle.initialize import initialize_qparams
    k = torch.randn(1, 2, 5, 8, generator=torch.Generator().manual_seed(9))
    put("kv/k", k)
    for strategy, kind in (("tensor", "float"), ("attn_head", "int")):
        kv = QuantizationArgs(num_bits=8, type=kind, strategy=strategy, symmetric=True, dynamic=False)
        m = torch.nn.Module()
        initialize_qparams(m, "k", kv, observed_shape=(2, None, 8), observed_dtype=torch.float32, force_zero_point=False)
        lo, hi = (k.min(), k.max()) if strategy == "tensor" else (k.amin((0, 2, 3)), k.amax((0, 2, 3)))
        s, _ = calculate_qparams(lo.reshape(m.k_scale.shape), hi.reshape(m.k_scale.shape), kv)
        put(f"kv/{strategy}/k_scale", s), put(f"kv/{strategy}/k_fq", fake_quantize(k, s, None, kv))
    cases["layout"] = "<case>/file/* are the tensors stored; q the values of the codes before packing; dequant the float32 weight; scale_in from calculate_qparams"


def main(out):
    current()
    meta = {"producer": "compressed-tensors " + compressed_tensors.__version__, "torch": torch.__version__, "cases": json.dumps(cases)}
    meta.update({"config/" + k: v for k, v in configs.items()})
    save_file(data, out, metadata=meta)
    print(len(data), "tensors,", sum(t.numel() * t.element_size() for t in data.values()), "bytes")


if __name__ == "__main__":
    main(sys.argv[1])
