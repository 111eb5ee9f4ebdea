# SPDX-License-Identifier: Apache-2.0
"""Writes peer_torchao.safetensors (torchao 0.18 and hqq) or peer_torchao_old.safetensors (torchao 0.10): weight schemes.

The installed torchao decides: 0.18 has today's configurations, primitives, MX and NVFP4; 0.10 has uintx.
Needs torch (CPU), torchao, safetensors; for 0.18 also hqq.   Usage: python make_peer_torchao.py OUT.safetensors
"""
import importlib.metadata as md
import json
import sys
import warnings

import torch
from safetensors.torch import save_file

warnings.simplefilter("ignore")
torch.set_num_threads(1)
VERSION = md.version("torchao")
OLD = int(VERSION.split(".")[1]) < 12
F32_EPS = torch.finfo(torch.float32).eps
data, cases = {}, {}


def put(key, t):
    t = t.detach()
    if t.dtype in (torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e8m0fnu):
        t = t.view(torch.uint8)
    if t.dtype == torch.int64:
        assert t.abs().max() < 2**31
        t = t.to(torch.int32)
    data[key] = t.clone().contiguous()


def put_codes(key, t):
    """Integer codes in the narrowest of uint8, int8, int32 that holds them."""
    lo, hi = int(t.min()), int(t.max())
    dt = torch.uint8 if lo >= 0 and hi < 256 else torch.int8 if lo >= -128 and hi < 128 else torch.int32
    data[key] = t.detach().to(dt).clone().contiguous()


def inputs():
    g = torch.Generator().manual_seed(7)
    w = torch.randn(16, 128, generator=g) * 0.05
    w[:, 9] *= 6
    w[3] = 0                              # dead row
    w[5] = w[5].abs() + 0.01              # one sign only
    w[6] = -w[6].abs() - 0.02
    w[7] = 0.0625                         # constant: a group without range
    w[8] *= 1e-9                          # far below float32 eps
    w[11, :64] = w[11, :64] * 0.01        # groups of very different size
    b = torch.randn(17, 96, generator=g) * torch.logspace(-3, 1, 17)[:, None]
    x = torch.randn(7, 128, generator=g)
    x[:, 17] *= 20
    x[2] = 0                              # a token of zeros
    x[4] = x[4].abs() + 0.5               # a token without zero in its range
    dy = torch.randn(7, 16, generator=g)
    return w, b, x, dy


W, B, X, DY = inputs()
for name, t in (("W", W), ("B", B), ("X", X), ("dY", DY)):
    put("in/" + name, t)
put("in/W_bf16", W.bfloat16())
put("in/X_bf16", X.bfloat16())
SRC = {"W": W, "B": B, "X": X, "W_bf16": W.bfloat16(), "X_bf16": X.bfloat16()}


def linear(w=W, bias=None):
    lin = torch.nn.Linear(w.shape[1], w.shape[0], bias=bias is not None).to(w.dtype)
    lin.weight.data.copy_(w)
    if bias is not None:
        lin.bias.data.copy_(bias)
    return lin


# ---------------------------------------------------------------------------------------------------------------- both versions
def hqq_trace(prefix, w, nbits, group, round_zero, ao):
    """The proximal loop step by step with the operations of torchao (ao) or hqq; the callers compare its end with theirs, bit for bit."""
    wf = w.float().reshape(-1, group)
    lo, hi = wf.min(1, keepdim=True)[0], wf.max(1, keepdim=True)[0]
    scale = (2**nbits - 1) / (hi - lo)
    if not ao:
        scale = torch.where((hi - lo).abs() <= 1e-4, torch.full_like(scale, 1.0), scale)
    scale = scale.clamp(max=2e4)
    zero = -lo * scale
    if round_zero:
        zero = zero.round()
    put(prefix + "inv_scale", scale)
    put(prefix + "zero0", zero)
    beta, best, zeros, errs = 10.0, (1e4 if ao else float("inf")), [], []
    for _ in range(20):
        q = (wf * scale + zero).round().clamp(0, 2**nbits - 1)
        r = (q - zero) / scale
        d = wf - r
        e = torch.sign(d) * torch.relu(d.abs() - (1.0 / beta) * d.abs().pow(0.7 - 1))
        zero = (q - (wf - e) * scale).mean(1, keepdim=True)
        beta *= 1.01 if ao else 1.0                               # hqq's own CPU path leaves beta at 10
        err = float(d.abs().mean())
        zeros.append(zero.clone())
        errs.append(err)
        if err < best:
            best = err
        else:
            break
    q = (wf * scale + zero).round().clamp(0, 2**nbits - 1)
    put(prefix + "zero_iter", torch.cat(zeros, 1))               # [groups, iterations run]
    put(prefix + "err_iter", torch.tensor(errs, dtype=torch.float64))
    put_codes(prefix + "q", q.reshape(w.shape))
    return q, scale, zero


