# SPDX-License-Identifier: Apache-2.0
"""check_export.py and readers/: their own unpacking by hand, the protocol of perplexity and, where torch is
installed, whole exports of a toy model."""
import contextlib
import io
import json
import math
import os
import struct
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tools"))
try:
    import h5py  # noqa: F401
    import numpy as np
except ImportError as e:
    print(f"test_check_export: skipped: {e.name} is missing: pip install numpy h5py", file=sys.stderr)
    raise unittest.SkipTest(f"{e.name} is missing") from None
import check_export as check
import prepare
from readers import by_llama_cpp, common, unpack

try:
    import compressed_tensors  # noqa: F401
    import torch
    import transformers
except (ImportError, OSError) as e:
    torch, WHY = None, f"no torch, transformers and compressed-tensors here ({e}): exports are not loaded"
    print(f"test_check_export: partly skipped: {WHY}", file=sys.stderr)


def write_folder(folder, tensors, config):
    """tensors: name -> numpy array, or (dtype name, array) where numpy has no such type."""
    os.makedirs(folder, exist_ok=True)
    names = {"float32": "F32", "float16": "F16", "int8": "I8", "int32": "I32", "int64": "I64", "uint8": "U8"}
    header, data = {}, b""
    for name, x in sorted(tensors.items()):
        kind, x = x if isinstance(x, tuple) else (names[x.dtype.name], x)
        header[name] = {"dtype": kind, "shape": list(x.shape),
                        "data_offsets": [len(data), len(data) + x.nbytes]}
        data += np.ascontiguousarray(x).tobytes()
    text = json.dumps(dict(header, __metadata__={"format": "pt"})).encode()
    with open(os.path.join(folder, "model.safetensors"), "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(config, f)


def pack(codes, bits):
    """Signed codes (rows, n) -> words (rows, ceil(n bits / 32)), one big number a row."""
    words = -(-codes.shape[1] * bits // 32)
    rows = [sum((int(c) + (1 << bits - 1)) << (bits * i) for i, c in enumerate(row)) for row in codes]
    return np.array([np.frombuffer(r.to_bytes(4 * words, "little"), "<i4") for r in rows])


def pack_awq(fields):
    """(n, rows) without sign -> words (n, rows / 8), as AutoAWQ's loop makes them."""
    words = np.zeros((len(fields), fields.shape[1] // 8), np.int64)
    for i, row in enumerate((0, 2, 4, 6, 1, 3, 5, 7)):
        words |= fields[:, row::8] << 4 * i
    return words.astype("<u4").view("<i4")


class Unpack(unittest.TestCase):
    def test_words(self):
        for word, bits, codes in ((0x76543210, 4, range(-8, 0)), (0xFEDCBA98, 4, range(8)),
                                  (0xFF807F00, 8, (-128, -1, 0, 127))):
            packed = np.array([[word]], "<u4").view("<i4")
            self.assertEqual(unpack.unpack(packed, bits, len(codes)).tolist(), [list(codes)])

    def test_round_trip(self):
        rng = np.random.default_rng(0)
        for bits in range(2, 9):
            for n in (1, 31, 32, 33, 127):
                codes = rng.integers(-(1 << bits - 1), 1 << bits - 1, (3, n))
                np.testing.assert_array_equal(unpack.unpack(pack(codes, bits), bits, n), codes)

    def test_refusals(self):
        for packed, count in (([[1 << 20]], 5), ([[0]], 9)):  # a padding bit is set; too few words
            with self.assertRaises(common.DataError):
                unpack.unpack(np.array(packed, "<i4"), 4, count)

    def test_tensors(self):
        with tempfile.TemporaryDirectory() as folder:
            half = np.array([[1.5, -2]], np.float16)
            write_folder(folder, {"h": half, "b": ("BF16", np.array([0x3F80, 0xC020], "<u2"))}, {})
            t = common.Tensors(folder)
            self.assertEqual(t.get("h").tolist(), [[1.5, -2]])
            self.assertEqual((t.get("b").tolist(), t.get("b").dtype), ([1, -2.5], np.float32))

    def test_awq(self):
        """The word of 0 ... 7; groups of two columns, whose weights come back."""
        word = np.array([[0x75316420]], "<u4").view("<i4")
        self.assertEqual(unpack.unpack_awq(word, 8).tolist(), [list(range(8))])
        rng = np.random.default_rng(1)
        code, zero = rng.integers(0, 16, (4, 16)), rng.integers(0, 16, (2, 16))
        scale = rng.integers(1, 9, (2, 16)).astype(np.float16)
        plain = np.ones((3, 16), np.float32)
        args = {"version": "gemm", "bits": 4, "zero_point": True, "group_size": 2}
        with tempfile.TemporaryDirectory() as folder:
            write_folder(folder, {"p.qweight": pack_awq(code), "p.qzeros": pack_awq(zero), "p.scales": scale,
                                  "n.weight": plain}, {})
            got = unpack.awq_weights(common.Tensors(folder), args)
            np.testing.assert_array_equal(got["n.weight"], plain)
            np.testing.assert_array_equal(got["p.weight"],
                                          ((code - zero.repeat(2, 0)) * scale.repeat(2, 0)).T)
            for wrong in ({"version": "gemv"}, {"group_size": 4}, {"bits": 8}):
                with self.assertRaises(common.DataError):
                    unpack.awq_weights(common.Tensors(folder), dict(args, **wrong))

    def test_weight(self):
        """Groups of two columns, with zero points packed along the rows."""
        codes, zero = np.array([[-8, 7, 0, 1], [2, -3, 4, 5]]), np.array([[1, -2], [0, 7]])
        scale = np.array([[0.5, 2], [1, 0.25]], np.float32)
        args = {"num_bits": 4, "strategy": "group", "group_size": 2, "symmetric": False}
        with tempfile.TemporaryDirectory() as folder:
            write_folder(folder, {"p.weight_packed": pack(codes, 4), "p.weight_scale": scale,
                                  "p.weight_zero_point": pack(zero.T, 4).T,
                                  "p.weight_shape": np.array([2, 4])}, {})
            want = (codes - zero.repeat(2, 1)) * scale.repeat(2, 1)
            got, packed = unpack.stored_weight(common.Tensors(folder), "p", args)
            np.testing.assert_array_equal(got, want)
            self.assertTrue(packed)
            with self.assertRaises(common.DataError):
                unpack.stored_weight(common.Tensors(folder), "p", dict(args, group_size=4))

    def test_float_values(self):
        """The tables of OCP's formats, by their least and largest numbers."""
        self.assertEqual(unpack.float_values(4).tolist()[:8], [0, 0.5, 1, 1.5, 2, 3, 4, 6])
        six, eight = unpack.float_values(6), unpack.float_values(8)
        self.assertEqual((six[1], six[8], six[31], six[63]), (0.125, 1, 7.5, -7.5))
        self.assertEqual((eight[1], eight[8], eight[0x38], eight[0x7E]), (2 ** -9, 2 ** -6, 1, 448))
        self.assertTrue(np.isnan(eight[0x7F]) and np.signbit(eight[0x80]))

    def stored(self, args, **tensors):
        with tempfile.TemporaryDirectory() as folder:
            write_folder(folder, {"p." + n: x for n, x in tensors.items()}, {})
            return unpack.stored_weight(common.Tensors(folder), "p", dict(args, type="float"))

    def test_floats(self):
        """FP8 with a scale for all, a row and a tile; MXFP8, MXFP6, MXFP4 and NVFP4."""
        fp8 = ("F8_E4M3", np.array([[0x38, 0xC0, 0x01], [0, 0x7E, 0x38]], np.uint8))
        value = np.array([[1, -2, 2 ** -9], [0, 448, 1]], np.float32)
        args = {"num_bits": 8, "strategy": "tensor", "group_size": None}
        got, packed = self.stored(args, weight=fp8, weight_scale=np.float32([0.5]))
        self.assertFalse(packed)
        np.testing.assert_array_equal(got, value / 2)
        args["strategy"], rows = "channel", np.float32([[2], [4]])
        np.testing.assert_array_equal(self.stored(args, weight=fp8, weight_scale=rows)[0], value * rows)
        with self.assertRaises(common.DataError):
            self.stored(args, weight=fp8, weight_scale=np.float32([[1, 2, 3], [1, 2, 3]]))
        with self.assertRaises(common.DataError):
            self.stored(args, weight=np.zeros((2, 3), np.int8), weight_scale=rows)
        tile = dict(args, strategy="block", block_structure=[2, 2])
        got = self.stored(tile, weight=fp8, weight_scale=np.float32([[2, 8]]))[0]
        np.testing.assert_array_equal(got, value * [[2, 2, 8]])
        power = np.array([[128], [126]], np.uint8)
        for bits, name, raw, want in (
                (8, "weight", ("F8_E4M3", fp8[1][:, :2]), value[:, :2]),
                (6, "weight_packed", np.array([[8 | 31 << 6 & 255, 31 >> 2, 32 + 8 << 2]] * 2, np.uint8),
                 [[1, 7.5, 0, -1]] * 2),
                (4, "weight_packed", np.array([[0x92], [0x7F]], np.uint8), [[1, -0.5], [-6, 6]])):
            group = dict(args, num_bits=bits, strategy="group", group_size=len(want[0]))
            got = self.stored(group, weight_scale=power, **{name: raw})[0]
            np.testing.assert_array_equal(got, want * np.float32([[2], [0.5]]))
        nvfp4 = dict(args, num_bits=4, strategy="tensor_group", group_size=2)
        got, packed = self.stored(nvfp4, weight_packed=np.array([[0x92], [0x7F]], np.uint8),
                                  weight_scale=("F8_E4M3", np.array([[0x38], [0x7E]], np.uint8)),
                                  weight_global_scale=np.float32([4]))
        self.assertTrue(packed)
        np.testing.assert_array_equal(got, np.float32([[0.25, -0.125], [-672, 672]]))

    def test_bfloat16(self):
        """Ties go to even."""
        got = common.nearest_bfloat16(np.array([1 + 2 ** -8, 1 + 3 * 2 ** -8, -1 - 2 ** -7], np.float32))
        self.assertEqual(got.tolist(), [1, 1 + 2 ** -6, -1 - 2 ** -7])


class Protocol(unittest.TestCase):
    def test_windows(self):
        ids = np.arange(10)
        self.assertEqual(common.pick_windows(ids, 10, "t", 4, 0), [[0, 1, 2, 3], [4, 5, 6, 7]])
        self.assertEqual(common.pick_windows(ids, 10, "t", 3, 1), [[0, 1, 2]])
        for vocab, ctx, windows in ((10, 4, 3), (10, 11, 0), (9, 4, 1)):
            with self.assertRaises(common.DataError):
                common.pick_windows(ids, vocab, "t", ctx, windows)

    def test_loss(self):
        """Of predictions with the probabilities 1/4 and 1/2; the last row predicts nothing that is known."""
        logits = np.log(np.array([[1, 1, 2], [1, 2, 1], [1, 0.5, 0.25]])) + np.array([[500], [-3], [0]])
        want = (math.log(4) + math.log(2)) / 2
        self.assertAlmostEqual(common.mean_loss(logits, [2, 0, 1]), want, 12)
        with contextlib.redirect_stdout(io.StringIO()):
            self.assertAlmostEqual(common.perplexity(lambda w: math.log(w[0]), [[2, 0], [8, 0]]), 4, 12)

    def test_rows_of_llama(self):
        """The converter's reshape of q and k, undone."""
        w = np.arange(48).reshape(12, 4)
        stored = w.reshape(3, 2, 2, 4).swapaxes(1, 2).reshape(w.shape)
        np.testing.assert_array_equal(by_llama_cpp.checkpoint_rows(stored, 3), w)

    def test_dense(self):
        """Equal; equal once rounded to float16; neither; nothing to compare."""
        w = np.array([[1, 1 + 2 ** -12]], np.float32)
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()) as said:
            write_folder(folder, {"a": w, "b": w}, {})
            half = ("b", w.astype(np.float16))
            self.assertEqual(check.compare_dense([("a", w), half, ("other", w)], folder), 0)
            self.assertEqual(check.compare_dense([("a", w), ("b", w + np.float32(1e-6))], folder), 1)
            self.assertEqual(check.compare_dense([("b", w[0])], folder), 1)
            self.assertEqual(check.compare_dense([], folder), 1)
        self.assertIn("1 weights equal", said.getvalue())
        self.assertIn("1 once these are float16", said.getvalue())


def run_it(*args):
    """(exit status, what it said)"""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            return check.main(["--here", *args]), said.getvalue()
        except SystemExit as e:
            return e.code, said.getvalue()


class Usage(unittest.TestCase):
    def test_usage(self):
        self.assertEqual(run_it()[0], 2)
        for option in (("--ctx", "1"), ("--reference", "nan"), ("--windows", "x"), ("--windows", "-1")):
            self.assertEqual(run_it("a", "b", *option)[0], 2)

    def test_readers(self):
        """The call that names a reader; a reader that is not installed says which package it lacks."""
        self.assertEqual(check.parser().parse_args(["a", "t.h5"]).reader, "transformers")
        self.assertEqual(check.parser().parse_args(["vllm", "a", "t.h5"]).export_dir, "a")
        self.assertEqual(run_it("nobody", "a", "t.h5")[0], 2)
        for reader in check.READERS:
            self.assertIsInstance(check.module_of(reader).PACKAGES, common.Packages)
        status, said = run_it("vllm", "a", "t.h5", "--dtype", "int8")
        self.assertEqual(status, 3)
        self.assertIn("bfloat16", said)

    def test_tokens(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "t.h5")
            prepare.write_tokens(path, [3, 1, 2], 4, "bytes", "0", "raw", -1)
            self.assertEqual(common.read_tokens(path).tolist(), [3, 1, 2])
            for raw in (b"no HDF5", b""):
                with open(path, "wb") as f:
                    f.write(raw)
                with self.assertRaises(common.DataError):
                    common.read_tokens(path)


def args(bits, group=None):
    return {"num_bits": bits, "type": "int", "symmetric": True, "strategy": "group" if group else "channel",
            "group_size": group, "dynamic": False, "observer": "minmax"}


def config_groups(*groups):
    """One group for each (targets, weights, activations)."""
    packed = groups[0][2] is None
    kind = "pack-quantized" if packed else "int-quantized"
    return {"quant_method": "compressed-tensors", "version": "0.18.0", "format": kind, "ignore": ["lm_head"],
            "quantization_status": "compressed", "config_groups": {
                f"group_{i}": {"targets": t, "weights": w, "input_activations": a, "format": kind}
                for i, (t, w, a) in enumerate(groups)}}


@unittest.skipIf(torch is None, "" if torch else WHY)
class Exports(unittest.TestCase):
    """A toy Llama quantized to the nearest code, as pack-quantized and int-quantized exports."""

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        torch.manual_seed(0)
        cls.config = dict(architectures=["LlamaForCausalLM"], model_type="llama", vocab_size=50,
                          hidden_size=64, intermediate_size=96, num_hidden_layers=2,
                          num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True,
                          max_position_embeddings=64)
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**cls.config, initializer_range=0.2))
        cls.weights = {n: w.detach().numpy() for n, w in model.named_parameters()}
        cls.tokens = os.path.join(cls.folder.name, "t.h5")
        ids = np.random.default_rng(2).integers(0, 50, 200)
        prepare.write_tokens(cls.tokens, ids, 50, "bytes", "0", "raw", -1)

    def export(self, scheme, quantization=None):
        """Folders of a dense model and of its codes; scheme(name) gives a Linear's (bits, group) or None."""
        dense, codes = {}, {}
        for name, w in self.weights.items():
            part = scheme(name) if ".layers." in name and w.ndim == 2 else None
            if part is None:
                dense[name] = codes[name] = w
                continue
            bits, top = part[0], (1 << part[0] - 1) - 1
            group = part[1] or w.shape[1]
            x = w.reshape(len(w), -1, group)
            scale = np.float32(np.abs(x).max(2, keepdims=True) / top)
            q = np.rint(x / scale)
            dense[name], base = (q * scale).reshape(w.shape), name[:-len(".weight")]
            q = q.reshape(w.shape).astype(np.int8)
            codes[base + ".weight_scale"] = scale[:, :, 0]
            if quantization["format"] == "int-quantized":
                codes[name] = q
            else:
                codes[base + ".weight_packed"] = pack(q, bits)
                codes[base + ".weight_shape"] = np.array(w.shape)
        paths = [os.path.join(self.folder.name, n) for n in ("dense", "codes")]
        write_folder(paths[0], dense, self.config)
        write_folder(paths[1], codes, dict(self.config, quantization_config=quantization))
        return [*paths, dense, codes]

    def measure(self, folder, *more):
        status, said = run_it(folder, self.tokens, "--ctx", "24", "--windows", "0", "--threads", "1", *more)
        lines = [x for x in said.split("\n") if x.startswith("perplexity ")]
        return status, float(lines[0].split()[1]) if lines else None, said

    def agree(self, scheme, quantization, word, tolerance="1e-6"):
        dense, codes, *_ = self.export(scheme, quantization)
        status, value, said = self.measure(dense)
        self.assertEqual(status, 0, said)
        self.assertIn("8 windows of 24", said)
        status, _, said = self.measure(codes, "--reference", repr(value), "--tolerance", tolerance)
        self.assertEqual(status, 0, said)
        self.assertIn(word, said)
        self.assertIn("ok", said)
        status, _, said = self.measure(codes, "--reference", str(value * 1.1), "--tolerance", "0.05")
        self.assertEqual(status, 1, said)

    def test_packed(self):
        for group, word in ((None, "14 packed and 0 unpacked Linear"), (32, "14 with 4 bits, group 32")):
            self.agree(lambda n: (4, group), config_groups((["Linear"], args(4, group), None)), word)

    def test_several_groups(self):
        groups = config_groups((["re:.*(gate|up|down)_proj"], args(4, 32), None),
                               (["re:.*self_attn.*"], args(8), None))
        self.agree(lambda n: (8, None) if "self_attn" in n else (4, 32), groups, "8 with 8 bits, channel")

    def test_int8(self):
        dynamic = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "token", "dynamic": True}
        groups = config_groups((["Linear"], args(8), dynamic))
        self.agree(lambda n: (8, None), groups, "0 packed and 14 unpacked Linear", "0.01")

    def test_faults(self):
        """A layer left out, one too many, a tensor gone: each is named and ends with 1."""
        one = "model.layers.1.mlp.up_proj"
        groups = config_groups((["Linear"], args(4), None))
        _, folder, dense, codes = self.export(lambda n: (4, None), groups)
        config = dict(self.config, quantization_config=groups)
        fewer = {n: x for n, x in codes.items() if not n.startswith(one)}
        write_folder(folder, dict(fewer, **{one + ".weight": dense[one + ".weight"]}), config)
        status, _, said = self.measure(folder)
        self.assertEqual(status, 1, said)
        self.assertIn(one, said)
        self.assertIn("not measured", said)
        write_folder(folder, codes, dict(config, quantization_config=dict(groups, ignore=["lm_head", one])))
        status, _, said = self.measure(folder)
        self.assertEqual(status, 1, said)
        self.assertIn(one, said)
        write_folder(folder, codes, self.config)
        status, _, said = self.measure(folder)
        self.assertEqual(status, 3, said)
        self.assertIn("no quantization_config", said)

    def test_data(self):
        dense, codes, *_ = self.export(lambda n: None, config_groups((["Linear"], args(4), None)))
        for word, *more in (("lower --windows", "--windows", "9"), ("lower --windows", "--ctx", "300")):
            status, said = run_it(dense, self.tokens, "--ctx", "24", *more)
            self.assertEqual(status, 3, said)
            self.assertIn(word, said)
        status, said = run_it(os.path.join(dense, "nowhere"), self.tokens)
        self.assertEqual(status, 3, said)


if __name__ == "__main__":
    unittest.main()
