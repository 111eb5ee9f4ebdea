#!/usr/bin/env python3
"""Load an exported model with transformers and measure its perplexity: does an engine see what blockq saw?

    check_export.py EXPORT_DIR test.h5 --reference 54.1414      # exit status 1 if more than 0.1 % off
    check_export.py EXPORT_DIR test.h5 --ctx 2048 --windows 20

Protocol: non-overlapping windows of --ctx tokens from the start of the file, nothing put in front of them; a
window's loss is the mean over its ctx - 1 predictions; perplexity = exp(mean over windows). All in float32.

A compressed-tensors export (pack-quantized, int-quantized) is also unpacked by this script: every Linear that
the configuration names must be stored as codes, and the weight that transformers computes with must be
(code - zero point) * scale.

An awq export is unpacked by this script alone, and transformers computes with these weights as with those of a
plain model: it needs no kernels of AWQ, and says nothing about them.

Where inputs are rounded too (W8A8), a sum in another order moves values across the borders between codes, and
what comes out is near, not equal: blockq on another BLAS and transformers differ by some 0.5 % over few windows.

The first call makes a Python environment with torch, transformers and compressed-tensors (3.5 GB, minutes)
and keeps it. torch goes in without the CUDA wheels where an installed CUDA toolkit has its libraries, else as
pip does it. Nothing here needs a GPU.
"""
import argparse
import glob
import json
import math
import os
import shutil
import struct
import subprocess
import sys
import time

INSIDE = "BLOCKQ_CHECK_EXPORT_INSIDE"
SMALL = ["nvidia-nccl-cu13", "nvidia-cufile", "nvidia-cusparselt-cu13", "nvidia-nvshmem-cu13"]
PLAIN = ["triton", "filelock", "fsspec", "jinja2", "networkx", "sympy", "typing-extensions",
         "setuptools>=77,<82", "numpy", "safetensors", "h5py", "tokenizers", "huggingface-hub", "regex",
         "pyyaml", "packaging", "requests", "tqdm", "typer", "pydantic>=2", "loguru", "psutil"]
NO_DEPS = ["transformers>=5", "compressed-tensors>=0.18"]


class DataError(Exception):
    """The input cannot be used; the text names file, value and remedy."""


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


def make_venv(venv):
    python, ready = os.path.join(venv, "bin", "python"), os.path.join(venv, "READY")
    if os.path.exists(ready):
        return python
    if os.path.isdir(venv) and os.listdir(venv) and not os.path.exists(os.path.join(venv, "pyvenv.cfg")):
        raise DataError(f"{venv}: is a folder that is no Python environment: name another with --venv")
    print(f"making {venv}: this takes minutes and 3.5 GB, or more without a CUDA toolkit", file=sys.stderr)
    shutil.rmtree(venv, ignore_errors=True)

    def run(*command):
        if subprocess.run(command, stdout=sys.stderr).returncode:
            raise DataError(f"failed: {' '.join(command)}: see above; {venv} can be deleted")

    pip = [python, "-m", "pip", "install", "-q"]
    run(sys.executable, "-m", "venv", venv)
    run(*pip, "--upgrade", "pip")
    run(*pip, *PLAIN)
    fits = toolkit_libraries() is not None
    if fits:
        run(*pip, "--no-deps", "torch", *SMALL)
        env = dict(os.environ, LD_LIBRARY_PATH=library_path(venv))
        fits = subprocess.run([python, "-c", "import torch"], env=env, stderr=subprocess.DEVNULL)
        fits = fits.returncode == 0
    if not fits:
        run(*pip, "torch")
    run(*pip, "--no-deps", *NO_DEPS)
    open(ready, "w").close()
    return python


def reenter(venv):
    """Run this script again inside the environment; does not return."""
    python = make_venv(os.path.abspath(venv))
    env = dict(os.environ, LD_LIBRARY_PATH=library_path(os.path.abspath(venv)), HF_HUB_OFFLINE="1",
               TRANSFORMERS_OFFLINE="1", TRANSFORMERS_VERBOSITY="error", TQDM_DISABLE="1")
    env[INSIDE] = "1"
    sys.stdout.flush()
    os.execve(python, [python, os.path.abspath(__file__), *sys.argv[1:]], env)


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
    """The tensors of a folder's safetensors files as numpy arrays; bfloat16 becomes float32."""

    KINDS = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "I8": "i1", "I32": "<i4", "I64": "<i8", "U8": "u1"}

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


def unpack(packed, bits, count):
    """Packed words (rows, words) int32 -> signed codes (rows, count): a bit stream, lowest bit first."""
    import numpy as np
    raw = np.ascontiguousarray(packed, "<i4").view(np.uint8)
    stream = np.unpackbits(raw, axis=1, bitorder="little")
    if stream.shape[1] < count * bits or np.any(stream[:, count * bits:]):
        raise DataError(f"{packed.shape[1]} words for {count} codes of {bits} bits: too few, or rest not 0")
    fields = stream[:, :count * bits].reshape(len(raw), count, bits).astype(np.int32)
    return (fields << np.arange(bits)).sum(axis=2) - (1 << bits - 1)