# ------------------------------------------------------------------------------------------------------------------- torchao 0.18
def affine():
    from torchao.quantization.quant_primitives import (
        MappingType, _choose_qparams_affine_dont_preserve_zero, _dequantize_affine_no_zero_point,
        _quantize_affine_no_zero_point, choose_qparams_affine, dequantize_affine, quantize_affine)
    M = MappingType
    i4, u4, i8 = (torch.int8, -8, 7), (torch.uint8, 0, 15), (torch.int8, -128, 127)
    table = [  # name, tensor, block, mapping, (dtype, qmin, qmax), eps, scale dtype, zero dtype
        ("sym_i4_g32", "W", (1, 32), M.SYMMETRIC, i4, None, None, torch.int32),
        ("sym_i4_g32_eps", "W", (1, 32), M.SYMMETRIC, i4, F32_EPS, None, torch.int32),
        ("noclip_i4_g32", "W", (1, 32), M.SYMMETRIC_NO_CLIPPING_ERR, i4, F32_EPS, None, torch.int32),
        ("asym_i4_g32", "W", (1, 32), M.ASYMMETRIC, i4, F32_EPS, None, torch.int32),
        ("asym_u4_g32", "W", (1, 32), M.ASYMMETRIC, u4, F32_EPS, None, torch.int32),
        ("asym_u4_g32_fz", "W", (1, 32), M.ASYMMETRIC, u4, 1e-6, None, torch.float32),
        ("sym_u4_g32", "W", (1, 32), M.SYMMETRIC, u4, F32_EPS, None, torch.int32),
        ("sym_i8_ch", "B", (1, 96), M.SYMMETRIC, i8, F32_EPS, torch.float32, torch.int8),
        ("sym_i8_ch127", "B", (1, 96), M.SYMMETRIC, (torch.int8, -127, 127), 1e-5, None, torch.int32),
        ("noclip_i8_ch", "B", (1, 96), M.SYMMETRIC_NO_CLIPPING_ERR, i8, F32_EPS, torch.float32, torch.int8),
        ("asym_i8_tok", "X", (1, 128), M.ASYMMETRIC, i8, None, None, torch.int8),
        ("asym_i8_tok_eps", "X", (1, 128), M.ASYMMETRIC, i8, F32_EPS, torch.float32, torch.float32),
        ("asym_i8_tensor", "X", (7, 128), M.ASYMMETRIC, i8, F32_EPS, None, torch.int32),
        ("asym_i8_tok_bf16", "X_bf16", (1, 128), M.ASYMMETRIC, i8, F32_EPS, torch.float32, torch.int8),
        ("sym_i4_g32_bf16", "W_bf16", (1, 32), M.SYMMETRIC, i4, None, None, torch.int8),
        ("sym_i4_b2x16", "W", (2, 16), M.SYMMETRIC, i4, F32_EPS, None, torch.int32),
        ("asym_u4_col", "B", (17, 1), M.ASYMMETRIC, u4, F32_EPS, None, torch.int32),
    ]
    for name, src, block, mapping, (dt, lo, hi), eps, sdt, zdt in table:
        t = SRC[src]
        s, z = choose_qparams_affine(t, mapping, block, dt, lo, hi, eps, sdt, zdt, keepdim=True)
        q = quantize_affine(t, block, s, z, dt, lo, hi)
        p = f"affine/{name}/"
        put(p + "scale", s), put(p + "zp", z), put_codes(p + "q", q)
        put(p + "dq", dequantize_affine(q, block, s, z, dt, lo, hi, output_dtype=t.dtype))
        cases[p[:-1]] = dict(src=src, block=block, mapping=mapping.name, qmin=lo, qmax=hi, eps=eps or "smallest_normal",
                             scale_dtype=str(s.dtype), zero_dtype=str(z.dtype))
    s, z = _choose_qparams_affine_dont_preserve_zero(W, M.ASYMMETRIC, (1, 32), *u4, eps=F32_EPS, zero_point_dtype=torch.int32)
    q = quantize_affine(W, (1, 32), s, z, *u4)
    for k, t in (("scale", s.reshape(16, 4)), ("zp", z.reshape(16, 4)), ("dq", dequantize_affine(q, (1, 32), s, z, *u4))):
        put("affine/nozero_u4_g32/" + k, t)
    put_codes("affine/nozero_u4_g32/q", q)
    cases["affine/nozero_u4_g32"] = "asymmetric, range not widened to hold zero (preserve_zero false), eps float32, src W"
    q = _quantize_affine_no_zero_point(W, (1, 32), data["affine/sym_i4_g32_eps/scale"], None, *i4)
    put_codes("affine/none_i4_g32/q", q)
    put("affine/none_i4_g32/dq", _dequantize_affine_no_zero_point(q, (1, 32), data["affine/sym_i4_g32_eps/scale"], None, *i4))
    cases["affine/none_i4_g32"] = "zero point domain NONE with the scale of sym_i4_g32_eps"


