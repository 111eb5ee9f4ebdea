# SPDX-License-Identifier: Apache-2.0
"""prepare.py: rows, BOS rules, the layout of tokens.h5, and that a bad input is one line and status 3."""
import contextlib
import hashlib
import io
import json
import os
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tools"))
try:
    import h5py
    import numpy as np
    import tokenizers  # noqa: F401
except ImportError as e:
    print(f"test_prepare: skipped: {e.name} is missing: pip install numpy h5py tokenizers", file=sys.stderr)
    raise unittest.SkipTest(f"{e.name} is missing") from None
import prepare

# words split at blanks and newlines; ids with a hole at 5; <s> is special
VOCAB = {"<s>": 0, "a": 1, "b": 2, "\n": 3, "<unk>": 4, "c": 6}
SPECIAL = {"id": 0, "content": "<s>", "single_word": False, "lstrip": False, "rstrip": False,
           "normalized": False, "special": True}
CUT = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
TOKENIZER = {"version": "1.0", "truncation": CUT, "padding": None, "normalizer": None, "post_processor": None,
             "decoder": None, "added_tokens": [SPECIAL],
             "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                 {"type": "Split", "pattern": {"String": " "}, "behavior": "Removed", "invert": False},
                 {"type": "Split", "pattern": {"String": "\n"}, "behavior": "Isolated", "invert": False}]},
             "model": {"type": "WordLevel", "vocab": VOCAB, "unk_token": "<unk>"}}
