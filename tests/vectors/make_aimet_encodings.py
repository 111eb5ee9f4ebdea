# SPDX-License-Identifier: Apache-2.0
"""What AIMET itself writes for grids, in each version of encodings files: aimet_encodings.json.

    python make_aimet_encodings.py OUT      # aimet-torch 2.42.0

A case has bits, symmetric, group (0: one scale a row), rows, cols, scales and zero points as blockq has them (code
- zero) * scale, row by row; and what to_qnn_encoding_dict says of it, by version.
"""
import json
import os
import sys

import aimet_torch
import numpy as np
import torch
from aimet_torch.quantization.affine.encoding import AffineEncoding, GroupedBlockEncoding

ROWS, COLS = 5, 24
CASES = {  # bits, symmetric, group, bits of LPBQ
    "sym4": (4, True, 0, 0), "asym4": (4, False, 0, 0), "sym8": (8, True, 0, 0), "asym2": (2, False, 0, 0),
    "block4": (4, True, 8, 0), "ablock3": (3, False, 8, 0), "lpbq4": (4, True, 8, 8), "lpbq3": (3, True, 8, 6)}
VERSIONS = ("0.6.1", "1.0.0", "2.0.0")


def make(rng, bits, symmetric, group, decompressed):
    half, groups = 1 << bits - 1, COLS // group if group else 1
    scale = np.exp(rng.uniform(-7, 0, (ROWS, groups))).astype(np.float32)
    zero = np.zeros((ROWS, groups)) if symmetric else rng.integers(-half, half, (ROWS, groups))
    unit = None
    if decompressed:
        levels = 1 << decompressed - bits
        unit = (rng.integers(1 << 15, 1 << 16, (ROWS, 1)) * 2.0**-24).astype(np.float32)
        multiple = rng.integers(1, levels + 1, (ROWS, groups))
        multiple[np.arange(ROWS), rng.integers(0, groups, ROWS)] = levels
        scale = (multiple * unit).astype(np.float32)
    block = dict(block_size=(1, group)) if group else {}
    # AIMET counts codes from 0 on where there are zero points
    offset = torch.tensor(np.zeros_like(scale) if symmetric else -half - zero, dtype=torch.float32)
    common = dict(scale=torch.tensor(scale), offset=offset, bitwidth=bits, signed=symmetric, symmetry=symmetric, **block)
    if decompressed:
        encoding = GroupedBlockEncoding(**common, block_grouping=(1, groups), decompressed_bw=decompressed,
                                        per_channel_scale=torch.tensor(unit))
    else:
        encoding = AffineEncoding(**common)
    encoding = encoding._hint_input_shape((ROWS, COLS))
    return {"bits": bits, "symmetric": symmetric, "group": group, "rows": ROWS, "cols": COLS,
            "scale": scale.flatten().tolist(), "zero": zero.astype(int).flatten().tolist(),
            "encoding": {v: encoding.to_qnn_encoding_dict(v) for v in VERSIONS}}


def main(out):
    rng = np.random.default_rng(5)
    cases = {name: make(rng, *case) for name, case in CASES.items()}
    with open(os.path.join(out, "aimet_encodings.json"), "w", encoding="utf-8") as f:
        json.dump({"producer": f"aimet-torch {aimet_torch.__version__}", "cases": cases}, f, separators=(",", ":"))
        f.write("\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
