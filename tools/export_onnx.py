#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Export a transformers model directory to ONNX, and say how ONNX calls its weights.

    export_onnx.py MODEL_DIR OUT_DIR --length 512        # OUT_DIR/model.onnx (and .data), OUT_DIR/names.json
    blockq export --run RUN --out OUT --format aimet:names=OUT_DIR/names.json

names.json maps names of torch parameters to those of ONNX initializers, which torch.onnx invents where it stores
a weight transposed: {"name": ..., "transposed": true}; of a Linear also "input", the tensor that it reads.  They
depend on the graph alone: the map of a model is that of its quantized output, too.

The graph takes `input_ids` (1, --length) and gives `logits`, in float32, without a cache.

The first call makes a Python environment, that of the reader aimet (4 GB, minutes), and keeps it.
"""
import argparse
import json
import os
import sys

from readers import by_aimet, common
from readers.common import DataError

INSIDE = "BLOCKQ_EXPORT_ONNX_INSIDE"


def reenter(venvs):
    """Run this script again inside the environment; does not return."""
    venv = os.path.abspath(os.path.join(venvs, "aimet"))
    python = common.make_venv(venv, by_aimet.PACKAGES)
    env = dict(os.environ, **by_aimet.PACKAGES.env, LD_LIBRARY_PATH=common.library_path(venv))
    env[INSIDE] = "1"
    sys.stdout.flush()
    os.execve(python, [python, os.path.abspath(__file__), *sys.argv[1:]], env)


def weights_of(graph):
    """Initializers of two dimensions by their values: key -> [(name, does a Gather read it?), ...]."""
    import onnx
    gathered = {name for node in graph.node if node.op_type == "Gather" for name in node.input[:1]}
    found = {}
    for initializer in graph.initializer:
        if len(initializer.dims) == 2:
            found.setdefault(key_of(onnx.numpy_helper.to_array(initializer)), []).append(
                (initializer.name, initializer.name in gathered))
    return found


def readers_of(graph):
    """initializer -> the first input of the MatMul or Gemm that reads it, maybe behind a Transpose."""
    found, turned = {}, {n.output[0]: n.input[0] for n in graph.node if n.op_type == "Transpose"}
    for node in graph.node:
        if node.op_type in ("MatMul", "Gemm"):
            found[turned.get(node.input[1], node.input[1])] = node.input[0]
    return found


def key_of(array):
    import hashlib
    import numpy as np
    return array.shape, hashlib.sha256(np.ascontiguousarray(array).tobytes()).digest()


def map_names(model, graph):
    """The map, of weights of Linear and Embedding; a tensor that both have is two initializers, or one."""
    import torch
    found, names, taken, reads = weights_of(graph), {}, set(), readers_of(graph)
    for name, module in model.named_modules():
        if not isinstance(module, (torch.nn.Linear, torch.nn.Embedding)):
            continue
        value, embeds = module.weight.detach().numpy(), isinstance(module, torch.nn.Embedding)
        for turned in (False, True):
            for initializer, gathered in found.get(key_of(value.T if turned else value), []):
                if gathered == embeds and initializer not in taken and name + ".weight" not in names:
                    taken.add(initializer)
                    entry = {"name": initializer, "transposed": turned, "input": reads.get(initializer)}
                    names[name + ".weight"] = {k: v for k, v in entry.items() if v}
        if name + ".weight" not in names:
            raise DataError(f"{name}.weight: no initializer of the ONNX graph has its values")
    return names


def export(a):
    import onnx
    import torch
    import transformers
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            a.model, dtype=torch.float32, local_files_only=True, attn_implementation="eager").eval()
    except (OSError, ValueError) as e:
        raise DataError(f"{a.model}: transformers does not load it: {e}") from None
    os.makedirs(a.out, exist_ok=True)
    path = os.path.join(a.out, "model.onnx")
    ids = torch.arange(a.length)[None] % model.config.vocab_size
    torch.onnx.export(by_aimet.wrap(model), (ids,), path, dynamo=True, external_data=True, verbose=False,
                      input_names=["input_ids"], output_names=["logits"])
    names = map_names(model, onnx.load(path).graph)
    with open(os.path.join(a.out, "names.json"), "w", encoding="utf-8") as f:
        json.dump(names, f, indent=1)
    turned = sum("transposed" in n for n in names.values())
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, onnx {onnx.__version__}; {path}: "
          f"{len(names)} weights, {turned} of them transposed")


def main(argv=None):
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model", metavar="MODEL_DIR", help="folder with config.json and *.safetensors")
    p.add_argument("out", metavar="OUT_DIR", help="folder for model.onnx and names.json; may be MODEL_DIR")
    p.add_argument("--length", type=int, default=512, metavar="N", help="tokens that the graph takes (512)")
    p.add_argument("--venvs", default=os.path.join(cache, "blockq", "readers"), metavar="DIR",
                   help="where readers have their environments (default: blockq/readers in your cache folder)")
    p.add_argument("--here", action="store_true", help="use the running Python, which has all packages")
    a = p.parse_args(argv)
    if a.length < 2:
        p.error(f"--length {a.length}: at least 2")
    try:
        if not a.here and INSIDE not in os.environ:
            reenter(a.venvs)
        export(a)
        return 0
    except ImportError as e:
        print(f"export_onnx: {e}: leave out --here, or delete the folder aimet in --venvs", file=sys.stderr)
    except (DataError, OSError) as e:
        print(f"export_onnx: {e}", file=sys.stderr)
    return 3


if __name__ == "__main__":
    sys.exit(main())
