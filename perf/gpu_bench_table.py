#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""gpu_bench.sh's results as a page of Markdown: gpu_bench_table.py DIR.  With --counters NCU.csv instead, lines for results.tsv."""
import csv
import glob
import os
import statistics
import sys
import time

GPTQ = ("load", "target", "passes", "advance", "save", "wall")
PLANNED = (("passes", "other passes", "passes"), ("stream", "quantized stream", "advance"), ("weights in", "targets", "load"),
           ("checkpoint", "checkpoints that are waited for", "save"))


def grid(head, rows):
    print("\n| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(str(x) for x in row) + " |")


def read(path):
    """part -> row -> column -> values, in the file's order."""
    found = {}
    with open(path) as f:
        for line in f:
            part, row, column, value = line.rstrip("\n").split("\t")
            found.setdefault(part, {}).setdefault(row, {}).setdefault(column, []).append(value)
    return found


def number(values, scale=1.0, form="{:.3g}"):
    return form.format(scale * statistics.median(map(float, values))) if values and all(values) else ""


def ops(folder):
    for path in sorted(glob.glob(os.path.join(folder, "ops_*.csv")), reverse=True):
        with open(path) as f:
            lines = f.read().splitlines()
        rows = [r for r in csv.reader(lines[2:]) if len(r) == 7]
        if not rows:
            continue
        print(f"\n**Ops** ({lines[0].lstrip('# ')}):")
        grid(("op", "shape", "ms", "TFLOP/s", "TB/s", "of a GEMM in f32", "of a copy"),
             [(op, shape, f"{1e3 * float(s):.3g}", f"{float(fl) / 1e3:.3g}", f"{float(by) / 1e3:.3g}", g, c) for op, shape, s, fl, by, g, c in rows])


def steps(found):
    rows = []
    for model, columns in found.items():
        for name, ours in columns.items():
            side, way = name.split(" ", 1)
            if side != "blockq":
                continue
            same = way if f"torch {way}" in columns else "f32"
            cells = [model, way, number(ours, 1e3)]
            for kind in ("", "+compile"):
                theirs = columns.get(f"torch {same}{kind}", [])
                pairs = [float(b) / float(a) for a, b in zip(ours, theirs)]
                cells += [number(theirs, 1e3) + (f" ({same})" if theirs and same != way else ""), number(pairs)]
            rows.append((*cells, len(ours)))
    print("\n**Steps of AdaScale**, `inputs: mix`, batch 1, one sample a step; medians, ratios are medians of rounds. bf16 of the loop is autocast:")
    grid(("block of", "arithmetic", "blockq, ms", "loop, ms", "loop over blockq", "compiled loop, ms", "compiled over blockq", "rounds"), rows)


def gptq(found):
    print("\n**GPTQ of a block**, seconds. blockq fits grids by the Gram matrix (its default), llm-compressor by "
          "min-max, which is less work; its seconds are without loading and writing:")
    grid(("run", "weights in", "targets", "passes", "quantized stream", "checkpoint", "sum of the block"),
         [(row, *(number(c.get(k)) for k in GPTQ)) for row, c in found.items()])


def plan(found):
    rows = []

    def line(what, columns, planned, measured):
        said = [columns.get(f"{rates} {planned}") for rates in ("published", "measured")]
        ratio = number([float(measured[0]) / float(said[0][0])]) if measured and measured[0] and said[0] and float(said[0][0]) > 0 else ""
        rows.append((what, *(number(x) for x in said), number(measured), ratio))

    for row, columns in found.get("plan", {}).items():
        name, kind, way, *samples = row.split()
        if kind == "adascale":
            values = found.get("steps", {}).get(name, {}).get(f"blockq {way}")
            line(f"{name}, a step of AdaScale, {way}", columns, "training", values and [str(statistics.median(map(float, values)))])
        elif kind == "gptq":
            measured = found.get("gptq", {}).get(f"{samples[0]} samples, {way}", {})
            for title, planned, column in PLANNED:
                line(f"{name}, GPTQ, {samples[0]} samples, {way}: {title}", columns, planned, measured.get(column))
    print("\n**Plan and measurement**, seconds of a block or a step; the ratio is measured over planned with published rates:")
    grid(("what", "planned, published rates", "planned, rates measured here", "measured", "ratio"), rows)


def plain(title, found):
    """A line a row, a column a column."""
    columns = list(dict.fromkeys(k for c in found.values() for k in c))
    print(f"\n**{title}**:")
    grid(("", *columns), [(row, *(", ".join(c.get(k, [])) for k in columns)) for row, c in found.items()])


def page(folder):
    found = read(os.path.join(folder, "results.tsv"))
    about = found.pop("about", {})
    print(f"## {about.get('device', {}).get('', ['unknown device'])[0]}, {time.strftime('%Y-%m-%d')}\n")
    print(f"{about.get('cores', {}).get('', ['?'])[0]} cores, commit {about.get('commit', {}).get('', ['?'])[0]}. "
          "Made by `perf/gpu_bench.sh`.")
    notes = [f"- {part}: {value}" for part, rows in [("about", about), *found.items()] for value in rows.pop("note", {}).get("", [])]
    if notes:
        print("\nNot done, or cut:\n\n" + "\n".join(notes))
    if found.get("check"):
        plain("Checks", found["check"])
    ops(folder)
    if found.get("nmse"):
        plain("NMSE of products against f64 on the host", found["nmse"])
    for part, show in (("steps", steps), ("gptq", gptq)):
        if found.get(part):
            show(found[part])
    if found.get("plan"):
        plan(found)
    for part, title in (("profile", "Counters of kernels"), ("sanitize", "compute-sanitizer"), ("build", "Build"), ("time", "Seconds of the parts")):
        if found.get(part):
            plain(title, found[part])


def counters(path):
    with open(path) as f:
        lines = f.read().splitlines()
    begin = next((i for i, line in enumerate(lines) if line.startswith('"ID"')), None)
    seen = set()
    for row in csv.DictReader(lines[begin:]) if begin is not None else ():
        name = row["Kernel Name"].split("(")[0]
        if not row["ID"] or name in seen: # the line of units has no number
            continue
        seen.add(name)
        for key, value in row.items():
            if "__" in key and value:
                print("profile", name, key, value.replace(",", ""), sep="\t")


if __name__ == "__main__":
    if sys.argv[1] == "--counters":
        counters(sys.argv[2])
    else:
        page(sys.argv[1])
