"""fetch_smollm2.py: block formats against loops written from their definition, and a whole toy file."""
import contextlib
import io
import json
import os
import struct
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tools"))
try:
    import numpy as np
except ImportError:
    print("test_fetch_smollm2: skipped: numpy is missing: pip install numpy", file=sys.stderr)
    raise unittest.SkipTest("numpy is missing") from None
import check_export
import fetch_smollm2 as fetch


def half(raw):
    return np.frombuffer(raw, "<f2").astype(np.float32)[0]


def slow_q8_0(b):
    return [half(b[:2]) * np.float32(struct.unpack("b", b[2 + j:3 + j])[0]) for j in range(32)]


def slow_q4(b, start, zero, offset):
    q = [b[start + j % 16] >> (4 * (j // 16)) & 15 for j in range(32)]
    return [half(b[:2]) * np.float32(x - zero) + offset for x in q]


def slow_q6_k(b):
    y, d = [0.0] * 256, half(b[208:])
    for h in range(2):
        ql, qh, sc = b[64 * h:], b[128 + 32 * h:], struct.unpack("8b", b[192 + 8 * h:200 + 8 * h])
        for i in range(32):
            q = ((ql[i] & 15) | (qh[i] & 3) << 4, (ql[i + 32] & 15) | (qh[i] >> 2 & 3) << 4,
                 (ql[i] >> 4) | (qh[i] >> 4 & 3) << 4, (ql[i + 32] >> 4) | (qh[i] >> 6) << 4)
            for k in range(4):
                y[128 * h + 32 * k + i] = d * np.float32(sc[i // 16 + 2 * k]) * np.float32(q[k] - 32)
    return y


class Blocks(unittest.TestCase):
    def same(self, kind, size, slow):
        rng = np.random.default_rng(kind)
        for blocks in (1, 3, 7):
            raw = bytearray(rng.integers(0, 256, blocks * size, np.uint8).tobytes())
            for i in range(blocks):  # plain halves where the block has its scales
                for at in ([208] if kind == 14 else [0, 2] if kind == 3 else [0]):
                    struct.pack_into("<e", raw, i * size + at, rng.normal())
            y = fetch.decode(kind, (blocks, fetch.TYPES[kind][1]), bytes(raw))
            for i in range(blocks):
                want = np.array(slow(bytes(raw[i * size:(i + 1) * size])), np.float32)
                np.testing.assert_array_equal(y[i], want)

    def test_against_loops(self):
        self.same(8, 34, slow_q8_0)
        self.same(2, 18, lambda b: slow_q4(b, 2, 8, np.float32(0)))
        self.same(3, 20, lambda b: slow_q4(b, 4, 0, half(b[2:4])))
        self.same(14, 210, slow_q6_k)

    def test_by_hand(self):
        y = fetch.decode(8, (32,), struct.pack("<e32b", 0.5, *range(-16, 16)))
        self.assertEqual(y.tolist(), [x / 2 for x in range(-16, 16)])
        nibbles = bytes(i | (15 - i) << 4 for i in range(16))  # 0..15, then 15..0
        y = fetch.decode(3, (32,), struct.pack("<ee", 0.25, -1) + nibbles)
        self.assertEqual(y.tolist(), [x / 4 - 1 for x in [*range(16), *range(15, -1, -1)]])
        y = fetch.decode(2, (32,), struct.pack("<e", 2) + nibbles)
        self.assertEqual(y[[0, 15, 16, 31]].tolist(), [-16, 14, 14, -16])
        self.assertEqual(fetch.decode(1, (2,), struct.pack("<ee", 1.5, -2)).tolist(), [1.5, -2])
        self.assertEqual(fetch.decode(30, (2,), b"\x80\x3f\x20\xc0").tolist(), [1, -2.5])
        self.assertEqual(fetch.decode(0, (1, 2), struct.pack("<ff", 3, -4)).tolist(), [[3, -4]])

    def test_sizes(self):
        for kind, shape, raw in ((8, (31,), bytes(34)), (8, (32,), bytes(33)), (14, (128,), bytes(105)),
                                 (12, (256,), bytes(144)), (99, (1,), bytes(4))):
            with self.assertRaises(fetch.DataError):
                fetch.decode(kind, shape, raw)

    def test_permutation(self):
        w = np.arange(3 * 10 * 7).reshape(30, 7)
        g = fetch.permute(w, 3)
        for h in range(3):
            for b in range(2):
                for i in range(5):
                    np.testing.assert_array_equal(g[h * 10 + 2 * i + b], w[h * 10 + b * 5 + i])
        np.testing.assert_array_equal(fetch.unpermute(g, 3), w)
        np.testing.assert_array_equal(fetch.permute(fetch.unpermute(w, 3), 3), w)

    def test_shortest(self):
        self.assertEqual(fetch.shortest(struct.unpack("<f", struct.pack("<f", 1e-5))[0]), 1e-05)
        self.assertEqual(fetch.shortest(100000.0), 100000.0)


# ---- a toy file: hidden 64, 2 heads of 32, 1 kv head, 2 blocks, byte-level tokens ----

def byte_letters():
    """GPT-2's printable stand-ins of the 256 bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    other = iter(range(256, 400))
    return [chr(b if b in plain else next(other)) for b in range(256)]


TOKENS = ["<|end|>", "<|user|>", *byte_letters(), "he", "\u0120t", "\u0120the", "12"]
TYPES = [3, 4] + [1] * (len(TOKENS) - 2)
MERGES = ["h e", "\u0120 t", "\u0120t he", "1 2"]
A = "llama."
KEYS = [("general.architecture", 8, "llama"), (A + "block_count", 4, 2), (A + "context_length", 4, 128),
        (A + "embedding_length", 4, 64), (A + "feed_forward_length", 4, 96),
        (A + "attention.head_count", 4, 2), (A + "attention.head_count_kv", 4, 1),
        (A + "attention.layer_norm_rms_epsilon", 6, 1e-5),
        (A + "rope.freq_base", 6, 12345.0), ("tokenizer.ggml.model", 8, "gpt2"),
        ("tokenizer.ggml.pre", 8, "smollm"), ("tokenizer.ggml.tokens", (9, 8), TOKENS),
        ("tokenizer.ggml.token_type", (9, 5), TYPES), ("tokenizer.ggml.merges", (9, 8), MERGES),
        ("tokenizer.ggml.bos_token_id", 4, 1), ("tokenizer.ggml.eos_token_id", 4, 0),
        ("tokenizer.ggml.add_bos_token", 7, False)]


def pack_value(kind, value):
    if isinstance(kind, tuple):
        return struct.pack("<IQ", kind[1], len(value)) + b"".join(pack_value(kind[1], v) for v in value)
    if kind == 8:
        raw = value.encode()
        return struct.pack("<Q", len(raw)) + raw
    return struct.pack(fetch.SCALARS[kind], value)


def toy_gguf(keys=KEYS, drop=None):
    rng = np.random.default_rng(1)
    shapes = {"token_embd": (len(TOKENS), 64), "output_norm": (64,)}
    for i in range(2):
        for name in fetch.BLOCK:
            rows = 96 if name in ("ffn_gate", "ffn_up") else 32 if name in ("attn_k", "attn_v") else 64
            shapes[f"blk.{i}.{name}"] = (64,) if "norm" in name else (rows, 96 if "down" in name else 64)
    infos, data = b"", b""
    for name, shape in shapes.items():
        if name == drop:
            continue
        kind = 0 if len(shape) == 1 else 8 if name == "token_embd" else 3
        elems, size = fetch.TYPES[kind][1:]
        blocks = int(np.prod(shape)) // elems
        raw = bytearray(rng.integers(0, 256, blocks * size, np.uint8).tobytes())
        for i in range(blocks):
            fmt, values = {0: ("<f", [rng.normal()]), 3: ("<ee", [0.01, -0.07]), 8: ("<e", [0.01])}[kind]
            struct.pack_into(fmt, raw, i * size, *values)
        data += bytes(-len(data) % 32)
        infos += pack_value(8, name + ".weight") + struct.pack("<I", len(shape))
        infos += struct.pack(f"<{len(shape)}Q", *shape[::-1]) + struct.pack("<IQ", kind, len(data))
        data += raw
    head = b"GGUF" + struct.pack("<IQQ", 3, len(shapes) - (drop in shapes), len(keys))
    for name, kind, value in keys:
        head += pack_value(8, name) + struct.pack("<I", kind[0] if isinstance(kind, tuple) else kind)
        head += pack_value(kind, value)
    head += infos
    return head + bytes(-len(head) % 32) + data


class File(unittest.TestCase):
    def restore(self, raw, folder):
        """(exit status, what it said) of a run on a file with these bytes."""
        path, said = os.path.join(folder, "toy.gguf"), io.StringIO()
        with open(path, "wb") as f:
            f.write(raw)
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            status = fetch.main([os.path.join(folder, "out"), "--gguf", path])
        return status, said.getvalue()

    def test_restore(self):
        with tempfile.TemporaryDirectory() as folder:
            status, said = self.restore(toy_gguf(), folder)
            self.assertEqual(status, 0, said)
            out = os.path.join(folder, "out")
            self.assertEqual(sorted(os.listdir(out)), ["config.json", "generation_config.json",
                                                       "model.safetensors", "tokenizer.json",
                                                       "tokenizer_config.json"])
            config = check_export.read_json(os.path.join(out, "config.json"))
            want = {"hidden_size": 64, "head_dim": 32, "num_key_value_heads": 1, "vocab_size": len(TOKENS),
                    "rms_norm_eps": 1e-05, "rope_theta": 12345.0, "tie_word_embeddings": True}
            self.assertEqual({k: config[k] for k in want}, want)
            stored = check_export.Tensors(out)
            self.assertEqual(list(stored.info), sorted(stored.info))
            self.assertEqual(len(stored.info), 20)
            tensors = fetch.read_gguf(os.path.join(folder, "toy.gguf"))[1]
            for name, (kind, shape, raw) in tensors.items():
                want, got = fetch.decode(kind, shape, raw), stored.get(fetch.hf_name(name))
                if "attn_q" in name or "attn_k" in name:
                    got = fetch.permute(got, 2 if "attn_q" in name else 1)
                np.testing.assert_array_equal(got, want)
            with open(os.path.join(out, "model.safetensors"), "rb") as f:
                size = struct.unpack("<Q", f.read(8))[0]
                self.assertEqual(size % 8, 0)
                self.assertEqual(json.loads(f.read(size))["__metadata__"], {"format": "pt"})

    def test_tokenizer(self):
        try:
            from tokenizers import Tokenizer
        except ImportError:
            self.skipTest("tokenizers is missing: pip install tokenizers")
        with tempfile.TemporaryDirectory() as folder:
            self.assertEqual(self.restore(toy_gguf(), folder)[0], 0)
            tok = Tokenizer.from_file(os.path.join(folder, "out", "tokenizer.json"))
        text = "he the 12<|end|>\u00e9\n"
        self.assertEqual(tok.encode(text).tokens, ["he", "\u0120the", "\u0120", "1", "2", "<|end|>", "\u00c3",
                                                   "\u00a9", "\u010a"])
        self.assertEqual(tok.decode(tok.encode(text).ids, skip_special_tokens=False), text)
        self.assertEqual(tok.get_vocab_size(), len(TOKENS))

    def test_damage(self):
        """A cut file is refused wherever it is cut, and wrong keys are named."""
        whole = toy_gguf()
        with tempfile.TemporaryDirectory() as folder:
            for cut in (0, 3, 4, 7, 20, 24, 31, 200, 3000, len(whole) // 2, len(whole) - 1):
                status, said = self.restore(whole[:cut], folder)
                self.assertEqual((status, said.count("\n")), (3, 1), f"cut at {cut}: {said}")

    def test_refusals(self):
        def changed(name, value):
            return toy_gguf([(k, t, value if k == name else v) for k, t, v in KEYS])

        huge = toy_gguf().replace(struct.pack("<IQ", 8, len(TOKENS)), struct.pack("<IQ", 8, 1 << 60))
        cases = [(b"GGML" + toy_gguf()[4:], "GGUF"), (changed("general.architecture", "qwen2"), "qwen2"),
                 (changed("tokenizer.ggml.pre", "llama-bpe"), "llama-bpe"),
                 (changed(A + "block_count", 3), "layers.2"),
                 (changed(A + "block_count", 0), "block_count is 0"),
                 (changed(A + "feed_forward_length", 64), "shape"),
                 (toy_gguf(drop="output_norm"), "model.norm"),
                 (changed("tokenizer.ggml.bos_token_id", 9999), "9999"),
                 (changed("tokenizer.ggml.merges", ["h q"]), "['h', 'q']"),
                 (huge, "exceeds"), (toy_gguf(KEYS[1:]), "general.architecture"),
                 (toy_gguf([k for k in KEYS if "rms" not in k[0]]), "rms_epsilon")]
        with tempfile.TemporaryDirectory() as folder:
            for raw, word in cases:
                status, said = self.restore(raw, folder)
                self.assertEqual(status, 3, f"{word}: {said}")
                self.assertIn(word, said)
                self.assertNotIn("Traceback", said)


if __name__ == "__main__":
    unittest.main()