def configs():
    from torchao.quantization import (Float8WeightOnlyConfig, Int8DynamicActivationInt8WeightConfig,
                                      Int8DynamicActivationIntxWeightConfig, Int8WeightOnlyConfig, IntxWeightOnlyConfig, MappingType,
                                      PerAxis, PerGroup, PerRow, PerTensor, quantize_)
    from torchao.quantization.quantize_.workflows import IntxChooseQParamsAlgorithm as Algo
    jobs = []
    for src in ("W", "B", "W_bf16"):
        jobs += [(f"int8wo/{src}", src, Int8WeightOnlyConfig()), (f"int8wo_tensor/{src}", src, Int8WeightOnlyConfig(granularity=PerTensor())),
                 (f"int8wo_g32/{src}", src, Int8WeightOnlyConfig(granularity=PerGroup(32)))]
    jobs += [("int8dq/W", "W", Int8DynamicActivationInt8WeightConfig()), ("int8dq/W_bf16", "W_bf16", Int8DynamicActivationInt8WeightConfig()),
             ("int8dq_asym/W", "W", Int8DynamicActivationInt8WeightConfig(act_mapping_type=MappingType.ASYMMETRIC)),
             ("int8dq_reduced/W", "W", Int8DynamicActivationInt8WeightConfig(reduce_range=True))]
    for bits in range(1, 9):
        jobs.append((f"intx{bits}_sym_g32/W", "W", IntxWeightOnlyConfig(getattr(torch, f"int{bits}"), PerGroup(32))))
        if bits > 1:
            jobs.append((f"intx{bits}_asym_ch/B", "B", IntxWeightOnlyConfig(getattr(torch, f"int{bits}"), PerAxis(0), MappingType.ASYMMETRIC)))
    jobs += [("intx4_hqqscale_g32/W", "W", IntxWeightOnlyConfig(torch.int4, PerGroup(32), intx_choose_qparams_algorithm=Algo.HQQ_SCALE_ONLY)),
             ("intx3_hqqscale_g32/B", "B", IntxWeightOnlyConfig(torch.int3, PerGroup(32), intx_choose_qparams_algorithm=Algo.HQQ_SCALE_ONLY)),
             ("8da4w/W", "W", Int8DynamicActivationIntxWeightConfig(torch.int4, PerGroup(32))),
             ("8da4w_bf16scale/W", "W", Int8DynamicActivationIntxWeightConfig(torch.int4, PerGroup(32), weight_scale_dtype=torch.bfloat16)),
             ("8da4w/W_bf16", "W_bf16", Int8DynamicActivationIntxWeightConfig(torch.int4, PerGroup(32))),
             ("8da8w/W", "W", Int8DynamicActivationIntxWeightConfig(torch.int8, PerAxis(0))),
             ("fp8wo/W", "W", Float8WeightOnlyConfig()), ("fp8wo_tensor/W", "W", Float8WeightOnlyConfig(granularity=PerTensor())),
             ("fp8wo/B", "B", Float8WeightOnlyConfig()), ("fp8wo/W_bf16", "W_bf16", Float8WeightOnlyConfig()),
             ("fp8wo_e5m2/W", "W", Float8WeightOnlyConfig(weight_dtype=torch.float8_e5m2))]
    WITH_DQ = {"int8wo/W", "int8wo_g32/W", "int8wo/W_bf16", "intx3_asym_ch/B", "intx4_sym_g32/W", "8da4w/W", "8da4w/W_bf16", "fp8wo/W", "fp8wo/B", "fp8wo/W_bf16"}
    for name, src, cfg in jobs:
        t = SRC[src]
        m = torch.nn.Sequential(linear(t))
        quantize_(m, cfg)
        w = m[0].weight
        p = f"cfg/{name}/"
        put(p + "q", w.qdata), put(p + "scale", w.scale)
        zp = getattr(w, "zero_point", None)
        if zp is not None and bool((zp != 0).any()):
            put(p + "zp", zp)
        if name in WITH_DQ:
            put(p + "dq", w.dequantize())
        cases[p[:-1]] = repr(cfg)
    # dynamic float8: activation per row and per tensor, weight per row and per tensor
    from torchao.quantization.quant_primitives import _choose_scale_float8, _dequantize_affine_float8, _quantize_affine_float8
    for name, block in (("row", (1, 128)), ("tensor", (7, 128))):
        s = _choose_scale_float8(X, block)
        q = _quantize_affine_float8(X, s)
        put(f"fp8act/{name}/scale", s), put(f"fp8act/{name}/q", q), put(f"fp8act/{name}/dq", _dequantize_affine_float8(q, s))
    s = _choose_scale_float8(X, (1, 128), hp_value_lb=0.5, hp_value_ub=8.0)
    q = _quantize_affine_float8(X, s)
    put("fp8act/row_bounded/scale", s), put("fp8act/row_bounded/q", q)
    s = _choose_scale_float8(X[:, :96].contiguous(), (1, 32), scale_dtype=torch.float8_e8m0fnu, hp_value_lb=1e-12)
    put("fp8act/g32_pow2/scale", s), put("fp8act/g32_pow2/q", _quantize_affine_float8(X[:, :96].contiguous(), s))
    cases["fp8act"] = "e4m3 of X; row_bounded: absmax clamped to [0.5, 8]; g32_pow2: groups of 32 of the first 96 columns, scale 2^round(log2)"


