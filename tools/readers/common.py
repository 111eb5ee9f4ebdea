# SPDX-License-Identifier: Apache-2.0
"""What all readers share: an environment of its own for each, tokens, losses of windows, files."""
import glob
import json
import math
import os
import shutil
import struct
import subprocess
import sys
import time

SMALL = ["nvidia-nccl-cu13", "nvidia-cufile", "nvidia-cusparselt-cu13", "nvidia-nvshmem-cu13"]
BASE = ["numpy", "h5py", "tokenizers", "packaging"]
TORCH = ["triton", "filelock", "fsspec", "jinja2", "networkx", "sympy", "typing-extensions",
         "setuptools>=77,<82"]
HUB = ["safetensors", "huggingface-hub", "regex", "pyyaml", "requests", "tqdm", "typer", "pydantic>=2",
       "loguru", "psutil"]
NEEDS = """
import sys
from importlib.metadata import requires
from packaging.requirements import Requirement
for r in map(Requirement, requires(sys.argv[1]) or []):
    if r.name not in sys.argv[2:] and (not r.marker or r.marker.evaluate({"extra": ""})):
        print(f"{r.name}[{','.join(r.extras)}]{r.specifier}" if r.extras else f"{r.name}{r.specifier}")
"""


class DataError(Exception):
    """The input cannot be used; the text names file, value and remedy."""


class Packages:
    """What pip installs for a reader, in this order:
    plain: with all that they need; torch: without the CUDA wheels where a CUDA toolkit has its libraries;
    of: one package, then all that it needs but the packages in less; bare, last: without what they need.
    """

    def __init__(self, plain=(), torch=None, of=None, less=(), bare=(), last=(), env=None):
        self.plain, self.torch, self.of, self.less = plain, torch, of, less
        self.bare, self.last, self.env = bare, last, env or {}


# ---- the environment ----

def toolkit_libraries():
    """The library folder of a CUDA toolkit that can serve torch, or None."""
    nvcc = shutil.which("nvcc")
    by_path = nvcc and os.path.dirname(os.path.dirname(os.path.realpath(nvcc)))
    for home in filter(None, (os.environ.get("CUDA_HOME"), by_path, "/usr/local/cuda")):
        if glob.glob(os.path.join(home, "lib64", "libcublas.so.13*")):
            return os.path.join(home, "lib64")
    return None


def library_path(venv):
    """LD_LIBRARY_PATH for torch without its CUDA wheels; folders that do not exist do no harm."""
    base = "".join(glob.glob(os.path.join(venv, "lib", "python3.*", "site-packages", "nvidia"))[:1])
    wheels = ("nccl", "cu13", "nvshmem", "cufile", "cusparselt") if base else ()
    parts = [os.path.join(base, d, "lib") for d in wheels]
    return ":".join(filter(None, [*parts, toolkit_libraries(), os.environ.get("LD_LIBRARY_PATH")]))


def install(venv, packages):
    python = os.path.join(venv, "bin", "python")
    env = dict(os.environ, **packages.env)

    def run(*command):
        if subprocess.run(command, stdout=sys.stderr, env=env).returncode:
            raise DataError(f"failed: {' '.join(command)}: see above; {venv} can be deleted")

    pip = [python, "-m", "pip", "install", "-q"]
    run(sys.executable, "-m", "venv", venv)
    run(*pip, "--upgrade", "pip")
    run(*pip, *BASE, *packages.plain)
    if packages.torch:
        fits = toolkit_libraries() is not None
        if fits:
            run(*pip, *TORCH)
            run(*pip, "--no-deps", packages.torch, *SMALL)
            with_libraries = dict(env, LD_LIBRARY_PATH=library_path(venv))
            fits = not subprocess.run([python, "-c", "import torch"], env=with_libraries,
                                      stderr=subprocess.DEVNULL).returncode
        if not fits:
            run(*pip, packages.torch)
    if packages.of:
        run(*pip, "--no-deps", packages.of)
        needs = subprocess.run([python, "-c", NEEDS, packages.of.split("=")[0], *packages.less],
                               stdout=subprocess.PIPE, text=True, check=True).stdout.split()
        run(*pip, *needs)
    for bare in filter(None, (packages.bare, packages.last)):
        run(*pip, "--no-deps", *bare)


def make_venv(venv, packages):
    """The Python of the environment, which is made if it is not there."""
    ready = os.path.join(venv, "READY")
    if not os.path.exists(ready):
        if os.path.isdir(venv) and os.listdir(venv) and not os.path.exists(os.path.join(venv, "pyvenv.cfg")):
            raise DataError(f"{venv}: is a folder that is no Python environment: name another with --venv")
        print(f"making {venv}: this takes minutes and up to 4 GB, or more without a CUDA toolkit",
              file=sys.stderr)
        shutil.rmtree(venv, ignore_errors=True)
        install(venv, packages)
        open(ready, "w").close()
    return os.path.join(venv, "bin", "python")


