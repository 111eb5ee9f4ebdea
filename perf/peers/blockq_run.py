#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""blockq itself, with the peers' arguments and the peers' line of JSON.  Needs nothing but Python.

seconds: what run.csv says the blocks took (reading weights, targets, passes, advancing, checkpoints); process_seconds and
cpu_seconds: the whole process without evaluation.  The evaluation is a process of its own.
"""
import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
import time


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--blockq", default="build/src/blockq", help="the program")
    p.add_argument("--passes", help='JSON: the passes of the one phase, as in [{"pass": "gptq"}]; without it only evaluates')
    p.add_argument("--inputs", default="qt", help="of the phase")
    p.add_argument("--compute", default="f32", help="of the phase")
    for name in ("model", "tokens", "eval"):
        p.add_argument("--" + name)
    for name, value in (("samples", 32), ("length", 512), ("bits", 4), ("group", -1), ("ctx", 512), ("windows", 40),
                        ("threads", 1)):
        p.add_argument("--" + name, type=int, default=value)
    p.add_argument("--asymmetric", action="store_true")
    p.add_argument("--grid", choices=("aimet", "absmax"), default="aimet", help="of symmetric grids; absmax: the peers' max |w| / 7.5")
    return p.parse_args()


def call(*command):
    """(standard output, wall seconds, CPU seconds) of a child."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"failed: {' '.join(command)}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done.stdout, time.perf_counter() - start, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def peak_mb():
    """The most memory that any child has held so far, MB (10^6)."""
    return round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6)


def blocks(path):
    """(seconds of all blocks, those of the passes, steps) from run.csv."""
    with open(path, newline="") as f:
        rows = [r for r in csv.DictReader(f) if r["part"] == "block"]
    total = sum(float(r[k]) for r in rows for k in ("load_s", "target_s", "passes_s", "advance_s", "save_s"))
    return total, sum(float(r["passes_s"]) for r in rows), sum(int(r["steps"]) for r in rows)


def quantize(a, folder, line):
    recipe = {"model": os.path.abspath(a.model),
              "calibration": {"tokens": os.path.abspath(a.tokens), "samples": a.samples, "length": a.length},
              "bits": {"decoder": {"bits": a.bits, "group": a.group, "symmetric": not a.asymmetric, "grid": a.grid}},
              "phases": [{"name": "result", "inputs": a.inputs, "compute": a.compute, "passes": json.loads(a.passes)}]}
    path, run = os.path.join(folder, "recipe.json"), os.path.join(folder, "run")
    with open(path, "w") as f:
        json.dump(recipe, f)
    _, wall, cpu = call(a.blockq, "run", path, "-o", run, "--threads", str(a.threads), "--no-eval")
    total, passes, steps = blocks(os.path.join(run, "run.csv"))
    line.update(passes=recipe["phases"][0]["passes"], inputs=a.inputs, seconds=round(total, 2), process_seconds=round(wall, 2),
                cpu_seconds=round(cpu, 2))
    if steps:
        line.update(steps=steps, step_seconds=passes / steps)
    return ["--run", run]


def main():
    a = arguments()
    with tempfile.TemporaryDirectory() as folder:
        line = {"peer": "blockq", "bits": a.bits, "group": a.group, "symmetric": not a.asymmetric, "grid": a.grid, "compute": a.compute, "samples": a.samples,
                "length": a.length, "threads": a.threads}
        source = quantize(a, folder, line) if a.passes else ["--model", a.model]
        line["peak_rss_mb"] = peak_mb()
        if a.eval:
            out, wall, cpu = call(a.blockq, "eval", *source, "--tokens", a.eval, "--ctx", str(a.ctx), "--windows", str(a.windows),
                                  "--threads", str(a.threads))
            values = [w.split("=") for w in out.split() if "=" in w]
            values = [v for k, v in values if k not in ("out", "windows", "ctx")]  # original, round to nearest, result
            line.update(ctx=a.ctx, windows=a.windows, perplexity=float(values[-1]))
            if not a.passes:
                line.update(seconds=round(wall, 2), cpu_seconds=round(cpu, 2), peak_rss_mb=peak_mb())
    print(json.dumps(line))


if __name__ == "__main__":
    main()
