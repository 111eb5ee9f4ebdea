/* SPDX-License-Identifier: Apache-2.0 */
/* shard.h - how n items are shared among ranks.  Arithmetic only. */
#ifndef BQ_SHARD_H
#define BQ_SHARD_H

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    /* items [first, first + count) of [0, total) */
    int64_t first, count, total;
} bq_shard;

/* Share number `part` of `parts` shares of [0, total): contiguous; sizes differ by at most one, the
 * larger ones come first. */
static inline bq_shard bq_shard_of(int64_t total, int part, int parts) {
    int64_t base = total / parts, more = total % parts;
    int64_t first = part * base + (part < more ? part : more);
    return (bq_shard){first, base + (part < more), total};
}

/* A stride: items first, first + step, first + 2 step, ...; 0 <= first < step. */
typedef struct {
    int64_t first, step;
} bq_stride;

static const bq_stride bq_every = {0, 1};

static inline bool bq_stride_has(bq_stride s, int64_t item) { return item % s.step == s.first; }

/* The items of a stride that lie in share `part` of [0, total), as a range of their numbers in the
 * stride (item first + k step has number k).  The ranges of all parts follow each other; total is
 * how many the stride has. */
static inline bq_shard bq_stride_of(bq_stride s, int64_t total, int part, int parts) {
    bq_shard all = bq_shard_of(total, part, parts);
    int64_t more = s.step - 1 - s.first, first = (all.first + more) / s.step;
    return (bq_shard){first, (all.first + all.count + more) / s.step - first, (total + more) / s.step};
}

#endif
