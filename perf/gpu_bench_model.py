#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Model directories for gpu_bench.sh: gpu_bench_model.py SHAPE DIR TEXT LENGTH

DIR gets two blocks of the model whose config.json is in SHAPE, with random weights in bf16 and a vocabulary of 256 bytes, so that
blockq and the peers read the same files.  DIR.one is the same file as a model of one block.  TEXT gets LENGTH random letters.
Needs nothing but Python: weights are windows of one million normal numbers, each tensor from another place on.
"""
import array
import json
import os
import random
import sys

BLOCKS, POOL = 2, 1000003
NORMS = ("input_layernorm", "post_attention_layernorm")


def shapes(c):
    h, i = c["hidden_size"], c["intermediate_size"]
    d = c.get("head_dim", h // c["num_attention_heads"])
    q, kv = d * c["num_attention_heads"], d * c["num_key_value_heads"]
    yield "model.embed_tokens.weight", [c["vocab_size"], h]
    for b in range(BLOCKS):
        for name, shape in (("self_attn.q_proj", [q, h]), ("self_attn.k_proj", [kv, h]), ("self_attn.v_proj", [kv, h]),
                            ("self_attn.o_proj", [h, q]), ("mlp.gate_proj", [i, h]), ("mlp.up_proj", [i, h]), ("mlp.down_proj", [h, i]),
                            *((n, [h]) for n in NORMS)):
            yield f"model.layers.{b}.{name}.weight", shape
    yield "model.norm.weight", [h]


def bf16(numbers):
    """The upper halves of floats."""
    whole, half = array.array("f", numbers).tobytes(), bytearray(2 * len(numbers))
    half[0::2], half[1::2] = whole[2::4], whole[3::4]
    return bytes(half)


def write(path, tensors):
    rng, header, end = random.Random(1), {}, 0
    pool = bf16([rng.gauss(0, 0.02) for _ in range(POOL)])
    for name, shape in tensors:
        size = 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(len(text).to_bytes(8, "little") + text)
        for name, _ in tensors:
            begin, end = header[name]["data_offsets"]
            left, at = end - begin, 2 * rng.randrange(POOL)
            if "norm" in name:
                f.write(bf16([1.0]) * (left // 2))
                continue
            while left:
                piece = pool[at:at + left]
                f.write(piece)
                left, at = left - len(piece), 0


def main(shape, folder, text, length):
    with open(os.path.join(shape, "config.json")) as f:
        c = json.load(f)
    c.pop("blockq_procedural", None)
    c.update(vocab_size=256, bos_token_id=0, eos_token_id=1, tie_word_embeddings=True)
    one = folder + ".one"
    for path, blocks in ((folder, BLOCKS), (one, 1)):
        os.makedirs(path, exist_ok=True)
        with open(os.path.join(path, "config.json"), "w") as f:
            json.dump({**c, "num_hidden_layers": blocks}, f)
    write(os.path.join(folder, "model.safetensors"), list(shapes(c)))
    if not os.path.exists(os.path.join(one, "model.safetensors")):
        os.link(os.path.join(folder, "model.safetensors"), os.path.join(one, "model.safetensors"))
    with open(text, "wb") as f:
        f.write(bytes(random.Random(2).choices(range(97, 123), k=int(length))))


if __name__ == "__main__":
    main(*sys.argv[1:])
