#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""torch and transformers: the perplexity of a model directory, in float32.  --save'd directories can be given, too."""
import common


def main():
    a = common.arguments(__doc__)
    m = common.load(a)
    a.bits, a.group, a.samples = 32, None, 0
    with common.Clock() as clock:
        ppl = common.perplexity(m, a)
    a.peak = common.peak_mb()
    common.report("torch eval", "transformers", a, clock, ppl)


if __name__ == "__main__":
    main()