def stored_weight(tensors, name, args):
    """(code - zero) * scale of one Linear, in float32, by the scheme's arguments; also whether it is packed."""
    import numpy as np
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
    import numpy as np
    if packed.shape[1] * 8 != rows:
        raise DataError(f"{packed.shape[1]} words for {rows} rows")
    words = np.ascontiguousarray(packed, "<i4").view("<u4")
    fields = words[:, :, None] >> np.array([0, 16, 4, 20, 8, 24, 12, 28], "<u4") & np.uint32(15)
    return fields.reshape(len(words), rows).astype(np.int32)


def awq_weights(tensors, args):
    """All weights of an awq export, as a plain model has them: name -> float32 array."""
    import numpy as np
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


# ---- the checks ----

def check_weights(model, tensors, config):
    """Compare what transformers computes with to the files; returns the number of faults, each printed."""
    import numpy as np
    import torch
    faults, packed, loose, schemes = 0, 0, 0, {}
    for name, module in model.named_modules():
        scheme = getattr(module, "quantization_scheme", None)
        has = name + ".weight_scale" in tensors.info
        if not isinstance(module, torch.nn.Linear) or not (scheme or has):
            continue
        if scheme is None or not has:
            print(f"fault: {name}: " + ("is stored as codes, but no config group names it" if has else
                                        "a config group names it, but it is stored without codes"))
            faults += 1
            continue
        args = json.loads(scheme.weights.model_dump_json())
        want, is_packed = stored_weight(tensors, name, args)
        packed, loose = packed + is_packed, loose + (not is_packed)
        got = module.weight.detach().float().numpy()
        if got.shape != want.shape or not np.array_equal(got, want):
            worst = np.abs(got - want).max() if got.shape == want.shape else math.inf
            print(f"fault: {name}: weight is not what its codes say, worst difference {worst:g}")
            faults += 1
        kind = f"{args['num_bits']} bits, {args['strategy']} {args['group_size'] or ''}".rstrip()
        kind += f", scales {tensors.dtype(name + '.weight_scale')}" + ", zero points" * (not args["symmetric"])
        kind += ", inputs rounded" * (scheme.input_activations is not None)
        schemes[kind] = schemes.get(kind, 0) + 1
    stored = sum(n.endswith(".weight_scale") for n in tensors.info)
    if stored != packed + loose or not stored:
        print(f"fault: {stored} weight_scale in the files, {packed + loose} quantized Linear in the model")
        faults += 1
    print(f"format {config.get('format')}: {packed} packed and {loose} int8 Linear, "
          + "; ".join(f"{n} with {k}" for k, n in sorted(schemes.items())))
    return faults


def expect_packed_zeros():
    """compressed-tensors 0.20 stores zero points packed, but expects them as they were in a model whose data
    are not there yet, so that transformers refuses every asymmetric file: tell it their shape."""
    import torch
    from compressed_tensors.compressors import PackedQuantizationCompressor as Packed
    plain = Packed.compress.__func__

    def compress(cls, state, scheme):
        out, rows = plain(cls, state, scheme), len(state["weight"])
        zero = out.get("weight_zero_point")
        if zero is not None and zero.device.type == "meta" and len(zero) == rows:
            words = -(-rows * scheme.weights.num_bits // 32)
            out["weight_zero_point"] = torch.empty(words, *zero.shape[1:], dtype=torch.int32, device="meta")
        return out

    Packed.compress = classmethod(compress)


def load_plain(folder, weights):
    """What from_pretrained gives for a plain model with these weights."""
    import torch
    import transformers
    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    del config.quantization_config
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    left = model.load_state_dict({n: torch.from_numpy(x) for n, x in weights.items()}, strict=False)
    tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
    return model, {"missing_keys": set(left.missing_keys) - tied, "unexpected_keys": left.unexpected_keys}


def load(folder, weights=None):
    """(model, faults): float32 everywhere, codes decompressed, nothing missing and nothing left over."""
    import torch
    import transformers
    # dequantize=True would decompress every module by the first config group; this way each has its own
    if weights:
        model, info = load_plain(folder, weights)
    else:
        model, info = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, output_loading_info=True)
    model.eval()
    if getattr(model, "hf_quantizer", None) is not None:
        model.hf_quantizer.compressor.decompress_model(model)
    faults = 0
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        if info.get(kind):
            print(f"fault: {kind}: {sorted(map(str, info[kind]))[:5]} ({len(info[kind])})")
            faults += 1
    kinds = {}
    for p in model.parameters():
        if p.is_floating_point():
            kinds[str(p.dtype)] = kinds.get(str(p.dtype), 0) + 1
    print(f"torch {torch.__version__}, transformers {transformers.__version__}; "
          f"{model.__class__.__name__}; floating parameters in memory: "
          + ", ".join(f"{n} {k}" for k, n in kinds.items()))
    if set(kinds) != {"torch.float32"}:
        print("fault: mathematics would not be float32")
        faults += 1
    return model, faults