BOS_BY_ITSELF = {"type": "TemplateProcessing",
                 "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                            {"Sequence": {"id": "A", "type_id": 0}}],
                 "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
                 "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}}}


class Prepare(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.model()

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, raw):
        with open(self.path(name), "wb") as f:
            f.write(raw)
        return self.path(name)

    def model(self, post=None, config=None):
        self.write("tokenizer.json", json.dumps(dict(TOKENIZER, post_processor=post)).encode())
        self.write("tokenizer_config.json", json.dumps(config or {}).encode())

    def run_it(self, *args):
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            return prepare.main([*args, "-o", self.path("t.h5")]), said.getvalue()

    def ids(self, *args):
        status, said = self.run_it(*args)
        self.assertEqual(status, 0, said)
        with h5py.File(self.path("t.h5")) as f:
            return f["tokens"][:].tolist(), dict(f.attrs)

    def test_layout(self):
        text = self.write("text", b"a b  c\n\nb\xc3\xa9")
        ids, attrs = self.ids(text, "--tokenizer", self.folder)
        self.assertEqual(ids, [1, 2, 6, 3, 3, 4])  # in one go, not cut at the tokenizer's two tokens
        with open(self.path("tokenizer.json"), "rb") as f:
            digest = hashlib.sha256(f.read()).hexdigest().encode()
        with open(text, "rb") as f:
            self.assertEqual(attrs["text"], hashlib.sha256(f.read()).hexdigest().encode())
        self.assertEqual([attrs[k] for k in ("format", "version", "vocab", "tokenizer", "joiner", "bos")],
                         [b"blockq tokens", 1, 7, digest, b"raw", -1])
        with h5py.File(self.path("t.h5")) as f:
            self.assertEqual(f["tokens"].dtype, np.dtype("<i4"))
            self.assertIsNone(f["tokens"].chunks)
            for name, size in (("format", 14), ("tokenizer", 65), ("text", 65), ("joiner", 4)):
                kind = f.attrs.get_id(name).get_type()
                self.assertEqual((kind.get_size(), kind.is_variable_str(), kind.get_strpad()),
                                 (size, False, h5py.h5t.STR_NULLTERM))
            self.assertEqual(f.attrs.get_id("vocab").dtype, np.dtype("<i8"))
            self.assertEqual(f.attrs.get_id("bos").dtype, np.dtype("<i4"))
            self.assertEqual(f.attrs.get_id("bos").shape, ())
        self.assertFalse([name for name in os.listdir(self.folder) if name.endswith(".tmp")])

    def test_same_bytes_again(self):
        text, files = self.write("text", b"a b c"), []
        for _ in range(2):
            self.ids(text, "--tokenizer", self.folder)
            with open(self.path("t.h5"), "rb") as f:
                files.append(f.read())
        self.assertEqual(files[0], files[1])

    def test_never_onto_a_text(self):
        text, other = self.write("text", b"a b c"), self.write("other", b"b")
        for make in (os.link, os.symlink):
            make(text, self.path("t.h5"))
            status, said = self.run_it(other, text, "--tokenizer", "bytes")
            self.assertEqual((status, "is the text" in said), (3, True), said)
            os.unlink(self.path("t.h5"))
        os.mkfifo(self.path("t.h5"))
        status, said = self.run_it(text, "--tokenizer", "bytes")
        self.assertEqual((status, "not a regular file" in said), (3, True), said)
        os.unlink(self.path("t.h5"))
        for name in ("t.h5", f"t.h5.{os.getpid()}.tmp", "t.h5.tmp"):  # links there are not followed
            os.symlink(other, self.path(name))
        self.ids(text, "--tokenizer", "bytes")
        self.assertFalse(os.path.islink(self.path("t.h5")))
        with open(other, "rb") as f:
            self.assertEqual(f.read(), b"b")

    def test_rows(self):
        self.assertEqual(prepare.join_rows(b" \n = A = \n \n text \n"), b"\n\n = A = \n\n\n\n\n text \n")
        self.assertEqual(prepare.join_rows(b"a\n\nb"), b"a\n\n\n\n\nb")
        self.assertEqual(prepare.join_rows(b"x\xe2\x80\xa8y\n"), b"x\xe2\x80\xa8y\n")  # only \n ends a line
        ids, attrs = self.ids(self.write("text", b"a\n\nb\n"), "--tokenizer", self.folder, "--join", "rows")
        self.assertEqual(ids, [1, 3, 3, 3, 3, 3, 2, 3])
        self.assertEqual(attrs["joiner"], b"rows")
        self.assertEqual(attrs["text"], hashlib.sha256(b"a\n\n\n\n\nb\n").hexdigest().encode())

    def test_several_files(self):
        ids, _ = self.ids(self.write("x", b"a b"), self.write("y", b" c"), "--tokenizer", self.folder)
        self.assertEqual(ids, [1, 2, 6])

    def test_bos(self):
        text, plain = self.write("text", b"a b"), [1, 2]
        named = {"bos_token": {"content": "<s>"}}
        cases = [(None, {}, "auto", -1), (None, named, "auto", -1), (None, named, "yes", 0),
                 (None, dict(named, add_bos_token=True), "auto", 0), (BOS_BY_ITSELF, {}, "auto", 0),
                 (BOS_BY_ITSELF, {}, "yes", 0), (BOS_BY_ITSELF, {}, "no", -1),
                 (BOS_BY_ITSELF, dict(named, add_bos_token=False), "auto", -1)]
        for post, config, rule, bos in cases:
            self.model(post, config)
            ids, attrs = self.ids(text, "--tokenizer", self.folder, "--bos", rule)
            want = plain if bos < 0 else [bos] + plain
            self.assertEqual((ids, attrs["bos"]), (want, bos), (post, config, rule))
        self.model(BOS_BY_ITSELF)
        self.assertEqual(self.ids(text, "--tokenizer", self.path("tokenizer.json"))[0], [0] + plain)

    def test_bytes(self):
        ids, attrs = self.ids(self.write("text", b"\x00a\xff"), "--tokenizer", "bytes")
        self.assertEqual((ids, attrs["tokenizer"], attrs["vocab"]), ([0, 97, 255], b"bytes", 256))

    def test_refusals(self):
        good, empty = self.write("good", b"a"), self.write("empty", b"")
        latin, junk = self.write("latin", b"caf\xe9"), self.write("junk.json", b"{}")
        for word, *args in (("absent", self.path("absent"), "--tokenizer", self.folder),
                            ("no tokens", empty, "--tokenizer", self.folder),
                            ("0xe9", latin, "--tokenizer", self.folder),
                            ("junk.json", good, "--tokenizer", junk),
                            ("tokenizer.json", good, "--tokenizer", self.path("nowhere/tokenizer.json")),
                            ("names no BOS", good, "--tokenizer", self.folder, "--bos", "yes"),
                            ("no BOS", good, "--tokenizer", "bytes", "--bos", "yes"),
                            ("absent", self.path("absent"), "--tokenizer", "bytes")):
            status, said = self.run_it(*args)
            self.assertEqual((status, said.count("\n")), (3, 1), said)
            self.assertIn(word, said)
        self.assertFalse(os.path.exists(self.path("t.h5")))
        with self.assertRaises(SystemExit) as usage, contextlib.redirect_stderr(io.StringIO()):
            prepare.main([good, "--tokenizer", "bytes"])
        self.assertEqual(usage.exception.code, 2)


if __name__ == "__main__":
    unittest.main()
