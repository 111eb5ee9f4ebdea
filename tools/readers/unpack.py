# SPDX-License-Identifier: Apache-2.0
"""Codes and scales to weights, by numpy alone: what the packages under test must get, too."""
import numpy as np

from readers.common import DataError


def fields(raw, bits, count):
    """Bytes (rows, bytes) -> codes without sign (rows, count): a bit stream, lowest bit first."""
    stream = np.unpackbits(raw, axis=1, bitorder="little")
    if stream.shape[1] < count * bits or np.any(stream[:, count * bits:]):
        raise DataError(f"{raw.shape[1]} bytes for {count} codes of {bits} bits: too few, or rest not 0")
    one = stream[:, :count * bits].reshape(len(raw), count, bits).astype(np.int32)
    return (one << np.arange(bits)).sum(axis=2)


def unpack(packed, bits, count):
    """Packed words (rows, words) int32 -> signed codes (rows, count)."""
    return fields(np.ascontiguousarray(packed, "<i4").view(np.uint8), bits, count) - (1 << bits - 1)


def float_values(bits):
    """The value of each code of e2m1 (4 bits), e2m3 (6) or e4m3 (8: its largest code is NaN)."""
    exponent = {4: 2, 6: 2, 8: 4}[bits]
    mantissa, bias = bits - 1 - exponent, (1 << exponent - 1) - 1
    e, m = np.divmod(np.arange(1 << bits - 1), 1 << mantissa)
    x = np.ldexp(m + np.where(e > 0, 1 << mantissa, 0), np.maximum(e, 1) - bias - mantissa)
    x[-1] = np.nan if bits == 8 else x[-1]
    return np.concatenate([x, -x]).astype(np.float32)


def float_scales(tensors, name):
    """The scales of a Linear of floats as a float32 matrix; those of NVFP4 divided by the matrix's number."""
    kind, scale = tensors.dtype(name + ".weight_scale"), tensors.get(name + ".weight_scale")
    if kind == "F8_E4M3":
        scale = float_values(8)[scale] / tensors.get(name + ".weight_global_scale").astype(np.float32)
    elif kind == "U8":
        scale = np.ldexp(np.float32(1), scale.astype(np.int32) - 127)
    return scale.astype(np.float32).reshape((1, 1) if scale.size == 1 else scale.shape)


def stored_float(tensors, name, args):
    """As stored_weight, of floats: code * scale."""
    bits, packed = args["num_bits"], name + ".weight_packed" in tensors.info
    raw = tensors.get(name + (".weight_packed" if packed else ".weight"))
    kind = tensors.dtype(name + (".weight_packed" if packed else ".weight"))
    if kind != ("U8" if packed else "F8_E4M3"):
        raise DataError(f"{name}: codes of {bits} bits are {kind}")
    code = fields(raw, bits, raw.shape[1] * 8 // bits) if packed else raw
    (rows, cols), scale = code.shape, float_scales(tensors, name)
    tile = {"tensor": (rows, cols), "channel": (1, cols), "block": args.get("block_structure"),
            "group": (1, args["group_size"]), "tensor_group": (1, args["group_size"])}[args["strategy"]]
    if scale.shape != (-(-rows // tile[0]), -(-cols // tile[1])):
        raise DataError(f"{name}: codes {code.shape}, scales {scale.shape}, one for {tile}, do not fit")
    scale = scale.repeat(tile[0], 0).repeat(tile[1], 1)[:rows, :cols]
    return float_values(bits)[code] * scale, packed


def stored_weight(tensors, name, args):
    """(code - zero) * scale of a Linear, in float32, by the scheme's arguments; also whether it is packed."""
    if args.get("type") == "float":
        return stored_float(tensors, name, args)
    bits, packed = args["num_bits"], name + ".weight_packed" in tensors.info
    scale = tensors.get(name + ".weight_scale").astype(np.float32)
    if packed:
        rows, cols = (int(x) for x in tensors.get(name + ".weight_shape"))
        code = unpack(tensors.get(name + ".weight_packed"), bits, cols)
    else:
        code = tensors.get(name + ".weight")
        rows, cols = code.shape
        if tensors.dtype(name + ".weight") != "I8":
            raise DataError(f"{name}.weight is {tensors.dtype(name + '.weight')}, no integer codes")
    if code.shape != (rows, cols) or scale.shape[0] != rows or cols % scale.shape[1]:
        raise DataError(f"{name}: codes {code.shape}, scales {scale.shape}, shape {rows, cols} do not fit")
    group = cols // scale.shape[1]
    if args["strategy"] == "group" and group != args["group_size"]:
        raise DataError(f"{name}: {group} columns a scale, the configuration says {args['group_size']}")
    code = code.reshape(rows, -1, group).astype(np.float32)
    if not args["symmetric"]:
        zero = tensors.get(name + ".weight_zero_point")
        zero = unpack(zero.T, bits, rows).T if packed else zero
        code = code - zero.astype(np.float32)[:, :, None]
    return (code * scale[:, :, None]).reshape(rows, cols), packed


def unpack_awq(packed, rows):
    """Words (n, rows / 8) -> fields (n, rows): the rows of a word are in the order 0 2 4 6 1 3 5 7."""
    if packed.shape[1] * 8 != rows:
        raise DataError(f"{packed.shape[1]} words for {rows} rows")
    words = np.ascontiguousarray(packed, "<i4").view("<u4")
    fields = words[:, :, None] >> np.array([0, 16, 4, 20, 8, 24, 12, 28], "<u4") & np.uint32(15)
    return fields.reshape(len(words), rows).astype(np.int32)


def awq_weights(tensors, args):
    """All weights of an awq export, as a plain model has them: name -> float32 array."""
    if (args.get("version"), args.get("bits"), args.get("zero_point")) != ("gemm", 4, True):
        raise DataError(f"awq of version {args.get('version')} with {args.get('bits')} bits is not known")
    plain = {}
    for name in tensors.info:
        base, _, part = name.rpartition(".")
        if part in ("qzeros", "scales"):
            continue
        if part != "qweight":
            plain[name] = tensors.get(name).astype(np.float32)
            continue
        scale = tensors.get(base + ".scales").astype(np.float32)
        code, zero = (unpack_awq(tensors.get(f"{base}.{p}"), scale.shape[1]) for p in ("qweight", "qzeros"))
        group = args["group_size"] if args["group_size"] > 0 else len(code)
        if zero.shape != scale.shape or len(scale) * group != len(code):
            raise DataError(f"{base}: codes {code.shape}, zero points {zero.shape}, scales {scale.shape}, "
                            f"groups of {group} do not fit")
        zero, scale = zero.repeat(group, 0), scale.repeat(group, 0)
        plain[base + ".weight"] = np.ascontiguousarray(((code - zero).astype(np.float32) * scale).T)
    return plain