def perplexity(model, ids, ctx, windows):
    import torch
    losses, start = [], time.time()
    with torch.no_grad():
        for i in range(windows):
            t = torch.tensor(ids[i * ctx:(i + 1) * ctx].astype("int64"))[None]
            logits = model(input_ids=t, use_cache=False).logits[0, :-1].float()
            losses.append(torch.nn.functional.cross_entropy(logits, t[0, 1:]).item())
    print(f"{windows} windows of {ctx} in {time.time() - start:.0f} s")
    return math.exp(sum(losses) / windows)


def check(a):
    import torch
    if a.threads:
        torch.set_num_threads(a.threads)
    config = read_json(os.path.join(a.export_dir, "config.json"))
    quantization = config.get("quantization_config")
    tensors, ids = Tensors(a.export_dir), read_tokens(a.tokens)
    windows = a.windows or len(ids) // a.ctx
    if not 0 < windows * a.ctx <= len(ids):
        raise DataError(f"{a.tokens}: {len(ids)} tokens are not {windows or 1} windows of {a.ctx}: "
                        "lower --windows")
    vocab = config.get("vocab_size", 0)
    if ids.min() < 0 or ids.max() >= vocab:
        raise DataError(f"{a.tokens}: ids {ids.min()} to {ids.max()}, the model has {vocab}: another "
                        "tokenizer's?")
    packed = sum(n.endswith(".weight_packed") for n in tensors.info)
    if packed and not quantization:
        raise DataError(f"{a.export_dir}/config.json: no quantization_config, but {packed} weight_packed")
    awq = (quantization or {}).get("quant_method") == "awq"
    try:
        if quantization:
            expect_packed_zeros()
        model, faults = load(a.export_dir, awq_weights(tensors, quantization) if awq else None)
    except (ImportError, RuntimeError, ValueError, OSError) as e:
        raise DataError(f"{a.export_dir}: transformers does not load it: {e}") from None
    if awq:
        print(f"awq: {sum(n.endswith('.qweight') for n in tensors.info)} linears unpacked")
    elif quantization:
        faults += check_weights(model, tensors, quantization)
    else:
        print("no quantization_config: a plain model, nothing to unpack")
    if faults:
        print(f"{faults} faults: perplexity not measured")
        return 1
    value = perplexity(model, ids, a.ctx, windows)
    print(f"perplexity {value!r}")
    if a.reference is not None:
        groups = (quantization or {}).get("config_groups", {}).values()
        rounded = any(g.get("input_activations") for g in groups)
        off, allowed = abs(value / a.reference - 1), a.tolerance or (1e-2 if rounded else 1e-3)
        good = off <= allowed
        print(f"reference {a.reference!r}, off by {off:.2e}, allowed {allowed:g}: "
              + ("ok" if good else "FAILED"))
        return 0 if good else 1
    return 0


def positive(text):
    value = float(text)
    if not 0 < value < math.inf:
        raise ValueError
    return value


def main(argv=None):
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                epilog="Exit status: 0 good, 1 the export is wrong or out of tolerance, "
                                "2 usage, 3 a file cannot be used.")
    p.add_argument("export_dir", metavar="EXPORT_DIR", help="folder with config.json and *.safetensors")
    p.add_argument("tokens", metavar="TOKENS.h5", help="evaluation text, made by tools/prepare.py")
    p.add_argument("--ctx", type=int, default=512, metavar="N", help="tokens of a window (512)")
    p.add_argument("--windows", type=int, default=40, metavar="N", help="how many (40); 0: all that fit")
    p.add_argument("--reference", type=positive, metavar="PPL", help="perplexity that blockq eval printed")
    p.add_argument("--tolerance", type=positive, metavar="X",
                   help="allowed relative difference (1e-3; 1e-2 where inputs are rounded)")
    p.add_argument("--threads", type=int, default=0, metavar="N", help="threads of torch (its own choice)")
    p.add_argument("--venv", default=os.path.join(cache, "blockq", "check_export"), metavar="DIR",
                   help="the environment to make or use (default: blockq/check_export in your cache folder)")
    p.add_argument("--here", action="store_true", help="use the running Python, which has all packages")
    a = p.parse_args(argv)
    if a.ctx < 2 or a.windows < 0 or a.threads < 0:
        p.error(f"--ctx {a.ctx} --windows {a.windows} --threads {a.threads}: at least 2, 0 and 0")
    try:
        if not a.here and INSIDE not in os.environ:
            reenter(a.venv)
        return check(a)
    except ImportError as e:
        print(f"check_export: {e}: leave out --here, or delete the folder of --venv", file=sys.stderr)
    except (DataError, OSError) as e:
        print(f"check_export: {e}", file=sys.stderr)
    return 3


if __name__ == "__main__":
    sys.exit(main())
