# SPDX-License-Identifier: Apache-2.0
"""report.py: all figures are there, nothing comes from outside the file, names are escaped, bad input is one line."""
import contextlib
import io
import json
import os
import re
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tools"))
try:
    import matplotlib  # noqa: F401
except ImportError:
    print("test_report: skipped: matplotlib is missing: apt-get install python3-matplotlib", file=sys.stderr)
    raise unittest.SkipTest("matplotlib is missing") from None
try:
    import h5py
except ImportError:
    h5py = None
import report

HEAD = ("sweep,phase,block,stage,steps,loss_first,loss_last,load_s,target_s,passes_s,advance_s,save_s,peak_bytes,arena_bytes,part,rank,"
        "stages,replicas,wall_s,compute_s,peers_s,files_s,sent_bytes,received_bytes,read_bytes,written_bytes,planned_bytes,"
        "tokens_least,tokens_median,tokens_most,starved")


def rows_of(ranks, scale=1.0):
    """What a run of three blocks on so many ranks may have written."""
    rows = []
    for rank in range(ranks):
        for part, wall, peers, files in (("start", 1, 0, .1), ("reference", 4, 1, .05), ("phase", 20, 2, .5), ("join", 1, 1, 0),
                                         ("export", .5, 0, .4), ("eval", 3, .1, .1)):
            wall *= scale / ranks
            peers, files = peers * scale / ranks, files * scale / ranks
            rows.append(f"0,0,,{rank},,,,,,,,,{9e7:.0f},{5e7:.0f},{part},{rank},{ranks},1,{wall:.4f},{wall - peers - files:.4f},"
                        f"{peers:.4f},{files:.4f},100,100,1000,1000,{1e8:.0f},,,,")
    for block in range(3):
        rows.append(f"0,0,{block},0,8,{.5 + block},{.2 + block},.1,.5,5,.4,.2,{9e7:.0f},{5e7:.0f},block,0,{ranks},1,6.2,,,,,,,,{1e8:.0f},{block},30,400,{block}")
    return rows


class Report(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def path(self, *name):
        return os.path.join(self.folder, *name)

    def write(self, name, text):
        os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
        with open(self.path(name), "w") as f:
            f.write(text)
        return self.path(name)

    def run_dir(self, name, ranks):
        self.write(f"{name}/run.csv", "\n".join([HEAD, *rows_of(ranks)]) + "\n")
        self.write(f"{name}/run.log", "bq: sweep 0: the boundary before block 2 moved by 0.031\n"
                   "bq: r1 sweep 1: the boundary before block 2 moved by 4.1e-05\nnoise\n")
        self.write(f"{name}/result.json", json.dumps({"ctx": 32, "windows": 5, "offset": 0, "fp": 10.5, "rtn": 14.0, "adascale": 11.25,
                                                        "evals": [{"eval": "choice", "fp": 0.5}]}))
        if h5py:
            os.makedirs(self.path(name, "ckpt"))
            for block in range(3):
                with h5py.File(self.path(name, "ckpt", f"block_{block:03d}.p0.s0.h5"), "w") as f:
                    f.attrs["block"] = block
                    f["loss"] = [1.0 / (1 + k) for k in range(200)]
        return self.path(name)

    def make(self, *args):
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            status = report.main([*args, "-o", self.path("r.html")])
        if status:
            return status, said.getvalue()
        with open(self.path("r.html")) as f:
            return status, f.read()

    def alone(self, text):
        """Everything is in the file: data URIs alone, no script."""
        text = text.lower()
        for found in re.findall(r'(?:src|href|url|action)\s*[=(]\s*["\']?([^"\'>\s]*)', text):
            self.assertTrue(found.startswith("data:image/png;base64,"), found[:80])
        for tag in ("<script", "<link", "<iframe", "@import", "http:", "https:", "//"):
            self.assertNotIn(tag, re.sub(r"base64,[^\"]*", "", text))

    def titles(self, text):
        return re.findall(r'<img alt="([^"]*)"', text)

    def test_all_figures(self):
        growth = self.write("growth.csv", "axis,value,seconds\n" + "".join(f"{a},{2 ** k},{2 ** (k * p)}\n" for a, p in
                                                                           (("tokens", 1), ("ranks", -1)) for k in range(3)))
        status, text = self.make(self.run_dir("one <b>&", 1), self.run_dir("two", 2), growth)
        self.assertEqual(status, 0, text)
        self.alone(text)
        want = [title for title, _, _ in report.FIGURES if h5py or title != "Training curves"] + ["Growth"]
        self.assertEqual(self.titles(text), want)
        self.assertNotIn("<b>", text)
        self.assertIn("one &lt;b&gt;&amp;", text)
        self.assertIn("<td>two</td><td>2</td><td>2 × 1</td><td>12.5</td><td>90 / 100</td><td>1.2 %</td><td>10.5 → 14 → 11.25</td>", text)
        self.assertIn("<td>tokens</td><td>1.00</td>", text)
        self.assertIn("<td>ranks</td><td>-1.00</td>", text)

    def test_scaling(self):
        lines = ["run," + HEAD] + [f"n{n}," + r for n in (1, 2, 4) for r in rows_of(n)]
        status, text = self.make(self.write("scaling.csv", "\n".join(lines) + "\n"))
        self.assertEqual(status, 0, text)
        self.alone(text)
        self.assertEqual(self.titles(text), ["Time by part", "Where the time went", "Efficiency over ranks", "Stalls",
                                             "Memory against plan", "Time of blocks", "Loss of blocks",
                                             "Tokens of experts"])

    def test_refused(self):
        for text in ("", "a,b\n1,2\n", HEAD + "\n", HEAD.replace("wall_s", "w") + "\n" + rows_of(1)[0] + "\n"):
            status, said = self.make(self.write("x.csv", text))
            self.assertEqual(status, 3)
            self.assertEqual(said.count("\n"), 1, said)
        status, said = self.make(self.path("absent"))
        self.assertEqual((status, said.count("\n")), (3, 1))


if __name__ == "__main__":
    unittest.main()
