"""choices.py: what is context and what is choice, the file's layout, and that a bad line is one message and status 3."""
import contextlib
import io
import json
import os
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tools"))
try:
    import numpy  # noqa: F401
except ImportError as e:
    print(f"test_choices: skipped: {e.name} is missing: pip install numpy", file=sys.stderr)
    raise unittest.SkipTest(f"{e.name} is missing") from None
import choices

GOOD = {"context": "ab", "choices": ["c", " d"], "answer": 1}


class Choices(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def path(self, name):
        return os.path.join(self.folder, name)

    def run_it(self, lines, *args):
        with open(self.path("in.jsonl"), "w", encoding="utf-8") as f:
            f.write("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            status = choices.main([self.path("in.jsonl"), "-o", self.path("out.json"), *(args or ("--tokenizer", "bytes"))])
        return status, said.getvalue()

    def read(self):
        with open(self.path("out.json"), encoding="ascii") as f:
            return json.load(f)

    def test_bytes(self):
        status, said = self.run_it([GOOD, "", dict(GOOD, context="ab \n", answer=0)])
        self.assertEqual((status, said.count("\n")), (0, 1), said)
        self.assertEqual(self.read(), {"vocab": 256, "tokenizer": "bytes", "items": [
            {"context": [97, 98], "choices": [[99], [32, 100]], "answer": 1},
            {"context": [97, 98], "choices": [[32, 10, 99], [32, 10, 32, 100]], "answer": 0}]})
        self.assertEqual(sorted(os.listdir(self.folder)), ["in.jsonl", "out.json"])

    def test_delimiter_and_same_bytes(self):
        files = []
        for _ in range(2):
            self.assertEqual(self.run_it([GOOD], "--tokenizer", "bytes", "--delimiter", " ")[0], 0)
            with open(self.path("out.json"), "rb") as f:
                files.append(f.read())
        self.assertEqual(self.read()["items"][0]["choices"], [[32, 99], [32, 32, 100]])
        self.assertEqual(files[0], files[1])

    def test_tokens_across_the_joint(self):
        """The choice has what is behind as many tokens as the context has alone, even where they join."""
        merged = {"ab": [1, 2], "abc": [1, 7], "abd": [1, 2, 4]}
        self.assertEqual(choices.split(merged.__getitem__, "ab", "d"), ([1, 2], [4]))
        self.assertEqual(choices.split(merged.__getitem__, "ab", "c"), ([1, 2], []))

    def test_tokenizer(self):
        try:
            from test_prepare import BOS_BY_ITSELF, TOKENIZER
        except (ImportError, unittest.SkipTest) as e:
            self.skipTest(str(e))
        with open(self.path("tokenizer.json"), "w", encoding="utf-8") as f:
            json.dump(dict(TOKENIZER, post_processor=BOS_BY_ITSELF), f)
        item = {"context": "a b", "choices": [" c", " b a"], "answer": 0}
        status, said = self.run_it([item], "--tokenizer", self.path("nowhere"))
        self.assertEqual((status, said.count("\n"), "nowhere" in said), (3, 1, True), said)
        for rule, front in (("auto", [0]), ("no", [])):
            status, said = self.run_it([item], "--tokenizer", self.folder, "--bos", rule)
            self.assertEqual(status, 0, said)
            self.assertEqual(self.read()["items"], [{"context": [*front, 1, 2], "choices": [[6], [2, 1]], "answer": 0}])
        self.assertEqual((self.read()["vocab"], len(self.read()["tokenizer"])), (7, 64))

    def test_refusals(self):
        for line, word in (("{", "in.jsonl:2: is no JSON"), ("[]", "is no object"), (dict(GOOD, context=3), "context is 3"),
                           (dict(GOOD, choices=["a"]), "list of 2 to 26"), (dict(GOOD, choices=["a"] * 27), "list of 2 to 26"),
                           (dict(GOOD, choices=["a", 1]), "list of 2 to 26"), (dict(GOOD, answer=2), "answer is 2"),
                           (dict(GOOD, answer=True), "answer is True"), (dict(GOOD, context=""), "gives no tokens"),
                           (dict(GOOD, choices=["a", ""]), "choice 1, '', gives no tokens")):
            status, said = self.run_it([GOOD, line])
            self.assertEqual((status, said.count("\n")), (3, 1), said)
            self.assertIn(word, said)
        for lines, args, word in (([], (), "no questions"), ([GOOD], ("--tokenizer", "bytes", "--bos", "yes"), "no BOS")):
            status, said = self.run_it(lines, *args)
            self.assertEqual((status, said.count("\n")), (3, 1), said)
            self.assertIn(word, said)
        self.assertFalse(os.path.exists(self.path("out.json")))


if __name__ == "__main__":
    unittest.main()
