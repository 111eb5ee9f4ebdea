#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Load an exported model with a program that people serve models with, and measure its perplexity: does that
program see what blockq saw?

    check_export.py EXPORT_DIR test.h5 --reference 54.1414      # by transformers; status 1 if 0.1 % off
    check_export.py vllm EXPORT_DIR test.h5 --ctx 2048 --windows 20 --prompt "The capital of France is"

Protocol: non-overlapping windows of --ctx tokens from the start of the file, nothing put in front of them; a
window's loss is the mean over its ctx - 1 predictions; perplexity = exp(mean over windows).

--dense DIR also compares the weights that the reader computes with to those of a safetensors output, bit by
bit.

The first call of a reader makes a Python environment for it, from PyPI (1 to 5 GB, minutes), and keeps it.
torch goes in without the CUDA wheels where an installed CUDA toolkit has its libraries, else as pip does it.
Nothing here needs a GPU.
"""
import argparse
import importlib
import math
import os
import sys

from readers import common

INSIDE = "BLOCKQ_CHECK_EXPORT_INSIDE"
READERS = {"transformers": "by_transformers", "vllm": "by_vllm", "llama.cpp": "by_llama_cpp",
           "gptq": "by_gptq", "aimet": "by_aimet"}


def module_of(reader):
    return importlib.import_module("readers." + READERS[reader])


def reenter(a):
    """Run this script again inside the reader's environment; does not return."""
    packages, venv = module_of(a.reader).PACKAGES, os.path.abspath(os.path.join(a.venvs, a.reader))
    python = common.make_venv(venv, packages)
    env = dict(os.environ, **packages.env, LD_LIBRARY_PATH=common.library_path(venv))
    env[INSIDE] = "1"
    sys.stdout.flush()
    os.execve(python, [python, os.path.abspath(__file__), *sys.argv[1:]], env)


def compare_dense(weights, folder):
    """Weights (name, values) that a reader computes with, to those of a plain model; returns the faults.
    Some readers keep weights in float16 or bfloat16: they have the nearest value of that type."""
    import numpy as np
    dense, equal, half, brief, unlike, worst = common.Tensors(folder), 0, 0, 0, [], 0
    for name, got in weights:
        if name not in dense.info:
            continue
        want = dense.get(name).astype(np.float32)
        if got.shape == want.shape and np.array_equal(got, want):
            equal += 1
        elif got.shape == want.shape and np.array_equal(got, want.astype(np.float16)):
            half += 1
        elif np.array_equal(got, common.nearest_bfloat16(want)):
            brief += 1
        else:
            off = np.abs(got - want).max() / np.abs(want).max() if got.shape == want.shape else math.inf
            worst = max(worst, off)
            unlike.append(name)
    print(f"{equal} weights equal to those of {folder}" + f", {half} once these are float16" * bool(half)
          + f", {brief} once these are bfloat16" * bool(brief)
          + (f", {len(unlike)} not ({unlike[0]}, ...), worst difference {worst:.2e} of the largest weight"
             if unlike else ""))
    return len(unlike) or int(equal + half + brief == 0)


def judge(value, reference, allowed):
    """0 if value is near enough."""
    off = abs(value / reference - 1)
    print(f"reference {reference!r}, off by {off:.2e}, allowed {allowed:g}: "
          + ("ok" if off <= allowed else "FAILED"))
    return int(off > allowed)


def check(a):
    reader = module_of(a.reader)
    a.dtype = a.dtype or reader.DTYPES[0]
    if a.dtype not in reader.DTYPES:
        raise common.DataError(f"--dtype {a.dtype}: {a.reader} has " + ", ".join(reader.DTYPES))
    config = common.read_json(os.path.join(a.export_dir, "config.json"))
    windows = common.pick_windows(common.read_tokens(a.tokens), config.get("vocab_size", 0), a.tokens, a.ctx,
                                  a.windows)
    model = reader.open_export(a, config)
    faults = model.faults + (compare_dense(model.weights(), a.dense) if a.dense else 0)
    if faults:
        print(f"{faults} faults: perplexity not measured")
        return 1
    value = common.perplexity(model.loss, windows)
    print(f"perplexity {value!r}")
    if a.prompt:
        common.show_text(a.export_dir, a.prompt, model.generate, 24)
    groups = (config.get("quantization_config") or {}).get("config_groups", {}).values()
    rounded = any(g.get("input_activations") for g in groups) or a.dtype != "float32"
    return judge(value, a.reference, a.tolerance or (1e-2 if rounded else 1e-3)) if a.reference else 0


def positive(text):
    value = float(text)
    if not 0 < value < math.inf:
        raise ValueError
    return value


def parser():
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                epilog="Exit status: 0 good, 1 the export is wrong or out of tolerance, "
                                "2 usage, 3 a file cannot be used. What each reader does: readers/by_*.py.")
    p.add_argument("reader", nargs="?", choices=READERS, default="transformers",
                   help="which program loads it (transformers): " + ", ".join(READERS))
    p.add_argument("export_dir", metavar="EXPORT_DIR",
                   help="folder with config.json and *.safetensors or *.gguf")
    p.add_argument("tokens", metavar="TOKENS.h5", help="evaluation text, made by tools/prepare.py")
    p.add_argument("--ctx", type=int, default=512, metavar="N", help="tokens of a window (512)")
    p.add_argument("--windows", type=int, default=40, metavar="N", help="how many (40); 0: all that fit")
    p.add_argument("--reference", type=positive, metavar="PPL", help="perplexity that blockq eval printed")
    p.add_argument("--tolerance", type=positive, metavar="X",
                   help="allowed relative difference (1e-3; 1e-2 where inputs are rounded or not float32)")
    p.add_argument("--dense", metavar="DIR",
                   help="the same result as safetensors output: compare the weights")
    p.add_argument("--prompt", metavar="TEXT",
                   help="also show 24 tokens of text after this, the likeliest ones")
    p.add_argument("--dtype", metavar="TYPE", help="type that the reader computes in, if it has a choice")
    p.add_argument("--threads", type=int, default=0, metavar="N",
                   help="threads of the reader (its own choice)")
    p.add_argument("--venvs", default=os.path.join(cache, "blockq", "readers"), metavar="DIR",
                   help="where each reader has its environment (blockq/readers in your cache folder)")
    p.add_argument("--here", action="store_true", help="use the running Python, which has all packages")
    return p


def main(argv=None):
    p = parser()
    a = p.parse_args(argv)
    if a.ctx < 2 or a.windows < 0 or a.threads < 0:
        p.error(f"--ctx {a.ctx} --windows {a.windows} --threads {a.threads}: at least 2, 0 and 0")
    try:
        if not a.here and INSIDE not in os.environ:
            reenter(a)
        return check(a)
    except ImportError as e:
        print(f"check_export: {e}: leave out --here, or delete the reader's folder in --venvs",
              file=sys.stderr)
    except (common.DataError, OSError) as e:
        print(f"check_export: {e}", file=sys.stderr)
    return 3


if __name__ == "__main__":
    sys.exit(main())