def int4():
    from torchao.quantization.quant_primitives import (
        MappingType, _choose_qparams_affine_tinygemm, _choose_qparams_and_quantize_affine_hqq, _dequantize_affine_tinygemm,
        _quantize_affine_tinygemm, optimize_weights_proximal_legacy)
    for src in ("W", "W_bf16"):
        t = SRC[src]
        for g in (32, 64, 128):
            s, z = _choose_qparams_affine_tinygemm(t, MappingType.ASYMMETRIC, (1, g), torch.int32, 0, 15, scale_dtype=t.dtype, zero_point_dtype=t.dtype)
            q = _quantize_affine_tinygemm(t, (1, g), s, z, torch.int32, 0, 15)
            p = f"tinygemm/{src}_g{g}/"
            put(p + "scale", s.reshape(16, -1)), put(p + "zero", z.reshape(16, -1)), put_codes(p + "q", q)
            put(p + "dq", _dequantize_affine_tinygemm(q, (1, g), s, z, torch.int32, 0, 15, output_dtype=t.dtype))
            q, s, z, _ = _choose_qparams_and_quantize_affine_hqq(t, 4, g, True, 1, t.dtype, "cpu")
            p = f"tinygemm_hqq/{src}_g{g}/"
            put(p + "scale", s.reshape(16, -1)), put(p + "zero", z.reshape(16, -1)), put_codes(p + "q", q)
    cases["tinygemm"] = "Int4WeightOnlyConfig, TINYGEMM: all arithmetic in the dtype of the source, eps = smallest normal; dq = (q-8)*scale + zero"
    cases["tinygemm_hqq"] = "Int4WeightOnlyConfig, HQQ: loop in float32, results cast to the source's dtype; dq = (q-8)*scale + zero"
    # the loop, iteration by iteration (torchao's variant rounds the first zero at 4 bit)
    for bits, g in ((4, 64), (3, 32), (2, 32)):
        for src in ("W", "B"):
            w = SRC[src]
            if w.shape[1] % g:
                continue
            p = f"hqq_ao/{src}_{bits}_g{g}/"
            q, inv, zero = hqq_trace(p, w, bits, g, bits == 4, True)
            wq, s, z, _ = _choose_qparams_and_quantize_affine_hqq(w, bits, g, True, 1, torch.float32, "cpu", raw_output=True)
            assert torch.equal(wq.float(), q.reshape(w.shape)) and torch.equal(s.flatten(), (1.0 / inv).flatten())
            assert torch.equal(z.flatten(), zero.flatten()), p
            put(p + "scale", s), put(p + "zero", z)
    from hqq.core.quantize import Quantizer
    for bits, g, rz in ((4, 64, False), (4, 64, True), (3, 32, False), (2, 16, False)):
        for src in ("W", "B"):
            w = SRC[src]
            if w.shape[1] % g:
                continue
            wq, meta = Quantizer.quantize(w, bits, True, g, True, rz, 1, bitpack=False, device="cpu", compute_dtype=torch.float32)
            p = f"hqq/{src}_{bits}_g{g}{'_rz' if rz else ''}/"
            q, inv, zero = hqq_trace(p, w, bits, g, rz, False)
            assert torch.equal(wq, q) and torch.equal(meta["scale"], 1.0 / inv) and torch.equal(meta["zero"], zero), p
            put(p + "scale", meta["scale"].reshape(w.shape[0], -1)), put(p + "zero", meta["zero"].reshape(w.shape[0], -1))
    p = "hqq/W_4_g64_axis0/"
    wq, meta = Quantizer.quantize(W, 4, True, 64, True, False, 0, bitpack=False, device="cpu", compute_dtype=torch.float32)
    put_codes(p + "q", wq), put(p + "scale", meta["scale"]), put(p + "zero", meta["zero"])
    cases["hqq_ao"] = "torchao: inv_scale, zero0, zero_iter [groups, n], err_iter, q, scale = 1/inv_scale, zero; dq = (q-zero)*scale"
    cases["hqq"] = ("hqq " + md.version("hqq") + " Quantizer.quantize axis 1: lp_norm 0.7, beta 10 throughout, at most 20 iterations; _rz rounds the first "
                    "zero; axis0: tensor reshaped to (64, -1), q stays in that shape")


