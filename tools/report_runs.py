# SPDX-License-Identifier: Apache-2.0
"""What tools/report.py reads: run directories, and tables of their run.csv."""
import collections
import csv
import json
import os
import re

PARTS = ["start", "reference", "phase", "join", "export", "eval"]
QUANTIZING = ("reference", "phase", "join")


class DataError(Exception):
    """A file cannot be used; the text names it."""


class Run:
    """Rows of one run.csv, and what lies beside it."""

    def __init__(self, name, rows, folder=None):
        self.name, self.folder = name, folder
        self.blocks = [r for r in rows if r["part"] == "block"]
        self.parts = [r for r in rows if r["part"] != "block"]
        self.ranks = 1 + max([int(r["rank"]) for r in rows], default=0)
        grid = self.parts[-1] if self.parts else {"stages": "?", "replicas": "?"}
        self.grid = f"{grid['stages']} × {grid['replicas']}"
        self.result = self.read_json("result.json")
        for key in ("evals", "text", "activations"):  # perplexities alone are drawn
            self.result.pop(key, None)
        self.moved = self.read_boundaries()

    def path(self, name):
        return os.path.join(self.folder, name) if self.folder else ""

    def read_json(self, name):
        try:
            with open(self.path(name)) as f:
                return json.load(f)
        except (OSError, ValueError):
            return {}

    def read_boundaries(self):
        """(sweep, block) -> relative movement, of the last attempt."""
        line = re.compile(r"sweep (\d+): the boundary before block (\d+) moved by ([0-9.e+-]+)")
        try:
            with open(self.path("run.log"), errors="replace") as f:
                return {(int(m[1]), int(m[2])): float(m[3]) for m in map(line.search, f) if m}
        except OSError:
            return {}

    def total(self, column, parts=PARTS):
        """rank -> sum over rows of these parts."""
        sums = collections.Counter()
        for r in self.parts:
            if r["part"] in parts:
                sums[int(r["rank"])] += float(r[column])
        return sums

    def seconds(self):
        """Of quantization: the slowest rank's."""
        return max(self.total("wall_s", QUANTIZING).values(), default=0)

    def stall(self):
        """Share of the reference that the slowest-fed rank waited for files; None without stages to feed."""
        if self.grid.startswith("1 "):
            return None
        wall, files = self.total("wall_s", ("reference",)), self.total("files_s", ("reference",))
        return max((files[r] / wall[r] for r in wall if wall[r] > 0), default=None)


def read_rows(path):
    try:
        with open(path, newline="") as f:
            rows = list(csv.DictReader(f))
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        raise DataError(f"{path}: {e}") from None
    if not rows:
        raise DataError(f"{path}: no rows")
    return rows


def read(paths):
    """(runs, rows of growth)"""
    runs, growth = [], []
    for path in paths:
        if os.path.isdir(path):
            rows = read_rows(os.path.join(path, "run.csv"))
            need(rows, "part", path)
            runs.append(Run(os.path.basename(os.path.normpath(path)), rows, path))
            continue
        rows = read_rows(path)
        if "axis" in rows[0]:
            growth += rows
            continue
        need(rows, "run", path)
        by = collections.defaultdict(list)
        for r in rows:
            by[r["run"]].append(r)
        runs += [Run(name, its) for name, its in by.items()]
    return runs, growth


def need(rows, column, path):
    if column not in rows[0] or "wall_s" not in rows[0]:
        raise DataError(f"{path}: no column '{column}': neither a run directory's, nor of scaling, nor of growth")
