# SPDX-License-Identifier: Apache-2.0
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
            {"context": [97, 98], "choices": [[99], [32, 100]], "answer": 1, "characters": [1, 2], "bytes": [1, 2]},
            {"context": [97, 98], "choices": [[32, 10, 99], [32, 10, 32, 100]], "answer": 0, "characters": [1, 2], "bytes": [1, 2]}]})
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
            self.assertEqual(self.read()["items"], [{"context": [*front, 1, 2], "choices": [[6], [2, 1]], "answer": 0,
                                                     "characters": [2, 4], "bytes": [2, 4]}])
        self.assertEqual((self.read()["vocab"], len(self.read()["tokenizer"])), (7, 64))

    def texts(self):
        """The items with their ids as text."""
        def text(ids):
            return bytes(ids).decode("utf-8")
        return [dict(i, context=text(i["context"]), choices=[text(c) for c in i["choices"]]) for i in self.read()["items"]]

    def test_subject_and_lengths(self):
        self.assertEqual(self.run_it([dict(GOOD, choices=["é", "ab"], subject="law")], "--tokenizer", "bytes", "--delimiter", " ")[0], 0)
        self.assertEqual(self.texts(), [{"context": "ab", "choices": [" é", " ab"], "answer": 1, "subject": "law",
                                         "characters": [1, 2], "bytes": [2, 2]}])

    def test_mmlu(self):
        """As lm-evaluation-harness 0.4.13 made of these questions."""
        def question(text, answer, subject="college_physics"):
            return {"question": text, "subject": subject, "choices": ["one", "two ", "3", "4"], "answer": answer}

        def prompt(text, answer=""):
            return f"{text}\nA. one\nB. two \nC. 3\nD. 4\nAnswer:{answer}"
        about = "The following are multiple choice questions (with answers) about college physics.\n\n"
        lines = [question(" Why? ", 2), question("What?", 0)]
        self.assertEqual(self.run_it(lines, "--tokenizer", "bytes", "--style", "mmlu")[0], 0)
        rest = {"choices": [" A", " B", " C", " D"], "subject": "college_physics", "characters": [1] * 4, "bytes": [1] * 4}
        self.assertEqual(self.texts(), [{"context": about + prompt("Why?"), "answer": 2, **rest},
                                        {"context": about + prompt("What?"), "answer": 0, **rest}])
        with open(self.path("dev.jsonl"), "w", encoding="utf-8") as f:
            for of in (question("1", 0), question("x", 0, "law"), question(" 2", 3), question("y", 0, "law"), question("3", 1)):
                f.write(json.dumps(of) + "\n")
        few = ("--tokenizer", "bytes", "--style", "mmlu", "--examples", self.path("dev.jsonl"), "--shots")
        self.assertEqual(self.run_it(lines[:1], *few, "2")[0], 0)
        self.assertEqual(self.texts()[0]["context"], f"{about}{prompt('1', ' A')}\n\n{prompt('2', ' D')}\n\n{prompt('Why?')}")
        for question_, shots, word in ((lines[0], "3", "has 2 questions of the subject law, --shots is 3"),
                                       (question("z", 0, "art"), "2", "no questions of the subject art"),
                                       (dict(lines[0], choices=["a", "b"]), "2", "give 4 choices"),
                                       (dict(lines[0], subject=None), "2", "subject is None: give a text")):
            status, said = self.run_it([question_], *few, shots)
            self.assertEqual((status, said.count("\n"), word in said), (3, 1, True), said)
        for args in (("--style", "arc", "--shots", "1"), ("--style", "mmlu", "--shots", "1")):
            with self.assertRaises(SystemExit) as e:
                self.run_it(lines, "--tokenizer", "bytes", *args)
            self.assertEqual(e.exception.code, 2)

    def test_hellaswag(self):
        line = {"activity_label": "Baking a cake", "ctx_a": "[header] How to bake [title] Mix flour.", "ctx_b": "then the MAN",
                "endings": [" eats [step] it.", "bakes  [substeps] it.", "x", "y"], "label": "1"}
        self.assertEqual(self.run_it([line, dict(line, ctx_b="", label=3)], "--tokenizer", "bytes", "--style", "hellaswag")[0], 0)
        rest = {"choices": [" eats it.", " bakes  it.", " x", " y"], "characters": [8, 10, 1, 1], "bytes": [8, 10, 1, 1]}
        self.assertEqual(self.texts(), [
            {"context": "Baking a cake: How to bake. Mix flour. Then the man", "answer": 1, **rest},
            {"context": "Baking a cake: How to bake. Mix flour.", "answer": 3, **rest}])
        status, said = self.run_it([dict(line, endings="a")], "--tokenizer", "bytes", "--style", "hellaswag")
        self.assertEqual((status, "endings is 'a': give a list of texts" in said), (3, True), said)

    def test_arc(self):
        line = {"question": "Why? ", "choices": {"text": ["so", "no", "go"], "label": ["A", "B", "C"]}, "answerKey": "C"}
        numbers = dict(line, choices={"text": ["so", "no", "go"], "label": ["1", "2", "3"]}, answerKey="1")
        self.assertEqual(self.run_it([line, numbers], "--tokenizer", "bytes", "--style", "arc")[0], 0)
        rest = {"context": "Question: Why? \nAnswer:", "choices": [" so", " no", " go"], "characters": [2] * 3, "bytes": [2] * 3}
        self.assertEqual(self.texts(), [{"answer": 2, **rest}, {"answer": 0, **rest}])
        for bad, word in ((dict(line, answerKey="D"), "answerKey is 'D': give one of A, B, C"),
                          (dict(line, choices=["a"]), "choices is ['a']: give an object")):
            status, said = self.run_it([bad], "--tokenizer", "bytes", "--style", "arc")
            self.assertEqual((status, word in said), (3, True), said)

    def test_refusals(self):
        for line, word in (("{", "in.jsonl:2: is no JSON"), ("[]", "is no object"), (dict(GOOD, context=3), "context is 3"),
                           (dict(GOOD, choices=["a"]), "list of 2 to 26"), (dict(GOOD, choices=["a"] * 27), "list of 2 to 26"),
                           (dict(GOOD, choices=["a", 1]), "list of 2 to 26"), (dict(GOOD, answer=2), "answer is 2"),
                           (dict(GOOD, answer=True), "answer is True"),
                           (dict(GOOD, subject=["a"]), "subject is ['a']"), (dict(GOOD, subject="a" * 64), "at most 63 bytes"), (dict(GOOD, context=""), "gives no tokens"),
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