def floats():
    from torchao.prototype.custom_fp_utils import _f32_to_floatx_unpacked, _floatx_unpacked_to_f32
    from torchao.prototype.mx_formats.config import ScaleCalculationMode as Mode
    from torchao.prototype.mx_formats.constants import DTYPE_FP6_E2M3, DTYPE_FP6_E3M2
    from torchao.prototype.mx_formats.mx_tensor import MXTensor, to_mx
    from torchao.prototype.mx_formats.nvfp4_tensor import NVFP4Tensor, nvfp4_quantize, per_tensor_amax_to_scale
    from torchao.prototype.mx_formats.utils import to_blocked
    from torchao.quantization.quant_primitives import _choose_qparams_affine_floatx, _dequantize_affine_floatx, _quantize_affine_floatx
    # every code's value, the midpoints between neighbours, values just beside them, and the far ends
    for name, e, m in (("e2m1", 2, 1), ("e2m3", 2, 3), ("e3m2", 3, 2), ("e2m2", 2, 2), ("e4m3x", 4, 3)):
        n = 1 + e + m
        val = _floatx_unpacked_to_f32(torch.arange(2**n, dtype=torch.uint8), e, m)
        pos = val[: 2 ** (n - 1)]
        mid = (pos[1:] + pos[:-1]) / 2
        probe = torch.cat([pos, mid, torch.nextafter(mid, torch.tensor(0.0)), torch.nextafter(mid, torch.tensor(1e9)), pos[-1:] * torch.tensor([1.01, 2, 1e4])])
        probe = torch.cat([probe, -probe])
        put(f"floatx/{name}/values", val), put(f"floatx/{name}/probe", probe)
        put(f"floatx/{name}/code", _f32_to_floatx_unpacked(probe, e, m))
    cases["floatx"] = "values[c] = the number of code c; code = cast of probe; e4m3x is torchao's finite e4m3 without NaN (max 480), not float8_e4m3fn"
    val = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
    pos = val[:127]
    mid = (pos[1:] + pos[:-1]) / 2
    probe = torch.cat([pos, mid, torch.nextafter(mid, torch.tensor(0.0)), torch.nextafter(mid, torch.tensor(1e9))])
    probe = torch.cat([probe, -probe])
    put("float8/e4m3/values", val), put("float8/e4m3/probe", probe), put("float8/e4m3/code", probe.to(torch.float8_e4m3fn))
    val5 = torch.arange(256, dtype=torch.uint8).view(torch.float8_e5m2).float()
    pos = val5[:124]
    mid = (pos[1:] + pos[:-1]) / 2
    probe = torch.cat([pos, mid, torch.nextafter(mid, torch.tensor(0.0)), torch.nextafter(mid, torch.tensor(1e9))])
    probe = torch.cat([probe, -probe])
    put("float8/e5m2/values", val5), put("float8/e5m2/probe", probe), put("float8/e5m2/code", probe.to(torch.float8_e5m2))
    for src in ("W", "B"):
        for name, e, m in (("e3m2", 3, 2), ("e2m3", 2, 3), ("e2m1", 2, 1), ("e2m2", 2, 2)):
            t = SRC[src]
            s = _choose_qparams_affine_floatx(t, e, m)
            q = _quantize_affine_floatx(t, s, e, m)
            put(f"fpx/{name}_{src}/scale", s), put(f"fpx/{name}_{src}/q", q), put(f"fpx/{name}_{src}/dq", _dequantize_affine_floatx(q, s, e, m))
    h = W.half()
    s = _choose_qparams_affine_floatx(h, 3, 2)
    q = _quantize_affine_floatx(h, s, 3, 2)
    put("fpx/e3m2_Whalf/scale", s), put("fpx/e3m2_Whalf/q", q), put("fpx/e3m2_Whalf/dq", _dequantize_affine_floatx(q, s, 3, 2, torch.float16))
    cases["fpx"] = "per row: scale = clamp(absmax, 1e-12)/max, computed in float32, kept in the dtype of the source; code of w/scale"
    kinds = {"fp4": torch.float4_e2m1fn_x2, "fp6_e2m3": DTYPE_FP6_E2M3, "fp6_e3m2": DTYPE_FP6_E3M2, "fp8_e4m3": torch.float8_e4m3fn, "fp8_e5m2": torch.float8_e5m2}
    for src in ("W", "B"):
        for kind, dt in kinds.items():
            for mode in (Mode.FLOOR, Mode.RCEIL, Mode.CEIL, Mode.EVEN):
                if src == "B" and mode in (Mode.CEIL, Mode.EVEN):
                    continue
                s, q = to_mx(SRC[src], dt, 32, mode)
                p = f"mx/{kind}_{mode.name.lower()}_{src}/"
                put(p + "scale", s.reshape(SRC[src].shape[0], -1)), put(p + "q", q.view(torch.uint8))
                if mode == Mode.FLOOR:
                    put(p + "dq", MXTensor.to_mx(SRC[src], dt, 32, mode).dequantize(torch.float32))
    s, q = to_mx(SRC["W_bf16"], kinds["fp4"], 32, Mode.FLOOR)
    put("mx/fp4_floor_W_bf16/scale", s.reshape(16, -1)), put("mx/fp4_floor_W_bf16/q", q)
    cases["mx"] = "blocks of 32; scale = e8m0 byte; fp4 packed, even column in the low nibble; fp6 one code a byte; fp8 raw bytes"
    for src in ("W", "B", "W_bf16"):
        t = SRC[src]
        for two in (False, True):
            gs = per_tensor_amax_to_scale(t.abs().max()) if two else None
            s, q = nvfp4_quantize(t, 16, gs)
            p = f"nvfp4/{'two' if two else 'one'}_{src}/"
            put(p + "scale", s), put(p + "q", q)
            if two:
                put(p + "global", gs.reshape(1))
            put(p + "dq", NVFP4Tensor.to_nvfp4(t, per_tensor_scale=gs).dequantize(torch.float32))
    sw = to_blocked(data["nvfp4/two_B/scale"])
    put("nvfp4/two_B/scale_swizzled", sw)
    cases["nvfp4"] = "blocks of 16; scale = e4m3 byte; 'two' divides it by global = absmax/(448*6); nibbles as in mx; scale_swizzled: 128x4 tiles"


