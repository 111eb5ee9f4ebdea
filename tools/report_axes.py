# SPDX-License-Identifier: Apache-2.0
"""What all figures of tools/report.py share: axes. Needs matplotlib."""
import sys

try:
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np
except ImportError as e:
    print(f"report: the Python package {e.name} is missing: apt-get install python3-matplotlib", file=sys.stderr)
    sys.exit(3)


def plain_log(ax):
    """A logarithmic axis with numbers that can be read."""
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%.3g"))
    ax.yaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())


def axes(count=1, height=3.2, width=9):
    figure, ax = plt.subplots(count, 1, figsize=(width, height * count), squeeze=False, layout="constrained")
    for a in ax.flat:
        a.spines[["top", "right"]].set_visible(False)
        a.grid(True, color="#e5e5e5", linewidth=0.6)
        a.set_axisbelow(True)
    return figure, [a for a in ax.flat]
