#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""table.py FILE: the lines that run.sh kept, as a table of medians.  Ratios are peer / blockq: above 1, blockq is faster."""
import json
import statistics
import sys


def median(lines, key):
    values = [x[key] for x in lines if x.get(key) is not None]
    return statistics.median(values) if values else None


def shown(value, form="{:.2f}"):
    return "" if value is None else form.format(value)


def ratio(lines, key):
    """Median over rounds of peer / blockq, and the least and the most of them."""
    rounds = [p[key] / b[key] for b, p in zip(lines["blockq"], lines["peer"]) if p.get(key) and b.get(key)]
    return f"{statistics.median(rounds):.2f} ({min(rounds):.2f} to {max(rounds):.2f})" if rounds else ""


def main(path):
    pairs = {}
    with open(path) as f:
        for entry in map(json.loads, f):
            pairs.setdefault(entry["pair"], {"blockq": [], "peer": []})[entry["side"]].append(entry["line"])
    print("| pair | peer | group | rounds | s, blockq | s, peer | ratio | CPU s, blockq | CPU s, peer | s a step, blockq | peer | ratio "
          "| MB, blockq | MB, peer | perplexity, blockq | peer |")
    print("|" + "---|" * 16)
    for name, lines in pairs.items():
        b, p = lines["blockq"], lines["peer"]
        first = (p or b)[0]
        cells = [name, " ".join(str(first.get(k, "")) for k in ("peer", "version")) if p else "",
                 str(first["group"]) + ("" if first["symmetric"] else " asymmetric"), str(min(len(b), len(p))),
                 shown(median(b, "seconds")), shown(median(p, "seconds")), ratio(lines, "seconds"),
                 shown(median(b, "cpu_seconds")), shown(median(p, "cpu_seconds")),
                 shown(median(b, "step_seconds"), "{:.3f}"), shown(median(p, "step_seconds"), "{:.3f}"), ratio(lines, "step_seconds"),
                 shown(median(b, "peak_rss_mb"), "{:.0f}"), shown(median(p, "peak_rss_mb"), "{:.0f}"),
                 shown(median(b, "perplexity"), "{:.4f}"), shown(median(p, "perplexity"), "{:.4f}")]
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main(sys.argv[1])
