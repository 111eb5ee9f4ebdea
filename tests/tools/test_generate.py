# SPDX-License-Identifier: Apache-2.0
"""generate.py: what it asks of blockq, and how it prints the answer."""
import contextlib
import io
import os
import stat
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tools"))
try:
    import numpy  # noqa: F401
except ImportError as e:
    print(f"test_generate: skipped: {e.name} is missing: pip install numpy", file=sys.stderr)
    raise unittest.SkipTest(f"{e.name} is missing") from None
import generate


class Generate(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.program = os.path.join(folder.name, "blockq")

    def run_it(self, script, *args):
        with open(self.program, "w", encoding="ascii") as f:
            f.write(f"#!/bin/sh\n{script}\n")
        os.chmod(self.program, stat.S_IRWXU)
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            status = generate.main(["demo.run", *args[:1], "--tokenizer", "bytes", "--blockq", self.program, *args[1:]])
        return status, said.getvalue()

    def test_text_of_both_weights(self):
        status, said = self.run_it('echo "fp 0: 99,10"; echo "gptq_act 0: 195,169"', "ab", "-n", "2")
        self.assertEqual((status, said), (0, "fp: 'abc\\n'\ngptq_act: 'abé'\n"))

    def test_command(self):
        log = self.program + ".log"
        status, _ = self.run_it(f'echo "$@" >{log}', "é", "--", "--seed", "3")
        with open(log, encoding="ascii") as f:
            self.assertEqual((status, f.read()), (0, "generate demo.run -n 32 --prompt-tokens 195,169 --seed 3\n"))

    def test_code_is_blockqs(self):
        self.assertEqual(self.run_it("exit 3", "ab")[0], 3)

    def test_nothing_to_continue(self):
        status, said = self.run_it("true", "")
        self.assertEqual((status, said), (3, "generate: '' gives no tokens: give a text, or --bos yes\n"))


if __name__ == "__main__":
    unittest.main()
