#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A report of runs as one HTML file with all figures in it.

    report.py demo.run -o report.html                  # one run: time, memory, losses, perplexities
    report.py one.run two.run four.run                 # several: efficiency over ranks, too
    report.py runs.csv                                 # run.csv of several runs, with a first column "run"
    report.py growth.csv                               # what perf/growth.sh wrote: time over the size of the problem

Arguments may be mixed. Of a run directory run.csv, run.log, result.json and, where h5py is there, the checkpoints are
read; what is absent is left out. Needs matplotlib.
"""
import argparse
import base64
import collections
import glob
import html
import io
import os
import sys

from report_axes import axes, matplotlib, np, plain_log, plt
from report_runs import PARTS, QUANTIZING, DataError, read  # noqa: E402

PART_COLORS = dict(zip(PARTS, ["#bbbbbb", "#ccbb44", "#4477aa", "#ee6677", "#aa3377", "#66ccee"]))
USES = [("compute_s", "computing", "#4477aa"), ("peers_s", "waiting for ranks", "#ee6677"), ("files_s", "files", "#ccbb44")]
BLOCK_PARTS = [("passes_s", "passes", "#4477aa"), ("target_s", "FP32 targets", "#66ccee"),
               ("advance_s", "quantized stream", "#228833"), ("load_s", "reading weights", "#ccbb44"),
               ("save_s", "checkpoint", "#aa3377")]
EXPECTED = {"tokens": "1: linears; towards 2 where attention's squares count", "hidden": "2: weights are a square; less while fixed costs count",
            "depth": "1: blocks follow each other", "samples": "1", "ranks": "-1: perfect sharing"}


# ---- figures: each takes runs, or rows of growth, and returns a figure, or None where there is nothing to show ----

def labels(runs, ranks):
    """A row a run and rank."""
    return [f"{run.name} r{rank}" if len(runs) > 1 else f"rank {rank}" for run, rank in ranks]


def pairs(runs, most=64):
    return [(run, rank) for run in runs for rank in range(run.ranks)][:most]


def bars(runs, columns, ylabel):
    """Horizontal bars, a rank each, stacked from (value(run, rank), label, color)."""
    ranks = pairs(runs)
    figure, (ax,) = axes(height=1.1 + 0.28 * len(ranks))
    at, left = np.arange(len(ranks)), np.zeros(len(ranks))
    for value, label, color in columns:
        width = np.array([value(run, rank) for run, rank in ranks])
        if width.any():
            ax.barh(at, width, left=left, color=color, label=label, height=0.72)
        left += width
    if not left.any():
        plt.close(figure)
        return None
    ax.set_yticks(at, labels(runs, ranks))
    ax.invert_yaxis()
    ax.set_xlabel(ylabel)
    ax.legend(ncols=6, loc="lower left", bbox_to_anchor=(0, 1), frameon=False)
    return figure


def time_by_part(runs):
    sums = {(id(run), p): run.total("wall_s", (p,)) for run in runs for p in PARTS}
    return bars(runs, [(lambda run, rank, p=p: sums[id(run), p][rank], p, PART_COLORS[p]) for p in PARTS], "seconds")


def time_by_use(runs):
    sums = {(id(run), c): run.total(c, QUANTIZING) for run in runs for c, _, _ in USES}
    return bars(runs, [(lambda run, rank, c=c: sums[id(run), c][rank], label, color) for c, label, color in USES],
                "seconds of reference, phases and joins")


def efficiency(runs):
    points = sorted((run.ranks, run.seconds()) for run in runs if run.seconds() > 0)
    if len({n for n, _ in points}) < 2:
        return None
    n, s = np.array(points, float).T
    base = n[0] * np.median(s[n == n[0]])
    figure, (a, b) = axes(2)
    a.plot(n, base / n, "--", color="#999999", label="perfect sharing")
    a.plot(n, s, "o", color="#4477aa", label="measured")
    a.set_xscale("log", base=2)
    plain_log(a)
    a.set_ylabel("seconds of quantization"), a.legend(frameon=False)
    b.axhline(100, ls="--", color="#999999")
    b.plot(n, 100 * base / s / n, "o-", color="#4477aa")
    b.set_xscale("log", base=2), b.set_ylim(0, None)
    b.set_xlabel("ranks"), b.set_ylabel(f"efficiency, % of {n[0]:.0f} rank{'s' if n[0] > 1 else ''}")
    for ax in (a, b):
        ax.set_xticks(sorted(set(n)), [f"{x:.0f}" for x in sorted(set(n))])
        ax.minorticks_off()
    return figure


def stalls(runs):
    ranks = pairs(runs)
    figure, (ax,) = axes(height=1.1 + 0.28 * len(ranks))
    at, shown = np.arange(len(ranks)), [p for p in ("reference", "phase") if any(run.total("wall_s", (p,)) for run in runs)]
    for k, part in enumerate(shown):
        share = []
        for run, rank in ranks:
            wall = run.total("wall_s", (part,))[rank]
            wall = 0 if part == "reference" and run.stall() is None else wall
            share.append(100 * run.total("files_s", (part,))[rank] / wall if wall else 0)
        ax.barh(at + (k - 0.5) * 0.36, share, height=0.34, color=PART_COLORS[part], label=part)
    if not shown:
        plt.close(figure)
        return None
    ax.axvline(2, ls="--", color="#999999", lw=1)
    ax.set_yticks(at, labels(runs, ranks))
    ax.invert_yaxis()
    ax.set_xlabel("% of the part's time in reads, writes and waits for them (dashed: 2 %)")
    ax.legend(ncols=2, loc="lower left", bbox_to_anchor=(0, 1), frameon=False)
    return figure


def memory(runs):
    ranks, peak, plan = pairs(runs), [], []
    for run, rank in ranks:
        rows = [r for r in run.parts + run.blocks if int(r["rank"]) == rank]
        peak.append(max([float(r["peak_bytes"]) for r in rows], default=0) / 1e6)
        plan.append(max([float(r["planned_bytes"]) for r in rows], default=0) / 1e6)
    if not any(peak):
        return None
    figure, (ax,) = axes(height=1.1 + 0.28 * len(ranks))
    at = np.arange(len(ranks))
    ax.barh(at, plan, height=0.72, color="#dddddd", label="planned")
    ax.barh(at, peak, height=0.4, color="#4477aa", label="peak, resident")
    ax.set_yticks(at, labels(runs, ranks))
    ax.invert_yaxis()
    ax.set_xlabel("MB")
    ax.legend(ncols=2, loc="lower left", bbox_to_anchor=(0, 1), frameon=False)
    return figure


def last_attempt(run):
    """Rows of blocks, one a (sweep, phase, block)."""
    return list({(int(r["sweep"]), int(r["phase"]), int(r["block"])): r for r in run.blocks}.items())


def block_time(runs):
    shown = [run for run in runs if run.blocks][:4]
    if not shown:
        return None
    figure, ax = axes(len(shown), 2.6)
    for a, run in zip(ax, shown):
        rows = sorted(last_attempt(run))
        at, bottom = np.arange(len(rows)), np.zeros(len(rows))
        for column, label, color in BLOCK_PARTS:
            height = np.array([float(r[column]) for _, r in rows])
            a.bar(at, height, bottom=bottom, color=color, label=label, width=0.8)
            bottom += height
        step = max(1, len(rows) // 16)
        a.set_xticks(at[::step], [f"{key[2] + 1}" for key, _ in rows][::step])
        a.set_ylabel("seconds"), a.set_title(run.name, loc="left", fontsize=10)
    ax[-1].set_xlabel("block (sweeps and phases behind each other)")
    ax[0].legend(ncols=5, loc="lower left", bbox_to_anchor=(0, 1.08), frameon=False)
    return figure


def losses(runs):
    shown = [(run, [(k, r) for k, r in sorted(last_attempt(run)) if int(r["steps"])]) for run in runs]
    shown = [(run, rows) for run, rows in shown if rows]
    if not shown:
        return None
    figure, (ax,) = axes(height=3.6)
    for i, (run, rows) in enumerate(shown[:6]):
        key = max(k[:2] for k, _ in rows)  # the last sweep and phase that trains
        its = [(k[2] + 1, float(r["loss_first"]), float(r["loss_last"])) for k, r in rows if k[:2] == key]
        x, first, last = np.array(its).T
        color = f"C{i}"
        ax.plot(x, first, "o:", color=color, ms=4, mfc="white", label=f"{run.name}: first round")
        ax.plot(x, last, "o-", color=color, ms=4, label=f"{run.name}: last round")
    plain_log(ax)
    ax.set_xlabel("block"), ax.set_ylabel("loss")
    ax.legend(ncols=2, frameon=False)
    return figure


def curves(runs):
    """Every block's training losses from the checkpoints of the first run that has them."""
    try:
        import h5py
    except ImportError:
        return None
    for run in runs:
        found = []
        for path in sorted(glob.glob(run.path("ckpt/block_*[0-9].h5"))) if run.folder else []:
            if ".e" in os.path.basename(path):
                continue  # of an expert
            with h5py.File(path) as f:
                if "loss" in f:
                    found.append((int(f.attrs["block"]), f["loss"][:]))
        if not found:
            continue
        figure, (ax,) = axes(height=3.6)
        colors = plt.get_cmap("viridis")
        most = max(b for b, _ in found) or 1
        for block, loss in found:
            width = max(1, len(loss) // 64)
            smooth = np.convolve(loss, np.ones(width) / width, "valid")
            ax.plot(np.arange(len(smooth)) + width, smooth / max(smooth[0], 1e-30), color=colors(block / most), lw=1)
        ax.set_yscale("log")
        ax.set_xlabel("step"), ax.set_ylabel("loss, of the first (smoothed)")
        bar = figure.colorbar(plt.cm.ScalarMappable(plt.Normalize(1, most + 1), colors), ax=ax)
        bar.set_label("block")
        return figure
    return None


def experts(runs):
    """How many tokens the experts of each block get, in the last phase of a sweep that reads samples."""
    shown = [run for run in runs if any(r.get("tokens_most") for r in run.blocks)][:4]
    if not shown:
        return None
    figure, ax = axes(len(shown), 2.6)
    for a, run in zip(ax, shown):
        of = {int(r["block"]): r for _, r in sorted(last_attempt(run)) if r.get("tokens_most")}
        at = np.array(sorted(of))
        least, middle, most, starved = (np.array([float(of[b][k]) for b in at]) for k in
                                        ("tokens_least", "tokens_median", "tokens_most", "starved"))
        a.bar(at + 1, most - least, bottom=least, width=0.5, color="#88aacc", label="from the least to the most")
        a.plot(at + 1, middle, "_", color="#222222", ms=12, label="median")
        for b, y, n in zip(at, most, starved):
            a.annotate(f"{n:.0f}" if n else "", (b + 1, y), ha="center", va="bottom", color="#cc3311")
        a.set_ylabel("tokens of an expert"), a.set_title(run.name, loc="left", fontsize=10)
    ax[-1].set_xlabel("block; in red how many experts have too few")
    ax[0].legend(ncols=2, loc="lower left", bbox_to_anchor=(0, 1.08), frameon=False)
    return figure


def boundaries(runs):
    shown = [run for run in runs if run.moved]
    if not shown:
        return None
    figure, (ax,) = axes()
    for run in shown[:4]:
        for block in sorted({b for _, b in run.moved}):
            its = sorted((s, m) for (s, b), m in run.moved.items() if b == block)
            name = f"{run.name}: " if len(shown) > 1 else ""
            ax.plot([s for s, _ in its], [max(m, 1e-12) for _, m in its], "o-", label=f"{name}before block {block}")
    ax.set_yscale("log")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set_xlabel("sweep"), ax.set_ylabel("relative movement (L2)")
    ax.legend(ncols=3, frameon=False, fontsize=8)
    return figure


def perplexities(runs):
    shown = [run for run in runs if "fp" in run.result]
    if not shown:
        return None
    bars_of = [(run.name, k, run.result[k]) for run in shown for k in run.result if k not in ("ctx", "windows", "offset")]
    figure, (ax,) = axes(height=1 + 0.34 * len(bars_of))
    at, colors = np.arange(len(bars_of)), {"fp": "#bbbbbb", "rtn": "#ee6677"}
    values = [v for _, _, v in bars_of]
    ax.barh(at, values, color=[colors.get(k, "#4477aa") for _, k, _ in bars_of], height=0.72)
    for y, v in zip(at, values):
        ax.text(v, y, f" {v:.4g}", va="center", fontsize=9)
    ax.set_yticks(at, [f"{name}: {k}" if len(shown) > 1 else k for name, k, _ in bars_of])
    ax.invert_yaxis()
    ax.set_xlim(0, 1.12 * max(values))
    ax.set_xlabel(f"perplexity over windows of {shown[0].result['ctx']} tokens (fp: original, rtn: round to nearest)")
    return figure


def slope(points):
    """Of a line through logarithms."""
    x, y = np.log(np.array(points, float).T)
    return np.polyfit(x, y, 1)[0]


def by_axis(growth):
    axis = collections.defaultdict(list)
    for r in growth:
        axis[r["axis"]].append((float(r["value"]), float(r["seconds"])))
    return {name: sorted(points) for name, points in axis.items() if len({x for x, _ in points}) > 1}


def growth_plot(growth):
    found = by_axis(growth)
    if not found:
        return None
    columns = 2 if len(found) > 1 else 1
    rows = -(-len(found) // columns)
    figure, ax = plt.subplots(rows, columns, figsize=(9, 2.9 * rows), squeeze=False, layout="constrained")
    for a, (name, points) in zip(ax.flat, found.items()):
        x, y = np.array(points).T
        k = slope(points)
        a.plot(x, y, "o", color="#4477aa")
        middle = np.exp(np.mean(np.log(y)) - k * np.mean(np.log(x)))
        a.plot(x, middle * x ** k, "--", color="#999999", label=f"slope {k:.2f}")
        a.set_xscale("log", base=2)
        plain_log(a)
        a.set_xticks(sorted(set(x)), [f"{v:g}" for v in sorted(set(x))])
        a.minorticks_off()
        a.set_xlabel(name), a.set_ylabel("seconds")
        a.grid(True, color="#e5e5e5", linewidth=0.6), a.spines[["top", "right"]].set_visible(False)
        a.legend(frameon=False)
    for a in ax.flat[len(found):]:
        a.set_visible(False)
    return figure


FIGURES = [
    ("Time by part", time_by_part, "What each rank did from start to end. Reference: the original model's stream through the stages; join: waiting for "
     "the other stages at a sweep's end."),
    ("Where the time went", time_by_use, "Reference, phases and joins alone. Waiting for ranks includes the transfers themselves; files are reads, writes, "
     "syncs, and waits for the thread that reads ahead."),
    ("Efficiency over ranks", efficiency, "Seconds of reference, phases and joins of the slowest rank. Efficiency: how much of the ranks' time does the work of "
     "the smallest run."),
    ("Stalls", stalls, "Share of time in files. A reference that is bound by computing stays below 2 %."),
    ("Memory against plan", memory, "Most resident bytes of each rank, over what the plan had said it would hold."),
    ("Time of blocks", block_time, "What each block took, on replica 0 of its stage."),
    ("Loss of blocks", losses, "Mean over one round of the samples, at the beginning and at the end of training."),
    ("Training curves", curves, "From the checkpoints: each block's losses over its steps."),
    ("Tokens of experts", experts, "How many of the calibration tokens each expert of a block gets. Experts below experts.least are starved."),
    ("Movement of boundaries", boundaries, "How far the quantized stream before a segment moved from one sweep to the next; sweep 0 from the original's."),
    ("Perplexity", perplexities, "Lower is better."),
]

STYLE = """body{font:15px/1.5 system-ui,sans-serif;color:#222;background:#fff;max-width:60rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem;margin:0 0 .2rem}h2{font-size:1.15rem;margin:2.2rem 0 .2rem}p{margin:.2rem 0 .6rem;color:#555}
img{max-width:100%;height:auto}figure{margin:0}table{border-collapse:collapse;margin:1rem 0;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .8rem;border-bottom:1px solid #ddd;text-align:right}th:first-child,td:first-child{text-align:left}th{font-weight:600}
@media print{body{margin:0;max-width:none;font-size:11pt}section{break-inside:avoid}}"""


def table(head, rows):
    cells = "".join("<tr>" + "".join(f"<td>{html.escape(str(c))}</td>" for c in row) + "</tr>" for row in rows)
    return "<table><thead><tr>" + "".join(f"<th>{html.escape(h)}</th>" for h in head) + f"</tr></thead><tbody>{cells}</tbody></table>"


def summary(runs):
    rows = []
    for run in runs:
        peak = max([float(r["peak_bytes"]) for r in run.parts + run.blocks], default=0)
        plan = max([float(r["planned_bytes"]) for r in run.parts + run.blocks], default=0)
        stall = run.stall()
        quality = " → ".join(f"{run.result[k]:.4g}" for k in run.result if k not in ("ctx", "windows", "offset"))
        rows.append([run.name, run.ranks, run.grid, f"{run.seconds():.1f}", f"{peak / 1e6:.0f} / {plan / 1e6:.0f}",
                     "–" if stall is None else f"{100 * stall:.1f} %", quality or "–"])
    return table(["run", "ranks", "stages × replicas", "quantization, s", "peak / plan, MB", "reference stalls",
                  "perplexity: fp → rtn → result"], rows)


def section(title, words, figure):
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=144)
    plt.close(figure)
    data = base64.b64encode(out.getvalue()).decode()
    return (f'<section><h2>{title}</h2><p>{words}</p><figure><img alt="{title}" src="data:image/png;base64,{data}"></figure>'
            "</section>")


def page(runs, growth):
    body = [summary(runs)] if runs else []
    for title, draw, words in FIGURES:
        figure = draw(runs) if runs else None
        if figure:
            body.append(section(title, words, figure))
    figure = growth_plot(growth)
    if figure:
        rows = [[name, f"{slope(points):.2f}", EXPECTED.get(name, "")] for name, points in by_axis(growth).items()]
        body.append(section("Growth", "Seconds over one size at a time, the others fixed; the slope of a line through the logarithms is the power.", figure))
        body.append(table(["size", "slope", "expected"], rows))
    if not body:
        raise DataError("nothing to show")
    names = html.escape(", ".join(run.name for run in runs) or "growth")
    return (f'<!doctype html><html lang="en"><meta charset="utf-8"><title>blockq: {names}</title><style>{STYLE}</style>'
            f"<h1>blockq</h1><p>{names}</p>" + "".join(body) + "</html>\n")


def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("path", nargs="+", metavar="RUN_DIR|CSV", help="run directories, scaling.csv, growth.csv")
    p.add_argument("-o", "--out", default="report.html", help="file to write (report.html)")
    a = p.parse_args(argv)
    plt.rcParams.update({"font.size": 9, "figure.facecolor": "white"})
    try:
        text = page(*read(a.path))
        with open(a.out, "w", encoding="utf-8") as f:
            f.write(text)
    except (DataError, OSError, KeyError, ValueError) as e:
        print(f"report: {e if not isinstance(e, KeyError) else f'a column is missing: {e}'}", file=sys.stderr)
        return 3
    print(f"report: {a.out}, {text.count('<img ')} figures")
    return 0


if __name__ == "__main__":
    sys.exit(main())