def old():
    from torchao.dtypes import to_affine_quantized_intx
    from torchao.quantization import quantize_
    from torchao.quantization.quant_api import int8_weight_only, uintx_weight_only
    from torchao.quantization.quant_primitives import (MappingType, ZeroPointDomain, choose_qparams_affine, choose_qparams_and_quantize_affine_hqq,
                                                       dequantize_affine, quantize_affine)
    # preserve_zero and zero_point_domain as arguments of one primitive; default eps was finfo.eps
    for name, kw in (("float_zero", dict(eps=1e-6, preserve_zero=False, zero_point_domain=ZeroPointDomain.FLOAT)),
                     ("float_zero_keep0", dict(eps=1e-6, preserve_zero=True, zero_point_domain=ZeroPointDomain.FLOAT)),
                     ("int_zero", dict(eps=F32_EPS, preserve_zero=True, zero_point_dtype=torch.int32))):
        s, z = choose_qparams_affine(W, MappingType.ASYMMETRIC, (1, 32), torch.int32, 0, 15, **kw)
        dom = kw.get("zero_point_domain", ZeroPointDomain.INT)
        q = quantize_affine(W, (1, 32), s, z, torch.int32, 0, 15, dom)
        p = f"affine/{name}/"
        put(p + "scale", s.reshape(16, -1)), put(p + "zero", z.reshape(16, -1)), put_codes(p + "q", q)
        put(p + "dq", dequantize_affine(q, (1, 32), s, z, torch.int32, 0, 15, dom))
    # int4_weight_only(g): the tinygemm settings, bf16 weight
    for g in (32, 64, 128):
        wb = W.bfloat16()
        s, z = choose_qparams_affine(wb, MappingType.ASYMMETRIC, (1, g), torch.int32, 0, 15, 1e-6, zero_point_dtype=torch.bfloat16, preserve_zero=False,
                                     zero_point_domain=ZeroPointDomain.FLOAT)
        put_codes(f"int4wo/g{g}/q", quantize_affine(wb, (1, g), s, z, torch.int32, 0, 15, ZeroPointDomain.FLOAT))
        put(f"int4wo/g{g}/scale", s.reshape(16, -1)), put(f"int4wo/g{g}/zero", z.reshape(16, -1))
    # uintx 1..7, group 64, packed along the last dimension; and the HQQ form (kept unpacked as uint8)
    for bits in range(1, 8):
        m = torch.nn.Sequential(linear(W))
        quantize_(m, uintx_weight_only(getattr(torch, f"uint{bits}"), group_size=64))
        impl = m[0].weight.tensor_impl
        p = f"uintx/{bits}_g64/"
        put_codes(p + "q", impl.get_plain()[0]), put(p + "scale", impl.scale), put(p + "zp", impl.zero_point), put(p + "dq", m[0].weight.dequantize())
    for bits, g in ((4, 64), (2, 8)):
        m = torch.nn.Sequential(linear(W))
        quantize_(m, uintx_weight_only(getattr(torch, f"uint{bits}"), group_size=g, use_hqq=True))
        impl = m[0].weight.tensor_impl
        p = f"uintx/{bits}_g{g}_hqq/"
        put_codes(p + "q", impl.int_data), put(p + "scale", impl.scale), put(p + "zero", impl.zero_point), put(p + "dq", m[0].weight.dequantize())
    cases["uintx"] = "asymmetric, zero point int32, eps float32; shard i of bit_width b: 4-, 2-, 1-bit planes, block-interleaved (formats.md, 6)"
    for src in ("W", "W_bf16"):
        m = torch.nn.Sequential(linear(SRC[src]))
        quantize_(m, int8_weight_only())
        put(f"int8wo/{src}/q", m[0].weight.tensor_impl.int_data), put(f"int8wo/{src}/scale", m[0].weight.tensor_impl.scale)


UNUSED = ("in/dY", "in/X_bf16") + (("in/X",) if OLD else ())


def main(out):
    for f in (old,) if OLD else (affine, configs, int4, floats):
        f()
    kept = {k: t for k, t in data.items() if k not in UNUSED and "swizzled" not in k and "hqqscale" not in k and not k.startswith("fp8act")}
    meta = {"producer": "torchao " + VERSION, "torch": torch.__version__, "device": "cpu, one thread", "cases": json.dumps(cases, default=str)}
    if not OLD:
        meta["producer"] += "; hqq " + md.version("hqq")
    save_file(kept, out, metadata=meta)


if __name__ == "__main__":
    main(*sys.argv[1:])
