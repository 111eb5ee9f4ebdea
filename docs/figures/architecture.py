#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Draws architecture.svg: ranks, files and streams of a run on 2 stages x 2 replicas.

Usage: architecture.py [--check]      --check: say whether the SVG beside this script is what the script makes
"""
import html
import pathlib
import sys

WIDTH, HEIGHT = 980, 962
FILE = pathlib.Path(__file__).with_suffix(".svg")
FP, QT, SUM, DATA, INK, GREY = "#0b5fa5", "#b3470b", "#1f7a3d", "#555555", "#1a1a1a", "#555555"
STAGE_X, STAGE_W = (118, 588), 374  # left edges of the two stages, and their width
RANK_Y, RANK_H = (312, 482), 112  # upper edges of the two rows of ranks, and their height
STAGE_Y, STAGE_END = 276, 608
FILES_Y = 652  # of checkpoints
out = []


def text(x, y, words, size=13, color=INK, anchor="start", weight="normal"):
    out.append(f'<text x="{x}" y="{y}" font-size="{size}" fill="{color}" text-anchor="{anchor}" '
               f'font-weight="{weight}">{html.escape(words)}</text>')


def box(x, y, w, h, fill="#ffffff", stroke=GREY, radius=6):
    out.append(f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="{radius}" fill="{fill}" stroke="{stroke}"/>')


def file(x, y, w, name, note, color=INK):
    """A sheet with a folded corner, its name, and a line about it."""
    h, fold = 46, 12
    out.append(f'<path d="M{x} {y}h{w - fold}l{fold} {fold}v{h - fold}h{-w}z" fill="#fff8dc" stroke="#8a7430"/>')
    out.append(f'<path d="M{x + w - fold} {y}v{fold}h{fold}" fill="none" stroke="#8a7430"/>')
    text(x + 10, y + 19, name, 13, color, weight="bold")
    text(x + 10, y + 37, note, 12, GREY)


def arrow(points, color, both=False, dash=""):
    path = "M" + "L".join(f"{x} {y}" for x, y in points)
    head = f'marker-end="url(#h{color[1:]})"' + (f' marker-start="url(#h{color[1:]})"' if both else "")
    dash = f' stroke-dasharray="{dash}"' if dash else ""
    out.append(f'<path d="{path}" fill="none" stroke="{color}" stroke-width="2"{dash} {head}/>')


def step(x, y, number):
    out.append(f'<circle cx="{x}" cy="{y}" r="10" fill="{INK}"/>')
    text(x, y + 4.5, str(number), 13, "#ffffff", "middle", "bold")


def rank(stage, replica):
    """A rank: its blocks, the FP stream above them, the quantized stream below them."""
    x, y, first = STAGE_X[stage] + 14, RANK_Y[replica], 16 * stage
    box(x, y, STAGE_W - 28, RANK_H, "#ffffff", INK)
    text(x + 10, y + 19, f"rank {2 * stage + replica}", 14, weight="bold")
    text(x + STAGE_W - 38, y + 19, "FP stream: original weights", 12, FP, "end")
    for i, name in enumerate((first, first + 1, first + 2, "…", first + 15)):
        if name != "…":
            box(x + 22 + 62 * i, y + 43, 50, 28, "#e8eef4", GREY, 3)
        text(x + 47 + 62 * i, y + 62, str(name), 13, anchor="middle")
    arrow([(x + 8, y + 34), (x + STAGE_W - 36, y + 34)], FP)
    arrow([(x + 12, y + 35), (x + 12, y + 80), (x + STAGE_W - 36, y + 80)], QT)
    text(x + STAGE_W - 38, y + 101, "QT stream: quantized weights", 12, QT, "end")


def stage(number):
    x = STAGE_X[number]
    box(x, STAGE_Y, STAGE_W, STAGE_END - STAGE_Y, "#f0f0ee", GREY, 8)
    text(x + 14, STAGE_Y + 23, f"stage {number}: blocks {16 * number} to {16 * number + 15} "
         f"(segment {number})", 14, weight="bold")
    rank(number, 0)
    rank(number, 1)
    low, high = RANK_Y[0] + RANK_H, RANK_Y[1]
    arrow([(x + 60, low + 5), (x + 60, high - 5)], SUM, both=True)
    step(x + 84, (low + high) / 2, 4)
    text(x + 102, (low + high) / 2 - 4, "sums over the samples: gradients,", 13, SUM)
    text(x + 102, (low + high) / 2 + 13, "Gram matrices; new weights back", 13, SUM)


def inputs():
    file(STAGE_X[0], 82, 250, "tokens.h5", "token ids of the calibration samples")
    file(430, 82, 300, "model: *.safetensors, config.json", "each rank reads the blocks of its stage")
    text(24, 176, "acts/", 13, weight="bold")
    file(STAGE_X[0], 182, 220, "fp_000.h5", "FP stream before block 0", FP)
    file(STAGE_X[1] + STAGE_W - 220, 182, 220, "fp_016.h5", "FP stream before block 16", FP)
    arrow([(170, 128), (170, 178)], DATA)
    step(194, 154, 1)
    text(212, 159, "embedding", 13, GREY)
    arrow([(150, 228), (150, STAGE_Y - 4)], FP)
    arrow([(900, 232), (900, STAGE_Y - 4)], FP, both=True)
    text(890, 258, "written in 2, read in 3", 13, FP, "end")
    arrow([(460, 128), (460, STAGE_Y - 4)], DATA)
    arrow([(640, 128), (640, STAGE_Y - 4)], DATA)
    text(550, 172, "weights, one block", 13, GREY, "middle")
    text(550, 190, "at a time", 13, GREY, "middle")


def between():
    """What goes from stage to stage."""
    for y in RANK_Y:
        arrow([(STAGE_X[0] + STAGE_W - 12, y + 34), (STAGE_X[1] + 11, y + 34)], FP)
        text(540, y + 26, "micro-", 13, FP, "middle")
        text(540, y + 52, "batches", 13, FP, "middle")
    step(540, RANK_Y[0] - 8, 2)


def results():
    text(24, FILES_Y + 28, "ckpt/", 13, weight="bold")
    file(STAGE_X[0], FILES_Y, 226, "block_000.p0.s0.h5 …", "one a block, rank 0 writes")
    file(STAGE_X[1] + STAGE_W - 226, FILES_Y, 226, "block_016.p0.s0.h5 …", "one a block, rank 2 writes")
    file(404, FILES_Y, 272, "acts/qt_016.s0.h5", "QT stream, only with several sweeps", QT)
    for x in (STAGE_X[0] + 110, STAGE_X[1] + STAGE_W - 110):
        arrow([(x, STAGE_END), (x, FILES_Y - 4)], DATA)
        step(x - 24, STAGE_END + 22, 3)
        arrow([(x, FILES_Y + 46), (x, FILES_Y + 86)], DATA)
        step(x - 24, FILES_Y + 66, 5)
    arrow([(450, STAGE_END), (450, FILES_Y - 4)], QT)
    arrow([(630, FILES_Y), (630, STAGE_END + 4)], QT, dash="5 4")
    text(540, STAGE_END + 27, "for the next sweep", 13, QT, "middle")
    file(STAGE_X[0], FILES_Y + 90, STAGE_X[1] + STAGE_W - STAGE_X[0], "outputs: model directories",
         "safetensors shards, each rank writes a share of them; config.json comes last")


def legend():
    y = 824
    for line in ("1  The ranks of stage 0 embed their samples.",
                 "2  Reference: stage 0 runs the FP stream through its blocks and sends it: rank 0 to 2, rank 1 to 3.",
                 "3  Both stages work at once, block by block: FP outputs (targets), passes, checkpoint, QT stream.",
                 "   The QT stream of a segment starts from the FP stream, in later sweeps from acts/qt_016.",
                 "4  In 3, replicas exchange sums in every step.  Stages exchange neither activations nor weights.",
                 "5  Export, evaluation.  A killed run goes on from its files, on any grid, to the same bytes."):
        text(STAGE_X[0] + 24, y, line[3:], 13)
        if line[0] != " ":
            step(STAGE_X[0] + 4, y - 4.5, line[0])
        y += 22


def draw():
    out.append(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
               f'height="{HEIGHT}" font-family="DejaVu Sans, Verdana, Arial, sans-serif">')
    out.append("<title>Ranks, files and streams of a run on 2 stages x 2 replicas</title><defs>")
    for color in sorted({FP, QT, SUM, DATA}):
        out.append(f'<marker id="h{color[1:]}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="6" markerHeight="6" '
                   f'orient="auto-start-reverse"><path d="M0 0L10 5L0 10z" fill="{color}"/></marker>')
    out.append("</defs>")
    box(0.5, 0.5, WIDTH - 1, HEIGHT - 1, "#fcfcfa", "#bbbbbb", 10)  # opaque: the page behind it may be dark
    text(24, 34, "A run on four ranks: 2 stages x 2 replicas", 18, weight="bold")
    text(24, 58, "32 blocks, 128 samples, a recipe with two segments.  A stage owns blocks, a replica "
         "owns samples.", 13)
    inputs()
    stage(0)
    stage(1)
    for i, y in enumerate(RANK_Y):
        text(24, y + 40, f"replica {i}", 13, weight="bold")
        text(24, y + 60, "samples", 13)
        text(24, y + 78, ("0 to 63", "64 to 127")[i], 13)
    between()
    results()
    legend()
    out.append("</svg>")
    return "\n".join(out) + "\n"


if __name__ == "__main__":
    made = draw()
    if sys.argv[1:] == ["--check"]:
        same = FILE.is_file() and FILE.read_text(encoding="utf-8") == made
        print(f"{FILE.name} is {'' if same else 'not '}what {pathlib.Path(__file__).name} makes")
        sys.exit(0 if same else 1)
    if sys.argv[1:]:
        sys.exit(__doc__)
    FILE.write_text(made, encoding="utf-8")