# ---- files, read without the packages under test ----

def read_json(path):
    try:
        with open(path, encoding="utf-8") as f:
            return json.load(f)
    except (OSError, ValueError) as e:
        raise DataError(f"{path}: cannot be read: {e}") from None


def read_tokens(path):
    import h5py
    try:
        with h5py.File(path, "r") as f:
            kind, version = bytes(f.attrs.get("format", b"")), int(f.attrs.get("version", 0))
            if (kind.rstrip(b"\0"), version) != (b"blockq tokens", 1):
                raise DataError(f"{path}: format {kind!r} version {version}, 'blockq tokens' version 1 "
                                "expected: make it with tools/prepare.py")
            return f["tokens"][:]
    except (OSError, KeyError) as e:
        raise DataError(f"{path}: cannot be read as tokens.h5: {e}") from None


class Tensors:
    """The tensors of a folder's safetensors files as numpy arrays; bfloat16 becomes float32, FP8 codes."""

    KINDS = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "I8": "i1", "I32": "<i4", "I64": "<i8", "U8": "u1",
             "F8_E4M3": "u1"}

    def __init__(self, folder):
        self.info = {}
        for path in sorted(glob.glob(os.path.join(folder, "*.safetensors"))):
            try:
                with open(path, "rb") as f:
                    size = struct.unpack("<Q", f.read(8))[0]
                    header = json.loads(f.read(size))
            except (OSError, ValueError, struct.error) as e:
                raise DataError(f"{path}: is no safetensors file: {e}") from None
            header.pop("__metadata__", None)
            self.info.update({name: (path, 8 + size, entry) for name, entry in header.items()})
        if not self.info:
            raise DataError(f"{folder}: holds no *.safetensors: is it the folder that blockq export wrote?")

    def dtype(self, name):
        return self.info[name][2]["dtype"]

    def get(self, name):
        import numpy as np
        path, start, entry = self.info[name]
        if entry["dtype"] not in self.KINDS:
            raise DataError(f"{path}: tensor {name} has dtype {entry['dtype']}, not one of "
                            + ", ".join(self.KINDS))
        begin, end = entry["data_offsets"]
        with open(path, "rb") as f:
            f.seek(start + begin)
            x = np.frombuffer(f.read(end - begin), self.KINDS[entry["dtype"]])
        try:
            x = x.reshape(entry["shape"])
        except ValueError:
            raise DataError(f"{path}: tensor {name} has {x.size} elements, shape {entry['shape']}") from None
        return (x.astype("<u4") << 16).view("<f4") if entry["dtype"] == "BF16" else x


def nearest_bfloat16(x):
    """The nearest numbers of bfloat16, ties to even, as float32."""
    import numpy as np
    bits = np.ascontiguousarray(x, np.float32).view("<u4")
    return (bits + np.uint32(0x7FFF) + (bits >> 16 & 1) & np.uint32(0xFFFF0000)).view("<f4")


# ---- the protocol of perplexity ----

def pick_windows(ids, vocab, path, ctx, windows):
    """The first windows of ctx tokens, which follow each other; 0: all that fit."""
    count = windows or len(ids) // ctx
    if not 0 < count * ctx <= len(ids):
        raise DataError(f"{path}: {len(ids)} tokens are not {count or 1} windows of {ctx}: lower --windows")
    if vocab and (ids.min() < 0 or ids.max() >= vocab):
        raise DataError(f"{path}: ids {ids.min()} to {ids.max()}, the model has {vocab}: another "
                        "tokenizer's?")
    return [ids[i * ctx:(i + 1) * ctx].astype("int64").tolist() for i in range(count)]


def mean_loss(logits, window):
    """Mean loss of the predictions of all tokens but the first; logits (tokens, ids), numpy."""
    import numpy as np
    x = np.asarray(logits, np.float64)[:len(window) - 1]
    top = x.max(axis=1)
    total = top + np.log(np.exp(x - top[:, None]).sum(axis=1))
    return float((total - x[np.arange(len(x)), window[1:]]).mean())


def perplexity(loss, windows):
    """exp of the mean of loss(window); says each window's perplexity."""
    start, losses = time.time(), []
    for w in windows:
        losses.append(loss(w))
    print(f"{len(windows)} windows of {len(windows[0])} in {time.time() - start:.0f} s; each: "
          + " ".join(f"{math.exp(x):.4f}" for x in losses))
    return math.exp(sum(losses) / len(losses))


def show_text(folder, prompt, generate, count):
    """What generate(ids, count) says to a prompt, by the tokenizer.json of the folder."""
    from tokenizers import Tokenizer
    path = os.path.join(folder, "tokenizer.json")
    if not os.path.exists(path):
        raise DataError(f"{path}: is not there: leave out --prompt")
    tokenizer = Tokenizer.from_file(path)
    ids = tokenizer.encode(prompt, add_special_tokens=False).ids
    print(f"text: {prompt!r} -> {tokenizer.decode(generate(ids, count))!r}")
