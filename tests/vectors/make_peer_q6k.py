# SPDX-License-Identifier: Apache-2.0
"""Writes peer_q6k.safetensors: rows of values and the blocks that ggml's quantize_row_q6_K_ref makes of them, bit for bit.

Needs the package llama-cpp-python (its libggml-base is called by ctypes), numpy, safetensors.  Usage: python make_peer_q6k.py OUT.safetensors
"""
import ctypes
import importlib.metadata as md
import importlib.util
import os
import sys

import numpy as np
from safetensors.numpy import save_file

ROWS, COLS, BYTES = 40, 512, 210


def values():
    """Rows of very different size; groups of zeros, of a constant, with an outlier, with ties; rows of zeros; values that are nearly zero."""
    g = np.random.default_rng(6)
    x = g.standard_normal((ROWS, COLS)) * np.logspace(-6, 3, ROWS)[:, None]
    x[1, :16] = 0
    x[2, :256] = -0.75
    x[3, 5] = 4000
    x[4, :64] = np.arange(64) - 32
    x[5] = 0
    x[6, :256] = 1e-16
    x[7, 16:32] = 1e-16
    x[8] *= np.repeat(np.logspace(-8, 0, 32), 16)
    x[9:20] = g.laplace(size=(11, COLS)) * 0.02
    x[20:24] = g.integers(-32, 32, (4, COLS)) / 16
    return x.astype(np.float32)


def main(out):
    folder = os.path.dirname(importlib.util.find_spec("llama_cpp").origin)
    ggml = ctypes.CDLL(os.path.join(folder, "lib", "libggml-base.so"))
    x = values()
    q = np.zeros((ROWS, COLS // 256 * BYTES), dtype=np.uint8)
    ggml.quantize_row_q6_K_ref(x.ctypes.data_as(ctypes.c_void_p), q.ctypes.data_as(ctypes.c_void_p), ctypes.c_int64(x.size))
    y = np.zeros_like(x)
    ggml.dequantize_row_q6_K(q.ctypes.data_as(ctypes.c_void_p), y.ctypes.data_as(ctypes.c_void_p), ctypes.c_int64(x.size))
    save_file({"in": x, "Q6_K/from": q, "Q6_K/to_float": y}, out, metadata={"producer": "llama-cpp-python " + md.version("llama-cpp-python")})
    print(x.size, "values, error", float(np.sqrt(((y[9:20] - x[9:20]) ** 2).sum() / (x[9:20] ** 2).sum())))


if __name__ == "__main__":
    main(sys.argv[1])
